package imagecache_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

func TestCommandRefusesBadInputBeforeItStartsAnything(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{me, "-test.run=^$"}
	for name, c := range map[string]imagecache.Command{
		"no arguments":       {},
		"empty program":      {Args: []string{"", "x"}},
		"negative grace":     {Args: args, Grace: -time.Second},
		"missing directory":  {Args: args, Dir: file + "-missing"},
		"file for directory": {Args: args, Dir: file},
		"variable, no value": {Args: args, Env: []string{"A=b", "TOKEN"}},
		"variable, no name":  {Args: args, Env: []string{"=x"}},
	} {
		var log strings.Builder
		err := c.Build(context.Background(), &imagecache.Build{Reference: "docker.io/library/x:1", Log: &log})
		var ce *imagecache.CommandError
		if !errors.Is(err, imagecache.ErrBadOption) || !errors.As(err, &ce) || ce.ExitCode != -1 || log.Len() != 0 {
			t.Errorf("%s: got %v, log %q", name, err, log.String())
		}
		t.Logf("%s: %v", name, err)
	}
}

func TestCommandNamesAMissingProgram(t *testing.T) {
	dir := t.TempDir()
	for _, program := range []string{"imagelock-no-such-program", filepath.Join(dir, "missing"), "." + string(filepath.Separator) + "missing"} {
		err := imagecache.Command{Args: []string{program}, Dir: dir}.Build(context.Background(), &imagecache.Build{Log: io.Discard})
		var ce *imagecache.CommandError
		if !errors.Is(err, exec.ErrNotFound) || !errors.As(err, &ce) || ce.Program != program {
			t.Errorf("%s: got %v", program, err)
		}
		t.Log(err)
	}
}

func TestCommandDoesNotStartOnceTheContextEnded(t *testing.T) {
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("everybody has gone")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	var log strings.Builder
	err = imagecache.Command{Args: []string{me, "-test.run=^$"}}.Build(ctx, &imagecache.Build{Log: &log})
	if !errors.Is(err, cause) || !errors.Is(err, context.Canceled) || log.Len() != 0 {
		t.Errorf("got %v, log %q", err, log.String())
	}
}
