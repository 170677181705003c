package dockerfile

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imagelock/imagelock/imagecache"
)

type platform = ocispecs.Platform

// walk goes through the instructions of stage i.
func (s *scan) walk(i int, namespace string) error {
	w := &walk{scan: s, out: &s.out[i], namespace: namespace}
	w.begin()
	s.envs[i] = w.env
	w.out.recipe = s.lines[i]
	for _, c := range s.stages[i].Commands {
		w.line = lineOf(c.Location())
		if err := w.command(c); err != nil {
			return wordError(err, w.line)
		}
	}
	s.dirs[i] = w.dir
	return nil
}

// walk is the way through one stage.
type walk struct {
	*scan
	out       *Stage
	env       *env
	dir       string // WORKDIR; empty if it is not known
	line      int
	namespace string
	unknown   []string // variables of the instruction that are not known
}

// begin sets what the stage begins with.
func (w *walk) begin() {
	b := w.out.Base
	for _, t := range w.onBuild[w.out.Index] {
		w.trigger(t)
	}
	switch {
	case b.Stage >= 0:
		w.env, w.dir = w.envs[b.Stage].child(), w.dirs[b.Stage]
	case b.Reference == scratch, b.Context != "" && isDir(w.opts.Contexts, b.Context):
		w.env, w.dir = newEnv(true), "/"
	default:
		w.env = newEnv(false)
		if !w.isImage(b) || w.opts.BaseEnv == nil {
			break
		}
		list, known := w.opts.BaseEnv(b.Reference, b.Platform)
		w.env.complete = known
		for _, kv := range list {
			if k, v, ok := strings.Cut(kv, "="); ok {
				w.env.set(k, variable{value: v})
				w.env.image[k] = variable{value: v}
			}
		}
	}
	if _, ok := w.env.vars["PATH"]; !ok {
		w.env.vars["PATH"] = variable{unknown: true} // BuildKit sets one
	}
}

// word expands a word in the environment so far, and notes what is not known of it.
func (w *walk) word(word string) (string, error) {
	v, unknown, err := w.env.expand(w.lex, word)
	w.unknown = append(w.unknown, unknown...)
	return v, err
}

func (w *walk) command(c instructions.Command) error {
	w.unknown = nil
	switch c := c.(type) {
	case *instructions.EnvCommand:
		return w.setEnv(c)
	case *instructions.ArgCommand:
		return w.setArgs(c)
	case *instructions.WorkdirCommand:
		p, err := w.word(c.Path)
		if err != nil {
			return err
		}
		switch {
		case len(w.unknown) > 0:
			w.dir = ""
		case path.IsAbs(p):
			w.dir = path.Clean(p)
		case w.dir != "":
			w.dir = path.Join(w.dir, p)
		}
	case *instructions.CopyCommand:
		cp := Copy{Exclude: c.ExcludePatterns, Parents: c.Parents}
		if c.From != "" {
			if strings.Contains(c.From, "$") {
				return fmt.Errorf("--from=%s: variables are not expanded here; give a stage its name by FROM", c.From)
			}
			cp.From = w.base(c.From, w.line)
		}
		return w.copied(cp, c.SourcePaths, "")
	case *instructions.AddCommand:
		return w.copied(Copy{Exclude: c.ExcludePatterns}, c.SourcePaths, c.Checksum)
	case *instructions.RunCommand:
		return w.run(c)
	}
	return nil
}

func (w *walk) setEnv(c *instructions.EnvCommand) error {
	set := map[string]variable{}
	for _, kv := range c.Env { // all of them see what was before
		w.unknown = nil
		v, err := w.word(kv.Value)
		if err != nil {
			return err
		}
		k, err := w.word(kv.Key)
		if err != nil {
			return err
		}
		set[k] = variable{v, len(w.unknown) > 0}
	}
	for k, v := range set {
		w.env.set(k, v)
		w.env.image[k] = v
	}
	return nil
}

func (w *walk) setArgs(c *instructions.ArgCommand) error {
	for _, a := range c.Args { // each sees those before
		w.unknown = nil
		if err := w.setArg(a); err != nil {
			return err
		}
		w.note(a.Key)
	}
	return nil
}

func (w *walk) setArg(a instructions.KeyValuePairOptional) error {
	if given, ok := w.opts.Args[a.Key]; ok {
		w.env.set(a.Key, variable{value: given})
		return nil
	}
	if a.Value == nil {
		if v, ok := w.global.vars[a.Key]; ok {
			w.env.set(a.Key, v)
		}
		return nil
	}
	v, err := w.word(*a.Value)
	if err != nil {
		return err
	}
	w.env.set(a.Key, variable{v, len(w.unknown) > 0})
	return nil
}

// copied notes what a COPY or an ADD takes.
func (w *walk) copied(c Copy, sources []string, checksum string) error {
	c.Line = w.line
	checksum, err := w.word(checksum)
	if err != nil {
		return err
	}
	for _, src := range sources {
		p, err := w.word(src)
		if err != nil {
			return err
		}
		if c.From == nil && remote(p) {
			w.out.Fetches = append(w.out.Fetches, Fetch{URL: p, Checksum: checksum, Line: w.line})
			continue
		}
		c.Paths = append(c.Paths, p)
	}
	exclude := make([]string, len(c.Exclude))
	for i, p := range c.Exclude {
		if exclude[i], err = w.word(p); err != nil {
			return err
		}
	}
	if len(exclude) > 0 {
		c.Exclude = exclude
	}
	c.Unresolved = whyUnknown(compact(w.unknown))
	if len(c.Paths) > 0 {
		w.out.Copies = append(w.out.Copies, c)
	}
	return nil
}

// cache is a cache mount as imagecache knows it.
func (w *walk) cache(m *instructions.Mount) (imagecache.Mount, error) {
	sharing, err := imagecache.ParseSharing(string(m.CacheSharing))
	if err != nil {
		return imagecache.Mount{}, err
	}
	c := imagecache.Mount{
		ID: m.CacheID, Target: join(w.dir, m.Target), Sharing: sharing,
		Namespace: w.namespace, From: m.From, Run: w.line,
	}
	if c.ID == "" {
		c.ID = path.Clean(m.Target)
	}
	if target := path.Clean("/" + m.Target); target == "/" {
		return c, errors.New("a mount's target is missing, or is the root")
	}
	// Of a cache that begins as a part of something else the owner is that one's.
	if src := path.Join("/", m.Source); src == "/" {
		c.UID, c.GID, c.Mode = m.UID, m.GID, m.Mode
	}
	if c.From == scratch {
		c.From = ""
	}
	return c, nil
}

func compact(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// parsePlatform is the platform of that name, or another if it has none.
func parsePlatform(name string, d platform) (platform, error) {
	if name == "" {
		return d, nil
	}
	p, err := platforms.Parse(name)
	if err != nil {
		return platform{}, err
	}
	return platforms.Normalize(p), nil
}

func isTooLarge(err error) bool { return errors.Is(err, ErrTooLarge) }

var _ shell.EnvGetter = (*env)(nil)
