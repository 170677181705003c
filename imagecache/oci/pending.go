package oci

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sort"
	"strings"
	"time"
)

// A change waits in pending/ under a name that says whose tag it is and when it
// was made: of two changes of one tag, one of which a dead process left behind,
// the later one has to win.

func newPost(ref string) string {
	b := make([]byte, 4)
	rand.Read(b)
	return fmt.Sprintf("%s-%016x-%s", tagName(ref), time.Now().UnixNano(), hex.EncodeToString(b))
}

type post struct {
	file string
	tag  string
	time string
	rec  record
}

// posts returns the pending changes in order of time. What is none is removed:
// it can't have come from this package, which renames complete files only.
func (s *Store) posts() ([]post, error) {
	entries, err := os.ReadDir(s.own("pending"))
	if err != nil {
		return nil, err
	}
	var list []post
	for _, e := range entries {
		path := s.own("pending", e.Name())
		p := post{file: e.Name()}
		part := strings.Split(e.Name(), "-")
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
		if err != nil || len(part) != 3 || tagName(p.rec.ref) != part[0] {
			os.RemoveAll(path)
			continue
		}
		p.tag, p.time = part[0], part[1]
		list = append(list, p)
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].time < list[j].time })
	return list, nil
}
