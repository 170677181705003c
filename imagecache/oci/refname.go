package oci

import (
	"encoding/hex"
	"strings"
)

// RefName returns the name under which other tools find the image of the
// normalised reference ref: the org.opencontainers.image.ref.name of its entry
// in index.json. With skopeo that is oci:DIR:NAME.
//
// It is ref itself, "docker.io/library/app:latest", wherever the grammar of the
// annotation allows it. That grammar, which skopeo enforces, has no "__" and no
// "_-", which references do have: such a run of separators is replaced by its
// hexadecimal form between plus signs, "a__b" by "a+5f5f+b". No reference has a
// plus sign, so that different references have different names.
// io.containerd.image.name always is ref itself.
func RefName(ref string) string {
	var b strings.Builder
	for i := 0; i < len(ref); {
		c := ref[i]
		if alnum(c) || c == '/' {
			b.WriteByte(c)
			i++
			continue
		}
		j := i
		for j < len(ref) && !alnum(ref[j]) && ref[j] != '/' {
			j++
		}
		run := ref[i:j]
		inside := i > 0 && ref[i-1] != '/' && j < len(ref) && ref[j] != '/'
		if inside && (run == "--" || len(run) == 1 && strings.Contains("-._:@", run)) {
			b.WriteString(run)
		} else {
			if i > 0 && ref[i-1] != '/' {
				b.WriteByte('+')
			}
			b.WriteString(hex.EncodeToString([]byte(run)))
			if j < len(ref) && ref[j] != '/' {
				b.WriteByte('+')
			}
		}
		i = j
	}
	return b.String()
}

func alnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
