package docker

import (
	"strconv"
	"strings"
)

// base is an image that a build needs.
type base struct {
	ref  string // as it is to be looked for
	line int
	// platform is what "--platform" asks for; zero if nothing does.
	platform platform
	err      error // instead of ref and platform: why they can't be told
}

// stage is one FROM and what follows it.
type stage struct {
	name  string // in lower case
	from  base
	outer int    // the stage it begins with; -1 if it begins with an image
	uses  []base // by COPY --from and RUN --mount=from
}

// scan finds the bases a Dockerfile's target needs, in their order and with
// duplicates. It is no parser: what it does not understand it leaves to the
// engine, which refuses a Dockerfile it can't parse before it looks for any base.
func scan(src []byte, target string, args *buildArgs) []base {
	list, escape := instructions(src)
	x := expander{escape, args.lookup}
	var stages []stage
	for _, in := range list {
		switch {
		case in.name == "FROM":
			stages = append(stages, newStage(in, stages, x))
		case in.name == "ARG" && len(stages) == 0:
			args.declare(in.rest, x)
		case len(stages) > 0 && (in.name == "COPY" || in.name == "RUN"):
			s := &stages[len(stages)-1]
			s.uses = append(s.uses, uses(in, x)...)
		}
	}
	return needed(stages, target)
}

func newStage(in instruction, before []stage, x expander) stage {
	s := stage{from: base{line: in.line}, outer: -1}
	flags, rest := flagsOf(in.rest, x.escape)
	for _, f := range flags {
		if v, ok := strings.CutPrefix(f, "--platform="); ok && s.from.err == nil {
			v, s.from.err = x.expand(v)
			if s.from.err == nil && v != "" {
				if s.from.platform, s.from.err = parsePlatform(v); s.from.err != nil {
					s.from.err = &unresolved{s.from.err.Error()}
				}
			}
		}
	}
	if len(rest) == 0 {
		return s
	}
	if len(rest) >= 3 && strings.EqualFold(rest[1], "as") {
		s.name = strings.ToLower(rest[2])
	}
	ref, err := x.expand(rest[0])
	if err != nil {
		s.from.ref, s.from.err = rest[0], err
		return s
	}
	s.from.ref = ref
	// The last of that name counts, and only those before can be meant.
	for i, b := range before {
		if b.name != "" && b.name == strings.ToLower(ref) {
			s.outer = i
		}
	}
	return s
}

// uses finds what an instruction takes from elsewhere.
func uses(in instruction, x expander) []base {
	var list []base
	flags, _ := flagsOf(in.rest, x.escape)
	for _, f := range flags {
		from := ""
		if v, ok := strings.CutPrefix(f, "--from="); ok && in.name == "COPY" {
			from = v
		}
		if v, ok := strings.CutPrefix(f, "--mount="); ok && in.name == "RUN" {
			from = mountFrom(v)
		}
		if from == "" {
			continue
		}
		b := base{ref: from, line: in.line}
		if strings.Contains(from, "$") {
			b.err = &unresolved{"variables are not expanded here, give a stage its name by FROM"}
		} else if v, err := x.expand(from); err != nil {
			b.err = err
		} else {
			b.ref = v
		}
		list = append(list, b)
	}
	return list
}

// mountFrom returns the from of a RUN's "--mount=type=bind,from=…".
func mountFrom(v string) string {
	v = strings.NewReplacer(`"`, "", "'", "").Replace(v)
	for f := range strings.SplitSeq(v, ",") {
		if k, v, ok := strings.Cut(f, "="); ok && strings.EqualFold(strings.TrimSpace(k), "from") {
			return v
		}
	}
	return ""
}

// flagsOf splits what follows an instruction's name into flags and the rest.
func flagsOf(s string, escape byte) (flags, rest []string) {
	list := words(s, escape)
	for i, w := range list {
		if !strings.HasPrefix(w, "--") {
			return list[:i], list[i:]
		}
		if w == "--" {
			return list[:i], list[i+1:]
		}
	}
	return list, nil
}

// needed returns the bases of the stages that target needs. A target that does
// not exist needs none: the engine will say so.
func needed(stages []stage, target string) []base {
	i := find(stages, target)
	if target == "" {
		i = len(stages) - 1
	}
	if i < 0 {
		return nil
	}
	reached := make([]bool, len(stages))
	todo := []int{i}
	visit := func(i int) {
		if !reached[i] {
			reached[i] = true
			todo = append(todo, i)
		}
	}
	reached[i] = true
	external := make([][]base, len(stages))
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		s := stages[i]
		if s.outer >= 0 {
			visit(s.outer)
		} else if s.from.err != nil || s.from.ref != "" && s.from.ref != "scratch" {
			external[i] = append(external[i], s.from)
		}
		for _, u := range s.uses {
			if j := find(stages, u.ref); j >= 0 && u.err == nil {
				visit(j)
			} else if u.err != nil || u.ref != "scratch" {
				external[i] = append(external[i], u)
			}
		}
	}
	var list []base
	for _, e := range external {
		list = append(list, e...)
	}
	return list
}

// find returns the stage of that name or number, -1 if there is none.
func find(stages []stage, name string) int {
	for i := len(stages) - 1; i >= 0; i-- {
		if stages[i].name != "" && stages[i].name == strings.ToLower(name) {
			return i
		}
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < len(stages) {
		return n
	}
	return -1
}
