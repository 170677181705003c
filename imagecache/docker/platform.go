package docker

import (
	"fmt"
	"strings"
)

// platform is what an image runs on, in Go's names.
type platform struct{ os, arch, variant string }

// parsePlatform reads "os/arch" or "os/arch/variant".
func parsePlatform(s string) (platform, error) {
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) < 2 || len(parts) > 3 {
		return platform{}, fmt.Errorf("platform %q is not of the form os/arch, such as linux/amd64", s)
	}
	for _, p := range parts {
		if p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789_-.") != "" {
			return platform{}, fmt.Errorf("platform %q is not of the form os/arch, such as linux/amd64", s)
		}
	}
	p := platform{os: parts[0], arch: parts[1]}
	if len(parts) == 3 {
		p.variant = parts[2]
	}
	return p.normal(), nil
}

// normal replaces the kernel's names of architectures by Go's.
func (p platform) normal() platform {
	p.os, p.arch, p.variant = strings.ToLower(p.os), strings.ToLower(p.arch), strings.ToLower(p.variant)
	switch p.arch {
	case "x86_64", "x86-64":
		p.arch = "amd64"
	case "aarch64":
		p.arch = "arm64"
	case "i386", "i686":
		p.arch = "386"
	case "armv7l", "armhf":
		p.arch, p.variant = "arm", "v7"
	case "armv6l", "armel":
		p.arch, p.variant = "arm", "v6"
	}
	if p.arch == "arm64" && p.variant == "v8" {
		p.variant = ""
	}
	return p
}

func (p platform) String() string {
	s := p.os + "/" + p.arch
	if p.variant != "" {
		s += "/" + p.variant
	}
	return s
}

// runs tells whether an image of platform img is one for p. What the image does
// not say (some imported ones say nothing) does not speak against it.
func (p platform) runs(img platform) bool {
	fits := func(want, got string) bool { return want == "" || got == "" || want == got }
	img = img.normal()
	return fits(p.os, img.os) && fits(p.arch, img.arch) && fits(p.variant, img.variant)
}
