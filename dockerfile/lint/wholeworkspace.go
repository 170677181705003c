package lint

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"path"
	"regexp"
	"slices"

	"github.com/imagelock/imagelock/dockerfile"
)

// WholeWorkspace: a step has the whole context where a part would do.
const WholeWorkspace Code = "whole-workspace"

// installs are commands that need a list of dependencies, and not the sources.
var installs = regexp.MustCompile(`(^|[\s;&|('"/])((` +
	`(npm|pnpm|bun)\s+(ci|install|i)|yarn(\s+install|\s+--\S+)|pip3?\s+install\s.*(-r|--requirement)|uv\s+sync|poetry\s+install|pipenv\s+(install|sync)|` +
	`bundle\s+install|composer\s+install|go\s+mod\s+download|cargo\s+fetch|mvnw?\s.*dependency:\S+|mix\s+deps\.get|dotnet\s+restore|` +
	`apt(-get)?\s.*install|apk\s.*add|(micro)?dnf\s.*install|yum\s.*install)([\s'";&|)]|$)|` +
	`yarn\s*([;&|)]|$))`)

// prepares are commands that read the whole context and whose outcome seldom changes.
var prepares = regexp.MustCompile(`cargo\s+chef\s+prepare`)

// wholeWorkspace: every change of any file runs what follows a COPY of everything again:
// the installation of dependencies that have not changed, or the build of a service whose
// sources have not.
func wholeWorkspace(p *plan) {
	for _, s := range p.services {
		runs := map[int][]*run{} // by stage
		for _, r := range s.runs {
			runs[r.stage.Index] = append(runs[r.stage.Index], r)
		}
		installed := map[int]int{} // the line at which a stage, or what it begins with, first installs
		for i := range s.needs.Stages {
			st := &s.needs.Stages[i]
			if line, ok := installed[st.Base.Stage]; ok && st.Base.Stage >= 0 {
				installed[st.Index] = line
			} else if r := firstThat(runs[st.Index], func(r *run) bool { return r.does(installs) }); r != nil {
				installed[st.Index] = r.Line
			}
			for c, sees := range wholes(st, runs[st.Index]) {
				p.wholeCopy(s, c, sees, installed[st.Index])
			}
		}
	}
}

// wholeCopy looks at a copy of the whole context and the RUNs that see it.
func (p *plan) wholeCopy(s *service, c dockerfile.Copy, runs []*run, installed int) {
	at := Place{s.Name, c.Line}
	installs := firstThat(runs, func(r *run) bool { return r.does(installs) })
	if installs != nil && installed >= c.Line {
		p.report(Finding{
			Code: WholeWorkspace, Severity: Slow, Also: []Place{installs.place},
			Reason: fmt.Sprintf("the whole context is there before dependencies are installed at line %d: each change of any file installs them again", installs.Line),
			Remedy: "copy the lists of dependencies alone, install them, and copy the rest after it",
		}, at, s.Service)
		return
	}
	if n := p.sharers(s); n > 1 && firstThat(runs, func(r *run) bool { return !r.does(prepares) }) != nil {
		p.report(Finding{
			Code: WholeWorkspace, Severity: Slow,
			Reason: fmt.Sprintf("%d services are built from this context, and all of it is copied: a change in any of them builds this stage again", n),
			Remedy: "copy only what this service needs, such as the manifests and the directory of ${SERVICE}",
		}, at, s.Service)
	}
}

// wholes goes through the copies of a stage that take the whole context, and the RUNs that
// see them: those that follow the first COPY, after which others make nothing worse, or
// the one whose mount it is.
func wholes(st *dockerfile.Stage, runs []*run) iter.Seq2[dockerfile.Copy, []*run] {
	return func(yield func(dockerfile.Copy, []*run) bool) {
		copied := false
		for _, c := range st.Copies {
			if !whole(c) || !c.Bind && copied {
				continue
			}
			copied = copied || !c.Bind
			i, _ := slices.BinarySearchFunc(runs, c.Line, func(r *run, line int) int { return cmp.Compare(r.Line, line) })
			sees := runs[i:]
			if c.Bind {
				sees = sees[:min(1, len(sees))]
			}
			if !yield(c, sees) {
				return
			}
		}
	}
}

// whole tells whether all of the build's context is taken.
func whole(c dockerfile.Copy) bool {
	if c.From != nil || c.Unresolved != "" || len(c.Exclude) > 0 {
		return false
	}
	for _, p := range c.Paths {
		if p = path.Join("/", p); p == "/" || p == "/*" && !c.Bind {
			return true
		}
	}
	return false
}

func firstThat(runs []*run, ok func(*run) bool) *run {
	for _, r := range runs {
		if ok(r) {
			return r
		}
	}
	return nil
}

// sharers is how many services are built from the context of s, each in its own way: those
// of one Dockerfile with the same arguments have their stages in common.
func (p *plan) sharers(s *service) int {
	var ways []*service
	for _, o := range p.services {
		if o.Context != s.Context || s.Context == "" && o.Name != s.Name {
			continue
		}
		same := false
		for _, w := range ways {
			same = same || w.Name == o.Name && maps.Equal(w.Args, o.Args)
		}
		if !same {
			ways = append(ways, o)
		}
	}
	return len(ways)
}
