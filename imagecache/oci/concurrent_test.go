package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

func TestGoroutinesThatAddMoveAndRemoveLeaveTagsAndIndexInAgreement(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	ctx := context.Background()
	var wg sync.WaitGroup
	for g := range 12 {
		wg.Go(func() {
			for i := range 12 {
				own, common := fmt.Sprintf("own-%d:%d", g, i), fmt.Sprintf("common:%d", i%3)
				if err := addTiny(s, own, own); err != nil {
					t.Error(err)
				}
				if err := addTiny(s, common, own); err != nil {
					t.Error(err)
				}
				if i%4 == 3 {
					if err := errors.Join(s.Remove(ctx, common), s.Remove(ctx, own)); err != nil {
						t.Error(err)
					}
				}
				if p, err := s.Probe(ctx, own); err != nil || (p.State == imagecache.Present) == (i%4 == 3) {
					t.Errorf("%s: %v, %v", own, p, err)
				}
			}
		})
	}
	wg.Wait()
	found := checkLayout(t, s, true)
	if n := len(found); n < 12*9 || n > 12*9+3 {
		t.Errorf("%d images, want %d to %d", n, 12*9, 12*9+3)
	}
}

// roleIdentity says the identity of the directory it is given.
func roleIdentity(args []string, in <-chan string) error {
	reexec.Say("ready")
	<-in
	s, err := Open(args[0])
	if err != nil {
		return err
	}
	id, err := s.Identity(context.Background())
	reexec.Say("%s", id)
	return errors.Join(err, s.Close())
}

func TestProcessesThatMakeTheStoreAtOnceByDifferentPathsAgreeOnItsIdentity(t *testing.T) {
	t.Parallel()
	for range 4 {
		top := t.TempDir()
		dir, link := filepath.Join(top, "store"), filepath.Join(top, "link")
		if err := os.Symlink(dir, link); err != nil {
			t.Skip(err)
		}
		os.Mkdir(dir, 0o755)
		var children []*reexec.Child
		for i := range 6 {
			c := reexec.Start(t, "identity", []string{dir, link, top + "/./store/"}[i%3])
			c.Expect("ready")
			children = append(children, c)
		}
		for _, c := range children {
			c.Tell("go")
		}
		ids := map[string]bool{}
		for _, c := range children {
			ids[c.Next()] = true
			c.End()
		}
		if len(ids) != 1 {
			t.Fatalf("identities %v", ids)
		}
		other, err := openStore(t, t.TempDir()).Identity(context.Background())
		if err != nil || ids[other] {
			t.Fatalf("another store is %q too, %v", other, err)
		}
		left, _ := filepath.Glob(filepath.Join(dir, ownDir, "tmp", "*"))
		if len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestAnAdditionThatIsCancelledWhileItWaitsForTheIndexTagsNothing(t *testing.T) {
	s := openStore(t, t.TempDir())
	add(t, s, "before", tinyImage(t, "before"))
	held, err := s.locks.Acquire(context.Background(), indexKey, lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error)
	go func() {
		_, err := s.Add(ctx, "app", tinyImage(t, "app"))
		result <- err
	}()
	for { // until it waits
		if posts, _ := os.ReadDir(s.own("changes")); len(posts) == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	// What is pending is neither there nor absent.
	short, end := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer end()
	if p, err := s.Probe(short, "app"); p.State != imagecache.Unknown || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("probe of what is changes: %v, %v", p, err)
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := held.Release(); err != nil {
		t.Fatal(err)
	}
	add(t, s, "after", tinyImage(t, "after"))
	absent(t, s, "app")
	checkLayout(t, s, true)
}

func TestAPendingChangeOfADeadProcessIsCarriedOutAndALaterOneWins(t *testing.T) {
	s := openStore(t, t.TempDir())
	add(t, s, "donor:1", tinyImage(t, "one"))
	add(t, s, "donor:2", tinyImage(t, "two"))
	leave := func(ref, donor string) {
		rec, err := s.lookup("docker.io/library/" + donor)
		if err != nil {
			t.Fatal(err)
		}
		rec.ref = ref
		if err := os.WriteFile(s.own("changes", s.newPost(ref)), rec.encode(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	leave("docker.io/library/app:1", "donor:1")
	leave("docker.io/library/app:1", "donor:2")
	leave("docker.io/library/app:2", "donor:1")
	// Left when the clock was a day ahead.
	found, err := filepath.Glob(s.own("changes", tagName("docker.io/library/app:2")+"-*"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	part := strings.Split(found[0], "-")
	part[len(part)-2] = fmt.Sprintf("%016x", time.Now().AddDate(0, 0, 1).UnixNano())
	if err := os.Rename(found[0], strings.Join(part, "-")); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(s.own("changes", "rubbish"), []byte("x"), 0o644)
	os.Mkdir(s.own("changes", "directory"), 0o755)
	id := add(t, s, "app:2", tinyImage(t, "mine"))
	for ref, want := range map[string]string{"app:1": tinyID(t, "two"), "app:2": id} {
		if p, err := s.Probe(context.Background(), ref); err != nil || p.ID != want {
			t.Errorf("%s: %v, %v; want %s", ref, p, err, want)
		}
	}
	checkLayout(t, s, true)
	if left, _ := os.ReadDir(s.own("changes")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestWhatADeadProcessHasLeftPendingIsThereForWhoLooks(t *testing.T) {
	s := openStore(t, t.TempDir())
	add(t, s, "donor", tinyImage(t, "one"))
	rec, err := s.lookup("docker.io/library/donor:latest")
	if err != nil {
		t.Fatal(err)
	}
	rec.ref = "docker.io/library/app:1"
	if err := os.WriteFile(s.own("changes", s.newPost(rec.ref)), rec.encode(), 0o644); err != nil {
		t.Fatal(err)
	}
	absent(t, s, "app:2")
	if p, err := s.Probe(context.Background(), "app:1"); err != nil || p.ID != tinyID(t, "one") {
		t.Errorf("got %v, %v", p, err)
	}
	checkLayout(t, s, true)
}

func TestAClosedStoreSaysSo(t *testing.T) {
	s := openStore(t, t.TempDir())
	add(t, s, "app", tinyImage(t, "app"))
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, err := s.Add(context.Background(), "b", tinyImage(t, "b")); !errors.Is(err, os.ErrClosed) && !errors.Is(err, lock.ErrClosed) {
		t.Errorf("error %v", err)
	}
	if left, _ := os.ReadDir(s.own("tmp")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
