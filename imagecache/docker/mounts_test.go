package docker

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/imagecache"
)

func TestCacheMountsAreToldByTheEngine(t *testing.T) {
	usage := ""
	s := openFake(t, &fakeEngine{other: func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/system/df") {
			return false
		}
		_, _ = w.Write([]byte(usage))
		return true
	}})
	usage = `{"BuildCache":[null,{"ID":"a","Type":"exec.cachemount","Description":"cached mount /a b/c from exec /bin/sh -c echo from exec x"},
		{"ID":"b","Type":"regular","Description":"mount / from exec x"},{"ID":"c","Type":"exec.cachemount","Description":"cached mount target from exec /x"}]}`
	got, err := s.CacheMounts(t.Context())
	if want := []imagecache.CacheMount{{Record: "a", Target: "/a b/c"}, {Record: "c", Target: "target"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	usage = `{"BuildCache":null}`
	if got, err := s.CacheMounts(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("%v, %v", got, err)
	}
	// What can't be read must not look as if it were gone.
	usage = `{"BuildCache":[{"ID":"a","Type":"exec.cachemount","Description":"something else"}]}`
	if got, err := s.CacheMounts(t.Context()); !errors.Is(err, imagecache.ErrUnsupported) {
		t.Errorf("%v, %v", got, err)
	}
}
