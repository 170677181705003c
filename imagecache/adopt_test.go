package imagecache

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

func TestAnImageWhoseBuilderWasKilledBeforeItsRecordIsFreshIfItsLabelSaysSo(t *testing.T) {
	for name, labels := range map[string]bool{"with a label": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			g := newGallery(t)
			c := openCache(t, g)
			args := []string{c.Dir(), g.dir, "1"}
			if labels {
				args = append(args, "labels")
			}
			child := reexec.Start(t, "paint", args...)
			child.Tell("ensure")
			child.Expect("building")
			child.Tell("die")
			for range child.Lines() {
			}
			p, err := g.Probe(t.Context(), app)
			if err != nil || p.State != Present {
				t.Fatalf("%+v, %v: it died too early", p, err)
			}
			if m, err := c.files.made(p.ID, app); m != nil || err != nil {
				t.Fatalf("%+v, %v: it died too late", m, err)
			}
			builtAs(t, c, Image{Tag: "app"}, Existing)
			// What an image was made of that says nothing is not known.
			want := Built
			if labels {
				want = Existing
			}
			img := Image{Tag: "app", Inputs: "1", Level: "env", Build: g.paint("1", labels)}
			builtAs(t, c, img, want)
			builtAs(t, c, img, Existing)
			nothingLocked(t, c, app)
		})
	}
}

// leaveRole: CACHE STORE FLAG. Builds app of the inputs "1" by a program that takes as
// long as FLAG is there.
func leaveRole(args []string, in <-chan string) error {
	g := &gallery{dirStore{dir: args[1]}}
	c, err := Open(context.Background(), g, WithDir(args[0]))
	if err != nil {
		return err
	}
	build := Command{Args: []string{"/bin/sh", "-c", `: >"$0.up"; while [ -e "$0" ]; do sleep 0.02; done; printf "sha256:orphan\n" >"$1"`, args[2], g.file(app)}}
	go func() {
		_, err := c.Ensure(context.Background(), Image{Tag: "app", Inputs: "1", Build: func(ctx context.Context, b *Build) error {
			reexec.Say("building")
			return build.Build(ctx, b)
		}})
		reexec.Say("%v", err)
	}()
	for range in {
	}
	return nil
}

func TestWhatAnOrphanMadeIsPutOnRecord(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a killed process's children keep no lock")
	}
	for name, inputs := range map[string]string{"same inputs": "1", "other inputs": "2"} {
		t.Run(name, func(t *testing.T) {
			g := newGallery(t)
			c := openCache(t, g)
			flag := filepath.Join(t.TempDir(), "flag")
			if err := os.WriteFile(flag, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			builder := reexec.Start(t, "leave", c.Dir(), g.dir, flag)
			builder.Expect("building")
			expect.Eventually(t, "its program runs", func() bool {
				_, err := os.Stat(flag + ".up")
				return err == nil
			})
			builder.Kill()
			got := make(chan Result, 1)
			go func() {
				r, err := c.Ensure(t.Context(), Image{Tag: "app", Inputs: inputs, Build: g.paint(inputs, false)})
				if err != nil {
					t.Error(err)
				}
				r.Release()
				got <- r
			}()
			expect.Eventually(t, "it waits for the orphan", func() bool {
				hs, _ := c.locks.(*lock.Dir).Holders(t.Context(), app)
				return len(hs) == 1 && hs[0].PID == os.Getpid()
			})
			if err := os.Remove(flag); err != nil {
				t.Fatal(err)
			}
			r := <-got
			if inputs != "1" {
				if r.Outcome != Built {
					t.Errorf("got %+v", r)
				}
				return
			}
			if r.Outcome != Appeared || r.ID != "sha256:orphan" || r.Builder.PID != builder.Process.Pid {
				t.Errorf("got %+v", r)
			}
			if m, err := c.files.made(r.ID, app); err != nil || m == nil || m.Inputs != effective("1", nil) {
				t.Errorf("on record is %+v, %v", m, err)
			}
			builtAs(t, c, Image{Tag: "app", Inputs: "1"}, Existing)
		})
	}
}
