package docker

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"github.com/imagelock/imagelock/imagecache"
)

// idOf is the ID of the image under ref.
func idOf(t testing.TB, s *Store, ref string) string {
	t.Helper()
	p, err := s.Probe(t.Context(), ref)
	if err != nil || p.State != imagecache.Present {
		t.Fatalf("probe of %s: %+v, %v; want present", ref, p, err)
	}
	return p.ID
}

// imported makes an image of one small file, without any build.
func imported(t testing.TB, s *Store, ref, content string, changes ...string) string {
	t.Helper()
	r, err := s.Client().ImageImport(t.Context(), image.ImportSource{Source: tarOf(t, "file", content), SourceName: "-"}, ref,
		image.ImportOptions{Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	drain(t, r)
	return idOf(t, s, ref)
}

func gone(t testing.TB, s *Store, id string) {
	t.Helper()
	if _, err := s.Client().ImageInspect(t.Context(), id); !notFound(err) {
		t.Errorf("inspect of %s: %v; want it gone", id, err)
	}
}

func there(t testing.TB, s *Store, id string) {
	t.Helper()
	if _, err := s.Client().ImageInspect(t.Context(), id); err != nil {
		t.Errorf("inspect of %s: %v; want it there", id, err)
	}
}

func TestRemoveImageTakesTheNameFromThatImageOnly(t *testing.T) {
	s := realEngine(t)
	ref, other := newRef(t, s), newRef(t, s)
	id := imported(t, s, ref, unique())
	wrong := "sha256:" + strings.Repeat("0", 64)

	err := s.RemoveImage(t.Context(), ref, wrong)
	t.Log(err)
	if !errors.Is(err, imagecache.ErrMoved) {
		t.Errorf("of another ID: %v; want ErrMoved", err)
	}
	if idOf(t, s, ref) != id {
		t.Error("the name was moved")
	}

	if err := s.Client().ImageTag(t.Context(), ref, other); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveImage(t.Context(), ref, id); err != nil {
		t.Error(err)
	}
	absent(t, s, ref)
	if idOf(t, s, other) != id {
		t.Error("the image lost its other name")
	}
	if err := s.RemoveImage(t.Context(), ref, id); err != nil {
		t.Errorf("a name that is not there: %v", err)
	}
	if err := s.RemoveImage(t.Context(), other, id); err != nil {
		t.Error(err)
	}
	gone(t, s, id)
}

func TestRemoveImageWithoutANameNeedsOneWithoutNames(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	old := imported(t, s, ref, unique())

	err := s.RemoveImage(t.Context(), "", old)
	t.Log(err)
	if !errors.Is(err, imagecache.ErrMoved) {
		t.Errorf("an image with a name: %v; want ErrMoved", err)
	}
	there(t, s, old)

	now := imported(t, s, ref, unique())
	there(t, s, old)
	if err := s.RemoveImage(t.Context(), "", old); err != nil {
		t.Error(err)
	}
	gone(t, s, old)
	if err := s.RemoveImage(t.Context(), "", old); err != nil {
		t.Errorf("an image that is not there: %v", err)
	}
	if idOf(t, s, ref) != now {
		t.Error("the name was moved")
	}
}

func TestAnImageThatAContainerUsesIsInUse(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	id := imported(t, s, ref, unique())
	c, err := s.Client().ContainerCreate(t.Context(), &container.Config{Image: id, Cmd: []string{"/none"}}, nil, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	stop := func() {
		_ = s.Client().ContainerRemove(t.Context(), c.ID, container.RemoveOptions{Force: true})
	}
	defer stop()

	err = s.RemoveImage(t.Context(), ref, id)
	t.Log(err)
	if !errors.Is(err, imagecache.ErrInUse) {
		t.Errorf("by name: %v; want ErrInUse", err)
	}
	if err := s.Remove(t.Context(), ref); !errors.Is(err, imagecache.ErrInUse) {
		t.Errorf("Remove: %v; want ErrInUse", err)
	}
	if idOf(t, s, ref) != id {
		t.Error("the name was moved")
	}
	imported(t, s, ref, unique()) // takes the name
	if err := s.RemoveImage(t.Context(), "", id); !errors.Is(err, imagecache.ErrInUse) {
		t.Errorf("by ID: %v; want ErrInUse", err)
	}
	there(t, s, id)
	stop()
	if err := s.RemoveImage(t.Context(), "", id); err != nil {
		t.Error(err)
	}
	gone(t, s, id)
}

// What was committed from a container of an image keeps the image itself alive,
// but not its name.
func TestAnImageThatWasCommittedFromKeepsItsLayers(t *testing.T) {
	s := realEngine(t)
	ref, child := newRef(t, s), newRef(t, s)
	id := imported(t, s, ref, unique())
	c, err := s.Client().ContainerCreate(t.Context(), &container.Config{Image: id, Cmd: []string{"/none"}}, nil, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Client().ContainerCommit(t.Context(), c.ID, container.CommitOptions{Reference: child})
	_ = s.Client().ContainerRemove(t.Context(), c.ID, container.RemoveOptions{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveImage(t.Context(), ref, id); err != nil {
		t.Error(err)
	}
	absent(t, s, ref)
	if err := s.RemoveImage(t.Context(), child, idOf(t, s, child)); err != nil {
		t.Error(err)
	}
	gone(t, s, id)
}

func TestRemoveImageOfWhatIsNoIDAsksNobody(t *testing.T) {
	s := &Store{} // without an engine
	hex := strings.Repeat("0", 64)
	for _, id := range []string{"", "app", hex, "sha256:", "sha256:0", "sha256:" + hex + "0", "sha256:" + strings.Repeat("G", 64), "../" + hex} {
		for _, ref := range []string{"", "app:v1"} {
			if err := s.RemoveImage(t.Context(), ref, id); !errors.Is(err, ErrBadOption) {
				t.Errorf("%q: %v; want ErrBadOption", id, err)
			}
		}
		if _, err := s.Layers(t.Context(), id); !errors.Is(err, ErrBadOption) {
			t.Errorf("layers of %q: %v; want ErrBadOption", id, err)
		}
	}
	if err := s.RemoveImage(t.Context(), "UPPER", "sha256:"+hex); !errors.Is(err, imagecache.ErrBadReference) {
		t.Errorf("bad reference: %v", err)
	}
}

// TestWhatSomebodyElseRemovesMeanwhileIsGone: an engine has other words for that.
func TestWhatSomebodyElseRemovesMeanwhileIsGone(t *testing.T) {
	id := "sha256:" + strings.Repeat("a", 64)
	for _, gone := range []bool{true, false} {
		for _, ref := range []string{app, ""} {
			asked := false
			s := openFake(t, &fakeEngine{
				other: func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method == http.MethodDelete {
						asked = true
						refuse(w, 500, "unrecognized image ID "+id)
					}
					return r.Method == http.MethodDelete
				},
				image: func(w http.ResponseWriter, name, _ string) {
					switch {
					case asked && gone:
						noSuchImage(w, name)
					case ref == "":
						fmt.Fprintf(w, `{"Id":%q,"Os":"linux","Architecture":"amd64"}`, id)
					default:
						isInspected(w, id, "app:v1", "linux/amd64")
					}
				},
			})
			if err := s.RemoveImage(t.Context(), ref, id); (err == nil) != gone || !asked {
				t.Errorf("%q, gone %v: %v, asked %v", ref, gone, err, asked)
			}
		}
	}
}
