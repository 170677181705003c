package dockerfile

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// maxSize is how large a Dockerfile may be.
const maxSize = 4 << 20

// Scan reads a Dockerfile and returns what a build by it needs. Of stages that the
// target does not need it says nothing, and does not mind what is wrong in them beyond
// their syntax, as BuildKit does not.
//
// Every error is an [*Error] with the line, if there is one: [ErrSyntax], [ErrTooLarge],
// [ErrNoTarget], [ErrCycle], [ErrBadOption] or the reader's.
func Scan(r io.Reader, opts Options) (needs *Needs, err error) {
	defer func() {
		// BuildKit's parser is not ours, and Dockerfiles are anybody's.
		if p := recover(); p != nil {
			needs, err = nil, &Error{Err: fmt.Errorf("%w: BuildKit's parser: %v", ErrSyntax, clean(fmt.Sprint(p)))}
		}
	}()
	src, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	switch {
	case err != nil:
		return nil, &Error{Err: err}
	case len(src) > maxSize:
		return nil, &Error{Err: fmt.Errorf("%w: more than %d bytes", ErrTooLarge, maxSize)}
	}
	ast, err := parser.Parse(bytes.NewReader(src))
	if err != nil {
		return nil, syntax(err, tooLong(src, err))
	}
	stages, args, err := instructions.Parse(ast.AST, nil)
	if err != nil {
		return nil, syntax(err, 0)
	}
	s := &scan{opts: opts, lex: shell.NewLex(ast.EscapeToken), stages: stages, lines: linesOf(ast.AST), source: strings.Split(string(src), "\n")}
	frontend, _, at, _ := parser.DetectSyntax(src)
	s.frontend = frontend
	if err := s.globals(args); err != nil {
		return nil, err
	}
	if err := s.link(); err != nil {
		return nil, err
	}
	target, err := s.target()
	if err != nil {
		return nil, err
	}
	needs = &Needs{Namespace: opts.Args["BUILDKIT_CACHE_MOUNT_NS"], Syntax: frontend, syntaxLine: lineOf(at), escape: ast.EscapeToken}
	for i := range s.stages {
		if !s.needed[i] {
			continue
		}
		if err := s.walk(i, needs.Namespace); err != nil {
			return nil, err
		}
		needs.Stages = append(needs.Stages, s.out[i])
	}
	// The target is the last of those it needs: all others come before it.
	needs.Stages = needs.Stages[:1+slices.IndexFunc(needs.Stages, func(st Stage) bool { return st.Index == target })]
	return needs, nil
}

// scan is the reading of one Dockerfile.
type scan struct {
	opts   Options
	lex    *shell.Lex
	stages []instructions.Stage
	lines  [][]string // the text of each stage, an instruction each
	source []string   // by line
	// frontend is what the Dockerfile asks for, if it does.
	frontend string
	global   *env

	byName map[string]int // the last of each
	out    []Stage
	envs   []*env
	dirs   []string // where each stage ends up; empty if that is not known
	needed []bool
	// onBuild are the ONBUILD instructions of each needed stage's base.
	onBuild [][]trigger
}

// globals makes the variables that FROM may use.
func (s *scan) globals(args []instructions.ArgCommand) error {
	target, build, err := s.opts.platforms()
	if err != nil {
		return &Error{Err: fmt.Errorf("%w: %s", ErrBadOption, clean(err.Error()))}
	}
	name := s.opts.Target
	if name == "" && len(s.stages) > 0 {
		name = s.stages[len(s.stages)-1].Name
	}
	if name == "" {
		name = "default"
	}
	s.global = newEnv(true)
	for k, v := range map[string]string{
		"BUILDPLATFORM": platforms.Format(build), "BUILDOS": build.OS, "BUILDOSVERSION": build.OSVersion,
		"BUILDARCH": build.Architecture, "BUILDVARIANT": build.Variant,
		"TARGETPLATFORM": platforms.FormatAll(target), "TARGETOS": target.OS, "TARGETOSVERSION": target.OSVersion,
		"TARGETARCH": target.Architecture, "TARGETVARIANT": target.Variant, "TARGETSTAGE": name,
	} {
		if given, ok := s.opts.Args[k]; ok {
			v = given
		}
		s.global.set(k, variable{value: v})
	}
	for _, c := range args {
		for _, a := range c.Args {
			switch given, ok := s.opts.Args[a.Key]; {
			case ok:
				s.global.set(a.Key, variable{value: given})
			case a.Value != nil:
				v, _, err := s.global.expand(s.lex, *a.Value)
				if err != nil {
					return wordError(err, lineOf(c.Location()))
				}
				s.global.set(a.Key, variable{value: v})
			}
		}
	}
	return nil
}

// wordError is the error of a word that can't be expanded.
func wordError(err error, line int) error {
	if isTooLarge(err) {
		return &Error{Line: line, Err: err}
	}
	return syntax(err, line)
}

// link finds out what the stages begin with, and which they take files from.
func (s *scan) link() error {
	if len(s.stages) == 0 {
		return &Error{Err: fmt.Errorf("%w: there is no FROM", ErrSyntax)}
	}
	s.byName = map[string]int{}
	n := len(s.stages)
	s.out, s.envs, s.dirs, s.needed, s.onBuild = make([]Stage, n), make([]*env, n), make([]string, n), make([]bool, n), make([][]trigger, n)
	for i := range s.stages {
		in := &s.stages[i]
		line := lineOf(in.Location)
		out := &s.out[i]
		*out = Stage{Index: i, Name: in.Name, Line: line, Base: Base{Stage: -1, Line: line}}
		name, _, err := s.global.expand(s.lex, in.BaseName)
		if err == nil && name == "" {
			err = fmt.Errorf("the base %q is empty once variables are expanded", in.BaseName)
		}
		if err != nil {
			return wordError(err, line)
		}
		if in.Platform != "" {
			p, _, err := s.global.expand(s.lex, in.Platform)
			if err == nil {
				var parsed = p
				if q, perr := platforms.Parse(p); perr == nil {
					parsed = platforms.FormatAll(q)
				} else {
					err = perr
				}
				out.Base.Platform = parsed
			}
			if err != nil {
				return wordError(err, line)
			}
		}
		if _, ok := s.context(in.Name); ok && in.Name != "" {
			// The context is in the place of all the stage does.
			in.Commands, s.lines[i] = nil, nil
			out.Base = *s.image(in.Name, line)
		} else if j, ok := s.byName[name]; ok {
			out.Base.Stage = j
			out.Needs = append(out.Needs, j)
		} else {
			p := out.Base.Platform
			out.Base = *s.image(name, line)
			out.Base.Platform = p
		}
		if in.Name != "" {
			s.byName[in.Name] = i
		}
	}
	return nil
}

// target marks what the target needs, and returns it.
func (s *scan) target() (int, error) {
	target := len(s.stages) - 1
	if t := s.opts.Target; t != "" {
		i, ok := s.byName[strings.ToLower(t)]
		if !ok {
			names := slices.Sorted(maps.Keys(s.byName))
			why := "it has none with a name"
			if len(names) > 0 {
				why = "it has " + clean(strings.Join(names, ", "))
			}
			if n, err := strconv.Atoi(t); err == nil && n >= 0 && n < len(s.stages) {
				i, ok = n, true // by number, which the engine's own API takes
			}
			if !ok {
				return 0, &Error{Err: fmt.Errorf("%w: %q; %s", ErrNoTarget, clean(t), why)}
			}
		}
		target = i
	}
	// Its sources are known only by its instructions, and of those the names are
	// never expanded.
	for todo := []int{target}; len(todo) > 0; {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if s.needed[i] {
			continue
		}
		s.needed[i] = true
		for _, c := range s.stages[i].Commands {
			if err := s.takes(i, sources(c), lineOf(c.Location())); err != nil {
				return 0, err
			}
		}
		s.onBuild[i] = s.triggers(s.out[i].Base)
		for _, t := range s.onBuild[i] {
			if err := s.takes(i, t.from, t.line); err != nil {
				return 0, err
			}
			for j := 0; j < i && t.any; j++ {
				s.out[i].Needs = append(s.out[i].Needs, j)
			}
		}
		slices.Sort(s.out[i].Needs)
		s.out[i].Needs = slices.Compact(s.out[i].Needs)
		todo = append(todo, s.out[i].Needs...)
	}
	return target, nil
}
