package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// refusal is a field of a build that can't be honoured.
type refusal struct {
	field string
	// why says so, and what to do, for people.
	why string
	// set tells whether a build has it, in a way that matters.
	set func(*types.BuildConfig) bool
}

const (
	noSession = "it needs a session between the engine and this program while it builds"
	noPull    = "nothing is pulled while a build holds its locks: pull it before, and leave this out"
)

// refusals are the fields that are never honoured. Those that are honoured in part are
// looked at where they are used.
var refusals = []refusal{
	{"secrets", noSession, func(b *types.BuildConfig) bool { return len(b.Secrets) > 0 }},
	{"ssh", noSession, func(b *types.BuildConfig) bool { return len(b.SSH) > 0 }},
	{"entitlements", "the engine's API can't grant any", func(b *types.BuildConfig) bool { return len(b.Entitlements) > 0 }},
	{"privileged", "the engine's API can't grant it", func(b *types.BuildConfig) bool { return b.Privileged }},
	{"provenance", "the engine's API makes no attestations", func(b *types.BuildConfig) bool { return asked(b.Provenance) }},
	{"sbom", "the engine's API makes no attestations", func(b *types.BuildConfig) bool { return asked(b.SBOM) }},
	{"cache_from", noPull, func(b *types.BuildConfig) bool { return len(b.CacheFrom) > 0 }},
	{"cache_to", "the engine's API can't export its cache", func(b *types.BuildConfig) bool { return len(b.CacheTo) > 0 }},
	{"no_cache_filter", "the engine's API has no such choice: use no_cache", func(b *types.BuildConfig) bool { return len(b.NoCacheFilter) > 0 }},
	{"pull", noPull, func(b *types.BuildConfig) bool { return b.Pull }},
	{"extra_hosts", "builds here have the engine's hosts only", func(b *types.BuildConfig) bool { return len(b.ExtraHosts) > 0 }},
	{"shm_size", "engines pass over it", func(b *types.BuildConfig) bool { return b.ShmSize != 0 }},
	{"ulimits", "engines pass over them", func(b *types.BuildConfig) bool { return len(b.Ulimits) > 0 }},
	{"isolation", "it is for Windows", func(b *types.BuildConfig) bool { return b.Isolation != "" && b.Isolation != "default" }},
	{"tags", "an image has one name here: give each name a service of its own", func(b *types.BuildConfig) bool { return len(b.Tags) > 0 }},
}

// asked tells whether attestations are wanted.
func asked(v string) bool { return v != "" && v != "false" && !strings.Contains(v, "disabled=true") }

// ignorable tells whether the field may be in [Options].Ignore.
func ignorable(field string) bool {
	return slices.ContainsFunc(refusals, func(r refusal) bool { return r.field == field })
}

// refuse notes what of a service's build can't be honoured.
func (p *Project) refuse(s *types.ServiceConfig, bad *problems) {
	for _, r := range refusals {
		if r.set(s.Build) && !slices.Contains(p.ignore, r.field) {
			bad.add(p.at(s.Name, "build."+r.field, fmt.Errorf("%w: %s, or name it in Options.Ignore", ErrUnsupported, r.why)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Build.Extensions)) {
		if !strings.HasPrefix(name, "x-") {
			bad.add(p.at(s.Name, "build."+name, fmt.Errorf("%w: it is not known", ErrUnsupported)))
		}
	}
}

// at is an error about a field of a service.
func (p *Project) at(service, field string, err error) *Error {
	e := &Error{Service: service, Field: field, Err: err}
	e.File, e.Line, e.Column = p.sources.find("services." + service + "." + field)
	return e
}
