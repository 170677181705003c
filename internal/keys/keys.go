// Package keys turns keys into file names.
package keys

import (
	"crypto/sha256"
	"encoding/hex"
)

// Hash returns the SHA-256 of key in hex: one path element, of one length, for
// any key.
func Hash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// HashLen is the length of a Hash.
const HashLen = 2 * sha256.Size

// Ext is the ending of a lockfile's name.
const Ext = ".lock"

// File returns the name of the lockfile of key.
func File(key string) string { return Hash(key) + Ext }
