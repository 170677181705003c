// Package keys turns keys into file names.
package keys

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
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

// IsHash tells whether s could be a Hash: names of files are made of it.
func IsHash(s string) bool {
	if len(s) != HashLen {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// HashOf returns the hash in the name of a lockfile, and whether it is one's.
func HashOf(name string) (hash string, ok bool) {
	hash, found := strings.CutSuffix(name, Ext)
	return hash, found && IsHash(hash)
}
