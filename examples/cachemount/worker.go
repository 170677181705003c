package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/imagelock/imagelock/dockerfile"
	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
)

// jobEnv has the job of a worker process.
const jobEnv = "IMAGELOCK_CACHEMOUNT_JOB"

// job is what one process builds: an image, or a plan of several.
type job struct {
	Cache string // of imagecache
	Dir   string // for contexts
	Units []unit
	Limit time.Duration // of a build
}

// outcome is what a worker says of an image.
type outcome struct {
	Tries []try
	Alone bool // the last one
	Hung  bool
	Err   string
}

// try is one run of a build function.
type try struct {
	Begun time.Time
	Took  time.Duration
}

// work does a job, once it is told to on standard input.
func work(ctx context.Context, text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	store, err := docker.Open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	images, err := imagecache.Open(ctx, store, imagecache.WithDir(j.Cache), imagecache.WithSlots(16), imagecache.WithBuildLimit(j.Limit))
	if err != nil {
		return err
	}
	defer images.Close()
	plan, tries := make([]imagecache.Image, len(j.Units)), make([]tries, len(j.Units))
	for i, u := range j.Units {
		if plan[i], err = u.image(ctx, store, filepath.Join(j.Dir, fmt.Sprint(i)), &tries[i]); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	results := make([]imagecache.Result, 1)
	if len(plan) == 1 {
		results[0], err = images.Ensure(ctx, plan[0])
	} else {
		results, err = images.EnsureAll(ctx, plan)
	}
	outcomes := make([]outcome, len(plan))
	for i := range outcomes {
		o := &outcomes[i]
		o.Tries = tries[i].all
		if i < len(results) {
			o.Alone = results[i].Alone
			_ = results[i].Release()
		}
		if err != nil {
			o.Err, o.Hung = err.Error(), errors.Is(err, imagecache.ErrBuildLimit)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(outcomes)
}

// image is u as imagecache knows it, with its context in dir.
func (u *unit) image(ctx context.Context, store *docker.Store, dir string, tries *tries) (imagecache.Image, error) {
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(u.Dockerfile), 0o644)); err != nil {
		return imagecache.Image{}, err
	}
	build := store.BuildContext(docker.ContextBuild{Dir: dir, Args: u.Args, NetworkMode: "none"})
	img := imagecache.Image{Tag: u.Tag, Parents: u.Parents, Build: func(ctx context.Context, b *imagecache.Build) error {
		defer tries.begin()()
		return build(ctx, b)
	}}
	if !u.Declared {
		return img, nil
	}
	needs, err := dockerfile.Scan(strings.NewReader(u.Dockerfile), dockerfile.Options{Args: u.Args}.For(ctx, store))
	if err == nil {
		img.Mounts = needs.Mounts()
	}
	return img, err
}

// tries are those of one image.
type tries struct {
	mu  sync.Mutex
	all []try
}

func (t *tries) begin() (end func()) {
	begun := time.Now()
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.all = append(t.all, try{begun, time.Since(begun)})
	}
}

// worker is the process of a job.
type worker struct {
	cmd *exec.Cmd
	in  interface{ Write([]byte) (int, error) }
	out *bufio.Reader
	err bytes.Buffer
}

// start starts a worker, and returns when it is ready.
func start(ctx context.Context, j job) (*worker, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &worker{cmd: exec.CommandContext(ctx, self)}
	w.cmd.Env = append(os.Environ(), jobEnv+"="+string(text))
	w.cmd.Stderr = &w.err
	in, err := w.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.in, w.out = in, bufio.NewReader(out)
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	if line, err := w.out.ReadString('\n'); err != nil || line != "ready\n" {
		_ = w.cmd.Wait()
		return nil, fmt.Errorf("a worker did not start: %q, %v: %s", line, err, w.err.String())
	}
	return w, nil
}

// do lets it build, and returns what became of it.
func (w *worker) do() (o []outcome, err error) {
	if _, err = w.in.Write([]byte("go\n")); err == nil {
		err = json.NewDecoder(w.out).Decode(&o)
	}
	return o, err
}

// end waits for its end.
func (w *worker) end() error {
	if err := w.cmd.Wait(); err != nil {
		return fmt.Errorf("a worker: %w: %s", err, w.err.String())
	}
	return nil
}
