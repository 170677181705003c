package lint

import (
	"cmp"
	"regexp"
	"strings"

	"github.com/imagelock/imagelock/dockerfile"
	"github.com/imagelock/imagelock/imagecache"
)

// plan is all Dockerfiles, read.
type plan struct {
	services []*service
	found    []Finding
}

type service struct {
	File
	needs *dockerfile.Needs
	runs  []*run
}

// run is a RUN of a service.
type run struct {
	*dockerfile.Run
	service *service
	stage   *dockerfile.Stage
	place   Place
	mounts  []*mount
	knows   map[*regexp.Regexp]bool // what it does
}

// mount is a cache mount of a run.
type mount struct {
	*dockerfile.RunMount
	run   *run
	place Place
	// cache tells caches apart: two mounts with the same one use the same. Of mounts
	// with variables that are not known it is told only that they are alike.
	cache string
}

func (p *plan) add(f File, needs *dockerfile.Needs) {
	f.Service = cmp.Or(f.Service, f.Name)
	s := &service{File: f, needs: needs}
	bases := map[int]string{} // the images that stages begin with, by way of others
	for i := range needs.Stages {
		st := &needs.Stages[i]
		bases[st.Index] = st.Base.Reference + st.Base.Context
		if st.Base.Stage >= 0 { // which comes before it
			bases[st.Index] = bases[st.Base.Stage]
		}
		for j := range st.Runs {
			r := &run{Run: &st.Runs[j], service: s, stage: st, place: Place{f.Name, st.Runs[j].Line}, knows: map[*regexp.Regexp]bool{}}
			for k := range r.Run.Mounts {
				rm := &r.Run.Mounts[k]
				m := &mount{RunMount: rm, run: r, place: Place{f.Name, rm.Line}, cache: rm.Key()}
				if rm.Unresolved != "" {
					m.cache = "\x00" + bases[st.Index] + "\x00" + cmp.Or(rm.WrittenID, rm.WrittenTarget)
				}
				r.mounts = append(r.mounts, m)
			}
			s.runs = append(s.runs, r)
		}
	}
	p.services = append(p.services, s)
}

// caches are the mounts of all services, by cache, in their order. Those of caches that
// are private, which nobody shares, are not among them.
func (p *plan) caches() (order []string, by map[string][]*mount) {
	by = map[string][]*mount{}
	for _, s := range p.services {
		for _, r := range s.runs {
			for _, m := range r.mounts {
				if m.Sharing == imagecache.SharingPrivate {
					continue
				}
				if by[m.cache] == nil {
					order = append(order, m.cache)
				}
				by[m.cache] = append(by[m.cache], m)
			}
		}
	}
	return order, by
}

// report notes a finding at a place.
func (p *plan) report(f Finding, at Place, services ...string) {
	f.Place, f.Services = at, services
	f.Reason, f.Remedy = printable(f.Reason), printable(f.Remedy)
	p.found = append(p.found, f)
}

// name is how people know the cache.
func (m *mount) name() string {
	if m.WrittenID != "" {
		return quote(m.WrittenID)
	}
	return quote(cmp.Or(m.WrittenTarget, m.Target))
}

// does tells whether one of the RUN's commands matches. Lines that are comments of a
// heredoc's script don't count.
func (r *run) does(command *regexp.Regexp) bool {
	does, ok := r.knows[command]
	if ok {
		return does
	}
	for line := range strings.Lines(r.Command) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") && command.MatchString(line) {
			does = true
			break
		}
	}
	r.knows[command] = does
	return does
}
