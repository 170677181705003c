package inputs

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// record is what one input was, as far as the hashed bytes tell.
type record struct {
	kind       byte
	key, value string
	dockerfile *sum
	nodes      []node
}

// decoder reads back what an encoder has written.
type decoder struct {
	b  []byte
	ok bool
}

func decode(b []byte) ([]record, bool) {
	b, ok := bytes.CutPrefix(b, []byte(version))
	d := &decoder{b, ok}
	var all []record
	for d.ok && len(d.b) > 0 {
		r := record{kind: d.byte()}
		switch r.kind {
		case kindText:
			r.value = d.string()
		case kindArg:
			r.key, r.value = d.string(), d.string()
		case kindFile:
			r.nodes = []node{d.node(d.byte())}
		case kindDir:
			switch d.byte() {
			case with:
				s := d.sum()
				r.dockerfile = &s
			case without:
			default:
				d.ok = false
			}
			for k := d.byte(); d.ok && k != kindEnd; k = d.byte() {
				r.nodes = append(r.nodes, d.node(k))
			}
		default:
			d.ok = false
		}
		all = append(all, r)
	}
	return all, d.ok
}

func (d *decoder) take(n uint64) []byte {
	if !d.ok || uint64(len(d.b)) < n {
		d.ok = false
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) string() string {
	if n := d.take(8); n != nil {
		return string(d.take(binary.BigEndian.Uint64(n)))
	}
	return ""
}

func (d *decoder) sum() (s sum) {
	copy(s[:], d.take(32))
	return s
}

func (d *decoder) node(kind byte) node {
	n := node{kind: kind, name: d.string()}
	switch kind {
	case kindFile:
		n.flags, n.sum = d.byte(), d.sum()
	case kindLink:
		n.target = d.string()
	case kindDir:
	default:
		d.ok = false
	}
	return n
}

func encoded(all []record) []byte {
	var b bytes.Buffer
	e := &encoder{w: &b}
	e.begin()
	for _, r := range all {
		e.kind(r.kind)
		switch r.kind {
		case kindText:
			e.string(r.value)
		case kindArg:
			e.string(r.key)
			e.string(r.value)
		case kindDir:
			e.dockerfile(r.dockerfile)
		}
		for i := range r.nodes {
			e.node(&r.nodes[i])
		}
		if r.kind == kindDir {
			e.kind(kindEnd)
		}
	}
	return b.Bytes()
}

// What is hashed can be read back in one way only: so two different lists of inputs
// have different bytes, and two different bytes are different lists.
func FuzzEncodingIsUnambiguous(f *testing.F) {
	f.Add([]byte(""), "a", "b", uint8(0))
	f.Add(encoded([]record{{kind: kindText, value: "x"}})[len(version):], "a/b", "", uint8(3))
	f.Fuzz(func(t *testing.T, raw []byte, s1, s2 string, flags uint8) {
		// Whatever can be read is written as the same bytes.
		raw = append([]byte(version), raw...)
		if all, ok := decode(raw); ok && !bytes.Equal(encoded(all), raw) {
			t.Errorf("%q is read as %+v, which is written as %q", raw, all, encoded(all))
		}
		// Whatever is written is read as the same.
		var h sum
		copy(h[:], s1)
		nodes := []node{{kind: kindFile, name: s1, flags: flags, sum: h}, {kind: kindDir, name: s2}, {kind: kindLink, name: s1, target: s2}}
		for _, all := range [][]record{
			{{kind: kindText, value: s1}, {kind: kindText, value: s2}},
			{{kind: kindText, value: s1 + s2}},
			{{kind: kindArg, key: s1, value: s2}},
			{{kind: kindFile, nodes: nodes[:1]}, {kind: kindText, value: s2}},
			{{kind: kindDir, nodes: nodes}, {kind: kindArg, key: s1}},
			{{kind: kindDir, nodes: nodes[:1]}, {kind: kindDir, nodes: nodes[1:]}},
			{{kind: kindDir, dockerfile: &h, nodes: nodes[1:]}},
		} {
			got, ok := decode(encoded(all))
			if !ok || !same(got, all) {
				t.Errorf("%+v is read as %+v, %v", all, got, ok)
			}
		}
	})
}

func same(a, b []record) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if x.kind != y.kind || x.key != y.key || x.value != y.value || len(x.nodes) != len(y.nodes) || (x.dockerfile == nil) != (y.dockerfile == nil) {
			return false
		}
		if x.dockerfile != nil && *x.dockerfile != *y.dockerfile {
			return false
		}
		for j := range x.nodes {
			if x.nodes[j] != y.nodes[j] {
				return false
			}
		}
	}
	return true
}
