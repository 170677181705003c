//go:build unix

package lock

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

// sweepAtOnce sweeps whatever is older than an hour, as fast as it can.
var sweepAtOnce = sweepRules{collectPolicy: collectPolicy{age: time.Hour, least: 10}, interval: time.Hour, every: 5}

// aged makes n lockfiles that are older than they should be.
func aged(t testing.TB, d *Dir, prefix string, n int) {
	t.Helper()
	for i := range n {
		p := path(d, fmt.Sprint(prefix, i))
		touch(t, p)
		if err := os.Chtimes(p, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
}

func lockfiles(t testing.TB, d *Dir) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(d.Path(), "*.lock"))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// swept tells whether the sweep that has begun is over.
func swept(d *Dir) bool {
	d.sweep.mu.Lock()
	defer d.sweep.mu.Unlock()
	return d.sweep.stop == nil
}

func TestOldLockfilesAreSweptByItself(t *testing.T) {
	dir := t.TempDir()
	first := openDir(t, dir, CheckedClientsOnly(), withSweep(sweepAtOnce))
	expect.Eventually(t, "it has looked", func() bool { return swept(first) })
	aged(t, first, "old", 9)
	look := func() *Dir {
		d := openDir(t, dir, withSweep(sweepAtOnce))
		expect.Eventually(t, "it has looked", func() bool { return swept(d) })
		return d
	}
	makeDue(t, dir) // but they are too few
	look()
	if n := lockfiles(t, first); n != 9 {
		t.Fatalf("%d left of 9", n)
	}
	aged(t, first, "more", 20)
	touch(t, path(first, "young"))
	acquire(t, first, "more0", Exclusive)
	os.Chtimes(filepath.Join(dir, sweepFile), time.Time{}, time.Now().Add(-30*time.Minute))
	acquire(t, look(), "more1", Shared)
	if n := lockfiles(t, first); n != 30 {
		t.Fatalf("swept again within the hour: %d left", n)
	}
	makeDue(t, dir)
	d := look()
	if n := lockfiles(t, d); n != 3 || !exists(t, path(d, "young")) || !exists(t, path(d, "more0")) || !exists(t, path(d, "more1")) {
		t.Errorf("%d left", n)
	}
	// A process that goes on for long looks now and then.
	aged(t, first, "again", 20)
	makeDue(t, dir)
	for i := range 2 * sweepAtOnce.every {
		release(t, acquire(t, first, fmt.Sprint("new", i), Exclusive))
	}
	expect.Eventually(t, "making lockfiles begins one", func() bool { return swept(first) && lockfiles(t, first) == 3+int(2*sweepAtOnce.every) })
}

// makeDue makes the next sweep due.
func makeDue(t testing.TB, dir string) {
	t.Helper()
	if err := os.Chtimes(filepath.Join(dir, sweepFile), time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
}

func TestOneProcessSweepsAtATime(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir, CheckedClientsOnly(), withSweep(sweepAtOnce))
	expect.Eventually(t, "it has looked", func() bool { return swept(d) })
	aged(t, d, "old", 20)
	makeDue(t, dir)
	l, err := tryOS(filepath.Join(dir, sweepFile), os.O_RDWR, Exclusive, false)
	if err != nil || l == nil {
		t.Fatal(l, err)
	}
	for range 3 {
		other := openDir(t, dir, withSweep(sweepAtOnce))
		expect.Eventually(t, "it has looked", func() bool { return swept(other) })
	}
	if n := lockfiles(t, d); n != 20 {
		t.Errorf("%d left", n)
	}
	l.Unlock()
	other := openDir(t, dir, withSweep(sweepAtOnce))
	expect.Eventually(t, "it has looked", func() bool { return swept(other) })
	if n := lockfiles(t, d); n != 0 {
		t.Errorf("%d left", n)
	}
}

// A sweep that was broken off is gone on with by the next process.
func TestCloseEndsASweepAndTheNextGoesOn(t *testing.T) {
	dir := t.TempDir()
	slow := sweepAtOnce
	slow.slice, slow.pause = time.Nanosecond, time.Hour
	d := openDir(t, dir, CheckedClientsOnly(), withSweep(slow))
	expect.Eventually(t, "it has looked", func() bool { return swept(d) })
	aged(t, d, "old", 20)
	makeDue(t, dir)
	d = openDir(t, dir, withSweep(slow))
	expect.Eventually(t, "the sweep has begun", func() bool { return !swept(d) })
	start := time.Now()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > closePatience/2 {
		t.Errorf("close took %v", took)
	}
	if n := lockfiles(t, d); n < 19 {
		t.Errorf("%d left, the test proved nothing", n)
	}
	d.startSweep() // nothing begins any more
	if !swept(d) {
		t.Error("a closed Dir sweeps")
	}
	d = openDir(t, dir, withSweep(sweepAtOnce))
	expect.Eventually(t, "it has looked", func() bool { return swept(d) })
	if n := lockfiles(t, d); n != 0 {
		t.Errorf("%d left", n)
	}
}

// withSweep replaces the rules.
func withSweep(rules sweepRules) Option {
	return openFunc(func(d *Dir) error { d.sweep.rules = rules; return nil })
}
