package oci

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/imagecache"
)

func TestRemoveImageTakesTheTagFromThatImageOnly(t *testing.T) {
	s := openStore(t, t.TempDir())
	ctx := context.Background()
	id := add(t, s, "app:1", tinyImage(t, "one"))
	add(t, s, "app:2", tinyImage(t, "one"))
	other := tinyID(t, "other")

	err := s.RemoveImage(ctx, "app:1", other)
	t.Log(err)
	if own := new(*Error); !errors.Is(err, imagecache.ErrMoved) || !errors.As(err, own) {
		t.Errorf("of another ID: %v; want ErrMoved", err)
	}
	// A change that is pending counts.
	donor := add(t, s, "donor", tinyImage(t, "other"))
	rec, err := s.lookup("docker.io/library/donor:latest")
	if err != nil {
		t.Fatal(err)
	}
	rec.ref = "docker.io/library/app:2"
	if err := os.WriteFile(s.own("changes", s.newPost(rec.ref)), rec.encode(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveImage(ctx, "app:2", id); !errors.Is(err, imagecache.ErrMoved) {
		t.Errorf("of an image whose tag is about to be moved: %v; want ErrMoved", err)
	}
	if err := s.RemoveImage(ctx, "app:2", donor); err != nil {
		t.Error(err)
	}
	absent(t, s, "app:2")
	for range 2 {
		if err := s.RemoveImage(ctx, "app:1", id); err != nil {
			t.Error(err)
		}
		absent(t, s, "app:1")
	}
	checkLayout(t, s, true)
}

func TestRemoveImageOfADamagedTagRemovesNothing(t *testing.T) {
	s := openStore(t, t.TempDir())
	id := add(t, s, "app", tinyImage(t, "app"))
	path := s.tagPath("docker.io/library/app:latest")
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveImage(context.Background(), "app", id); !errors.Is(err, ErrCorrupt) {
		t.Errorf("error %v; want ErrCorrupt", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestRemoveImageRefusesWhatIsNoIDOrNoReference(t *testing.T) {
	s := openStore(t, t.TempDir())
	good := tinyID(t, "x")
	for _, id := range []string{"", "app", good[7:], good + "0", "sha256:../" + good[10:], strings.ToUpper(good)} {
		for _, ref := range []string{"", "app"} {
			if err := s.RemoveImage(context.Background(), ref, id); !errors.Is(err, ErrBadOption) {
				t.Errorf("%q %q: %v", ref, id, err)
			}
		}
		if _, err := s.Layers(context.Background(), id); !errors.Is(err, ErrBadOption) {
			t.Errorf("layers of %q: %v", id, err)
		}
	}
	if err := s.RemoveImage(context.Background(), "UPPER", good); !errors.Is(err, imagecache.ErrBadReference) {
		t.Error(err)
	}
	if _, err := s.Layers(context.Background(), good); !errors.Is(err, ErrNotFound) {
		t.Errorf("layers of an unknown image: %v", err)
	}
}
