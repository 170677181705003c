//go:build unix

package lock

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imagelock/imagelock/internal/reexec"
)

// stormKeys are few, so that all want the same.
const stormKeys = 3

// stormRole: DIR LOG SEED. Takes one key after another, and notes in LOG when it
// has had it: a line after the grant and one before the release.
func stormRole(args []string, in <-chan string) error {
	d, err := Open(args[0])
	if err != nil {
		return err
	}
	log, err := os.OpenFile(args[1], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	seed, _ := strconv.ParseUint(args[2], 10, 64)
	r := rand.New(rand.NewPCG(seed, 0))
	reexec.Say("ready")
	for {
		select {
		case <-in:
			return d.Close()
		default:
		}
		key, mode := r.IntN(stormKeys), Exclusive
		if r.IntN(4) == 0 {
			mode = Shared
		}
		// Collectors keep off a key that is waited for: most don't wait.
		acquire := d.TryAcquire
		if r.IntN(10) == 0 {
			acquire = d.Acquire
		}
		h, err := acquire(context.Background(), fmt.Sprint(key), mode, WaitLimit(30*time.Second))
		if errors.Is(err, ErrHeld) {
			continue
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(log, "%d %d %d ", key, mode, monotonic())
		for end := time.Now().Add(time.Duration(r.IntN(1000)) * time.Microsecond); time.Now().Before(end); {
		}
		fmt.Fprintf(log, "%d\n", monotonic())
		if err := h.Release(); err != nil {
			return err
		}
	}
}

// monotonic is one clock for all processes.
func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

type hold struct {
	key        int
	mode       Mode
	begin, end int64
	who        string
}

// readHolds reads what stormRole has noted. Who was killed while it held a key has
// had it when it was granted; how long is not known.
func readHolds(t *testing.T, dir string) (all []hold) {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, log := range logs {
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			h := hold{who: filepath.Base(log)}
			n, _ := fmt.Sscan(string(line), &h.key, &h.mode, &h.begin, &h.end)
			if n < 3 || n == 3 && line[len(line)-1] != ' ' {
				continue // killed while it wrote
			}
			if n == 3 || line[len(line)-1] != '\n' {
				h.end = h.begin
			}
			all = append(all, h)
		}
	}
	return all
}

// overlaps returns pairs who have had a key at the same time and must not have.
func overlaps(all []hold) (bad [][2]hold) {
	slices.SortFunc(all, func(a, b hold) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.begin, b.begin)) })
	for i, a := range all {
		for _, b := range all[i+1:] {
			if b.key != a.key || b.begin > a.end {
				break
			}
			if a.mode == Exclusive || b.mode == Exclusive {
				bad = append(bad, [2]hold{a, b})
			}
		}
	}
	return bad
}

// Holders, waiters and collectors of the same few keys, killed at random instants
// and replaced: nobody ever has a key that another has, and none gets stuck.
func TestStormOfAcquirersAndCollectorsWithKills(t *testing.T) {
	dir, logs := t.TempDir(), t.TempDir()
	d := openDir(t, dir, CheckedClientsOnly())
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	started := 0
	acquirer := func() *reexec.Child {
		started++
		c := reexec.Start(t, "storm", dir, filepath.Join(logs, fmt.Sprint(started)), fmt.Sprint(seed+uint64(started)))
		c.Expect("ready")
		return c
	}
	collector := func() *reexec.Child {
		c := reexec.Start(t, "collect", dir)
		c.Expect("ready")
		c.Tell("on")
		return c
	}
	start := []func() *reexec.Child{acquirer, acquirer, acquirer, acquirer, collector, collector}
	children := make([]*reexec.Child, len(start))
	for i := range children {
		children[i] = start[i]()
	}
	kills := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); kills++ {
		time.Sleep(time.Duration(r.IntN(20_000)) * time.Microsecond)
		i := r.IntN(len(children))
		children[i].Kill()
		children[i] = start[i]()
	}
	for _, c := range children {
		c.Tell("end")
	}
	for _, c := range children {
		c.End()
	}
	all := readHolds(t, logs)
	for i, o := range overlaps(all) {
		if i == 5 {
			break
		}
		t.Errorf("two holders: %+v and %+v", o[0], o[1])
	}
	t.Logf("%d kills, %d holds", kills, len(all))
	if len(all) < 100 {
		t.Errorf("only %d holds", len(all))
	}
	for i := range stormKeys {
		release(t, acquire(t, d, fmt.Sprint(i), Exclusive, WaitLimit(10*time.Second)))
	}
	if s, err := d.Collect(t.Context()); err != nil || s.InUse != 0 || s.Removed == 0 {
		t.Errorf("%+v %v", s, err)
	}
}

// The same without kills, by another measure: a marker file that only one can make,
// and a count that loses no step.
func TestCountersLoseNoStepBesideCollectors(t *testing.T) {
	dir := t.TempDir()
	openDir(t, dir, CheckedClientsOnly())
	for range 2 {
		c := reexec.Start(t, "collect", dir)
		c.Expect("ready")
		c.Tell("on")
	}
	const n = 100
	var counters []*reexec.Child
	for range 3 {
		c := reexec.Start(t, "count", dir, "k", fmt.Sprint(n))
		c.Expect("ready")
		counters = append(counters, c)
	}
	for _, c := range counters {
		c.Tell("go")
	}
	for _, c := range counters {
		c.End()
	}
	if got := counted(t, dir); got != 3*n {
		t.Errorf("counted %d, want %d", got, 3*n)
	}
}
