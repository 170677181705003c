package oci

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// readSmall reads a regular file of at most limit bytes. It follows no link and
// does not wait for a FIFO's writer.
func readSmall(path string, limit int64) ([]byte, error) {
	f, fi, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi.Size() > limit {
		return nil, corrupt(path, "%d bytes, at most %d are expected", fi.Size(), limit)
	}
	data := make([]byte, fi.Size()+1)
	n, err := io.ReadFull(f, data)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, located(path, err)
	}
	return data[:n], nil
}

// openRegular opens a regular file for reading. Its error is fs.ErrNotExist,
// ErrCorrupt for anything else than a file, or what the system says.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		if errors.Is(err, errLoop) {
			err = corrupt(path, "a symbolic link is in the place of a file")
		}
		return nil, nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = corrupt(path, "a %s is in the place of a file", kind(fi.Mode()))
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}

func kind(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "file"
	case m.IsDir():
		return "directory"
	case m&fs.ModeSymlink != 0:
		return "symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "FIFO"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}
