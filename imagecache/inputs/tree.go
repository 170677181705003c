package inputs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"github.com/imagelock/imagelock/internal/contextdir"
)

// DirOption is an option of [Inputs.Dir].
type DirOption interface{ apply(*tree) }

type dirOptionFunc func(*tree)

func (f dirOptionFunc) apply(t *tree) { f(t) }

// Dockerfile names the Dockerfile inside the directory, by which it is built: its
// content counts also where it is excluded, and <name>.dockerignore is used instead
// of .dockerignore if there is one. By default neither is looked for.
func Dockerfile(name string) DirOption {
	return dirOptionFunc(func(t *tree) { t.dockerfile = name })
}

// IgnoreOf is [Dockerfile] for those who know what of it counts, such as by a [Inputs.Text] of
// their own: its content counts only where it is a file of the directory like others,
// also if it is excluded, as it is sent all the same.
func IgnoreOf(name string) DirOption {
	return dirOptionFunc(func(t *tree) { t.dockerfile, t.recipeOnly = name, true })
}

// IgnoreFile is [Dockerfile] for one that is no file of the directory: nothing of it
// counts, and <name>.dockerignore is used instead of .dockerignore if there is one.
func IgnoreFile(name string) DirOption {
	return dirOptionFunc(func(t *tree) { t.ignoreFor = name })
}

// Only leaves out all but these paths inside the directory, and what is in them:
// those that a Dockerfile copies, say. They are slash-separated, and may have the
// wildcards of [path.Match]. A path that is a symbolic link, or leads through one,
// counts with what the link points to. It is an error if there is nothing, or only
// something excluded, where a path without wildcards points to, or if a pattern can't look
// into a directory.
func Only(paths ...string) DirOption {
	picks := make([]Pick, len(paths))
	for i, p := range paths {
		picks[i].Path = p
	}
	return Picks(picks...)
}

// tree is a directory whose content counts.
type tree struct {
	path       string
	dockerfile string
	ignoreFor  string
	recipeOnly bool // the Dockerfile counts only as a file of the directory
	only       []Pick
	some       bool // only the paths of only

	dir    *contextdir.Dir
	root   fs.FileInfo
	recipe []byte // the Dockerfile
	// recipeName is its path, without symbolic links.
	recipeName string
	nodes      []*node
}

// encode reads the directory and writes its record.
func (t *tree) encode(ctx context.Context, e *encoder) error {
	run := *t // an Inputs may be digested again
	t = &run
	err := t.open(ctx)
	if err == nil {
		err = t.finish(ctx)
	}
	if err != nil {
		return err
	}
	e.kind(kindDir)
	var recipe *sum
	if t.dockerfile != "" && !t.recipeOnly {
		s := sum(sha256.Sum256(t.recipe))
		recipe = &s
	}
	e.dockerfile(recipe)
	for _, n := range t.nodes {
		e.node(n)
	}
	e.kind(kindEnd)
	return nil
}

// open lists what counts.
func (t *tree) open(ctx context.Context) (err error) {
	if t.dir, err = contextdir.Open(t.path); err != nil {
		return t.fail("", err)
	}
	if t.dockerfile != "" {
		if t.recipe, t.recipeName, err = t.dir.Dockerfile(t.dockerfile); err != nil {
			return t.fail("", err)
		}
	}
	if err = t.dir.Ignore(cmp.Or(t.dockerfile, t.ignoreFor)); err != nil {
		return t.fail("", err)
	}
	if t.root, err = os.Lstat(t.dir.Path); err != nil {
		return t.fail("", err)
	}
	t.nodes, err = t.list(ctx)
	return err
}

// finish reads what was listed.
func (t *tree) finish(ctx context.Context) error {
	if err := t.contents(ctx); err != nil {
		return err
	}
	return t.unchanged(ctx)
}

// list walks the directory. What the nodes have in them is still unread.
func (t *tree) list(ctx context.Context) ([]*node, error) {
	var nodes []*node
	var sel *selection
	if t.some {
		var err error
		if sel, err = selected(t.dir.Path, t.only); err != nil {
			return nil, t.fail("", err)
		}
		nodes = sel.links
	}
	err := t.dir.Walk(ctx, func(rel string, info fs.FileInfo) error {
		if sel != nil {
			if err := sel.unread[filepath.ToSlash(rel)]; err != nil {
				return t.fail(rel, err)
			}
			if take, into := sel.match(filepath.ToSlash(rel)); !take {
				if into {
					return nil
				}
				return fs.SkipDir
			}
		}
		n := newNode(rel, info)
		if n == nil {
			return t.fail(rel, ErrIrregular)
		}
		nodes = append(nodes, n)
		return nil
	})
	if err == nil && t.recipeOnly {
		nodes, err = t.sent(sel, nodes)
	}
	if err == nil && sel != nil {
		err = sel.missing()
	}
	if err != nil {
		return nil, t.fail("", err)
	}
	return nodes, nil
}

// sent adds the Dockerfile if it is excluded but would be copied with the rest.
func (t *tree) sent(sel *selection, nodes []*node) ([]*node, error) {
	if sel != nil {
		if take, _ := sel.match(t.recipeName); !take {
			return nodes, nil
		}
	}
	if slices.ContainsFunc(nodes, func(n *node) bool { return n.name == t.recipeName }) {
		return nodes, nil
	}
	info, err := os.Lstat(filepath.Join(t.dir.Path, filepath.FromSlash(t.recipeName)))
	if err != nil {
		return nil, t.fail(t.recipeName, err)
	}
	n := newNode(t.recipeName, info)
	if n == nil {
		return nil, t.fail(t.recipeName, ErrChanged)
	}
	return append(nodes, n), nil
}

// contents reads the nodes, several at once: as many as there are processors, and a
// few more, which wait for a disk.
func (t *tree) contents(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan *node)
	var wg sync.WaitGroup
	for range min(len(t.nodes), runtime.GOMAXPROCS(0)+2, 32) {
		wg.Go(func() {
			r := newReader()
			for n := range work {
				if err := r.read(ctx, n, filepath.Join(t.dir.Path, filepath.FromSlash(n.name))); err != nil {
					cancel(t.fail(n.name, err))
				}
			}
		})
	}
	for _, n := range t.nodes {
		if ctx.Err() != nil {
			break
		}
		work <- n
	}
	close(work)
	wg.Wait()
	return context.Cause(ctx)
}

// unchanged looks whether the directories have still the entries that were listed.
// Their times show it. A time that is new may come of something that does not
// count: then all is listed again.
func (t *tree) unchanged(ctx context.Context) error {
	same := func(rel string, was fs.FileInfo) bool {
		is, err := os.Lstat(filepath.Join(t.dir.Path, filepath.FromSlash(rel)))
		return err == nil && os.SameFile(was, is) && is.ModTime().Equal(was.ModTime())
	}
	ok := same("", t.root)
	for _, n := range t.nodes {
		ok = ok && (n.kind != kindDir || same(n.name, n.info))
	}
	if ok {
		return nil
	}
	again, err := t.list(ctx)
	if err != nil {
		return err
	}
	for i, n := range t.nodes {
		if i >= len(again) || again[i].name != n.name {
			return t.fail(n.name, ErrChanged)
		}
		was, is := n.info, again[i].info
		if !os.SameFile(was, is) || was.Mode() != is.Mode() || n.kind == kindFile && (was.Size() != is.Size() || !was.ModTime().Equal(is.ModTime())) {
			return t.fail(n.name, ErrChanged)
		}
	}
	if len(again) > len(t.nodes) {
		return t.fail(again[len(t.nodes)].name, ErrChanged)
	}
	return nil
}

// fail names what is concerned, unless err does.
func (t *tree) fail(rel string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*contextdir.Error](err); ok {
		rel, err = e.Path, e.Err
	}
	return &Error{Path: filepath.Join(t.path, filepath.FromSlash(rel)), Err: err}
}
