package imagecache

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"github.com/imagelock/imagelock/internal/expect"
)

// What was built of other inputs while one waited is a rival's only as long as the tag
// names it: of what is gone, or of what foreign hands have put in its place, nobody
// builds again.
func TestAnImageOfOtherInputsThatIsGoneIsNoConflict(t *testing.T) {
	for name, instead := range map[string]string{"removed": "", "replaced by hand": "by hand"} {
		t.Run(name, func(t *testing.T) {
			g := newGallery(t)
			var over atomic.Bool
			// Whoever waits looks when the tag has already gone again.
			late := &gallery{dirStore{dir: g.dir, fault: func(context.Context) (Presence, error, bool) {
				if over.CompareAndSwap(true, false) {
					err := os.Remove(g.file(app))
					if instead != "" {
						_, err = g.hang(app, instead, "")
					}
					if err != nil {
						t.Error(err)
					}
				}
				return Presence{}, nil, false
			}}}
			c, spy := openSpied(t, late)
			other := openCache(t, g, WithDir(c.Dir()))
			finish := midBuild(t, other, Image{Tag: "app", Inputs: "1", Build: g.paint("1", true)})
			ours := make(chan error, 1)
			var outcome Outcome
			go func() {
				r, err := c.Ensure(t.Context(), Image{Tag: "app", Inputs: "2", Build: g.paint("2", true)})
				outcome = r.Outcome
				ours <- errors.Join(err, r.Release())
			}()
			expect.Eventually(t, "it waits", func() bool { return spy.waiting(app) })
			over.Store(true)
			theirs := finish()
			if err := <-ours; err != nil || outcome != Built {
				t.Errorf("%v, %v", outcome, err)
			}
			if err := <-theirs; err != nil {
				t.Error(err)
			}
			nothingLocked(t, c, app)
		})
	}
}
