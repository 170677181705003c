package lock

import (
	"path/filepath"
	"testing"

	"github.com/gofrs/flock"
)

// Side by side: what a record, an inode check and a queue cost.

func BenchmarkAcquireRelease(b *testing.B) {
	d := openDir(b, b.TempDir())
	for b.Loop() {
		h, err := d.Acquire(b.Context(), "k", Exclusive)
		if err != nil {
			b.Fatal(err)
		}
		h.Release()
	}
}

func BenchmarkPlainGofrsFlock(b *testing.B) {
	p := filepath.Join(b.TempDir(), "k.lock")
	for b.Loop() {
		f := flock.New(p)
		if ok, err := f.TryLock(); !ok || err != nil {
			b.Fatal(ok, err)
		}
		f.Unlock()
	}
}
