package contextdir

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// File is a regular file in a directory, which must stay what it was when it was
// listed: else reading it ends with [ErrChanged] in the place of [io.EOF].
type File struct {
	f    *os.File
	info fs.FileInfo
	left int64
}

// Open opens the file at rel, which Walk has listed.
func (d *Dir) Open(rel string, listed fs.FileInfo) (*File, error) {
	return OpenFile(filepath.Join(d.Path, rel), listed)
}

// OpenFile opens the file at path, which was seen as listed. Links are followed.
func OpenFile(path string, listed fs.FileInfo) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || !os.SameFile(listed, info)) {
		err = ErrChanged
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &File{f, info, info.Size()}, nil
}

// Info is what the file was when it was opened.
func (f *File) Info() fs.FileInfo { return f.info }

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }

// Read reads at most what the file had when it was opened.
func (f *File) Read(b []byte) (int, error) {
	n, err := f.f.Read(b)
	if f.left -= int64(n); f.left < 0 {
		return 0, ErrChanged
	}
	if err != io.EOF {
		return n, err
	}
	after, err := f.f.Stat()
	if err != nil {
		return n, err
	}
	if f.left != 0 || after.Size() != f.info.Size() || !after.ModTime().Equal(f.info.ModTime()) {
		return n, ErrChanged
	}
	return n, io.EOF
}
