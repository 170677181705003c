package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// upload is a set of files that are written apart, made durable together, and
// then given their names: blobs first, the record that speaks of them last.
type upload struct {
	s     *Store
	blobs []staged
	pins  []pin
}

type staged struct {
	f     *os.File
	final string
}

// end removes what was not given its name, and lets go of the blobs.
func (u *upload) end(failed bool) {
	for _, b := range u.blobs {
		b.f.Close()
		os.Remove(b.f.Name())
	}
	u.blobs = nil
	u.unpin(failed)
}

// bytes stages a blob that is in memory, unless it is there.
func (u *upload) bytes(ctx context.Context, h v1.Hash, data []byte) error {
	if there, err := u.claim(ctx, h, int64(len(data))); err != nil || there {
		return err
	}
	return u.write(ctx, io.NopCloser(bytes.NewReader(data)), func() (v1.Hash, error) { return h, nil })
}

// write stages what r yields, closes r, and only then asks what the digest
// should be: a streamed layer knows it no sooner.
func (u *upload) write(ctx context.Context, r io.ReadCloser, digest func() (v1.Hash, error)) (err error) {
	defer r.Close()
	f, err := u.s.temps.create()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), ctxReader{ctx, r})
	if err != nil {
		return err
	}
	if err := r.Close(); err != nil {
		return err
	}
	want, err := digest()
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); want.Algorithm != "sha256" || want.Hex != got {
		return fmt.Errorf("%w: the content of blob %v has digest sha256:%s", ErrBadImage, want, got)
	}
	there, err := u.claim(ctx, want, n)
	if err != nil {
		return err
	}
	if there {
		f.Close()
		return os.Remove(f.Name())
	}
	u.blobs = append(u.blobs, staged{f, u.s.blobPath(want)})
	return nil
}

// commit makes the blobs and the record durable, and posts the record under the
// given path. Only then is anything said of them.
func (u *upload) commit(rec record, post string) error {
	f, err := u.s.temps.create()
	if err != nil {
		return err
	}
	last := staged{f, post}
	files := append(u.blobs, last)
	u.blobs = files // end removes the record as well
	if _, err := f.Write(rec.encode()); err != nil {
		return err
	}
	u.s.step("blobs written")
	if err := syncAll(files); err != nil {
		return err
	}
	for i, b := range files[:len(files)-1] {
		if err := os.Rename(b.f.Name(), b.final); err != nil {
			u.blobs = files[i:]
			return err
		}
		for j := range u.pins {
			u.pins[j].named = u.pins[j].named || u.pins[j].hex == filepath.Base(b.final)
		}
		u.s.step("blob named")
	}
	u.blobs = files[len(files)-1:]
	// Also if no blob is new: another process may have named it an instant ago.
	if err := syncDir(u.s.blobDir()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), post); err != nil {
		return err
	}
	u.blobs = nil
	u.s.step("posted")
	return nil
}

// syncAll makes files durable and closes them. Together it costs the journal one
// commit or two, one after another it costs one each.
func syncAll(files []staged) error {
	errs := make([]error, len(files))
	var wg sync.WaitGroup
	for i, b := range files {
		wg.Go(func() { errs[i] = errors.Join(b.f.Sync(), b.f.Close()) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// ctxReader ends a long copy soon after ctx has ended.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
