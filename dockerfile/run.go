package dockerfile

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// run notes what a RUN runs and mounts.
func (w *walk) run(c *instructions.RunCommand) error {
	run := Run{Line: w.line, Command: strings.Join(c.CmdLine, " ")}
	for _, f := range c.Files {
		run.Command += "\n" + f.Data
	}
	type written struct{ id, target string }
	var as []written
	// Without an expander BuildKit leaves out what has a variable.
	if err := c.Expand(func(word string) (string, error) { return word, nil }); err == nil {
		for _, m := range instructions.GetMounts(c) {
			as = append(as, written{m.CacheID, m.Target})
		}
	}
	literal := w.literal()
	// Which of the fields has a variable that is not known BuildKit does not tell:
	// each is expanded by itself, and all of one RUN are unresolved if one is.
	err := c.Expand(func(word string) (string, error) {
		if literal {
			return word, nil
		}
		return w.word(word)
	})
	if err != nil {
		return err
	}
	why := whyUnknown(compact(w.unknown))
	mounts := instructions.GetMounts(c)
	lines := w.mountLines(c, len(mounts))
	for i, m := range mounts {
		if m.From != "" {
			w.out.from = append(w.out.from, *w.base(m.From, w.line))
		}
		switch m.Type {
		case instructions.MountTypeCache:
			cm, err := w.cache(m)
			if err != nil && why == "" { // else it is for what is not known
				return err
			}
			cm.Unresolved = why
			if from := w.contextOf(m.From, w.line); from != nil { // what the cache begins with
				w.out.Copies = append(w.out.Copies, Copy{Paths: []string{path.Join("/", m.Source)}, From: from, Bind: true, Line: w.line, Unresolved: why})
			}
			w.out.Mounts = append(w.out.Mounts, cm)
			rm := RunMount{Mount: cm, Line: lines[i], Literal: literal}
			if i < len(as) {
				rm.WrittenID, rm.WrittenTarget = as[i].id, as[i].target
				rm.Unset = w.unset(rm.WrittenID, rm.WrittenTarget)
			}
			run.Mounts = append(run.Mounts, rm)
		case instructions.MountTypeBind:
			cp := Copy{Paths: []string{m.Source}, Bind: true, Line: w.line, Unresolved: why}
			if m.Source == "" {
				cp.Paths = []string{"/"}
			}
			if m.From != "" {
				cp.From = w.base(m.From, w.line)
			}
			w.out.Copies = append(w.out.Copies, cp)
		}
	}
	w.out.Runs = append(w.out.Runs, run)
	return nil
}

// unset returns the variables without a value of what tells the cache apart.
func (w *walk) unset(id, target string) []string {
	if id == "" {
		id = target
	}
	if !strings.Contains(id, "$") {
		return nil
	}
	if _, _, err := w.env.expand(w.lex, id); err != nil { // it went well before
		return nil
	}
	return slices.Sorted(maps.Keys(w.env.unset))
}

// literal tells whether the frontend leaves variables in the fields of mounts as they
// are: Docker's do before 1.3, the one in Docker 20.10 among them.
func (w *walk) literal() bool {
	if w.frontend == "" {
		return w.opts.OldFrontend
	}
	if !dockers(w.frontend) {
		return false
	}
	image, _, _ := strings.Cut(w.frontend, "@")
	_, tag, _ := strings.Cut(image, ":")
	major, rest, _ := strings.Cut(tag, ".")
	minor := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	n, err := strconv.Atoi(minor)
	return major == "1" && err == nil && n < 3
}

// mountLines returns the lines of the --mount flags of a RUN; that of the RUN where one
// can't be found.
func (w *walk) mountLines(c *instructions.RunCommand, n int) []int {
	lines := slices.Repeat([]int{w.line}, n)
	found := 0
	for _, r := range c.Location() {
		for at := r.Start.Line; at <= r.End.Line && at <= len(w.source) && found < n; at++ {
			text := w.source[at-1]
			if strings.HasPrefix(strings.TrimLeft(text, " \t"), "#") {
				continue
			}
			for range min(strings.Count(text, "--mount"), n-found) {
				lines[found] = at
				found++
			}
		}
	}
	return lines
}
