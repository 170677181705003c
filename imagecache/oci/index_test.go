package oci

import (
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/imagelock/imagelock/internal/reexec"
)

// A reader has read the whole of index.json and then looks whether there is more,
// as every reader does, while images are added.
func TestAReaderOfTheIndexNeverSeesItChange(t *testing.T) {
	s := openStore(t, t.TempDir())
	for i := range 5 {
		add(t, s, fmt.Sprintf("a:%d", i), tinyImage(t, "a"))
		f, err := os.Open(s.indexPath())
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fi, _ := f.Stat()
		if _, err := io.ReadFull(f, make([]byte, fi.Size())); err != nil {
			t.Fatal(err)
		}
		for j := range 3 {
			add(t, s, fmt.Sprintf("b:%d-%d", i, j), tinyImage(t, "b"))
		}
		if more, err := io.ReadAll(f); err != nil || len(more) > 0 {
			t.Fatalf("round %d: the file grew while it was open: %v %q", i, err, more)
		}
	}
}

func TestTheIndexIsReadableAndOnlyGrowsWhileProcessesAdd(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	const processes, images = 4, 40
	var children []*reexec.Child
	for p := range processes {
		c := reexec.Start(t, "add", s.Path(), fmt.Sprint(p), fmt.Sprint(images))
		c.Expect("ready")
		children = append(children, c)
	}
	for _, c := range children {
		c.Tell("go")
	}
	last, reads := 0, 0
	for ; last < processes*images; reads++ {
		n := len(names(t, s))
		if n < last {
			t.Fatalf("%d entries after %d", n, last)
		}
		last = n
	}
	t.Logf("%d reads", reads)
	for _, c := range children {
		c.Next()
		c.End()
	}
}
