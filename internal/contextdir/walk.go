package contextdir

import (
	"context"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/moby/patternmatcher"
)

// folder is a directory on the way down to the current file.
type folder struct {
	rel     string
	info    fs.FileInfo
	match   patternmatcher.MatchInfo
	skipped bool // excluded, and so far with nothing in it that is not
}

// Walk calls visit for all that is not excluded, a directory before what is in it
// and names in their order; sockets are left out, which programs leave where they
// run and nobody could use. Paths are the system's, relative to the directory. An
// error of visit ends the walk and is returned; [fs.SkipDir] from a directory only
// skips what is in it.
func (d *Dir) Walk(ctx context.Context, visit func(rel string, info fs.FileInfo) error) error {
	var way []folder
	return filepath.WalkDir(d.Path, func(path string, e fs.DirEntry, err error) error {
		rel, rerr := filepath.Rel(d.Path, path)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			err = rerr
		}
		if err != nil {
			return fail(rel, err)
		}
		if rel == "." {
			return nil
		}
		for len(way) > 0 && !strings.HasPrefix(rel, way[len(way)-1].rel+string(filepath.Separator)) {
			way = way[:len(way)-1]
		}
		excluded, match, err := d.excluded(rel, way)
		if err != nil {
			return fail(rel, err)
		}
		if e.IsDir() {
			if excluded && !d.mayInclude(rel) {
				return filepath.SkipDir
			}
		} else if excluded || e.Type()&fs.ModeSocket != 0 {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return fail(rel, err)
		}
		if e.IsDir() {
			way = append(way, folder{rel, info, match, excluded})
			if excluded {
				return nil
			}
		}
		// An excluded directory counts once something in it does.
		for i := range way {
			if way[i].skipped {
				way[i].skipped = false
				if err := visit(way[i].rel, way[i].info); err != nil && err != fs.SkipDir {
					return err
				}
			}
		}
		if err = visit(rel, info); err == fs.SkipDir && !e.IsDir() {
			err = nil
		}
		return err
	})
}
