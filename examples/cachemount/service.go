package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The services of the workspace, and the crates that all of them need. Those of a pair
// need some more, which the first service, by which a cache is warmed, does not.
var (
	services = []string{"api", "executor", "sensor", "notifier", "worker"}
	common   = crateNames("common", 4)
	jobs     = crateNames("jobs", 10)
	mail     = crateNames("mail", 10)
	more     = map[int][]string{1: jobs, 2: mail, 3: mail, 4: jobs}
)

func crateNames(prefix string, n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("%s-%d", prefix, i))
	}
	return names
}

func crates(service int) []string { return append(slices.Clone(common), more[service]...) }

// unit is an image to build.
type unit struct {
	Tag        string
	Dockerfile string
	Args       map[string]string
	Parents    []string
	Declared   bool
}

// unit is the build of a service of a round.
func (l *lab) unit(m method, service int, round, phase string) unit {
	u := unit{
		Tag:      fmt.Sprintf("%s-%s:%d", round, phase, service),
		Args:     map[string]string{"TARGET": l.target(), "UNPACK": l.unpack.String(), "CRATES": "", "CHANGE": fmt.Sprint(round, phase, service)},
		Parents:  []string{l.base},
		Declared: m.declared,
	}
	compile := l.build
	switch {
	case m.kind == apt:
		compile = l.apt
	case m.kind == opposite:
		compile = l.opposite
	case m.kind == plan:
		compile = l.service
		u.Parents = []string{fetchedTag(round)}
	case phase == again:
		compile = l.again
	}
	if m.kind == workspace {
		u.Args["CRATES"] = strings.Join(crates(service), ",")
	}
	u.Args["BUILD"] = compile.String()
	u.Dockerfile = l.dockerfile(u.Parents[0], round, m.mounts(service))
	return u
}

// The phases of a round.
const (
	first = "first"
	again = "again" // after a change
)

func fetchedTag(round string) string { return round + "-fetched:0" }

// fetched is what the services of a plan stand on: it unpacks what all of them need.
func (l *lab) fetched(m method, round string) unit {
	u := l.unit(method{mounts: m.mounts, declared: m.declared}, 0, round, "fetched")
	u.Args["CRATES"], u.Args["BUILD"] = strings.Join(slices.Concat(common, jobs, mail), ","), "0s"
	u.Dockerfile = l.dockerfile(l.base, round, m.mounts(0)[:1])
	return u
}

// filled unpacks all crates into a cache, so that what a failed round has left undone is
// done before sources change.
func (l *lab) filled(m method, round string) unit {
	m.declared = false
	u := l.fetched(m, round)
	u.Tag, u.Args["UNPACK"] = round+"-filled:0", "0s"
	return u
}

// target is where the caches are mounted; helper what runs there.
func (l *lab) target() string { return "/" + l.run }
func (l *lab) helper() string { return l.run + "-service" }

// dockerfile is that of a service with the given mounts.
func (l *lab) dockerfile(base, round string, mounts []string) string {
	var flags strings.Builder
	for _, fields := range mounts {
		flags.WriteString("--mount=type=cache," + strings.NewReplacer("ID", round, "TARGET", l.target()).Replace(fields) + " ")
	}
	return "FROM " + base + "\nARG TARGET\nARG CRATES\nARG UNPACK\nARG BUILD\nARG CHANGE\nRUN " + flags.String() + "[\"/" + l.helper() + "\"]\n"
}

// job is what a process does for units.
func (l *lab) job(m method, units ...unit) (job, error) {
	dir, err := os.MkdirTemp(l.dir, "job-*")
	if err != nil {
		return job{}, err
	}
	for _, u := range units {
		l.keep(u.Tag)
	}
	j := job{Cache: filepath.Join(l.dir, "cache"), Dir: dir, Units: units, Limit: time.Minute}
	if m.kind == opposite {
		j.Limit = l.hung
	}
	return j, nil
}
