package oci

import (
	"bytes"
	"context"
	"io"
	"os"

	"github.com/imagelock/imagelock/imagecache"
)

var _ imagecache.ManyProber = (*Store)(nil)

// probeAllMin is how many images are asked for at once to make reading the index
// worth while.
const probeAllMin = 16

// ProbeAll is [Store.Probe] for each of refs, and cheaper for many: it reads the
// index instead of the tags, where that is known to match them, and the list of the
// tags. What is in the one and not in the other it probes. An image about which Probe has an error is Unknown: Probe
// tells why. That a tag's file was damaged or taken away by hand only Probe
// notices. known is of no use here.
//
// It takes no lock and waits for nothing. Its error is ctx's, as an [*Error].
func (s *Store) ProbeAll(ctx context.Context, refs []string, known map[string]string) ([]imagecache.Presence, error) {
	var tags map[string]record
	var absent func(ref string) bool
	if len(refs) >= probeAllMin {
		tags = s.indexed(refs)
		absent = s.missing(len(refs) - len(tags))
	}
	all := make([]imagecache.Presence, len(refs))
	for i, ref := range refs {
		if err := ctx.Err(); err != nil {
			return nil, fail("probe", ref, "", err)
		}
		rec, ok := tags[ref]
		switch {
		case ok && s.checkManifest(rec) == nil:
			all[i] = rec.presence()
		case !ok && absent != nil && absent(ref):
			all[i] = imagecache.Presence{State: imagecache.Absent}
		default:
			all[i], _ = s.Probe(ctx, ref)
		}
	}
	return all, nil
}

// indexed returns those of refs that the index has; nil unless the index is known
// to match the tags.
func (s *Store) indexed(refs []string) map[string]record {
	text, err := s.matchingIndex()
	if err != nil {
		return nil
	}
	tags := make(map[string]record, len(refs))
	for _, ref := range refs {
		tags[ref] = record{}
	}
	for line := range bytes.Lines(text) {
		if r, ok := parseLine(bytes.TrimRight(line, ",\n")); ok {
			if _, wanted := tags[r.ref]; wanted {
				tags[r.ref] = r
			}
		}
	}
	for ref, r := range tags {
		if r.ref == "" {
			delete(tags, ref)
		}
	}
	return tags
}

// listPerProbe is how many names are listed in the time of a probe.
const listPerProbe = 50

// missing returns a function that tells whether a reference is surely without a tag,
// by one list of all tags; nil if that can't be said, or if to probe n references is
// faster.
//
// Nothing may be pending, neither before nor after: see [Store.lookupSettled].
func (s *Store) missing(n int) func(ref string) bool {
	if n < probeAllMin || !s.nonePending() {
		return nil
	}
	dir, err := os.Open(s.own("tags"))
	if err != nil {
		return nil
	}
	defer dir.Close()
	most := listPerProbe * n
	names, err := dir.Readdirnames(most)
	s.step("tags listed")
	if err != nil && err != io.EOF || len(names) == most || !s.nonePending() {
		return nil
	}
	there := make(map[string]bool, len(names))
	for _, name := range names {
		there[name] = true
	}
	return func(ref string) bool {
		full, err := imagecache.Normalize(ref)
		return err == nil && !there[tagName(full)]
	}
}

func (s *Store) nonePending() bool {
	posts, err := os.ReadDir(s.own("changes"))
	return err == nil && len(posts) == 0
}

func (r record) presence() imagecache.Presence {
	return imagecache.Presence{State: imagecache.Present, ID: r.digest.String(), Inputs: r.inputs}
}
