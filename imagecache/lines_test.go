package imagecache

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/imagelock/imagelock/internal/expect"
)

func TestCommandPrintsIntoTheLogAndItsLastLinesAreInTheError(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the command is a shell's")
	}
	s := newStore(t)
	c := openCache(t, s)
	var progress lockedBuilder
	cmd := Command{Args: []string{"sh", "-c", "seq 30; echo to stderr >&2; exit 3"}, Progress: &progress}
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(ctx context.Context, b *Build) error {
		fmt.Fprintln(b.Log, "before the command")
		err := cmd.Build(ctx, b)
		fmt.Fprintln(b.Log, "after the command")
		return err
	}})
	be, ce := expect.As[*BuildError](t, err), expect.As[*CommandError](t, err)
	if ce.ExitCode != 3 || len(ce.Lines) != 20 || ce.Lines[0] != "12" || ce.Lines[19] != "to stderr" {
		t.Errorf("exit code %d, lines %q", ce.ExitCode, ce.Lines)
	}
	out := progress.String()
	if !strings.HasPrefix(out, "1\n2\n") || !strings.HasSuffix(out, "30\nto stderr\n") {
		t.Errorf("progress %q", out)
	}
	if log, err := os.ReadFile(be.LogPath); err != nil || string(log) != "before the command\n"+out+"after the command\n" {
		t.Errorf("log %q, %v", log, err)
	}
}

func TestCommandThatPrintsFasterThanItIsFollowedKeepsItsLastLines(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the command is a shell's")
	}
	c := openCache(t, newStore(t))
	blocked, w := io.Pipe() // nobody reads
	defer blocked.Close()
	cmd := Command{Args: []string{"sh", "-c", "seq 100000; echo the reason; exit 1"}, Progress: w}
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: cmd.Build})
	if ce := expect.As[*CommandError](t, err); len(ce.Lines) != tailLines || ce.Lines[tailLines-2] != "100000" || ce.Lines[tailLines-1] != "the reason" {
		t.Errorf("lines %q", ce.Lines)
	}
}

type lockedBuilder struct {
	mu sync.Mutex
	strings.Builder
}

func (b *lockedBuilder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Builder.Write(p)
}

func TestLogSaysThatABuildGoesOnAndWhoWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		s := newStore(t)
		c := openCache(t, s, WithLogger(zap.New(core)))
		build, _ := s.builder(10 * time.Minute)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		n := func(message string) int { return logs.FilterMessage(message).Len() }
		// 5, 10, 20 and then 30 seconds apart.
		if n("building") != 1 || n("built") != 1 || n("still building") < 20 || n("still building") > 25 ||
			n("waiting for an attempt of this process") != 2 || n("waited for an attempt of this process") != 2 {
			t.Errorf("%v", logs.All())
		}
		for _, e := range logs.All() {
			if f := e.ContextMap(); f["tag"] != app || e.LoggerName != "imagecache" {
				t.Errorf("%s: %v", e.Message, f)
			}
		}
	})
}
