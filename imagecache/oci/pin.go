package oci

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imagelock/imagelock/lock"
)

// A blob that an upload relies on, because it is there or because the upload will
// name it, is pinned: a file in the upload's temporary directory has its name. The
// collector leaves pinned blobs alone. An upload pins a blob and looks whether it
// is there under the shared lock "blobs", which the collector has exclusively while
// it looks for pins and unlinks blobs: so a blob that was seen stays, however long
// the upload takes. The lock is held for microseconds, never for an upload.
const (
	blobsKey  = "blobs"
	pinPrefix = "pin-"
)

// pin is a blob that an upload relies on.
type pin struct {
	hex, path string
	named     bool // by this upload: garbage if nothing comes of it
}

// claim pins a blob and tells whether it is there with the right size. A file of
// that name with another size is replaced.
func (u *upload) claim(ctx context.Context, h v1.Hash, size int64) (there bool, err error) {
	held, err := u.s.locks.Acquire(ctx, blobsKey, lock.Shared, lock.Operation("pin"), lock.WaitLimit(indexWait))
	if err != nil {
		return false, err
	}
	path, err := u.s.temps.pin(h.Hex)
	if err == nil {
		u.pins = append(u.pins, pin{hex: h.Hex, path: path})
		var fi fs.FileInfo
		fi, err = os.Lstat(u.s.blobPath(h))
		there = err == nil && fi.Mode().IsRegular() && fi.Size() == size
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return there, errors.Join(err, held.Release())
}

// unpin takes the pins away. If nothing came of the upload what it has named is
// garbage, unless others rely on it.
func (u *upload) unpin(failed bool) {
	for _, p := range u.pins {
		if failed && p.named && os.Rename(p.path, u.s.garbagePath(p.hex)) == nil {
			continue
		}
		u.s.temps.unpin(p.path)
	}
	u.pins = nil
}

// pinned returns the blobs that uploads of all processes rely on. Those of dead
// ones count until their directories are collected.
func (s *Store) pinned() (map[sum]bool, error) {
	dirs, err := os.ReadDir(s.temps.dir)
	if err != nil {
		return nil, err
	}
	pins := map[sum]bool{}
	for _, d := range dirs {
		if !d.IsDir() {
			continue
		}
		files, err := os.ReadDir(filepath.Join(s.temps.dir, d.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, f := range files {
			if h, ok := pinnedBy(f.Name()); ok {
				pins[h] = true
			}
		}
	}
	return pins, nil
}

func pinnedBy(file string) (sum, bool) {
	name, ok := strings.CutPrefix(file, pinPrefix)
	digits, _, ok2 := strings.Cut(name, "-")
	h, ok3 := parseSum(digits)
	return h, ok && ok2 && ok3
}

// sum is a SHA-256 digest.
type sum [32]byte

func sumOf(h v1.Hash) sum {
	s, _ := parseSum(h.Hex)
	return s
}

// parseSum reads 64 hexadecimal digits in lower case.
func parseSum(digits string) (s sum, ok bool) {
	if len(digits) != 64 || strings.Trim(digits, "0123456789abcdef") != "" {
		return s, false
	}
	_, err := hex.Decode(s[:], []byte(digits))
	return s, err == nil
}

func (s sum) hash() v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(s[:])} }
