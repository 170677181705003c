package lint

import (
	"fmt"

	"github.com/imagelock/imagelock/imagecache"
)

// ParallelStages: stages of one build that run at the same time mount the same cache.
const ParallelStages Code = "parallel-stages"

// parallelStages: some versions of runc (1.1.14, 1.1.15, 1.2.0 to 1.2.2) fail where two
// steps make the same mountpoint in a fresh cache, and tools that don't lock break each
// other whatever the version. BuildKit runs steps with a locked mount one after another.
func parallelStages(p *plan) {
	for _, s := range p.services {
		if len(s.needs.Stages) < 2 {
			continue
		}
		parallel := parallelOf(s)
		by := map[string][]*mount{} // the first of each stage
		for _, r := range s.runs {
			for _, m := range r.mounts {
				all := by[m.cache]
				if m.Sharing == imagecache.SharingShared && (len(all) == 0 || all[len(all)-1].run.stage != r.stage) {
					by[m.cache] = append(all, m)
				}
			}
		}
		for _, all := range by {
			for _, m := range all {
				for _, o := range all {
					if !parallel[m.run.stage.Index][o.run.stage.Index] {
						continue
					}
					p.report(Finding{
						Code: ParallelStages, Severity: Unsafe, Also: []Place{o.place},
						Reason: fmt.Sprintf("the cache %s is shared by stages of one build that run at the same time (with line %d); runc 1.1.14, 1.1.15 and 1.2.0 to 1.2.2 then fail with \"file exists\", and tools that don't lock break each other", m.name(), o.Line),
						Remedy: "give each stage an id of its own, or set sharing=locked; or let one stage begin with the other",
					}, m.place, s.Service)
					break // one of them is enough
				}
			}
		}
	}
}

// parallelOf tells which stages run at the same time.
func parallelOf(s *service) map[int]map[int]bool {
	of := map[int]map[int]bool{}
	for _, pair := range s.needs.Parallel() {
		for i, j := range []int{pair[1], pair[0]} {
			k := pair[i]
			if of[k] == nil {
				of[k] = map[int]bool{}
			}
			of[k][j] = true
		}
	}
	return of
}
