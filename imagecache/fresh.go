package imagecache

import "slices"

// fresh tells whether the image p was made of what w wants it to be made of: the
// image's label says so, or our record of it. The label alone would not do: an
// image whose builder sets none has inherited its parent's.
func (c *Cache) fresh(w *wanted, p Presence) (bool, error) {
	if w.img.Inputs == "" || w.inputs != "" && p.Inputs == w.inputs {
		return true, nil
	}
	m, err := c.files.made(p.ID, w.ref)
	if err != nil {
		return false, &Error{Op: "ensure", Reference: w.ref, Path: c.files.madePath(p.ID, w.ref), Err: err}
	}
	if m == nil {
		return false, nil
	}
	want := w.inputs
	if want == "" {
		// A parent is gone, as it may be once its children are built. It has
		// not become another one, so what counts is what it was.
		want = effective(w.img.Inputs, m.standing(w.parents))
	}
	return want != "" && (p.Inputs == want || m.Inputs == want), nil
}

// standing returns parents with the IDs that they had when m was built in place of
// those that are not known.
func (m *made) standing(parents []Parent) []Parent {
	parents = slices.Clone(parents)
	for i := range parents {
		if p := &parents[i]; p.ID == "" {
			if j := slices.IndexFunc(m.Parents, func(q Parent) bool { return q.Reference == p.Reference }); j >= 0 {
				p.ID = m.Parents[j].ID
			}
		}
	}
	return parents
}
