package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
)

// references is what a blob names. It never changes, since the blob has its digest.
type references struct {
	blobs []sum
	deep  bool // what it names may name more: it is no image's manifest
}

// live returns all blobs that something refers to: the entries of an index, whoever
// made them, images whose tag has moved on, and changes that are pending. Whatever
// looks like a digest counts as a reference. It runs under the lock of the index.
func (s *Store) live(index []byte) (map[sum]bool, error) {
	roots := mentioned(index)
	for _, dir := range []string{"untagged", "changes"} {
		entries, err := os.ReadDir(s.own(dir))
		if err != nil {
			return nil, err
		}
		if dir == "untagged" {
			for _, e := range entries {
				if h, ok := parseSum(e.Name()); ok {
					roots = append(roots, h)
				}
			}
		} else if len(entries) > 0 {
			posts, err := s.posts()
			if err != nil {
				return nil, err
			}
			for _, p := range posts {
				roots = append(roots, sumOf(p.rec.digest))
			}
		}
	}
	live := make(map[sum]bool, 4*len(roots))
	expanded := map[sum]bool{}
	for len(roots) > 0 {
		h := roots[len(roots)-1]
		roots = roots[:len(roots)-1]
		if expanded[h] {
			continue
		}
		expanded[h], live[h] = true, true
		refs, err := s.references(h)
		if err != nil {
			return nil, err
		}
		for _, b := range refs.blobs {
			live[b] = true
		}
		if refs.deep {
			roots = append(roots, refs.blobs...)
		}
	}
	return live, nil
}

// references reads what the blob h names. One that is missing or damaged, or is no
// JSON, names nothing: nobody can follow it. What can't be read is an error.
func (s *Store) references(h sum) (references, error) {
	if r, ok := s.named[h]; ok {
		return r, nil
	}
	data, err := s.blob(h.hash())
	if errors.Is(err, ErrIncomplete) || errors.Is(err, ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
		return references{}, nil
	}
	if err != nil {
		return references{}, err
	}
	r := references{}
	var m struct {
		Config    json.RawMessage `json:"config"`
		Layers    json.RawMessage `json:"layers"`
		Manifests json.RawMessage `json:"manifests"`
		Subject   json.RawMessage `json:"subject"`
	}
	if json.Unmarshal(data, &m) == nil {
		r.blobs = mentioned(data)
		r.deep = m.Config == nil || m.Layers == nil || m.Manifests != nil || m.Subject != nil
	}
	s.named[h] = r
	return r, nil
}

// mentioned returns what looks like a SHA-256 digest in text.
func mentioned(text []byte) (list []sum) {
	prefix := []byte("sha256:")
	for {
		i := bytes.Index(text, prefix)
		if i < 0 {
			return list
		}
		text = text[i+len(prefix):]
		if len(text) >= 64 {
			if h, ok := parseSum(string(text[:64])); ok {
				list = append(list, h)
			}
		}
	}
}
