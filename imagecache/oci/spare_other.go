//go:build !linux

package oci

import (
	"io/fs"
	"os"
)

// Without a way to exchange two files, and to know that nobody reads one, each
// index.json is a new file: an addition copies it.

func (s *Store) extendSpare(string, *os.File, fs.FileInfo, []byte) bool { return false }

func (s *Store) swapIndex(next string, keep bool) (spare fs.FileInfo, err error) {
	return nil, os.Rename(next, s.indexPath())
}
