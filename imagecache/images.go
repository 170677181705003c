package imagecache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/imagelock/imagelock/internal/printable"
)

// made is what is on record of an image that was built here under a reference. Its
// file's time is that of the image's last use under it. An image may have been
// built under several: builders without labels, such as a docker build whose steps
// are all cached, give two tags one ID. Each has a record, which only the holder of
// its tag's lock writes.
type made struct {
	ID        string            `json:"id"`
	Reference string            `json:"reference"`
	Inputs    string            `json:"inputs,omitempty"` // those of Image, and of the parents' IDs
	Parents   []Parent          `json:"parents,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Level     string            `json:"level,omitempty"`
	Layers    []Layer           `json:"layers,omitempty"`
	Built     time.Time         `json:"built"`
}

const (
	madeLimit = 1 << 20 // bytes of a record that is believed
	maxSize   = 1 << 50 // bytes of a layer that are believed
)

func (f *files) madePath(id, ref string) string {
	return filepath.Join(f.dir, imagesDir, f.recordName(id, ref)+recordExt)
}

// made reads the record of the image id under ref; nil if there is none that makes
// sense.
func (f *files) made(id, ref string) (*made, error) {
	b, err := read(f.madePath(id, ref), madeLimit)
	if err != nil || b == nil {
		return nil, err
	}
	if m := parseMade(b); m != nil && m.ID == id && m.Reference == ref {
		return m, nil
	}
	return nil, nil
}

// parseMade returns nil for a record that makes no sense. Whoever finds a file by
// its content compares its name with [files.madePath]: where others can write a
// record may have been copied.
func parseMade(b []byte) *made {
	var m made
	if json.Unmarshal(lastLine(b), &m) != nil || !isName(m.ID) {
		return nil
	}
	if ref, err := Normalize(m.Reference); err != nil || ref != m.Reference {
		return nil
	}
	for _, p := range m.Parents {
		if !isName(p.Reference) || !isName(p.ID) {
			return nil
		}
	}
	if !believable(m.Layers) {
		return nil
	}
	m.Inputs, m.Level = printable.Clean(m.Inputs, ""), printable.Clean(m.Level, "")
	return &m
}

// believable tells whether layers can be what an image consists of.
func believable(layers []Layer) bool {
	return !slices.ContainsFunc(layers, func(l Layer) bool { return !isName(l.ID) || l.Size < 0 || l.Size > maxSize })
}

// isName tells whether s can be an ID or a reference: something to be shown as it
// is, and compared.
func isName(s string) bool {
	return s != "" && len(s) <= 1024 && printable.Clean(s, "") == s
}

// keep puts m on record, also if its removal had begun. The intent to build it, of that
// many bytes, becomes the record; if intended is 0, or if it is not what it was, it is
// withdrawn. The caller holds its tag's lock.
func (f *files) keep(m *made, intended int64) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	if f.promote(m, b, intended) == nil {
		return f.bury(m.ID, m.Reference)
	}
	if err := replace(f.madePath(m.ID, m.Reference), b, f.mode); err != nil {
		return err
	}
	return errors.Join(f.bury(m.ID, m.Reference), f.withdraw(m.Reference))
}

// promote makes the intent to build m its record. Earlier versions take all of a record
// for one line; they pass over blanks.
func (f *files) promote(m *made, record []byte, intended int64) error {
	if intended == 0 || intended+int64(len(record)) >= madeLimit {
		return errOther
	}
	if err := extend(f.intentPath(m.Reference), intended, record, true); err != nil {
		return err
	}
	return rename(f.intentPath(m.Reference), f.madePath(m.ID, m.Reference))
}

// put writes the record of m, with the time of its last use.
func (f *files) put(m *made, used time.Time) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	return replaceTimed(f.madePath(m.ID, m.Reference), b, f.mode, used)
}

// encode returns m as it is kept.
func (m *made) encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err == nil && len(b) > madeLimit {
		// Whoever counts layers asks the store.
		short := *m
		short.Layers = nil
		b, err = json.Marshal(&short)
	}
	if err == nil && len(b) > madeLimit {
		err = fmt.Errorf("the record of the image %q would have %d bytes, at most %d can be read", m.ID, len(b), madeLimit)
	}
	if err == nil && parseMade(b) == nil {
		err = fmt.Errorf("the image %q, or its parents or layers, can't be put on record: they are not called as images are", m.ID)
	}
	return b, err
}

// used notes that the image id is used now under ref, and tells whether it is on
// record. To note it takes a file system longer than all that a lease takes.
func (f *files) used(id, ref string) bool {
	err := touch(f.madePath(id, ref))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.recorded(id, ref) // another user's, who does not share
	}
	return err == nil
}

// recorded tells whether the image id is on record under ref.
func (f *files) recorded(id, ref string) bool { return exists(f.madePath(id, ref)) }
