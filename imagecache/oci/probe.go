package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imagelock/imagelock/imagecache"
)

// Probe looks for the image under ref. It opens the tag's file and looks at the
// manifest's size, whatever else is in the store; it does not look at the layers.
//
// It takes no lock and waits for nothing, unless the tag is just being set, by
// another or by one who has died at it: then Probe sees to that, and waits for the
// index's lock as [Store.Add] does. So what it says is absent does not appear
// afterwards by itself.
//
// An image that other tools have put into the layout is absent to Probe.
//
// Errors mean that the answer is not known. They wrap
// [imagecache.ErrBadReference], [ErrCorrupt] (the tag's file is not a valid
// record), [ErrIncomplete] (its manifest is missing or cut short), ctx's error,
// or what the system says; all but the first are an [*Error]. After [ErrCorrupt]
// and [ErrIncomplete] the way out is [Store.Remove], then building again.
func (s *Store) Probe(ctx context.Context, ref string) (imagecache.Presence, error) {
	var none imagecache.Presence
	ref, err := imagecache.Normalize(ref)
	if err != nil {
		return none, err
	}
	if err := ctx.Err(); err != nil {
		return none, fail("probe", ref, "", err)
	}
	rec, err := s.lookup(ref)
	if errors.Is(err, ErrNotFound) {
		rec, err = s.lookupSettled(ctx, ref)
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return imagecache.Presence{State: imagecache.Absent}, nil
	case err != nil:
		return none, fail("probe", ref, s.tagPath(ref), err)
	}
	return rec.presence(), nil
}

// lookup reads ref's tag and sees that the manifest is there.
func (s *Store) lookup(ref string) (record, error) {
	rec, err := s.readTag(tagName(ref))
	if err != nil {
		return record{}, err
	}
	if rec.ref != ref {
		return record{}, corrupt(s.tagPath(ref), "the record is that of %q; remove the tag and build again", rec.ref)
	}
	return rec, s.checkManifest(rec)
}

// lookupSettled is lookup after what is pending for ref has been carried out.
// Otherwise one who holds the image's lock would build what a dead builder has left
// pending, and another, who has something else to change, sets the tag meanwhile.
func (s *Store) lookupSettled(ctx context.Context, ref string) (record, error) {
	entries, err := os.ReadDir(s.own("changes"))
	if err != nil {
		return record{}, err
	}
	tag := tagName(ref)
	for _, e := range entries {
		if of, _, ok := parsePost(e.Name()); ok && of == tag {
			if err := s.settle(ctx, ""); err != nil {
				return record{}, err
			}
			break
		}
	}
	// It may have been carried out between the two looks.
	return s.lookup(ref)
}

func (s *Store) checkManifest(rec record) error {
	path := s.blobPath(rec.digest)
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return located(path, fmt.Errorf("%w: its manifest is missing; remove the tag and build again", ErrIncomplete))
	case err != nil:
		return located(path, err)
	case !fi.Mode().IsRegular() || fi.Size() != rec.size:
		return located(path, fmt.Errorf("%w: its manifest has %d bytes, not %d; remove the tag and build again",
			ErrIncomplete, fi.Size(), rec.size))
	}
	return nil
}

// readTag reads the tag file of that name. Its error wraps ErrNotFound only if
// the directory of the tags is there and has none: one that is gone (removed,
// unmounted) says nothing about images.
func (s *Store) readTag(name string) (record, error) {
	path := s.own("tags", name)
	data, err := readSmall(path, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		dir := s.own("tags")
		if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
			return record{}, located(dir, fmt.Errorf("%w: the store's directory is gone", ErrNotLayout))
		}
		return record{}, located(path, ErrNotFound)
	}
	var rec record
	if err == nil {
		rec, err = parseRecord(data)
	}
	if err == nil && rec.remove {
		err = fmt.Errorf("%w: not a tag record", ErrCorrupt)
	}
	if errors.Is(err, ErrCorrupt) {
		var own *Error
		if errors.As(err, &own) {
			err = own.Err
		}
		err = fmt.Errorf("%w; remove the tag and build again", err)
	}
	if err != nil {
		return record{}, located(path, err)
	}
	return rec, nil
}

// Entry is an image of the store.
type Entry struct {
	// Reference is the normalised reference.
	Reference string
	// ID is the digest of the image's manifest.
	ID string
}

// List returns the images of the store, sorted by reference. Its cost grows with
// their number. Tags whose record is damaged are left out, and named in the
// error (which wraps [ErrCorrupt]) that then comes with the others.
func (s *Store) List(ctx context.Context) ([]Entry, error) {
	recs, bad, err := s.readTags(ctx)
	if err != nil {
		return nil, fail("list", "", s.own("tags"), err)
	}
	list := make([]Entry, 0, len(recs))
	for _, r := range recs {
		list = append(list, Entry{Reference: r.ref, ID: r.digest.String()})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Reference < list[j].Reference })
	if len(bad) > 0 {
		err = fail("list", "", "", errors.Join(bad...))
	}
	return list, err
}

// readTags reads all tags; bad are the errors of those that are damaged.
func (s *Store) readTags(ctx context.Context) (recs map[string]record, bad []error, err error) {
	entries, err := os.ReadDir(s.own("tags"))
	if err != nil {
		return nil, nil, err
	}
	recs = make(map[string]record, len(entries))
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		rec, err := s.readTag(e.Name())
		switch {
		case errors.Is(err, ErrNotFound): // removed since
		case err != nil:
			bad = append(bad, err)
		case tagName(rec.ref) != e.Name():
			bad = append(bad, corrupt(s.own("tags", e.Name()), "the record is that of %q", rec.ref))
		default:
			recs[e.Name()] = rec
		}
	}
	return recs, bad, nil
}

func (s *Store) blobDir() string { return filepath.Join(s.dir, "blobs", "sha256") }

func (s *Store) blobPath(h v1.Hash) string { return filepath.Join(s.blobDir(), h.Hex) }
