package slots

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/reexec"
)

// TestManyProcessesTakeTurnsAtFewSlots: no slot has two holders, and nobody is
// overtaken again and again. The figures are for the log; see bench for good ones.
func TestManyProcessesTakeTurnsAtFewSlots(t *testing.T) {
	const (
		slots, processes, goroutines, times = 4, 8, 4, 10
		hold                                = 2 * time.Millisecond
	)
	dir := t.TempDir()
	var children []*reexec.Child
	for range processes {
		c := reexec.Start(t, "turns", dir, fmt.Sprint(slots), fmt.Sprint(goroutines), fmt.Sprint(times), fmt.Sprint(int64(hold)))
		c.Expect("ready")
		children = append(children, c)
	}
	for _, c := range children {
		c.Tell("go")
	}
	var all []turn
	for _, c := range children {
		var turns []turn
		if err := json.Unmarshal([]byte(c.Next()), &turns); err != nil {
			t.Fatal(err)
		}
		all = append(all, turns...)
		c.End()
	}
	if want := processes * goroutines * times; len(all) != want {
		t.Fatalf("%d turns, want %d", len(all), want)
	}
	slices.SortFunc(all, func(a, b turn) int { return cmp.Compare(a.Had, b.Had) })
	last := map[string]turn{}
	var longest, sum time.Duration
	most := 0
	for i, x := range all {
		if before := last[x.Slot]; before.LeftIt > x.Had {
			t.Errorf("%s has two holders: %+v, %+v", x.Slot, before, x)
		}
		last[x.Slot] = x
		wait := time.Duration(x.Had - x.Asked)
		longest, sum = max(longest, wait), sum+wait
		// Those who came later and were served sooner.
		overtaken := 0
		for _, y := range all[:i] {
			if y.Asked > x.Asked {
				overtaken++
			}
		}
		most = max(most, overtaken)
	}
	if len(last) != slots {
		t.Errorf("only %d slots were used", len(last))
	}
	mean := sum / time.Duration(len(all))
	t.Logf("longest wait %v, mean %v (%.1f times), most often overtaken %d times", longest, mean, float64(longest)/float64(mean), most)
	// Processes take turns, and so do the goroutines of each. On a busy machine
	// one that is not given a processor in time loses its turn.
	if limit := processes * goroutines * 4; most > limit {
		t.Errorf("somebody was overtaken %d times, by %d contenders", most, processes*goroutines)
	}
}

// TestWhoMayUseFewSlotsIsServedAmongManyWhoMayUseMore: they do not stand in one line.
func TestWhoMayUseFewSlotsIsServedAmongManyWhoMayUseMore(t *testing.T) {
	const times = 10
	dir := t.TempDir()
	var many []*reexec.Child
	for range 4 {
		c := reexec.Start(t, "turns", dir, "2", "4", "0", fmt.Sprint(int64(time.Millisecond)))
		c.Expect("ready")
		many = append(many, c)
	}
	few := reexec.Start(t, "turns", dir, "1", "1", fmt.Sprint(times), fmt.Sprint(int64(time.Millisecond)))
	few.Expect("ready")
	for _, c := range append(many, few) {
		c.Tell("go")
	}
	var turns []turn
	if err := json.Unmarshal([]byte(few.Next()), &turns); err != nil {
		t.Fatal(err)
	}
	few.End()
	if len(turns) != times {
		t.Fatalf("%d turns, want %d", len(turns), times)
	}
	for _, c := range many {
		c.Tell("stop")
	}
	var others []turn
	for _, c := range many {
		var all []turn
		if err := json.Unmarshal([]byte(c.Next()), &all); err != nil {
			t.Fatal(err)
		}
		others = append(others, all...)
		c.End()
	}
	most := 0
	for _, x := range turns {
		passed := 0
		for _, y := range others {
			if y.Asked > x.Asked && y.Had < x.Had {
				passed++
			}
		}
		most = max(most, passed)
	}
	t.Logf("most often overtaken %d times", most)
	if most > 200 {
		t.Errorf("somebody was overtaken %d times", most)
	}
}
