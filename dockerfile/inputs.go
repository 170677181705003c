package dockerfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/platforms"

	"github.com/imagelock/imagelock/imagecache/inputs"
	"github.com/imagelock/imagelock/internal/contextdir"
	"github.com/imagelock/imagelock/internal/printable"
)

// Source is what an image is built from.
type Source struct {
	// Dir is the directory that is the build's context.
	Dir string
	// Dockerfile is the Dockerfile's path inside Dir. By default it is "Dockerfile".
	Dockerfile string
	// Text is the Dockerfile's content, if it is no file of Dir. Dockerfile then names
	// nothing but the ignore file inside Dir, "<Dockerfile>.dockerignore" if there is
	// one.
	Text []byte
	// Labels are set on the image by the build.
	Labels map[string]string
	// Network is the network of RUN steps, such as "none". By default it is "default".
	Network string

	Options
}

// Inputs are what an image is made of.
type Inputs struct {
	// Digest is for [imagecache.Image].Inputs.
	Digest string
	// Needs is what the Dockerfile needs. The IDs of its bases are not in the digest:
	// they are the image's parents, whose IDs imagecache adds.
	Needs *Needs
	// Dirs are the directories of which something counts: the build's context, then
	// the named ones.
	Dirs []InputDir
	// Unknown is what the image is made of and the digest does not know: what is
	// downloaded, and contexts elsewhere.
	Unknown []Unknown
}

// InputDir is what counts of a directory.
type InputDir struct {
	// Name is that of a named context; empty for the build's own.
	Name string
	Path string
	// Paths are what is copied, as the Dockerfile has it.
	Paths []string
	// Whole says, if all of it counts although not all may be copied, why.
	Whole []Unknown

	picks []inputs.Pick
	lines []int // of the picks
}

// Inputs digests what counts for the image: the text of the stages that the target
// needs as far as it does something, with the build arguments they declare; the platform;
// the labels; the network; and, of the context and of named ones, the files that those stages copy,
// add or mount, without what .dockerignore excludes. So a file that is not copied, a
// stage that is not needed and a comment change nothing.
//
// Where it can't be told which files are copied all of the directory counts, and
// [InputDir].Whole says why: a variable that only the base image knows, ONBUILD, a base
// of which the engine can't tell whether it has one ([Options.For]: an image for another
// platform), or a frontend that is not Docker's (# syntax=). What can't be known at all is in
// [Inputs].Unknown. Neither proxies nor what is in cache mounts count, as for BuildKit.
// The environment of a RUN's secrets does not, either.
//
// It takes as long as reading those files does, and ends with the error of ctx soon after
// that. Every other error is an [*Error]: those of [Scan], and those of package inputs,
// such as one that wraps [fs.ErrNotExist] for a path that is to be copied and is not
// there, with the line that copies it.
func (s Source) Inputs(ctx context.Context) (*Inputs, error) {
	if s.Dockerfile == "" && s.Text == nil {
		s.Dockerfile = "Dockerfile"
	}
	text, err := s.text()
	if err != nil {
		return nil, &Error{Err: err}
	}
	needs, err := Scan(bytes.NewReader(text), s.Options)
	if err != nil {
		return nil, err
	}
	in := &Inputs{Needs: needs}
	all := in.collect(&s)
	platform, _, _ := s.platforms()
	i := inputs.New().Text("dockerfile").Text(platforms.FormatAll(platform)).Text(needs.recipe())
	if all {
		i.Text(string(text))
	}
	for k, v := range s.Args {
		if all || affects(k) {
			i.Arg("arg "+k, v)
		}
	}
	for k, v := range s.Labels {
		i.Arg("label "+k, v)
	}
	if s.Network != "" && s.Network != "default" {
		i.Arg("network", s.Network)
	}
	for k, v := range s.Contexts {
		if !isDir(s.Contexts, k) {
			i.Arg("context "+k, v)
		}
	}
	for _, d := range in.Dirs {
		var opts []inputs.DirOption
		if d.Name == "" && s.Text == nil {
			opts = append(opts, inputs.IgnoreOf(s.Dockerfile))
		} else if d.Name == "" {
			opts = append(opts, inputs.IgnoreFile(s.Dockerfile))
		}
		if d.Whole == nil {
			opts = append(opts, inputs.Picks(d.picks...))
		}
		i.Text("context "+d.Name).Dir(d.Path, opts...)
	}
	if in.Digest, err = i.Digest(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, in.locate(err)
	}
	return in, nil
}

// affects tells whether a build argument counts that no stage declares.
func affects(name string) bool {
	return name == "SOURCE_DATE_EPOCH" || strings.HasPrefix(name, "BUILDKIT_") && name != "BUILDKIT_CACHE_MOUNT_NS"
}

func (s *Source) text() ([]byte, error) {
	if s.Text != nil {
		return s.Text, nil
	}
	dir, err := contextdir.Open(s.Dir)
	if err == nil {
		var text []byte
		if text, _, err = dir.Dockerfile(s.Dockerfile); err == nil {
			return text, nil
		}
	}
	if e, ok := errors.AsType[*contextdir.Error](err); ok {
		return nil, &inputs.Error{Path: filepath.Join(s.Dir, filepath.FromSlash(e.Path)), Err: e.Err}
	}
	return nil, err
}

// collect finds which directories count, and what of them. All of everything does if it
// returns true.
func (in *Inputs) collect(s *Source) (all bool) {
	dirs := map[string]*InputDir{}
	dir := func(name string) *InputDir {
		if dirs[name] == nil {
			dirs[name] = &InputDir{Name: name, Path: s.Contexts[name]}
			if name == "" {
				dirs[name].Path = s.Dir
			}
		}
		return dirs[name]
	}
	whole := func(u Unknown) {
		dir("").Whole = append(dir("").Whole, u)
		for name := range s.Contexts {
			if isDir(s.Contexts, name) {
				dir(name).Whole = append(dir(name).Whole, u)
			}
		}
	}
	for i, frontend := range []string{s.Args["BUILDKIT_SYNTAX"], in.Needs.Syntax} {
		if !dockers(frontend) {
			all = true
			whole(Unknown{Line: i * in.Needs.syntaxLine, Why: fmt.Sprintf("the frontend %q is not Docker's", clip(frontend, 200))})
		}
	}
	elsewhere := map[string]int{}
	take := func(c Copy) {
		name := ""
		switch {
		case c.From != nil && (c.From.Context == "" || c.From.Reference != ""):
			return
		case c.From != nil:
			name = c.From.Context
		}
		if name != "" && !isDir(s.Contexts, name) {
			if _, ok := elsewhere[name]; !ok && remote(s.Contexts[name]) {
				elsewhere[name] = c.Line
			}
			return
		}
		dir(name).take(c)
	}
	for i := range in.Needs.Stages {
		st := &in.Needs.Stages[i]
		take(Copy{From: &st.Base, Paths: []string{"/"}, Bind: true, Line: st.Line})
		for _, c := range st.Copies {
			take(c)
		}
		for _, u := range st.Unknown {
			whole(u)
		}
		for _, f := range st.Fetches {
			if f.Checksum == "" {
				in.Unknown = append(in.Unknown, Unknown{Line: f.Line, Why: "ADD downloads " + clip(clean(printable.WithoutUser(f.URL)), 200)})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(elsewhere)) {
		in.Unknown = append(in.Unknown, Unknown{Line: elsewhere[name], Why: fmt.Sprintf("the context %s is elsewhere", clean(name))})
	}
	for _, name := range slices.Sorted(maps.Keys(dirs)) {
		in.Dirs = append(in.Dirs, *dirs[name])
	}
	return all
}

// dockers tells whether a frontend is Docker's own, or none is named.
func dockers(syntax string) bool {
	image, _, _ := strings.Cut(strings.TrimSpace(syntax), "@")
	image, _, _ = strings.Cut(strings.TrimPrefix(image, "docker.io/"), ":")
	return image == "" || image == "docker/dockerfile" || image == "docker/dockerfile-upstream"
}

// locate says which line copies what could not be digested.
func (in *Inputs) locate(err error) error {
	e, ok := errors.AsType[*inputs.Error](err)
	if !ok {
		return &Error{Err: err}
	}
	for _, d := range in.Dirs {
		for i, p := range d.picks {
			for _, name := range append([]string{""}, p.Include...) {
				if e.Path == filepath.Join(d.Path, filepath.FromSlash(p.Path), filepath.FromSlash(name)) {
					return &Error{Line: d.lines[i], Err: err}
				}
			}
		}
	}
	return &Error{Err: err}
}
