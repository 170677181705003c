//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imagelock/imagelock/bench/soak"
)

func TestMain(m *testing.M) {
	soak.MaybeChild()
	if name := os.Getenv(roleEnv); name != "" {
		os.Exit(roleMain(name, os.Args[1:]))
	}
	if os.Getenv(wholeEnv) != "" {
		main()
	}
	os.Exit(m.Run())
}

// wholeEnv makes this test binary the program itself.
const wholeEnv = "IMAGELOCK_BENCH_TEST_WHOLE"

// scratch is a directory in which all lies that a run makes.
func scratch(t *testing.T) string {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return dir
}

// nothingLeft fails unless dir is empty and this process has no child, as must be
// after every run, however it has ended.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %v %v", left, err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	all, _ := filepath.Glob("/proc/self/task/*/children")
	for _, p := range all { // a child belongs to the thread that has started it
		more, _ := os.ReadFile(p)
		b = append(b, more...)
	}
	if err != nil || len(bytes.TrimSpace(b)) > 0 {
		t.Errorf("processes that are left: %s %v", b, err)
	}
}

func TestEveryScenarioGivesItsFiguresAndLeavesNothing(t *testing.T) {
	dir, file := scratch(t), filepath.Join(t.TempDir(), "figures.json")
	var table, progress bytes.Buffer
	c := &config{Size: tiny, Dir: dir, JSON: file}
	if err := execute(t.Context(), c, &table, &progress); err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	t.Logf("\n%s\n%s", &table, &progress)
	nothingLeft(t, dir)

	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var raw []map[string]any
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	var all figures
	for _, m := range raw {
		f := figure{}
		f.Scenario, _ = m["scenario"].(string)
		f.Contender, _ = m["contender"].(string)
		f.Metric, _ = m["metric"].(string)
		f.Unit, _ = m["unit"].(string)
		v, isNumber := m["value"].(float64)
		f.Value = v
		if len(m) != 5 || f.Scenario == "" || f.Contender == "" || f.Metric == "" || f.Unit == "" || !isNumber || math.Abs(v) > 1e9 {
			t.Errorf("no figure: %v", m)
		}
		if _, twice := all.get(f.Scenario, f.Contender, f.Metric); twice {
			t.Errorf("twice: %v", m)
		}
		all = append(all, f)
	}
	for _, s := range scenarios {
		figs := 0
		for _, f := range all {
			if f.Scenario == s.name && f.Contender == ours {
				figs++
			}
		}
		if figs == 0 {
			t.Errorf("%s has no figure of ours", s.name)
		}
	}
	for _, b := range bars {
		if b.over == gofrs678 {
			continue // too slow for a tiny run
		}
		if _, _, ok := b.verdict(all); !ok {
			t.Errorf("this bar finds no figure: %+v", b)
		}
	}
	verdicts, rows := 0, 0
	for line := range strings.Lines(table.String()) {
		if !strings.HasPrefix(line, " ") { // the second bar of a figure
			rows++
		}
		for _, v := range []string{"  met", "  NOT MET", "  not measured"} {
			if strings.HasSuffix(strings.TrimSpace(line), v) {
				verdicts++
			}
		}
	}
	if rows != 1+len(all) {
		t.Errorf("the table has %d rows for %d figures", rows-1, len(all))
	}
	if verdicts != len(bars) {
		t.Errorf("the table has %d verdicts, there are %d bars", verdicts, len(bars))
	}
}

func TestAnInterruptedRunEndsSoonAndLeavesNothing(t *testing.T) {
	for _, name := range []string{"uncontended", "16-waiters-exclusive", "1000-keys", "turns", "million-lockfiles", "crash-loop"} {
		t.Run(name, func(t *testing.T) {
			dir := scratch(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			time.AfterFunc(300*time.Millisecond, cancel)
			begin := time.Now()
			var out, errs bytes.Buffer
			if code := run(ctx, []string{"-run", "^" + name + "$", "-dir", dir}, &out, &errs); code != exitInterrupted {
				t.Errorf("status %d\n%s", code, &errs)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("it went on for %v", took)
			}
			nothingLeft(t, dir)
		})
	}
}

// TestNoProcessOutlivesTheProgram: by the children's own doing if it is killed, by
// the program's after a Ctrl-C.
func TestNoProcessOutlivesTheProgram(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		mark := wholeEnv + "=" + strings.ReplaceAll(t.TempDir(), "/", "-") // children inherit it
		cmd := exec.Command(os.Args[0], "-run", "16-waiters-exclusive", "-dir", scratch(t))
		cmd.Env = append(os.Environ(), mark)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until(t, "they have started", func() bool { return processesWith(t, mark) > 100 })
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		until(t, "they have ended", func() bool { return processesWith(t, mark) == 0 })
	}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so in time: %s", what)
		}
	}
}

// processesWith counts the processes with this in their environment.
func processesWith(t *testing.T, env string) (n int) {
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		b, _ := os.ReadFile(p)
		if bytes.Contains(b, []byte(env)) {
			n++
		}
	}
	return n
}

func TestAChildThatDiesIsAnErrorAndNoHang(t *testing.T) {
	e := &env{dir: t.TempDir()}
	defer e.killAll()
	c, err := e.start("worker", "no such contender", e.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.expect(t.Context(), "ready"); err == nil || !strings.Contains(err.Error(), "no such contender") {
		t.Errorf("its last words are not in the error: %v", err)
	}
	c, err = e.start("worker", ours, e.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.expect(t.Context(), "ready"); err != nil {
		t.Fatal(err)
	}
	c.signal()
	if _, err := c.next(t.Context()); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("killed: %v", err)
	}
}

func TestAFailedScenarioIsNamedAndTheOthersFiguresAreGiven(t *testing.T) {
	saved := scenarios
	t.Cleanup(func() { scenarios = saved })
	scenarios = []scenario{
		{"bad", "fails", func(ctx context.Context, e *env) error {
			e.add(ours, "before", 1, "count")
			return os.ErrDeadlineExceeded
		}},
		{"good", "does not", func(ctx context.Context, e *env) error {
			e.add(ours, "after", 2, "count")
			return nil
		}},
	}
	dir := scratch(t)
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"-dir", dir}, &out, &errs); code != exitFailed {
		t.Errorf("status %d", code)
	}
	if !strings.Contains(errs.String(), "bad: ") || !strings.Contains(out.String(), "before") || !strings.Contains(out.String(), "after") {
		t.Errorf("%s\n%s", &out, &errs)
	}
	nothingLeft(t, dir)
}

func TestAMistakeInTheCommandLineIsSaidAndTouchesNothing(t *testing.T) {
	for _, args := range [][]string{
		{"-run", "("},
		{"-run", "nothing has this name"},
		{"-nonsense"},
		{"argument"},
		{"-soak", "-1s"},
		{"-soak", "0s"},
		{"-soak", "1s", "-quick"},
		{"-soak", "1s", "-run", "turns"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, &out, &errs); code != exitUsage || out.Len() > 0 || errs.Len() == 0 {
			t.Errorf("%v: status %d, %q, %q", args, code, &out, &errs)
		}
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"-h"}, &out, &errs); code != exitOK || !strings.Contains(errs.String(), "-quick") {
		t.Errorf("-h: status %d, %q", code, &errs)
	}
}

func TestABarComparesWithTheContenderItNames(t *testing.T) {
	fs := figures{
		{"16-waiters-exclusive", ours, "last released, median", "ms", 25},
		{"16-waiters-exclusive", blocking, "last released, median", "ms", 20},
		{"16-waiters-exclusive", gofrs678, "last released, median", "ms", 499},
		{"turns", ours, "longest wait ÷ mean wait", "ratio", 3.001},
	}
	for i, want := range []string{"1.25 met true", "0.05 NOT true", "0.00 NOT true"} {
		b := []bar{
			{"16-waiters-exclusive", "last released, median", blocking, 1.25, ""},
			{"16-waiters-exclusive", "last released, median", gofrs678, 0.05, ""},
			{"turns", "longest wait ÷ mean wait", "", 3, ""},
		}[i]
		ratio, met, ok := b.verdict(fs)
		word := map[bool]string{true: "met", false: "NOT"}[met]
		if got := fmt.Sprintf("%.2f %s %v", ratio, word, ok); got != want {
			t.Errorf("%+v: %s, want %s", b, got, want)
		}
	}
	if _, _, ok := (bar{"16-waiters-exclusive", "last released, median", lockgateName, 1, ""}).verdict(fs); ok {
		t.Error("compared with what was not measured")
	}
}

func TestQuantilesAreValuesThatWereMeasured(t *testing.T) {
	xs := []int{5, 1, 4, 2, 3}
	for q, want := range map[float64]int{0: 1, 0.2: 1, 0.21: 2, 0.5: 3, 0.99: 5, 1: 5} {
		if got := quantile(xs, q); got != want {
			t.Errorf("quantile %v of %v is %d, want %d", q, xs, got, want)
		}
	}
	if got := median([]int{2, 1}); got != 1 {
		t.Errorf("median %d", got)
	}
}
