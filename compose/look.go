package compose

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"

	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/imagelock/imagelock/dockerfile"
	"github.com/imagelock/imagelock/imagecache/docker"
)

// looker looks at what builds are made of.
type looker struct {
	p *Project
	dockerfile.Engine

	mu    sync.Mutex
	bases map[[2]string]func() (base, error) // by reference and platform
	err   error                              // of the engine, the first
}

// base is what a base image brings along.
type base struct{ env, onBuild []string }

func newLooker(p *Project, engine dockerfile.Engine) *looker {
	return &looker{p: p, Engine: engine, bases: map[[2]string]func() (base, error){}}
}

// look finds out what a build needs, and digests what it is made of. Its error is an
// [*Error], or that of ctx.
func (l *looker) look(ctx context.Context, b *build) error {
	text := b.text
	if text == nil {
		var err error
		if text, err = readFile(absolute(b.dir, b.dockerfile)); err != nil {
			return l.p.at(b.service, b.recipeField(), missing(b.recipePath, err))
		}
	}
	opts := dockerfile.Options{Target: b.target, Args: b.args, Contexts: b.contexts}.For(ctx, l)
	if _, _, _, other := parser.DetectSyntax(text); other {
		opts.OldFrontend = false // the frontend is not the engine's own
	}
	src := dockerfile.Source{Dir: b.dir, Dockerfile: b.dockerfile, Text: b.text, Labels: b.labels, Network: b.network, Options: opts}
	in, err := src.Inputs(ctx)
	if err == nil {
		b.inputs, b.needs = in.Digest, in.Needs
		for _, u := range in.Unknown {
			b.unknown = append(b.unknown, b.warning(u))
		}
		for _, d := range in.Dirs {
			for _, u := range d.Whole {
				b.unknown = append(b.unknown, b.warning(u)+": all of the context counts")
			}
		}
		err = b.rewrite(text)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return &Error{Err: context.Cause(ctx)}
	}
	field := b.recipeField()
	if errors.Is(err, dockerfile.ErrNoTarget) {
		field = "build.target"
	}
	return l.p.at(b.service, field, fmt.Errorf("%s: %w", b.recipeName(), err))
}

// rewrite makes the Dockerfile that is sent, where that is no file of the context as it
// is.
func (b *build) rewrite(text []byte) error {
	if b.text != nil {
		if line := b.copiesAll(); line > 0 {
			return fmt.Errorf("%w: line %d copies the whole context, along with which the Dockerfile is sent: "+
				"make the Dockerfile a file in the context, or copy only what is needed", ErrUnsupported, line)
		}
	}
	if len(b.contexts) == 0 {
		return nil
	}
	sent, err := withContexts(text, b.target, b.contexts)
	if err != nil {
		return err
	}
	for _, base := range b.needs.Bases() {
		if base.Context != "" && base.Written != base.Context { // the stage would not be found
			return fmt.Errorf("%w: line %d: %q is the context %s by another name: write %s there", ErrUnsupported,
				base.Line, printed(base.Written), base.Context, base.Context)
		}
	}
	b.sent = sent
	return nil
}

// copiesAll is the line of an instruction that would copy what is sent along with the
// context; 0 if there is none.
func (b *build) copiesAll() int {
	for i := range b.needs.Stages {
		for _, c := range b.needs.Stages[i].Copies {
			if c.From != nil || c.Bind {
				continue
			}
			for _, p := range c.Paths {
				p = strings.TrimPrefix(path.Clean("/"+p), "/")
				if ok, err := path.Match(p, inlineName); p == "" || ok || err != nil || c.Unresolved != "" {
					return c.Line
				}
			}
		}
	}
	return 0
}

// warning says what the digest of b does not know.
func (b *build) warning(u dockerfile.Unknown) string {
	return fmt.Sprintf("service %q: %s: %s", b.service, b.recipeName(), u)
}

func (b *build) recipeField() string {
	if b.inline {
		return "build.dockerfile_inline"
	}
	return "build.dockerfile"
}

// recipeName is how errors call the Dockerfile.
func (b *build) recipeName() string {
	if b.inline {
		return "the inline Dockerfile"
	}
	return b.recipePath
}

// BaseConfig asks the engine once for what services share.
func (l *looker) BaseConfig(ctx context.Context, reference, platform string) (env, onBuild []string, err error) {
	key := [2]string{reference, platform}
	l.mu.Lock()
	get := l.bases[key]
	if get == nil {
		get = sync.OnceValues(func() (base, error) {
			env, onBuild, err := l.Engine.BaseConfig(ctx, reference, platform)
			l.note(err)
			return base{env, onBuild}, err
		})
		l.bases[key] = get
	}
	l.mu.Unlock()
	b, err := get()
	return b.env, b.onBuild, err
}

// note keeps an error after which another look may find something else. A base that is
// absent or for another platform is for the build to complain of: until then it may be got.
func (l *looker) note(err error) {
	if e, ok := errors.AsType[*docker.EngineError](err); !ok || errors.Is(e, docker.ErrMissingBase) || errors.Is(e, docker.ErrBadOption) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}

// failed is what the engine failed with, if it did.
func (l *looker) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
