package oci

import (
	"encoding/hex"
	"hash"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// checkedReader reads a blob and compares its digest at the end.
type checkedReader struct {
	f    *os.File
	want v1.Hash
	sum  hash.Hash
}

func (r *checkedReader) Read(p []byte) (int, error) {
	n, err := r.f.Read(p)
	r.sum.Write(p[:n])
	if err == io.EOF && hex.EncodeToString(r.sum.Sum(nil)) != r.want.Hex {
		err = fail("image", r.want.String(), r.f.Name(),
			corrupt(r.f.Name(), "the content of the layer has another digest; remove the file and build the image again"))
	}
	return n, err
}

func (r *checkedReader) Close() error { return r.f.Close() }
