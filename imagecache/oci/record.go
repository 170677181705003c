package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	maxRecord   = 2048    // a record is bounded by the longest reference
	maxInputs   = 256     // no digest is longer
	maxManifest = 8 << 20 // no manifest is larger
)

// record is the content of a tag file, and of a pending one.
type record struct {
	ref    string
	remove bool // only in pending files: take the tag away
	digest v1.Hash
	size   int64
	inputs string // of the image, as its labels have them
}

// encode returns the record's only valid form. Without inputs it is that of the
// first version of this package.
func (r record) encode() []byte {
	if r.remove {
		return []byte("imagelock untag 1\nref " + r.ref + "\n")
	}
	version, inputs := 1, ""
	if r.inputs != "" {
		version, inputs = 2, "inputs "+r.inputs+"\n"
	}
	return fmt.Appendf(nil, "imagelock tag %d\nref %s\ndigest %s\nsize %d\ntype %s\n%s",
		version, r.ref, r.digest, r.size, types.OCIManifestSchema1, inputs)
}

// parseRecord is strict: what encode would not write, to the byte, is refused.
// Nothing from a refused record is ever used as part of a path.
func parseRecord(data []byte) (record, error) {
	bad := func(why string) (record, error) { return record{}, fmt.Errorf("%w: %s", ErrCorrupt, why) }
	if len(data) > maxRecord {
		return bad("record is too long")
	}
	text := string(data)
	lines := strings.Split(text, "\n")
	var r record
	switch {
	case len(lines) == 3 && lines[0] == "imagelock untag 1":
		r.remove = true
	case len(lines) == 6 && lines[0] == "imagelock tag 1", len(lines) == 7 && lines[0] == "imagelock tag 2":
		hash, ok := parseDigest(strings.TrimPrefix(lines[2], "digest "))
		if !ok {
			return bad("digest is not sha256 and 64 hexadecimal digits")
		}
		size, err := strconv.ParseInt(strings.TrimPrefix(lines[3], "size "), 10, 64)
		if err != nil || size < 2 || size > maxManifest {
			return bad("size is not that of a manifest")
		}
		r.digest, r.size = hash, size
		if r.inputs = strings.TrimPrefix(lines[5], "inputs "); r.inputs != "" && !plain(r.inputs) {
			return bad("inputs are not what is recorded of them")
		}
	default:
		return bad("not a tag record")
	}
	r.ref = strings.TrimPrefix(lines[1], "ref ")
	if r.ref == "" || string(r.encode()) != text {
		return bad("not in the form in which records are written")
	}
	return r, nil
}

// parseDigest accepts the one algorithm this store uses, in lower case.
func parseDigest(s string) (v1.Hash, bool) {
	digits, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(digits) != 64 || strings.Trim(digits, "0123456789abcdef") != "" {
		return v1.Hash{}, false
	}
	return v1.Hash{Algorithm: "sha256", Hex: digits}, true
}

// plain tells whether a digest of inputs is one that is recorded: it needs no
// escape in a line or in JSON.
func plain(inputs string) bool {
	return len(inputs) <= maxInputs && strings.Trim(inputs, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-./:=@_") == ""
}

// tagName is the name of ref's tag file.
func tagName(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return hex.EncodeToString(sum[:])
}
