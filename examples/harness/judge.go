package main

import (
	"slices"
	"time"
)

// Builds is what the evidence says.
type Builds struct {
	// Done counts the builds that were completed, Failed those that were not.
	Done, Failed int
	// Duplicates counts the completed builds of an image that was there, or
	// was being built.
	Duplicates int
	// Nonces has the nonce of each tag's last completed build.
	Nonces map[string]string
	// Work is how long they took, all together.
	Work time.Duration
	// Ideal is the shortest time in which the builds can be done.
	Ideal time.Duration
}

// Judge counts the builds of which records tell, and works out how fast they could
// have been if that many run at the same time: neither faster than all the work
// shared out evenly, nor than the longest chain of builds that stand on each other.
//
// An image is built once. Only where images are removed meanwhile may one be built
// again, after that.
func Judge(records []Record, slots int, removals bool) Builds {
	b := Builds{Nonces: map[string]string{}}
	parent := map[string]string{}
	took := map[string]time.Duration{}
	last := map[string]int64{}
	records = slices.Clone(records)
	slices.SortStableFunc(records, func(a, b Record) int { return int(a.EndNS - b.EndNS) })
	for _, r := range records {
		if r.Error != "" {
			b.Failed++
			continue
		}
		b.Done++
		before, again := last[r.Tag]
		if r.Found != "" || again && (!removals || r.StartNS < before) {
			b.Duplicates++
		}
		last[r.Tag], b.Nonces[r.Tag] = r.EndNS, r.Nonce
		b.Work += r.took()
		parent[r.Tag] = r.Parent
		took[r.Tag] = max(took[r.Tag], r.took())
	}
	b.Ideal = b.Work / time.Duration(max(slots, 1))
	for tag := range took {
		var chain time.Duration
		// The bound ends a chain that a broken file bent into a ring.
		for n := 0; tag != "" && n < len(took); n++ {
			chain += took[tag]
			tag = parent[tag]
		}
		b.Ideal = max(b.Ideal, chain)
	}
	return b
}

// fits tells whether the builds can have been done in this time, that many at once.
func (b Builds) fits(wall time.Duration, slots int) bool { return b.Work <= wall*time.Duration(slots) }

// Unsaid returns records of the builds that were completed by processes which were
// killed before they could say so: those that began, have no record of their end,
// and whose nonce the image carries. Their end is taken to be their process's.
func Unsaid(begun, ended []Record, carried map[string]string, killed map[int]time.Time) []Record {
	said := map[string]bool{}
	for _, r := range ended {
		said[r.Nonce] = true
	}
	var unsaid []Record
	for _, r := range begun {
		if when, ok := killed[r.PID]; ok && !said[r.Nonce] && carried[r.Tag] == r.Nonce {
			r.EndNS = max(r.StartNS, when.UnixNano())
			unsaid = append(unsaid, r)
		}
	}
	return unsaid
}
