//go:build unix

package imagecache_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"

	"github.com/imagelock/imagelock/imagecache"
)

// A store needs two methods. In this one an image is a file, and its digest the ID.
type fileStore struct{ dir string }

func (s fileStore) Identity(context.Context) (string, error) { return "files", nil }

func (s fileStore) Probe(_ context.Context, ref string) (imagecache.Presence, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, filepath.Base(ref)))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return imagecache.Presence{State: imagecache.Absent}, nil
	case err != nil:
		return imagecache.Presence{}, err // not known: nothing is built
	}
	return imagecache.Presence{State: imagecache.Present, ID: fmt.Sprintf("sha256:%x", sha256.Sum256(b))}, nil
}

// Any program can be the build, with a store of one's own.
func ExampleCommand() {
	dir, err := os.MkdirTemp("", "files-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	cache, err := imagecache.Open(ctx, fileStore{dir}, imagecache.WithDir(filepath.Join(dir, "cache")))
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close()

	res, err := cache.Ensure(ctx, imagecache.Image{
		Tag: "app:v1",
		Build: imagecache.Command{
			Args: []string{"sh", "-c", `echo "building $IMAGELOCK_REFERENCE"; echo content > "${IMAGELOCK_REFERENCE##*/}"`},
			Dir:  dir,
		}.Build,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer res.Release()
	fmt.Println(res.Outcome, res.ID[:20])

	// What it printed is in the log; its last lines are in the error if it fails.
	_, err = cache.Ensure(ctx, imagecache.Image{
		Tag:   "broken:v1",
		Build: imagecache.Command{Args: []string{"sh", "-c", "echo no rule to make target; exit 2"}}.Build,
	})
	if e, ok := errors.AsType[*imagecache.CommandError](err); ok {
		fmt.Println("exit code", e.ExitCode, e.Lines)
	}
	// Output:
	// built sha256:434728a410a78
	// exit code 2 [no rule to make target]
}
