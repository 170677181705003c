package lint

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/imagelock/imagelock/imagecache"
)

// CargoRegistry: cargo's registry is shared without the lock that protects it.
const CargoRegistry Code = "cargo-registry"

var cargo = regexp.MustCompile(`(^|[\s;&|('"/])cargo(-\S+)?([\s'"]|$)`)

// cargoRegistry: cargo locks a file in CARGO_HOME, beside registry. Where only registry
// is shared each build has a lock of its own, and two that unpack the same crate fail
// with ".cargo-ok: File exists".
func cargoRegistry(p *plan) {
	for _, s := range p.services {
		for _, r := range s.runs {
			for _, m := range r.mounts {
				home, ok := cargoHome(r, m)
				if !ok || m.Sharing != imagecache.SharingShared {
					continue
				}
				if slices.ContainsFunc(r.mounts, func(o *mount) bool { return path.Clean(o.Target) == home }) {
					continue
				}
				p.report(Finding{
					Code: CargoRegistry, Severity: Unsafe,
					Reason: fmt.Sprintf("%s is shared without the whole of CARGO_HOME: cargo's lock lies beside it and is each build's own, so builds that unpack the same crate fail with \".cargo-ok: File exists\"", m.name()),
					Remedy: "set CARGO_HOME to a directory of its own and mount that, or set sharing=locked, or build through imagelock, which warms the cache",
				}, m.place, s.Service)
			}
		}
	}
}

// cargoHome returns the CARGO_HOME of which the mount is the registry or a part of that.
func cargoHome(r *run, m *mount) (string, bool) {
	target := path.Clean(m.Target)
	i := strings.LastIndex(target+"/", "/registry/")
	if i < 0 {
		return "", false
	}
	if rest := target[min(len(target), i+len("/registry/")):]; rest != "" && rest != "cache" && rest != "src" && rest != "index" {
		return "", false
	}
	home := target[:i]
	base := path.Base(home)
	return home, base == "cargo" || base == ".cargo" || strings.Contains(m.WrittenTarget, "CARGO_HOME") || r.does(cargo)
}
