//go:build unix

package imagelock_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/reexec"
)

// useRole: FIRE. Ensures and uses images until its input ends. Says how often it has,
// and everything that went wrong.
func useRole(args []string, in <-chan string) error {
	var f fire
	if err := json.Unmarshal([]byte(args[0]), &f); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p, c, err := f.open(ctx, imagecache.WithBudget(f.budget()))
	if err != nil {
		return err
	}
	defer c.Close()
	reexec.Say("ready")
	uses, builds := 0, 0
	for {
		select {
		case <-in:
			reexec.Say("used %d built %d", uses, builds)
			return nil
		default:
		}
		base, err := c.Ensure(ctx, imagecache.Image{Tag: f.base(), Build: p.build("")})
		if err != nil {
			reexec.Say("WRONG ensure base: %v", err)
			continue
		}
		i := rand.IntN(f.Images)
		res, err := c.Ensure(ctx, f.wanted(p, i))
		base.Release()
		if err != nil {
			reexec.Say("WRONG ensure: %v", err)
			continue
		}
		if res.Outcome == imagecache.Built {
			builds++
		}
		if err := p.use(ctx, res.Reference, res.ID); err != nil {
			reexec.Say("WRONG use of %+v: %v", res, err)
		}
		uses++
		if err := res.Release(); err != nil {
			reexec.Say("WRONG release: %v", err)
		}
	}
}

// holdRole: FIRE. Leases some images, of those that were built first, and uses them only
// much later, again and again. By a clock that lies nothing was used since it was built,
// so whoever prunes would take these first: the leases are all that keeps them.
func holdRole(args []string, in <-chan string) error {
	var f fire
	if err := json.Unmarshal([]byte(args[0]), &f); err != nil {
		return err
	}
	ctx := context.Background()
	p, c, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	reexec.Say("ready")
	uses, builds := 0, 0
	for running := true; running; {
		var held []imagecache.Result
		for i := range f.Held {
			base, err := c.Ensure(ctx, imagecache.Image{Tag: f.base(), Build: p.build("")})
			if err != nil {
				reexec.Say("WRONG ensure base: %v", err)
				continue
			}
			res, err := c.Ensure(ctx, f.wanted(p, i))
			base.Release()
			if err != nil {
				reexec.Say("WRONG ensure: %v", err)
				continue
			}
			if res.Outcome == imagecache.Built {
				builds++
			}
			held = append(held, res)
		}
		records, _ := filepath.Glob(filepath.Join(c.Dir(), "built-images", "*.json"))
		for _, path := range records {
			_ = os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)) // or it has just been removed
		}
		select {
		case <-in:
			running = false
		case <-time.After(f.Lasts / 2):
		}
		for _, res := range held {
			if err := p.use(ctx, res.Reference, res.ID); err != nil {
				reexec.Say("WRONG use of %+v after long: %v", res, err)
			}
			uses++
			if err := res.Release(); err != nil {
				reexec.Say("WRONG release: %v", err)
			}
		}
	}
	reexec.Say("used %d built %d", uses, builds)
	return nil
}

// pruneRole: FIRE. Prunes until its input ends.
func pruneRole(args []string, in <-chan string) error {
	var f fire
	if err := json.Unmarshal([]byte(args[0]), &f); err != nil {
		return err
	}
	_, c, err := f.open(context.Background())
	if err != nil {
		return err
	}
	defer c.Close()
	reexec.Say("ready")
	removed := 0
	for {
		select {
		case <-in:
			reexec.Say("removed %d", removed)
			return nil
		case <-time.After(20 * time.Millisecond):
		}
		r, err := c.Prune(context.Background(), imagecache.Budget(f.budget()))
		if err != nil {
			reexec.Say("WRONG prune: %v", err)
		}
		removed += len(r.Removed)
		for _, e := range r.Kept {
			if !errors.Is(e, imagecache.ErrInUse) {
				reexec.Say("WRONG kept: %v", e)
			}
		}
		if r.Size > f.budget() && len(r.Kept) == 0 {
			reexec.Say("WRONG: %d bytes after pruning, budget %d", r.Size, f.budget())
		}
	}
}
