package lint

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/imagelock/imagelock/imagecache"
)

// SharedTarget: services share a directory that their compilers write to.
const SharedTarget Code = "shared-target"

// outputs are the names of directories that compilers write to.
var outputs = []string{"target", "build", "_build", "dist", "obj", "out", ".next", ".nuxt", "zig-cache", ".zig-cache", "bazel-out"}

// sharedTarget: what two services compile into one directory breaks, or is another's.
func sharedTarget(p *plan) {
	order, by := p.caches()
	for _, cache := range order {
		all := by[cache]
		if !slices.ContainsFunc(all, func(m *mount) bool { return m.run.service != all[0].run.service }) {
			continue
		}
		all = slices.DeleteFunc(slices.Clone(all), func(m *mount) bool {
			return !slices.Contains(outputs, strings.ToLower(path.Base(m.Target)))
		})
		places := placesOf(all)
		for _, m := range all {
			f := Finding{
				Code: SharedTarget, Severity: Unsafe,
				Reason: fmt.Sprintf("several services write what they compile into the cache %s", m.name()),
				Remedy: "give each service an id of its own, such as id=" + path.Base(m.Target) + "-${SERVICE} with an ARG SERVICE in this stage",
			}
			if m.Sharing == imagecache.SharingLocked {
				f.Severity = Slow
				f.Reason += ", one after another (sharing=locked)"
			}
			if o := places[0]; o != m.place {
				f.Also = []Place{o}
			} else {
				f.Also = places[1:]
			}
			p.report(f, m.place, m.run.service.Service)
		}
	}
}

// placesOf returns the first place, and the next that is another, if any.
func placesOf(all []*mount) (places []Place) {
	for _, m := range all {
		if len(places) == 0 || m.place != places[0] {
			if places = append(places, m.place); len(places) == 2 {
				break
			}
		}
	}
	return places
}
