package imagecache

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// account is an image in the accounts.
type account struct {
	*record          // without its layers
	layers  []*layer // nil if they are not known
	rank    rank

	// of the pruning that is under way
	chosen bool // to be removed if it can be
	queued bool
	tries  int
}

// rank is what the store was seen to make of an image's name.
type rank uint8

const (
	begun     rank = iota // its removal has begun and must be completed
	vanished              // it is nobody's: there may be nothing but the record
	outdated              // it is another's by now: nobody can ask for the image
	reachable             // or not known
)

// layer is one that images share.
type layer struct {
	id     string
	size   int64
	images int
}

// accounts are the images on record, with what they take in the store: the layers
// of all of them, each once. They may be kept from one pruning to the next.
type accounts struct {
	files    *files
	images   map[string]*account   // by the record's name
	byID     map[string][]*account // several if an image was built under several names
	children map[string]int        // by ID: how many images are built on it
	layers   map[string]*layer     // by ID
	size     int64
	damaged  map[string]error // by the record's name
	intents  []string         // the names of builds that have begun

	at     time.Time // of the directory, when it was read
	read   time.Time // when that was
	unread int       // how often it was not read since
}

func (c *Cache) newAccounts() *accounts {
	return &accounts{
		files:    c.files,
		images:   map[string]*account{},
		byID:     map[string][]*account{},
		children: map[string]int{},
		layers:   map[string]*layer{},
		damaged:  map[string]error{},
	}
}

// follow is refresh for who looks before each image. Of very many images it reads the
// list only so often that it takes no more time than their removal.
func (a *accounts) follow() (added []*account, err error) {
	if a.unread++; a.unread <= len(a.images)/500 && time.Since(a.read) < time.Second {
		return nil, nil
	}
	return a.refresh()
}

// refresh takes up what was built since the last time, which it returns, and drops
// what was removed. It is cheap if there is nothing of either.
func (a *accounts) refresh() (added []*account, err error) {
	fi, err := os.Stat(filepath.Join(a.files.dir, imagesDir))
	if err != nil || fi.ModTime().Equal(a.at) {
		return nil, err
	}
	names, intents, err := a.files.listRecords()
	if err != nil {
		return nil, err
	}
	for name, img := range a.images {
		if doomed, ok := names[name]; !ok || doomed != img.doomed {
			a.drop(img)
		}
	}
	for name, doomed := range names {
		if a.images[name] != nil || a.damaged[name] != nil {
			continue
		}
		if img := a.take(name, doomed); img != nil {
			added = append(added, img)
		}
	}
	a.intents = intents
	a.read, a.unread = time.Now(), 0
	// What happens within a tick of the filesystem's clock leaves no trace.
	if a.at = fi.ModTime(); time.Since(a.at) < tick {
		a.at = time.Time{}
	}
	return added, nil
}

// tick is longer than a step of any filesystem's clock.
const tick = 20 * time.Millisecond

// take takes up a record; nil if there is none.
func (a *accounts) take(name string, doomed bool) *account {
	r, err := a.files.record(name, doomed)
	if err != nil {
		a.damaged[name] = err
	}
	if r == nil { // another store's, or gone
		return nil
	}
	img := &account{record: r, rank: reachable}
	if doomed {
		img.rank = begun
	}
	a.enter(img)
	return img
}

// enter takes up an image that is not there yet.
func (a *accounts) enter(img *account) {
	a.images[img.name] = img
	a.byID[img.ID] = append(a.byID[img.ID], img)
	layers := img.Layers
	img.Layers = nil
	a.add(img)
	a.measure(img, layers)
}

// renew makes the accounts fit for another pruning. What the store was seen to make of
// the images is forgotten.
func (a *accounts) renew() error {
	for _, img := range a.images {
		if img.rank == vanished {
			a.add(img)
		}
		if img.rank != begun {
			img.rank = reachable
		}
		img.chosen, img.queued, img.tries = false, false, 0
	}
	clear(a.damaged)
	a.at = time.Time{}
	_, err := a.refresh()
	return err
}

// restat looks when the images were used last, and reads what was built to the same
// again.
func (a *accounts) restat() {
	now := time.Now()
	for _, img := range slices.Collect(maps.Values(a.images)) {
		fi, err := os.Lstat(img.path(a.files))
		if err == nil && os.SameFile(fi, img.file) {
			img.file, img.used = fi, lastUse(fi.ModTime(), img.Built, now)
			continue
		}
		layers := img.layers
		a.drop(img)
		if img = a.take(img.name, img.doomed); img != nil && img.layers == nil {
			a.subtract(img)
			img.layers = layers
			a.add(img)
		}
	}
}

// measure says what layers img has.
func (a *accounts) measure(img *account, layers []Layer) {
	if layers == nil {
		return
	}
	a.subtract(img)
	img.layers = make([]*layer, 0, len(layers))
	for _, l := range layers {
		if !slices.ContainsFunc(img.layers, func(other *layer) bool { return other.id == l.ID }) {
			img.layers = append(img.layers, &layer{id: l.ID, size: l.Size})
		}
	}
	a.add(img)
}

func (a *accounts) add(img *account) {
	for _, id := range img.parentIDs() {
		a.children[id]++
	}
	for i, l := range img.layers {
		if known := a.layers[l.id]; known != nil {
			l = known
		} else {
			a.layers[l.id] = l
			a.size += l.size
		}
		l.images++
		img.layers[i] = l
	}
}

// subtract is the opposite of add. It returns the bytes that no other image takes.
func (a *accounts) subtract(img *account) (freed int64) {
	for _, id := range img.parentIDs() {
		if a.children[id]--; a.children[id] == 0 {
			delete(a.children, id)
		}
	}
	for _, l := range img.layers {
		if l.images--; l.images == 0 {
			delete(a.layers, l.id)
			freed += l.size
		}
	}
	a.size -= freed
	return freed
}

// drop forgets img, and returns the bytes that no other image takes.
func (a *accounts) drop(img *account) (freed int64) {
	delete(a.images, img.name)
	a.byID[img.ID] = slices.DeleteFunc(a.byID[img.ID], func(other *account) bool { return other == img })
	if len(a.byID[img.ID]) == 0 {
		delete(a.byID, img.ID)
	}
	if img.rank == vanished {
		return 0
	}
	return a.subtract(img)
}

// vanish keeps img in the accounts as one that takes nothing.
func (a *accounts) vanish(img *account) {
	a.subtract(img)
	img.rank = vanished
}

// parentIDs are the IDs of the image's parents, each once. One that is its own
// parent has got a bad record.
func (m *made) parentIDs() []string {
	var ids []string
	for _, p := range m.Parents {
		if p.ID != m.ID && !slices.Contains(ids, p.ID) {
			ids = append(ids, p.ID)
		}
	}
	return ids
}
