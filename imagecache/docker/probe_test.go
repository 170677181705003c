package docker

import (
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/imagelock/imagelock/imagecache"
)

func absent(t testing.TB, s *Store, ref string) {
	t.Helper()
	if p, err := s.Probe(t.Context(), ref); err != nil || p != (imagecache.Presence{State: imagecache.Absent}) {
		t.Errorf("probe of %s: %+v, %v; want absent", ref, p, err)
	}
}

func match(t testing.TB, text, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).MatchString(text) {
		t.Errorf("nothing matches %s in:\n%s", pattern, text)
	}
}

func TestProbeTellsPresentFromAbsent(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	absent(t, s, ref)
	mustBuild(t, s, ref, "FROM scratch\nCOPY helper /helper\n")
	p, err := s.Probe(t.Context(), ref)
	if err != nil || p.State != imagecache.Present || !strings.HasPrefix(p.ID, "sha256:") {
		t.Fatalf("probe: %+v, %v", p, err)
	}
	absent(t, s, strings.TrimSuffix(ref, ":t")+":other")
	if err := s.Remove(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	absent(t, s, ref)
	if err := s.Remove(t.Context(), ref); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
}

func TestANameThatIsTheBeginningOfAnIDIsAbsent(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	mustBuild(t, s, ref, "FROM scratch\nCOPY helper /helper\n")
	p, err := s.Probe(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	short := strings.TrimPrefix(p.ID, "sha256:")[:12]
	if _, err := s.Client().ImageInspect(t.Context(), short); err != nil {
		t.Fatalf("the engine does not find the image by %s, so this proves nothing: %v", short, err)
	}
	for _, name := range []string{short, "sha256:" + short} {
		full, err := imagecache.Normalize(name)
		if err != nil {
			t.Fatal(err)
		}
		absent(t, s, full)
	}
}

func TestANameThatIsMovedAllTheTimeIsPresent(t *testing.T) {
	s := realEngine(t)
	from, moved := []string{newRef(t, s), newRef(t, s)}, newRef(t, s)
	mustBuild(t, s, from[0], "FROM scratch\nCOPY helper /a\n")
	mustBuild(t, s, from[1], "FROM scratch\nCOPY helper /b\n")
	if err := s.Client().ImageTag(t.Context(), from[0], moved); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	wg.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
				_ = s.Client().ImageTag(t.Context(), from[i%2], moved) // some engines let it fail at times
			}
		}
	})
	for i := range 200 {
		if p, err := s.Probe(t.Context(), moved); err != nil || p.State != imagecache.Present {
			t.Fatalf("probe %d: %+v, %v", i, p, err)
		}
	}
}

func TestAnImageForAnotherPlatformIsNeitherPresentNorAbsent(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	other := realEngine(t, WithPlatform("linux/s390x"))
	mustBuild(t, other, ref, "FROM scratch\nCOPY Dockerfile /\n")
	p, err := s.Probe(t.Context(), ref)
	var perr *PlatformError
	if !errors.As(err, &perr) || p.State != imagecache.Unknown {
		t.Fatalf("probe: %+v, %v; want a *PlatformError", p, err)
	}
	t.Log(err)
	if perr.Found != "linux/s390x" || perr.Wanted != s.Platform() || perr.Reference != ref || perr.ID == "" {
		t.Errorf("%+v", perr)
	}
	if p, err := other.Probe(t.Context(), ref); err != nil || p.State != imagecache.Present {
		t.Errorf("a store for that platform: %+v, %v", p, err)
	}
}

func TestABadReferenceIsNoQuestionForTheEngine(t *testing.T) {
	s := &Store{} // which has none
	for _, ref := range []string{"", "UPPER", "a@sha256:" + strings.Repeat("0", 64), strings.Repeat("a", 64), "../../containers", "a b"} {
		_, err := s.Probe(t.Context(), ref)
		if !errors.Is(err, imagecache.ErrBadReference) {
			t.Errorf("probe of %q: %v", ref, err)
		}
		if err := s.Remove(t.Context(), ref); !errors.Is(err, imagecache.ErrBadReference) {
			t.Errorf("remove of %q: %v", ref, err)
		}
	}
}

func BenchmarkProbe(b *testing.B) {
	s := realEngine(b)
	ref := newRef(b, s)
	b.Run("absent", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Probe(b.Context(), ref); err != nil {
				b.Fatal(err)
			}
		}
	})
	mustBuild(b, s, ref, "FROM scratch\nCOPY helper /helper\n")
	b.Run("present", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Probe(b.Context(), ref); err != nil {
				b.Fatal(err)
			}
		}
	})
}
