package oci

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imagelock/imagelock/imagecache"
)

// A change waits in changes/ under a name that says whose tag it is and when it
// was made: of two changes of one tag, one of which a dead process left behind,
// the later one has to win.

func (s *Store) newPost(ref string) string {
	tag, now := tagName(ref), uint64(time.Now().UnixNano())
	// The clock may have been set back since.
	entries, _ := os.ReadDir(s.own("changes"))
	for _, e := range entries {
		if of, at, ok := parsePost(e.Name()); ok && of == tag && at >= now && at < math.MaxUint64 {
			now = at + 1
		}
	}
	b := make([]byte, 4)
	rand.Read(b)
	return fmt.Sprintf("%s-%016x-%s", tag, now, hex.EncodeToString(b))
}

func parsePost(file string) (tag string, time uint64, ok bool) {
	part := strings.Split(file, "-")
	if len(part) != 3 || len(part[1]) != 16 {
		return "", 0, false
	}
	time, err := strconv.ParseUint(part[1], 16, 64)
	return part[0], time, err == nil
}

type post struct {
	file string // "" if it is not one of changes/
	tag  string
	time uint64
	rec  record
	want v1.Hash // of a removal, what the tag has to name; zero for whatever it names
}

// check is for a removal that is carried out: the change that would have made the
// tag name another image may have been withdrawn.
func (p post) check(s *Store) error {
	if p.want.Hex == "" {
		return nil
	}
	rec, err := s.readTag(p.tag)
	if err == nil && rec.digest != p.want {
		err = fmt.Errorf("%w: %s, not %s", imagecache.ErrMoved, rec.digest, p.want)
	}
	return err
}

// posts returns the pending changes in order of time. What is none is removed:
// it can't have come from this package, which renames complete files only.
func (s *Store) posts() ([]post, error) {
	entries, err := os.ReadDir(s.own("changes"))
	if err != nil {
		return nil, err
	}
	var list []post
	for _, e := range entries {
		path := s.own("changes", e.Name())
		p := post{file: e.Name()}
		data, err := readSmall(path, maxRecord)
		if errors.Is(err, fs.ErrNotExist) {
			continue // withdrawn
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return nil, located(path, err)
		}
		if err == nil {
			p.rec, err = parseRecord(data)
		}
		var ok bool
		p.tag, p.time, ok = parsePost(e.Name())
		if err != nil || !ok || tagName(p.rec.ref) != p.tag {
			os.RemoveAll(path)
			continue
		}
		list = append(list, p)
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].time < list[j].time })
	return list, nil
}
