package oci

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
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

func TestAnAdditionDoesNotCopyTheIndex(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux exchanges two files")
	}
	s := openStore(t, t.TempDir())
	add(t, s, "a:0", tinyImage(t, "a"))
	files := map[uint64]bool{}
	for i := range 6 {
		add(t, s, fmt.Sprintf("a:%d", i+1), tinyImage(t, "a"))
		fi, err := os.Stat(s.indexPath())
		if err != nil {
			t.Fatal(err)
		}
		files[inode(fi)] = true
	}
	if len(files) != 2 {
		t.Errorf("index.json was %d files in turn, want 2", len(files))
	}
	checkLayout(t, s, true)
}

func TestTheCopyIsTakenWhereTheSpareCannotBe(t *testing.T) {
	s := openStore(t, t.TempDir())
	for i := range 6 {
		add(t, s, fmt.Sprintf("a:%d", i), tinyImage(t, "a"))
		switch i % 3 {
		case 0:
			os.Remove(s.sparePath())
		case 1:
			os.Truncate(s.sparePath(), 20)
		case 2:
			os.Remove(s.sparePath())
			os.Symlink(s.indexPath(), s.sparePath())
		}
	}
	if err := s.Remove(context.Background(), "a:3"); err != nil {
		t.Fatal(err)
	}
	wantNames(t, s, "a:0", "a:1", "a:2", "a:4", "a:5")
	checkLayout(t, s, true)
}
