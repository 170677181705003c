package imagecache

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/imagelock/imagelock/lock"
)

// intent is noted before a build begins and withdrawn when its image is on record. If
// the process is killed in between, it tells that the image is ours: without, nobody
// would ever remove it, and it would not count.
type intent struct {
	made             // without ID and layers, unless it is a whole record already
	Before string    `json:"before,omitempty"` // the ID that the tag named
	since  time.Time // the file's
}

const intentExt = ".building"

// lateTag is how long after its beginning a killed builder's image may still appear: an
// engine that has come far with a build may end it although its client is dead.
const lateTag = 10 * time.Minute

func (f *files) intentPath(ref string) string {
	return filepath.Join(f.dir, imagesDir, f.hash(ref)+intentExt)
}

// intend notes an intent, and returns how many bytes it has. The caller holds the tag's
// lock.
func (f *files) intend(i *intent) (size int64, err error) {
	b, err := json.Marshal(i)
	if err != nil {
		return 0, err
	}
	b = append(b, '\n')
	// Of the mode of the record that it becomes.
	return int64(len(b)), replace(f.intentPath(i.Reference), b, f.mode)
}

// withdraw removes the intent for ref. The caller holds the tag's lock.
func (f *files) withdraw(ref string) error {
	if err := os.Remove(f.intentPath(ref)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// intent reads the intent of that name; nil if there is none that makes sense, or if
// it is one of another store.
func (f *files) intent(name string) *intent {
	b, fi, err := readStat(filepath.Join(f.dir, imagesDir, name+intentExt), madeLimit)
	if err != nil || b == nil {
		return nil
	}
	// Who was killed when he was about to make it a record has left that below.
	if m := parseMade(b); m != nil && len(lastLine(b)) < len(b)-1 && f.hash(m.Reference) == name {
		return &intent{made: *m, since: fi.ModTime()}
	}
	var i intent
	if json.Unmarshal(lineOne(b), &i) != nil || i.ID != "" {
		return nil
	}
	i.ID = i.Reference // which makes it a record that can be checked
	b, err = json.Marshal(&i.made)
	if err != nil {
		return nil
	}
	m := parseMade(b)
	if m == nil || f.hash(m.Reference) != name {
		return nil
	}
	m.ID, m.Layers = "", nil
	return &intent{*m, i.Before, fi.ModTime()}
}

// adoptKilled puts on record what killed builders have left. It waits for nobody: what
// is being built needs no help.
func (c *Cache) adoptKilled(ctx context.Context, names []string) {
	for _, name := range names {
		if i := c.files.intent(name); i != nil && ctx.Err() == nil {
			c.adoptOne(ctx, i.Reference, name)
		}
	}
}

func (c *Cache) adoptOne(ctx context.Context, ref, name string) {
	for _, key := range []string{ref, runningKey(ref)} {
		h, err := c.locks.TryAcquire(ctx, key, lock.Exclusive, lock.Operation("adopt"))
		if err != nil {
			return
		}
		defer h.Release()
	}
	if i := c.files.intent(name); i != nil {
		c.settle(ctx, i, false)
	}
}

// settle ends an intent whose build has ended without a record: what the tag names now
// is put on record if it is not what it named before. The caller holds the tag's lock,
// and has since the build began if own is set; else the image must say itself that it
// was built under that name.
//
// It is not put on record as made of its inputs: nobody knows whether the build would
// have been content with it.
func (c *Cache) settle(ctx context.Context, i *intent, own bool) {
	if i.ID != "" {
		// Should the image be gone by now, the next pruning finds out.
		_ = rename(c.files.intentPath(i.Reference), c.files.madePath(i.ID, i.Reference))
		return
	}
	p, err := c.probe(ctx, i.Reference)
	if err != nil {
		return // the next pruning asks again
	}
	if p.State == Absent || p.ID == i.Before {
		if age := time.Since(i.since); !own && age.Abs() < lateTag {
			return
		}
	} else {
		m, err := c.files.made(p.ID, i.Reference)
		if err == nil && m == nil && !own {
			own, err = c.labelled(ctx, p.ID, i.Reference)
		}
		if err != nil {
			return
		}
		switch {
		case m == nil && own:
			record := i.made
			record.ID, record.Inputs, record.Built = p.ID, "", time.Now()
			if c.files.keep(&record, 0) != nil {
				return
			}
		case m == nil:
			c.log.Warn("the builder of this image was killed, and the image does not say that it was built here: it will not be removed "+
				"and counts for no budget; builds should set its labels (Build.Labels)", zap.String("tag", i.Reference), zap.String("id", p.ID))
		}
	}
	_ = c.files.withdraw(i.Reference) // or the next pruning does
}

// labelled tells whether the image id says that it was built as ref.
func (c *Cache) labelled(ctx context.Context, id, ref string) (bool, error) {
	s, ok := c.store.(Labeler)
	if !ok {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.limits.probe)
	defer cancel()
	labels, err := s.Labels(ctx, id)
	return labels[LabelReference] == ref, err
}
