package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
)

//go:embed helper/main.go.txt
var helperSource []byte

// lab is a run of the command.
type lab struct {
	options
	run   string // names what it leaves in the engine until the end
	base  string // the image that all services stand on
	dir   string
	store *docker.Store

	mu   sync.Mutex
	tags []string
}

func open(ctx context.Context, o options) (*lab, error) {
	var id [5]byte
	_, _ = rand.Read(id[:])
	l := &lab{options: o, run: "imagelock-cachemount-" + hex.EncodeToString(id[:])}
	l.base = l.run + "-base:0"
	var err error
	if l.store, err = docker.Open(ctx); err != nil {
		return nil, err
	}
	if l.dir, err = os.MkdirTemp("", "cachemount-*"); err == nil {
		err = l.makeBase(ctx)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// makeBase builds the image that has what the services run.
func (l *lab) makeBase(ctx context.Context) error {
	src, dir := filepath.Join(l.dir, "src"), filepath.Join(l.dir, "base")
	err := errors.Join(os.Mkdir(src, 0o755), os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(src, "main.go"), helperSource, 0o644),
		os.WriteFile(filepath.Join(src, "go.mod"), []byte("module helper\n\ngo 1.24\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY helper /"+l.helper()+"\n"), 0o644))
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "helper"), ".")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+strings.Split(l.store.Platform(), "/")[1], "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	images, err := imagecache.Open(ctx, l.store, imagecache.WithDir(filepath.Join(l.dir, "cache")))
	if err != nil {
		return err
	}
	defer images.Close()
	res, err := images.Ensure(ctx, imagecache.Image{Tag: l.base, Build: l.store.BuildContext(docker.ContextBuild{Dir: dir, NetworkMode: "none"})})
	if err == nil {
		err = res.Release()
	}
	return err
}

// keep notes a tag that is to be removed.
func (l *lab) keep(tag string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tags = append(l.tags, tag)
}

// clean removes what the rounds so far have made: the next ones should not have more to
// look through. What others have made it leaves, and what the engine keeps of contexts.
func (l *lab) clean(ctx context.Context) error {
	for _, tag := range slices.Backward(l.tags) { // one may stand on another
		_, _ = l.store.Client().ImageRemove(ctx, tag, image.RemoveOptions{})
	}
	l.tags = nil
	usage, err := l.store.Client().DiskUsage(ctx, types.DiskUsageOptions{Types: []types.DiskUsageObject{types.BuildCacheObject}})
	if err != nil {
		return err
	}
	var ids []string
	for _, r := range usage.BuildCache {
		if r != nil && strings.Contains(r.Description, l.run) {
			ids = append(ids, r.ID)
		}
	}
	for some := range slices.Chunk(ids, 100) { // the engine takes one pattern at a time
		pattern := filters.NewArgs(filters.Arg("id", `"^(`+strings.Join(some, "|")+`)$"`))
		if _, err := l.store.Client().BuildCachePrune(ctx, build.CachePruneOptions{All: true, Filters: pattern}); err != nil {
			return err
		}
	}
	return nil
}

// close removes what the run has made.
func (l *lab) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l.keep(l.base)
	for end := time.Now().Add(10 * time.Second); l.clean(ctx) != nil && time.Now().Before(end); {
		time.Sleep(200 * time.Millisecond) // old engines count for one at a time
	}
	if err := errors.Join(l.clean(ctx), os.RemoveAll(l.dir), l.store.Close()); err != nil {
		log.Print(err)
	}
}
