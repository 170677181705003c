package docker

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"

	"github.com/imagelock/imagelock/internal/contextdir"
)

// contextDir is a context directory that is ready to be sent.
type contextDir struct {
	*contextdir.Dir
	dockerfile string // slash-separated, without symbolic links
	// content is that of the Dockerfile. It is read once: what is sent must
	// be what was looked through for bases.
	content []byte
}

// openContext looks at a context directory and reads its ignore file and its
// Dockerfile, unless that has a text. Its error is a [*ContextError].
func openContext(dir, dockerfile, text string) (*contextDir, error) {
	c := &contextDir{dockerfile: path.Clean(dockerfile), content: []byte(text)}
	var err error
	if c.Dir, err = contextdir.Open(dir); err != nil {
		return nil, badDir(dir, err)
	}
	switch {
	case text == "":
		c.content, c.dockerfile, err = c.Dockerfile(dockerfile)
	case !filepath.IsLocal(filepath.FromSlash(dockerfile)):
		err = &contextdir.Error{Path: dockerfile, Err: contextdir.ErrOutside}
	case len(text) > contextdir.Limit:
		err = &contextdir.Error{Path: dockerfile, Err: fmt.Errorf("has more than %d bytes", contextdir.Limit)}
	}
	if err != nil {
		return nil, badDir(dir, err)
	}
	if err = c.Ignore(dockerfile); err != nil {
		return nil, badDir(dir, err)
	}
	return c, nil
}

// badDir makes a [*ContextError] of what is wrong with dir; other errors stay.
func badDir(dir string, err error) error {
	if e, ok := errors.AsType[*contextdir.Error](err); ok {
		return &ContextError{Dir: dir, Path: e.Path, Err: e.Err}
	}
	return err
}
