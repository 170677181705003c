package imagecache

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// seenLimit is how large the file may grow, in bytes: some 200,000 images.
const seenLimit = 32 << 20

// seenPath is a file with a line for each image that [Store.Probe] has found
// present, reference and ID; the last line of a reference counts. It tells
// [ManyProber] what need not be looked at again, and is never believed without the
// store: lines that are lost, torn or wrong cost a question. It is for one
// platform, since a store may be asked for several, and empty for stores that know
// no platforms: those have nothing more to look at.
func (c *Cache) seenPath() string {
	p, ok := c.store.(Platformed)
	if !ok {
		return ""
	}
	return filepath.Join(c.dir, seenDir, c.files.hash(p.Platform()))
}

// seen reads the file. One that has become too long is written or begun anew.
func (c *Cache) seen() map[string]string {
	path := c.seenPath()
	if path == "" {
		return nil
	}
	text, err := read(path, seenLimit)
	if text == nil && err == nil {
		_ = os.Remove(path) // too large, or no file
	}
	known, lines := map[string]string{}, 0
	for line := range strings.Lines(string(text)) {
		// A line that was cut short runs into the next, and neither counts.
		ref, rest, _ := strings.Cut(line, " ")
		id, end, _ := strings.Cut(rest, " ")
		if end == "\n" && ref != "" && id != "" {
			known[ref] = id
		}
		lines++
	}
	if lines > 3*len(known)+1000 || len(text) > seenLimit/2 {
		_ = os.Remove(path)
		if len(text) <= seenLimit/2 {
			c.see(known) // what others add meanwhile is lost
		}
	}
	return known
}

// see adds images, by reference, that Probe has just found.
func (c *Cache) see(ids map[string]string) {
	path := c.seenPath()
	if path == "" || len(ids) == 0 {
		return
	}
	var b bytes.Buffer
	for ref, id := range ids {
		b.WriteString(ref + " " + id + " \n")
	}
	const flags = os.O_WRONLY | os.O_APPEND | noFollow
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		// Also of others who share the directory, as far as the umask allows.
		f, err = os.OpenFile(path, flags|os.O_CREATE, 0o666)
	}
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.Write(b.Bytes())
}
