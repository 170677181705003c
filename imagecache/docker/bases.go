package docker

import (
	"context"
	"fmt"
	"strings"

	"github.com/distribution/reference"
)

// checkBases looks for the bases of a Dockerfile in the store, so that the build
// pulls none. Its error is a [*BaseError].
func (s *Store) checkBases(ctx context.Context, spec ContextBuild, dockerfile []byte) error {
	args := newBuildArgs(spec, s.engine.platform, s.platform)
	seen := map[string]bool{}
	for _, b := range scan(dockerfile, spec.Target, args) {
		fail := func(err error) error {
			return &BaseError{Base: printable(clip(b.ref, 300)), Dockerfile: spec.Dockerfile, Line: b.line, Err: err}
		}
		if b.err != nil {
			return fail(b.err)
		}
		named, err := reference.ParseNormalizedNamed(b.ref)
		if err != nil {
			return fail(fmt.Errorf("%w: %w", ErrUnresolvedBase, err))
		}
		named = reference.TagNameOnly(named)
		want := s.platform
		if b.platform != (platform{}) {
			want = b.platform
		}
		if key := named.String() + " " + want.String(); !seen[key] {
			seen[key] = true
			if err := s.checkBase(ctx, named, want); err != nil {
				return fail(err)
			}
		}
	}
	return nil
}

func (s *Store) checkBase(ctx context.Context, named reference.Named, want platform) error {
	rctx, cancel := limit(ctx, s.requestLimit)
	defer cancel()
	img, err := s.find(rctx, digested(named), want)
	if err == nil && img == nil {
		err = ErrMissingBase
	}
	return err
}

// digested leaves out the tag of a name with a digest: an engine looks for that under the
// name alone.
func digested(named reference.Named) reference.Named {
	if d, ok := named.(reference.Digested); ok {
		if c, err := reference.WithDigest(reference.TrimNamed(named), d.Digest()); err == nil {
			return c
		}
	}
	return named
}

// buildArgs are the variables that a FROM may use.
type buildArgs struct {
	given  map[string]string // by the caller
	values map[string]string // declared by ARG before the first FROM, or built in
	broken map[string]error
}

func newBuildArgs(spec ContextBuild, engine, target platform) *buildArgs {
	a := &buildArgs{given: spec.Args, values: map[string]string{}, broken: map[string]error{}}
	for prefix, p := range map[string]platform{"BUILD": engine, "TARGET": target} {
		for name, v := range map[string]string{"OS": p.os, "ARCH": p.arch, "PLATFORM": p.String(), "VARIANT": p.variant} {
			a.values[prefix+name] = v
		}
		if p.arch == "arm" && p.variant == "" { // the engine has one, and did not say which
			for _, name := range []string{"PLATFORM", "VARIANT"} {
				a.broken[prefix+name] = &unresolved{"${" + prefix + name + "}: the engine does not say which variant of arm it is"}
			}
		}
	}
	a.broken["TARGETSTAGE"] = &unresolved{"${TARGETSTAGE}"}
	for k := range a.values {
		// Named by the caller they are the caller's.
		if v, ok := a.given[k]; ok {
			a.values[k] = v
			delete(a.broken, k)
		}
	}
	return a
}

// declare takes note of an ARG instruction.
func (a *buildArgs) declare(rest string, x expander) {
	for _, w := range words(rest, x.escape) {
		if w[0] == '"' || w[0] == '\'' { // the whole of it is quoted
			if q, err := x.expand(w); err == nil {
				w = q
			}
		}
		name, value, set := strings.Cut(w, "=")
		if name, _ := varName(name); name == "" {
			continue
		}
		if v, ok := a.given[name]; ok {
			a.values[name] = v
			delete(a.broken, name)
			continue
		}
		if !set {
			continue
		}
		v, err := x.expand(value)
		if err != nil {
			a.broken[name] = err
			continue
		}
		a.values[name] = v
		delete(a.broken, name)
	}
}

func (a *buildArgs) lookup(name string) (string, bool, error) {
	if err := a.broken[name]; err != nil {
		return "", false, err
	}
	v, ok := a.values[name]
	return v, ok, nil
}
