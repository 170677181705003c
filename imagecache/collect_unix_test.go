//go:build unix

package imagecache

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

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/lock"
)

// hasLockfile tells whether key has a lockfile.
func hasLockfile(c *Cache, key string) bool {
	_, err := os.Lstat(filepath.Join(c.Dir(), locksDir, keys.Hash(key)+".lock"))
	return err == nil
}

func collect(t testing.TB, c *Cache) lock.CollectStats {
	t.Helper()
	stats, err := c.locks.(*lock.Dir).Collect(t.Context())
	if err != nil {
		t.Error(err)
	}
	return stats
}

func TestLockfilesOfLeasesAreCollectedWhenNobodyHasThem(t *testing.T) {
	s := newStock(t, WithCheckedClientsOnly())
	other := beside(t, s.c) // which need not say it
	const n = 20
	var results []Result
	for i := range n {
		results = append(results, s.ensure(fmt.Sprint("i", i)))
	}
	for _, r := range results[2:] {
		if err := r.Release(); err != nil {
			t.Fatal(err)
		}
	}
	stats := collect(t, other)
	if stats.InUse != 2 || stats.Removed < 3*(n-2) {
		t.Errorf("%+v", stats)
	}
	for i, r := range results {
		if has := hasLockfile(s.c, leaseKey(r.ID)); has != (i < 2) {
			t.Errorf("the lease on %s, of which two are held, has a lockfile: %v", r.ID, has)
		}
	}
	// A lease is worth as much as before: to who has it, and to who takes it anew.
	again := s.use("i2")
	for _, r := range append(results[:2:2], again) {
		if e := expect.As[*RemoveError](t, other.Remove(t.Context(), r.Reference)); e.Reason != ReasonLeased {
			t.Error(e)
		}
		if err := r.Release(); err != nil {
			t.Error(err)
		}
	}
	if r, err := other.Prune(t.Context(), Budget(0)); err != nil || len(r.Removed) != n {
		t.Errorf("%+v, %v", r, err)
	}
	collect(t, s.c)
	if left, _ := filepath.Glob(filepath.Join(s.c.Dir(), locksDir, "*.lock")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// While some use images and others remove them, collectors do not make a lease worth
// less.
func TestCollectorsDoNotTakeALeaseAway(t *testing.T) {
	s := newStock(t, WithCheckedClientsOnly())
	const images = 4
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	count := map[string]int{}
	loop := func(what string, f func(c *Cache, i int) int) {
		c := beside(t, s.c)
		wg.Go(func() {
			n := 0
			for i := 0; ctx.Err() == nil; i++ {
				n += f(c, i)
			}
			mu.Lock()
			defer mu.Unlock()
			count[what] += n
		})
	}
	for w := range 4 {
		loop("uses", func(c *Cache, i int) int {
			name := fmt.Sprintf("i%d", (w+i)%images)
			res, err := c.Ensure(t.Context(), Image{Tag: name, Build: s.builder(name, fmt.Sprintf("id-%s-%d-%d", name, w, i))})
			if err != nil {
				t.Error(err)
				return 0
			}
			for range 3 {
				if !s.has(res.ID) {
					t.Errorf("%s is leased and gone", res.ID)
				}
			}
			if err := res.Release(); err != nil {
				t.Error(err)
			}
			return 1
		})
	}
	for range 2 {
		loop("removals", func(c *Cache, _ int) int {
			r, err := c.Prune(t.Context(), Budget(0))
			if err != nil {
				t.Error(err)
			}
			return len(r.Removed)
		})
		loop("lockfiles", func(c *Cache, _ int) int { return collect(t, c).Removed })
	}
	wg.Wait()
	t.Logf("%v", count)
	for _, what := range []string{"uses", "removals", "lockfiles"} {
		if count[what] == 0 {
			t.Errorf("no %s", what)
		}
	}
}

func TestALockDirectoryThatIsInUseIsNotMarked(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	_, err := Open(t.Context(), s, WithDir(c.Dir()), WithCheckedClientsOnly())
	if e := expect.As[*Error](t, err); !errors.Is(err, lock.ErrNotMarked) || !strings.Contains(err.Error(), locksDir) {
		t.Error(e)
	}
	if _, err := c.locks.(*lock.Dir).Collect(t.Context()); !errors.Is(err, lock.ErrNotMarked) {
		t.Error(err)
	}
	_, err = Open(t.Context(), s, WithDir(t.TempDir()), WithLocker(&losing{}), WithCheckedClientsOnly())
	if !errors.Is(err, ErrBadOption) {
		t.Error(err)
	}
}
