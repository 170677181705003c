package oci

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/reexec"
)

// killSelf ends this process as kill -9 from outside does.
func killSelf() {
	p, err := os.FindProcess(os.Getpid())
	if err == nil {
		p.Kill()
	}
	select {} // until the signal is here
}

// roleCrash makes the changes of crashChanges and dies at the n-th step.
func roleCrash(args []string, in <-chan string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var last string
	s, err := Open(args[0], withStep(func(step string) {
		last = step
		if n--; n == 0 {
			reexec.Say("dies at: %s", last)
			killSelf()
		}
	}))
	if err != nil {
		return err
	}
	for i, c := range crashChanges {
		if err := c.do(s); err != nil {
			return err
		}
		reexec.Say("done %d", i)
	}
	reexec.Say("all done")
	return s.Close()
}

// crashChanges are an addition, a tag that moves, removals and a second addition,
// which finds what the removals left.
var crashChanges = []struct {
	ref      string // empty if no tag is changed
	old, new string // content; "" for absent
	do       func(*Store) error
}{
	{"added:1", "", "added", func(s *Store) error { return addTiny(s, "added:1", "added") }},
	{"moved:1", "shared+moved from", "shared+moved to", func(s *Store) error { return addTiny(s, "moved:1", "shared+moved to") }},
	{"removed:1", "shared+removed", "", func(s *Store) error { return s.Remove(context.Background(), "removed:1") }},
	{"removed:2", "removed", "", func(s *Store) error { return removeTiny(s, "removed:2", "removed") }},
	{"added:2", "", "added again", func(s *Store) error { return addTiny(s, "added:2", "added again") }},
	{"", "", "", func(s *Store) error { return removeTiny(s, "", "shared+moved from") }},
}

// The images of crashChanges that have no tag between these changes.
const movedFrom, movedGone = 1, 5

func removeTiny(s *Store, ref, content string) error {
	img, err := makeTiny(content)
	if err != nil {
		return err
	}
	h, err := img.Digest()
	if err != nil {
		return err
	}
	return s.RemoveImage(context.Background(), ref, h.String())
}

func addTiny(s *Store, ref, content string) error {
	img, err := makeTiny(content)
	if err != nil {
		return err
	}
	_, err = s.Add(context.Background(), ref, img)
	return err
}

// tinyID is the ID that addTiny gives; "" for absent.
func tinyID(t testing.TB, content string) string {
	t.Helper()
	if content == "" {
		return ""
	}
	h, err := tinyImage(t, content).Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

// readable fails the test unless index.json is that of a layout, as any other
// program would find it right now.
func readable(t *testing.T, dir string) {
	t.Helper()
	ii, err := layout.ImageIndexFromPath(dir)
	if err == nil {
		_, err = ii.IndexManifest()
	}
	if err != nil {
		t.Fatalf("index.json is not readable: %v", err)
	}
}

func TestAProcessKilledAtAnyStepLeavesEachTagOldOrNewAndTheIndexReadable(t *testing.T) {
	t.Parallel()
	for step := 1; ; step++ {
		dir := t.TempDir()
		s := openStore(t, dir)
		add(t, s, "bystander:1", tinyImage(t, "bystander"))
		add(t, s, "bystander:2", tinyImage(t, "bystander"))
		for _, c := range crashChanges {
			if c.old != "" {
				add(t, s, c.ref, tinyImage(t, c.old))
			}
		}
		child := reexec.Start(t, "crash", dir, strconv.Itoa(step))
		done, where := -1, ""
		for line := range child.Lines() {
			if i, ok := strings.CutPrefix(line, "done "); ok {
				done, _ = strconv.Atoi(i)
			}
			where = line
		}
		readable(t, dir)
		check := func(when string) {
			for i, c := range crashChanges {
				if c.ref == "" {
					continue
				}
				p, err := s.Probe(context.Background(), c.ref)
				if err != nil {
					t.Errorf("step %d (%s), %s: %v", step, where, when, err)
				}
				old, now := tinyID(t, c.old), tinyID(t, c.new)
				switch {
				case i <= done && p.ID != now, i > done+1 && p.ID != old, p.ID != old && p.ID != now:
					t.Errorf("step %d (%s), %s: %s is %q after %d changes", step, where, when, c.ref, p.ID, done+1)
				}
			}
		}
		if done >= movedFrom && done+1 < movedGone {
			if _, err := s.Image(context.Background(), tinyID(t, "shared+moved from")); err != nil {
				t.Errorf("step %d (%s): the image whose tag has moved on: %v", step, where, err)
			}
		}
		check("at once")
		// A reader of the layout that comes before anybody repairs it still
		// finds what was complete before the child started.
		next := openStore(t, dir)
		checkLayout(t, next, true)
		check("after Open")
		add(t, s, "later:1", tinyImage(t, "later"))
		checkLayout(t, s, true)
		check("after the next change")
		// What it left is collected at the next removal.
		age(t, s)
		removeImage(t, s, "bystander:2", tinyID(t, "bystander"))
		check("after the next removal")
		checkLayout(t, s, true)
		keptOnDisk(t, s)
		if t.Failed() {
			t.Fatalf("step %d (%s)", step, where)
		}
		if where == "all done" {
			t.Logf("%d steps", step-1)
			if step < 60 {
				t.Errorf("only %d steps were tried", step-1)
			}
			return
		}
	}
}

// roleChurn adds images, moves a tag and removes one until it is killed.
func roleChurn(args []string, in <-chan string) error {
	s, err := Open(args[0])
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("churn-%s:%d", args[1], i)
		if err := addTiny(s, name, name); err != nil {
			return err
		}
		reexec.Say("%s", name)
		if err := addTiny(s, "common:1", name); err != nil {
			return err
		}
		if i%3 == 2 {
			if err := removeTiny(s, name, name); err != nil {
				return err
			}
			reexec.Say("-%s", name)
		}
	}
}

func TestProcessesKilledAtRandomLoseNothingThatWasComplete(t *testing.T) {
	t.Parallel()
	rounds := 50
	if testing.Short() {
		rounds = 10
	}
	dir := t.TempDir()
	s := openStore(t, dir)
	there, kills := map[string]bool{}, 0
	for round := range rounds {
		var children []*reexec.Child
		for i := range 4 {
			children = append(children, reexec.Start(t, "churn", dir, fmt.Sprintf("%d-%d", round, i)))
		}
		for _, c := range children {
			there[c.Next()] = true // it is at work
			time.Sleep(time.Duration(rand.IntN(8000)) * time.Microsecond)
			c.Process.Kill()
			kills++
		}
		for _, c := range children {
			for line := range c.Lines() {
				name, gone := strings.CutPrefix(line, "-")
				there[name] = !gone
			}
		}
		readable(t, dir)
		for name, want := range there {
			p, err := s.Probe(context.Background(), name)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if got := p.State == imagecache.Present; got != want {
				// A removal may have been complete but not reported.
				if got || !removable(name) {
					t.Fatalf("round %d: %s present %v, want %v", round, name, got, want)
				}
				there[name] = false
			}
		}
		add(t, s, fmt.Sprintf("after:%d", round), tinyImage(t, "after"))
		if round%10 == 9 || round == rounds-1 {
			checkLayout(t, s, round == rounds-1)
		}
	}
	age(t, s)
	removeImage(t, s, "after:0", tinyID(t, "after"))
	keptOnDisk(t, s)
	t.Logf("%d kills, %d images", kills, len(there))
}

// removable tells whether roleChurn removes the image again.
func removable(name string) bool {
	_, n, _ := strings.Cut(name, ":")
	i, err := strconv.Atoi(n)
	return err == nil && i%3 == 2
}

func TestWhatDeadProcessesLeftIsCollected(t *testing.T) {
	s := openStore(t, t.TempDir())
	old := time.Now().Add(-2 * tempAge)
	dead := s.own("tmp", "dead")
	os.MkdirAll(dead+"/3/deep", 0o755)
	os.WriteFile(dead+"/1", []byte("x"), 0o644)
	os.WriteFile(dead+"/"+aliveFile, nil, 0o644)
	os.Chtimes(dead, old, old)
	young := s.own("tmp", "young")
	os.Mkdir(young, 0o755)
	f, err := s.temps.create() // its directory is old, and in use
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	os.Chtimes(s.temps.own, old, old)
	openStore(t, s.Path())
	for path, want := range map[string]bool{dead: false, young: true, f.Name(): true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}
