package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imagelock/imagelock/imagecache"
)

// index.json as it is written here has one line an image, between these. Nothing
// follows the manifests, so an addition is a change of the last few bytes.
const (
	indexHead = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[`
	indexTail = "\n]}\n"

	refNameKey   = "org.opencontainers.image.ref.name"
	imageNameKey = "io.containerd.image.name"
	// ownKey marks the entries that follow the tags; all others are kept.
	ownKey = "io.github.imagelock.store"
)

// line is r's entry in index.json.
func (r record) line() []byte {
	// Nothing here needs an escape in JSON: FuzzRecord sees to it.
	inputs := ""
	if r.inputs != "" {
		inputs = fmt.Sprintf(`"%s":"%s",`, imagecache.LabelInputs, r.inputs)
	}
	return fmt.Appendf(nil, `{"mediaType":"%s","digest":"%s","size":%d,"annotations":{"%s":"%s","%s":"tag",%s"%s":"%s"}}`,
		types.OCIManifestSchema1, r.digest, r.size,
		imageNameKey, r.ref, ownKey, inputs, refNameKey, RefName(r.ref))
}

// parseLine is the inverse of line. It is false for an entry that was not written
// here.
func parseLine(line []byte) (record, bool) {
	var r record
	text, ok := strings.CutPrefix(string(line), `{"mediaType":"`+string(types.OCIManifestSchema1)+`","digest":"`)
	digest, text, ok2 := strings.Cut(text, `","size":`)
	size, text, ok3 := strings.Cut(text, `,"annotations":{"`+imageNameKey+`":"`)
	ref, text, ok4 := strings.Cut(text, `","`+ownKey+`":"tag",`)
	if !ok || !ok2 || !ok3 || !ok4 {
		return r, false
	}
	r.ref = ref
	if r.digest, ok = parseDigest(digest); !ok {
		return r, false
	}
	r.size, _ = strconv.ParseInt(size, 10, 64)
	if in, ok := strings.CutPrefix(text, `"`+imagecache.LabelInputs+`":"`); ok {
		r.inputs, _, _ = strings.Cut(in, `"`)
	}
	return r, bytes.Equal(r.line(), line)
}

// edit is a change of one entry: old is nil for an addition, new for a removal.
type edit struct{ old, new []byte }

var errNotOurs = errors.New("index.json has not the form in which it was written")

// splice applies edits to the text of an index that was written here. It works
// on lines and never parses. It may write into text.
func splice(text []byte, edits []edit) ([]byte, error) {
	if !bytes.HasSuffix(text, []byte(indexTail)) {
		return nil, errNotOurs
	}
	body := text[:len(text)-len(indexTail)]
	for _, e := range edits {
		if e.old == nil {
			body = appendLine(body, e.new)
			continue
		}
		// With its line feed and what ends the line: an entry of somebody
		// else could contain the text of ours.
		line := append([]byte("\n"), e.old...)
		at := bytes.Index(body, line)
		if at < 0 {
			return nil, errNotOurs
		}
		end := at + len(line)
		last := end == len(body)
		switch {
		case !last && body[end] != ',':
			return nil, errNotOurs
		case e.new != nil:
			body = slices.Replace(body, at+1, end, e.new...)
		case last: // the comma before it goes, if there is one
			body = bytes.TrimSuffix(body[:at], []byte(","))
		default:
			body = slices.Delete(body, at, end+1)
		}
	}
	return append(body, indexTail...), nil
}

func appendLine(body, line []byte) []byte {
	if body[len(body)-1] != '[' {
		body = append(body, ',')
	}
	return append(append(body, '\n'), line...)
}

// merge makes the text of an index from an old one, of whatever origin, and the
// tags. Entries of others stay where they are; those of ours follow the tags.
// old may be empty.
func merge(old []byte, tags map[string]record) ([]byte, error) {
	head, entries, err := parseIndex(old)
	if err != nil {
		return nil, err
	}
	byRefName := make(map[string]string, len(tags))
	for name, r := range tags {
		byRefName[RefName(r.ref)] = name
	}
	done := make(map[string]bool, len(tags))
	body := head
	for _, e := range entries {
		name, tagged := byRefName[e.refName]
		switch {
		case tagged && !done[name]:
			done[name] = true
			body = appendLine(body, tags[name].line())
		case !tagged && !e.own:
			body = appendLine(body, e.text)
		}
	}
	var rest []record
	for name, r := range tags {
		if !done[name] {
			rest = append(rest, r)
		}
	}
	sort.Slice(rest, func(i, j int) bool { return rest[i].ref < rest[j].ref })
	for _, r := range rest {
		body = appendLine(body, r.line())
	}
	return append(body, indexTail...), nil
}

type indexEntry struct {
	text    []byte
	refName string
	own     bool
}

// parseIndex returns what stands before the entries, and the entries, each in
// one line. Fields that are not known here are kept.
func parseIndex(text []byte) (head []byte, entries []indexEntry, err error) {
	if len(text) == 0 {
		return []byte(indexHead), nil, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, nil, fmt.Errorf("%w: %s is no JSON object: %w", ErrCorrupt, indexFile, err)
	}
	var version int
	if v, ok := fields["schemaVersion"]; ok && (json.Unmarshal(v, &version) != nil || version != 2) || fields == nil {
		return nil, nil, fmt.Errorf("%w: schemaVersion of %s is not 2", ErrLayoutVersion, indexFile)
	}
	var manifests []json.RawMessage
	if m, ok := fields["manifests"]; ok {
		if err := json.Unmarshal(m, &manifests); err != nil {
			return nil, nil, fmt.Errorf("%w: manifests of %s: %w", ErrCorrupt, indexFile, err)
		}
	}
	var other []string
	for k := range fields {
		if k != "schemaVersion" && k != "mediaType" && k != "manifests" {
			other = append(other, k)
		}
	}
	sort.Strings(other)
	b := bytes.NewBufferString(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"`)
	for _, k := range other {
		key, _ := json.Marshal(k)
		b.WriteByte(',')
		b.Write(key)
		b.WriteByte(':')
		json.Compact(b, fields[k]) // valid: it was parsed
	}
	b.WriteString(`,"manifests":[`)
	for _, m := range manifests {
		var line bytes.Buffer
		json.Compact(&line, m)
		var d struct {
			Annotations map[string]any `json:"annotations"`
		}
		_ = json.Unmarshal(m, &d) // what is no descriptor has no name, and stays
		name, _ := d.Annotations[refNameKey].(string)
		own, _ := d.Annotations[ownKey].(string)
		entries = append(entries, indexEntry{text: line.Bytes(), refName: name, own: own == "tag"})
	}
	return b.Bytes(), entries, nil
}
