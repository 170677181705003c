package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
)

// execute makes a run and removes what it has made.
func execute(ctx context.Context, processes int) (r *report, err error) {
	engine, err := docker.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer engine.Close()
	if !strings.HasPrefix(engine.Platform(), "linux/") {
		return nil, fmt.Errorf("the engine runs containers for %s, not for linux", engine.Platform())
	}
	j, err := newJob()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, clean(engine, j.Run), os.RemoveAll(j.Dir)) }()
	if err := j.prepare(ctx, engine); err != nil {
		return nil, err
	}
	u, err := openUser(ctx, j)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, u.close()) }()
	r = &report{Processes: processes}
	return r, u.scenes(ctx, r)
}

// scenes are what happens, one after another.
func (u *user) scenes(ctx context.Context, r *report) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	volumes, err := u.watch(ctx)
	if err != nil {
		return err
	}
	if r.FillMS, err = u.all(ctx, r); err != nil {
		return err
	}
	old, err := u.words(ctx)
	if err != nil {
		return err
	}
	defer old.Release()
	reader, err := u.read(ctx, old)
	if err != nil {
		return err
	}
	if err := old.Release(); err != nil {
		return err
	}
	built := r.Builds
	if err := u.writeWords(2); err != nil {
		return err
	}
	if r.ChangeMS, err = u.all(ctx, r); err != nil {
		return err
	}
	r.BuildsAfterChange = r.Builds - built

	current, err := u.words(ctx)
	if err != nil {
		return err
	}
	defer current.Release()
	if current.ID == old.ID {
		r.fail("the changed words are in the old volume %s", old.ID)
	}
	if err := u.retire(ctx, r, reader, old); err != nil {
		return err
	}
	if r.Fills, err = volumes(); err != nil {
		return err
	}
	r.want("volumes filled", r.Fills, 3)
	r.want("images built", r.Builds, 1)
	r.want("images built after the change", r.BuildsAfterChange, 0)
	r.want("containers that found what they should", r.Containers, 2*r.Processes)
	r.want("packs asked for", r.Waits+r.Present+3, 4*r.Processes)
	return nil
}

// all lets all processes use the packs at the same time.
func (u *user) all(ctx context.Context, r *report) (ms int64, err error) {
	var all []*process
	defer func() {
		for _, p := range all {
			if werr := p.wait(); werr != nil && err == nil && ctx.Err() == nil {
				err = fmt.Errorf("a process: %w", werr)
			}
		}
	}()
	for range r.Processes {
		p, err := startProcess(ctx, u.job)
		if err != nil {
			return 0, err
		}
		all = append(all, p)
	}
	for _, p := range all {
		if err := p.ready(); err != nil {
			return 0, err
		}
	}
	begun := time.Now()
	outcomes, errs := make([]outcome, len(all)), make([]error, len(all))
	var wg sync.WaitGroup
	for i, p := range all {
		wg.Go(func() { outcomes[i], errs[i] = p.do() })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	for i, o := range outcomes {
		if err := errs[i]; err != nil {
			return 0, err
		}
		r.add(o)
	}
	return time.Since(begun).Milliseconds(), nil
}

func (r *report) add(o outcome) {
	if o.Err != "" {
		r.fail("%s", o.Err)
		return
	}
	r.Containers++
	if o.Image == imagecache.Built.String() {
		r.Builds++
	}
	for _, pack := range []string{o.Words, o.Tools} {
		switch pack {
		case imagecache.Appeared.String():
			r.Waits++
		case imagecache.Existing.String():
			r.Present++
		}
	}
}

// read starts a container that reads the words until it is stopped, and waits until it
// does.
func (u *user) read(ctx context.Context, words imagecache.Result) (id string, err error) {
	want, err := digestWords(u.wordsDir())
	if err != nil {
		return "", err
	}
	if id, err = u.start(ctx, []string{"/helper", "read", want}, docker.VolumeMount(words.ID, "/packs/words")); err != nil {
		return "", err
	}
	for end := time.Now().Add(30 * time.Second); ; {
		out, err := u.output(ctx, id)
		switch {
		case err != nil:
			return "", err
		case out == "reading":
			return id, nil
		case out != "" || time.Now().After(end):
			return "", fmt.Errorf("the container that should read the words: %q", out)
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// retire removes the old words: not while they are read, and then at once.
func (u *user) retire(ctx context.Context, r *report, reader string, old imagecache.Result) error {
	prune := func() (imagecache.PruneReport, error) {
		return u.packs.Prune(ctx, imagecache.Labelled(docker.LabelPack, u.packName("words")))
	}
	report, err := prune()
	if err != nil {
		return err
	}
	if len(report.Removed) > 0 {
		r.fail("removed while it was in use: %v", report.Removed)
	}
	why := map[string]imagecache.Reason{}
	for _, k := range report.Kept {
		why[k.ID] = k.Reason
	}
	if why[old.ID] != imagecache.ReasonContainer {
		r.fail("the old words %s are kept because: %v", old.ID, why[old.ID])
	}
	if err := u.engine.Client().ContainerStop(ctx, reader, container.StopOptions{}); err != nil {
		return err
	}
	out, err := u.end(ctx, reader)
	if err != nil {
		r.fail("who read the old words was disturbed: %v", err)
	} else if r.Reads, err = strconv.Atoi(out[strings.LastIndexByte(out, '\n')+1:]); err != nil || r.Reads < 2 {
		r.fail("who read the old words has said: %q", out)
	}
	if report, err = prune(); err != nil {
		return err
	}
	for _, p := range report.Removed {
		if r.Removed++; p.ID != old.ID {
			r.fail("removed: %s", p.ID)
		}
	}
	r.want("old versions removed", r.Removed, 1)
	return nil
}
