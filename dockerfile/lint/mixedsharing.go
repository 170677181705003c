package lint

import (
	"fmt"

	"github.com/imagelock/imagelock/imagecache"
)

// MixedSharing: one cache is mounted with sharing=locked and without.
const MixedSharing Code = "mixed-sharing"

// mixedSharing: while somebody holds the lock, who comes without sharing=locked does not
// wait, and gets a fresh, empty directory. Private ones are nobody's.
func mixedSharing(p *plan) {
	order, by := p.caches()
	for _, cache := range order {
		first := map[imagecache.Sharing]*mount{}
		for _, m := range by[cache] {
			if first[m.Sharing] == nil {
				first[m.Sharing] = m
			}
		}
		if len(first) < 2 {
			continue
		}
		for _, m := range by[cache] {
			if m.Sharing == imagecache.SharingLocked {
				continue
			}
			other := first[imagecache.SharingLocked]
			p.report(Finding{
				Code: MixedSharing, Severity: Unsafe, Also: []Place{other.place},
				Reason: fmt.Sprintf("the cache %s is shared here and locked at %v: while it is locked this one does not wait, and gets an empty directory", m.name(), other.place),
				Remedy: "use one sharing mode for the cache, or another id",
			}, m.place, m.run.service.Service)
		}
	}
}
