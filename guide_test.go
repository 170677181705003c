package imagelock_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
	"github.com/imagelock/imagelock/imagecache/inputs"
	"github.com/imagelock/imagelock/imagecache/progress"
	"github.com/imagelock/imagelock/lock"
)

// The code of docs/harness.md. It is compiled, not run: it builds for hours.

type Instance struct{ ID, Repo, Version string }

func (in Instance) Tag() string { return "swebench/eval/" + strings.ToLower(in.ID) + ":1" }

// images are those that one instance needs, each after what it stands on.
func images(engine *docker.Store, in Instance) []imagecache.Image {
	base := "swebench/base:1"
	env := "swebench/env/" + in.Repo + ":" + in.Version
	return []imagecache.Image{{
		Tag:   base,
		Level: "base",
		Build: engine.BuildContext(docker.ContextBuild{Dir: "images/base"}),
	}, {
		Tag:     env,
		Level:   "env",
		Parents: []string{base},
		Class:   "network",
		Build: engine.BuildContext(docker.ContextBuild{
			Dir:  "images/env",
			Args: map[string]string{"BASE": base, "REPO": in.Repo, "VERSION": in.Version},
		}),
	}, {
		Tag:     in.Tag(),
		Level:   "instance",
		Parents: []string{env},
		Build: engine.BuildContext(docker.ContextBuild{
			Dir:  "images/instance",
			Args: map[string]string{"BASE": env, "INSTANCE": in.ID},
		}),
	}}
}

// open opens the machine's cache: the same one for every process of this host.
func open(ctx context.Context, engine *docker.Store, display *progress.Display) (*imagecache.Cache, error) {
	return imagecache.Open(ctx, engine,
		imagecache.WithSlots(8),                 // builds at once on this host, in all processes
		imagecache.WithClass("network", 3),      // of these, builds of class "network"
		imagecache.WithRetry(3, 10*time.Second), // network errors and the like
		imagecache.WithBudget(300<<30),          // bytes of images
		imagecache.WithObserver(display))
}

// run evaluates all instances, each as soon as its image is there.
func run(ctx context.Context, plan []Instance, evaluate func(ctx context.Context, in Instance, imageID string) error) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once

	engine, err := docker.Open(ctx)
	if err != nil {
		return err
	}
	defer engine.Close()
	display := progress.New(os.Stderr)
	defer display.Close()
	cache, err := open(ctx, engine, display)
	if err != nil {
		return err
	}
	defer cache.Close() // waits until cancelled builds have stopped

	var all []imagecache.Image
	of := map[string]Instance{}
	for _, in := range plan {
		ref, err := imagecache.Normalize(in.Tag())
		if err != nil {
			return err
		}
		of[ref] = in
		all = append(all, images(engine, in)...)
	}
	_, err = cache.EnsureAll(ctx, all,
		imagecache.UseOnly(func(img imagecache.Image) bool { return img.Level == "instance" }),
		imagecache.Use(func(ctx context.Context, image imagecache.Result) error {
			return evaluate(ctx, of[image.Reference], image.ID)
		}),
		imagecache.Workers(4))
	return err
}

// prepareEnvironment makes sure that the images of one instance are there. The
// caller releases the image when its container exists.
func prepareEnvironment(ctx context.Context, cache *imagecache.Cache, engine *docker.Store, in Instance) (image imagecache.Result, err error) {
	for _, img := range images(engine, in) {
		parent := image
		image, err = cache.Ensure(ctx, img)
		_ = parent.Release() // what is built holds its parents by itself
		if err != nil {
			return image, err
		}
	}
	return image, nil
}

func useOne(ctx context.Context, cache *imagecache.Cache, engine *docker.Store, in Instance, start func(imageID string) error) error {
	image, err := prepareEnvironment(ctx, cache, engine, in)
	if err != nil {
		return err
	}
	defer image.Release()
	return start(image.ID)
}

// why tells failures apart.
func why(ctx context.Context, err error) {
	var plan *imagecache.PlanError
	if !errors.As(err, &plan) {
		return
	}
	for i, err := range plan.Errors {
		var parent *imagecache.ParentError
		var build *imagecache.BuildError
		switch {
		case err == nil:
		case errors.As(err, &parent):
			fmt.Println(i, "not built, because of", parent.Root)
		case errors.As(err, &build):
			fmt.Println(i, "attempt", build.Attempt, "failed, see", build.LogPath)
		default:
			fmt.Println(i, err)
		}
	}
}

func prune(ctx context.Context, cache *imagecache.Cache) error {
	report, err := cache.Prune(ctx,
		imagecache.CacheLevel("env"),      // keep the base and the environments
		imagecache.TrimBuildCache(50<<30)) // of the engine's build cache, cache mounts apart
	fmt.Println(len(report.Removed), "removed,", report.Size, "bytes of images left")
	for _, kept := range report.Kept {
		fmt.Println(kept) // says why: leased, building, a container uses it, …
	}
	return err
}

func fresh(ctx context.Context, in Instance, img imagecache.Image) (imagecache.Image, error) {
	digest, err := inputs.New().Dir("images/env").Arg("VERSION", in.Version).Digest(ctx)
	img.Inputs = digest
	return img, err
}

func follow(ctx context.Context, cache *imagecache.Cache, in Instance) error {
	log, err := cache.Follow(ctx, in.Tag())
	if err != nil {
		return err // ErrNotBuilding if nobody builds it
	}
	defer log.Close()
	_, err = io.Copy(os.Stdout, log)
	return err
}

func whoHolds(ctx context.Context, cache *imagecache.Cache) error {
	for key, err := range lock.Inspect(ctx, filepath.Join(cache.Dir(), "image-locks")) {
		if err != nil {
			return err
		}
		if len(key.Holders) == 0 && len(key.Waiters) == 0 {
			break // all that follow are free
		}
		fmt.Println(&key)
	}
	return nil
}

func forget(ctx context.Context, cache *imagecache.Cache, in Instance) error {
	return cache.Forget(ctx, in.Tag())
}

// What the guide shows must be in this file, line by line, whatever its indentation.
// A line "…" stands for lines that are left out.
func TestTheGuidesCodeIsCompiled(t *testing.T) {
	source := trimmed(t, "guide_test.go")
	blocks := goBlocks(trimmed(t, "docs/harness.md"))
	if len(blocks) < 10 {
		t.Errorf("docs/harness.md has %d blocks of Go", len(blocks))
	}
	for n, block := range blocks {
		at := 0
		for _, part := range strings.Split(block, "\n…\n") {
			i := strings.Index(source[at:], "\n"+strings.Trim(part, "\n")+"\n")
			if i < 0 {
				t.Errorf("block %d of docs/harness.md is not in guide_test.go (any more):\n%s", n+1, part)
				break
			}
			at += i + len(part)
		}
	}
	_ = []any{run, useOne, why, prune, fresh, follow, whoHolds, forget}
}

// trimmed is a file without the indentation of its lines.
func trimmed(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(file))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return "\n" + strings.Join(lines, "\n") + "\n"
}

// goBlocks are the blocks of Go of a text in Markdown.
func goBlocks(text string) (blocks []string) {
	for i, part := range strings.Split(text, "\n```") {
		if code, ok := strings.CutPrefix(part, "go\n"); ok && i%2 == 1 {
			blocks = append(blocks, code)
		}
	}
	return blocks
}
