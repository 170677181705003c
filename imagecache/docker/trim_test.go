package docker

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/imagecache"
)

func TestTrimmingAnEngineWithoutABuildCacheIsUnsupported(t *testing.T) {
	s := openFake(t, &fakeEngine{}) // like Podman it has no such page
	for _, keep := range []int64{0, 1} {
		freed, err := s.TrimBuildCache(t.Context(), keep)
		if eerr := new(EngineError); freed != 0 || !errors.Is(err, imagecache.ErrUnsupported) || !errors.As(err, &eerr) || eerr.Op != "trim" {
			t.Errorf("keep %d: %d, %v", keep, freed, err)
		}
	}
	if _, err := s.TrimBuildCache(t.Context(), -1); !errors.Is(err, ErrBadOption) {
		t.Errorf("a negative limit: %v", err)
	}
}

// An engine tells one at a time how much space it uses.
func TestTrimmingWaitsForAnotherWhoAsksForTheSpaceUsed(t *testing.T) {
	usages, prunes := 0, []string{}
	s := openFake(t, &fakeEngine{other: func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "/system/df"):
			if usages++; usages == 1 {
				refuse(w, 500, "a disk usage operation is already running")
				return true
			}
			_, _ = w.Write([]byte(`{"BuildCache":[{"Type":"exec.cachemount","Size":100},{"Type":"regular","Size":7},
				{"Type":"frontend","Size":20},{"Type":"frontend","Size":1000,"Shared":true},{"Type":"new","Size":3}]}`))
			return true
		case strings.HasSuffix(r.URL.Path, "/build/prune"):
			prunes = append(prunes, r.URL.Query().Get("keep-storage")+r.URL.Query().Get("filters")+r.URL.Query().Get("all"))
			_, _ = w.Write([]byte(`{"SpaceReclaimed":5}`))
			return true
		}
		return false
	}})
	freed, err := s.TrimBuildCache(t.Context(), 1000)
	if err != nil || freed != 15 || usages != 2 {
		t.Errorf("freed %d, %v, asked %d times", freed, err, usages)
	}
	want := []string{`1124{"type":{"source.local":true}}`, `1124{"type":{"source.git.checkout":true}}`, `1124{"type":{"regular":true}}`}
	if strings.Join(prunes, " ") != strings.Join(want, " ") {
		t.Errorf("pruned %q, want %q", prunes, want)
	}
}
