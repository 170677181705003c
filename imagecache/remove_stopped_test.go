package imagecache

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/reexec"
)

// removeRole: CACHE SHELF STEP TAG. Removes the image, and at the step STEP says "at
// STEP" and waits until it is told to go on.
func removeRole(args []string, in <-chan string) error {
	s := openShelf(args[1])
	s.step = func(step string) error {
		if step == args[2] {
			reexec.Say("at %s", step)
			if _, ok := <-in; !ok {
				return errors.New("parent is gone")
			}
		}
		return nil
	}
	c, err := Open(context.Background(), s, WithDir(args[0]))
	if err != nil {
		return err
	}
	defer c.Close()
	reexec.Say("ready")
	reexec.Say("removed: %v", c.Remove(context.Background(), args[3]))
	return nil
}

// Whoever is stopped in the middle of a removal holds up nobody who does not want that
// very image, and who does is told who it is. Then it goes on, or is killed.
func TestStoppedRemoverHoldsUpNobodyElse(t *testing.T) {
	for _, role := range []string{"prune", "remove"} {
		for _, step := range []string{"asked", "untagged", "removed"} {
			for _, fate := range []string{"goes on", "is killed"} {
				t.Run(fmt.Sprintf("%s at %s %s", role, step, fate), func(t *testing.T) {
					stopped(t, role, step, fate)
				})
			}
		}
	}
}

func stopped(t *testing.T, role, step, fate string) {
	s := newStock(t, WithSlots(2))
	s.c.limits.prune = 20 * time.Millisecond
	s.many(6)
	// A pruner would remove i000 to i003.
	last := map[string]string{"prune": "xx", "remove": "i000"}[role]
	child := reexec.Start(t, role, s.c.Dir(), s.dir, step, last)
	child.Expect("ready")
	child.Expect("at " + step)
	child.Stop()

	// Others use, build, prune and remove what it has not in hand.
	inUse := s.use("i003")
	another := &stock{t, s.shelf, openCache(t, s.shelf, WithDir(s.c.Dir()), WithBudget(40))}
	another.c.limits.prune = s.c.limits.prune
	another.ensure("new").Release()
	if err := s.c.Remove(t.Context(), "i002"); s.has("i002") || err != nil && !errors.Is(err, ErrInUse) {
		t.Errorf("another's removal: %v", err)
	}
	r := s.prune(Budget(30))
	if step != "removed" || len(r.Kept) > 0 {
		expectText(t, "kept", keptFor(r), "i000: building")
		if h := r.Kept[0].Holder; h == nil || h.PID != child.Process.Pid || h.Operation != "remove" {
			t.Errorf("held by %+v", h)
		}
	}
	// Who wants that image, or wants it gone, is told whom he waits for.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.c.Ensure(ctx, Image{Tag: "i000", Build: s.builder("i000", "id-new-i000")})
	if w, ok := errors.AsType[*WaitError](err); !ok || w.Holder == nil || w.Holder.PID != child.Process.Pid {
		t.Errorf("who wants it is told %v", err)
	}
	err = s.c.Remove(t.Context(), "i000")
	if e, ok := errors.AsType[*RemoveError](err); step == "asked" && (!ok || e.Reason != ReasonBuilding || e.Holder == nil || e.Holder.PID != child.Process.Pid) {
		t.Errorf("who wants it gone is told %v", err)
	}
	// One that waits for it gets it.
	waited := make(chan Result, 1)
	go func() {
		res, err := s.c.Ensure(t.Context(), Image{Tag: "i000", Build: s.builder("i000", "id-new-i000")})
		if err != nil {
			t.Error(err)
		}
		waited <- res
	}()
	time.Sleep(20 * time.Millisecond)
	if fate == "goes on" {
		child.Continue()
		child.Tell("go")
		for range child.Lines() {
		}
		child.End()
	} else {
		child.Kill()
	}
	res := <-waited
	if res.Outcome != Built || !s.has(res.ID) || !s.has(inUse.ID) {
		t.Errorf("%+v; in use is %v", res, s.has(inUse.ID))
	}
	res.Release()
	inUse.Release()
	s.prune(Budget(0)) // ends what the killed one had begun
	expectText(t, "left", s.left(), "")
	if s.has("id-i000") || s.marks() != 0 {
		t.Errorf("the old image is there: %v, %d marks", s.has("id-i000"), s.marks())
	}
	for _, key := range []string{pruneKey, ref("i000"), runningKey(ref("i000")), leaseKey("id-i000"), leaseKey(inUse.ID)} {
		nothingLocked(t, s.c, key)
	}
}
