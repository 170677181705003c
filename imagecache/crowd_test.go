package imagecache

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
)

// crowdRole: CACHE STORE CALLERS. Ensures app by so many callers at once, when it is
// told to. A build says "building", and fails at the next line. Says when each caller
// had its error, of which attempt, and whether it was remembered.
func crowdRole(args []string, in <-chan string) error {
	c, err := Open(context.Background(), &dirStore{dir: args[1]}, WithDir(args[0]), WithFailureMemory(time.Hour))
	if err != nil {
		return err
	}
	defer c.Close()
	var n int
	if _, err := fmt.Sscan(args[2], &n); err != nil {
		return err
	}
	build := func(context.Context, *Build) error {
		reexec.Say("building")
		<-in
		reexec.Say("failed %d", time.Now().UnixNano())
		return errors.New("does not compile")
	}
	reexec.Say("ready")
	<-in
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			_, err := c.Ensure(context.Background(), Image{Tag: "app", Build: build})
			at := time.Now().UnixNano()
			if e, ok := err.(*BuildError); ok && strings.Contains(err.Error(), "does not compile") {
				reexec.Say("error %d %d %v", at, e.Attempt, e.Remembered)
			} else {
				reexec.Say("wrong %v", err)
			}
		})
	}
	wg.Wait()
	return nil
}

func TestAFailureIsToldToACrowdAndRepeatedByNobody(t *testing.T) {
	const processes, callers = 8, 8
	s := newStore(t)
	c := openCache(t, s)
	var crowd []*reexec.Child
	lines := make(chan string, 1024)
	for range processes {
		p := reexec.Start(t, "crowd", c.Dir(), s.dir, fmt.Sprint(callers))
		p.Expect("ready")
		crowd = append(crowd, p)
	}
	building := make(chan *reexec.Child, processes)
	var wg sync.WaitGroup
	for _, p := range crowd {
		p.Tell("ensure")
		wg.Go(func() {
			for line := range p.Lines() {
				if line == "building" {
					building <- p
					continue
				}
				lines <- line
			}
		})
	}
	builder := <-building
	spy := newSpy(t, filepath.Join(c.Dir(), locksDir))
	expect.Eventually(t, "all wait", func() bool { return spy.waiters(app) == processes-1 })
	builder.Tell("fail")
	wg.Wait()
	close(lines)
	var ended, at int64
	var late []time.Duration
	for line := range lines {
		var attempt int
		var remembered bool
		switch {
		case strings.HasPrefix(line, "failed "):
			fmt.Sscanf(line, "failed %d", &ended)
		case strings.HasPrefix(line, "error "):
			if _, err := fmt.Sscanf(line, "error %d %d %v", &at, &attempt, &remembered); err != nil || attempt != 1 || remembered {
				t.Errorf("%s: %v", line, err)
			}
			late = append(late, time.Duration(at))
		default:
			t.Error(line)
		}
	}
	for i := range late {
		late[i] -= time.Duration(ended)
	}
	slices.Sort(late)
	if len(late) != processes*callers || len(building) != 0 {
		t.Fatalf("%d errors, %d more builds", len(late), len(building))
	}
	// A newcomer is told too, and does not repeat it.
	p := reexec.Start(t, "crowd", c.Dir(), s.dir, fmt.Sprint(callers))
	p.Expect("ready")
	p.Tell("ensure")
	for range callers {
		var when int64
		var attempt int
		var remembered bool
		if line := p.Next(); !strings.HasPrefix(line, "error ") {
			t.Error(line)
		} else if _, err := fmt.Sscanf(line, "error %d %d %v", &when, &attempt, &remembered); err != nil || attempt != 1 || !remembered {
			t.Errorf("%s: %v", line, err)
		}
	}
	p.End()
	t.Logf("told of the failure after: first %v, median %v, last %v", late[0], late[len(late)/2], late[len(late)-1])
	nothingLocked(t, c, app)
}
