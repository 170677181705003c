package oci

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imagelock/imagelock/imagecache"
)

// refGrammar is the image-spec's for ref.name, as skopeo has it.
var refGrammar = regexp.MustCompile(`^[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*(?:/[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*)*$`)

func FuzzRecord(f *testing.F) {
	good := record{ref: "docker.io/library/a__b:_-v1-", digest: digestOf(nil), size: 512}
	f.Add(good.encode())
	withInputs := good
	withInputs.inputs = "sha256:ab+/=@._-"
	f.Add(withInputs.encode())
	f.Add(record{ref: good.ref, remove: true}.encode())
	f.Add([]byte("imagelock tag 1\nref a\ndigest sha256:../../x\nsize 1\ntype x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data)
		if err != nil {
			return
		}
		if !bytes.Equal(r.encode(), data) {
			t.Fatalf("%q is read as %q", data, r.encode())
		}
		if r.remove {
			return
		}
		if strings.Trim(r.digest.Hex, "0123456789abcdef") != "" || len(r.digest.Hex) != 64 || r.size > maxManifest {
			t.Fatalf("%+v", r)
		}
		ref, err := imagecache.Normalize(r.ref)
		if err != nil || ref != r.ref {
			return // the store compares it with the one asked for
		}
		var d v1.Descriptor
		if err := json.Unmarshal(r.line(), &d); err != nil {
			t.Fatalf("%v: %s", err, r.line())
		}
		if back, ok := parseLine(r.line()); !ok || back != r {
			t.Fatalf("%s is read as %+v, %v", r.line(), back, ok)
		}
		name := d.Annotations[refNameKey]
		if d.Digest != r.digest || d.Size != r.size || d.Annotations[imageNameKey] != ref || d.Annotations[imagecache.LabelInputs] != r.inputs || !refGrammar.MatchString(name) {
			t.Fatalf("%s is entered as %s", data, r.line())
		}
	})
}

// A line of an index that is none of ours is never taken for one.
func FuzzLine(f *testing.F) {
	good := record{ref: "docker.io/library/a__b:v1", digest: digestOf(nil), size: 512, inputs: "sha256:x"}
	f.Add(good.line())
	good.inputs = ""
	f.Add(good.line())
	f.Add([]byte(`{"mediaType":"x"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if r, ok := parseLine(line); ok && !bytes.Equal(r.line(), line) {
			t.Fatalf("%s is read as %+v", line, r)
		}
	})
}

func FuzzRefName(f *testing.F) {
	f.Add("a__b:v1", "a_b:v1")
	f.Add("a:_-", "a:-_")
	f.Add("[::1]:5000/x", "1:5000/x")
	f.Fuzz(func(t *testing.T, a, b string) {
		a, err := imagecache.Normalize(a)
		if err != nil {
			return
		}
		if !refGrammar.MatchString(RefName(a)) {
			t.Errorf("%q has the name %q", a, RefName(a))
		}
		b, err = imagecache.Normalize(b)
		if err == nil && a != b && RefName(a) == RefName(b) {
			t.Errorf("%q and %q have one name, %q", a, b, RefName(a))
		}
	})
}

// model are the tags a, b, c, … with one of a few digests each.
func modelRecord(tag, version byte) (string, record) {
	ref := fmt.Sprintf("docker.io/library/%c:latest", 'a'+tag%8)
	return tagName(ref), record{ref: ref, digest: digestOf([]byte{version}), size: int64(version) + 2}
}

// FuzzIndex makes changes to an index, one after another, by splice and, for
// comparison, by merge; it begins with an index of somebody else.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[]}`), []byte{1, 2, 3, 1, 9, 129})
	f.Add([]byte(`{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"docker.io/library/a:latest"}},[1],"}\n]}\n"],"x":{}}`), []byte{0, 128, 0, 64})
	f.Add([]byte(``), []byte{7, 6, 5, 4, 135, 134, 133, 132})
	_, r := modelRecord(1, 0)
	f.Add([]byte(`{"manifests":[`+string(r.line())+`,`+string(r.line())+`]}`), []byte{9, 1})
	f.Fuzz(func(t *testing.T, old, ops []byte) {
		tags := map[string]record{}
		text, err := merge(old, tags)
		if err != nil {
			return
		}
		_, foreign, err := parseIndex(text)
		if err != nil {
			t.Fatalf("%v: %q becomes %q", err, old, text)
		}
		// Theirs under a name of ours go when ours come: they are not counted.
		others := 0
		for _, e := range foreign {
			if !strings.HasPrefix(e.refName, "docker.io/library/") {
				others++
			}
		}
		rebuilt := len(foreign) > others
		for _, op := range ops {
			name, r := modelRecord(op, op>>4&3)
			var e edit
			if was, ok := tags[name]; ok {
				e.old = was.line()
			}
			if op&128 != 0 {
				delete(tags, name)
			} else {
				tags[name] = r
				e.new = r.line()
			}
			if e.old == nil && e.new == nil {
				continue
			}
			want, err := merge(text, tags)
			if err != nil {
				t.Fatal(err)
			}
			if rebuilt {
				text = want
				_, left, _ := parseIndex(text)
				rebuilt = len(left) > others+len(tags)
			} else {
				got, err := splice(bytes.Clone(text), []edit{e})
				if err != nil {
					t.Fatalf("%v: %q in %q", err, e, text)
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("splice:\n%s\nmerge:\n%s", got, want)
				}
				text = got
			}
			if !json.Valid(text) {
				t.Fatalf("not JSON: %q", text)
			}
			_, entries, err := parseIndex(text)
			if err != nil || !rebuilt && len(entries) != others+len(tags) {
				t.Fatalf("%v: %d entries, want %d of ours and %d of others:\n%s", err, len(entries), len(tags), others, text)
			}
		}
	})
}
