package lint

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/imagelock/imagelock/imagecache"
)

// AptUnlocked: apt's directories are shared by builds at the same time.
const AptUnlocked Code = "apt-unlocked"

var apt = regexp.MustCompile(`(^|[\s;&|('"/])(apt|apt-get|aptitude)([\s'"]|$)`)

// aptUnlocked: apt needs its directories for itself, and fails where it does not get its
// lock.
func aptUnlocked(p *plan) {
	for _, s := range p.services {
		for _, r := range s.runs {
			for _, m := range r.mounts {
				if m.Sharing != imagecache.SharingShared || !aptDir(m.Target) || !r.does(apt) {
					continue
				}
				p.report(Finding{
					Code: AptUnlocked, Severity: Unsafe,
					Reason: fmt.Sprintf("apt fails where another build has %s at the same time: \"Could not get lock\"", m.name()),
					Remedy: "add sharing=locked to the mount, and to all others of this cache",
				}, m.place, s.Service)
			}
		}
	}
}

func aptDir(target string) bool {
	target = path.Clean(target)
	for _, dir := range []string{"/var/cache/apt", "/var/lib/apt"} {
		if target == dir || strings.HasPrefix(target, dir+"/") {
			return true
		}
	}
	return false
}
