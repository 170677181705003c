package main

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
)

// Tags are the names of one run's images. Every name begins with the run's own
// repository path, so that a run starts cold and can take away exactly what it
// made.
type Tags struct{ Run string }

const tagPrefix = "imagelock-harness/"

// Base is the image below all others.
func (t Tags) Base() string { return tagPrefix + t.Run + "/base:1" }

// Env is the image of one version of one repository.
func (t Tags) Env(in Instance) string {
	return tagPrefix + t.Run + "/env/" + path(in.Repo) + ":" + sanitise(in.Version, tagChars, 128)
}

// Instance is the image of one task.
func (t Tags) Instance(in Instance) string {
	return tagPrefix + t.Run + "/eval/" + component(in.ID) + ":1"
}

// Made is an image that a plan needs.
type Made struct {
	Tag     string
	Parents []string // one, or none for the base
	Level   string
}

// parent is the tag below, "" for the base.
func (m Made) parent() string { return strings.Join(m.Parents, " ") }

// The levels of a plan's images.
const (
	levelBase     = "base"
	levelEnv      = "env"
	levelInstance = "instance"
)

// Images lists the images of the plan once each, parents first.
func (t Tags) Images(plan []Instance) []Made {
	images := []Made{{Tag: t.Base(), Level: levelBase}}
	seen := map[string]bool{}
	for _, in := range plan {
		if env := t.Env(in); !seen[env] {
			seen[env] = true
			images = append(images, Made{Tag: env, Parents: []string{t.Base()}, Level: levelEnv})
		}
	}
	for _, in := range plan {
		images = append(images, Made{Tag: t.Instance(in), Parents: []string{t.Env(in)}, Level: levelInstance})
	}
	return images
}

var (
	// runName is what a run may be called: it becomes a path component as it is.
	runName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

	componentChars = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)
	tagChars       = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	hashed         = regexp.MustCompile(`-x[0-9a-f]{16}$`)
	notPlain       = regexp.MustCompile(`[^a-z0-9]+`)
)

// path makes a repository path of a name such as "astropy/astropy".
func path(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = component(p)
	}
	// A reference has at most 255 bytes before its tag.
	if p := strings.Join(parts, "/"); len(p) <= 128 {
		return p
	}
	return mangle(name)
}

func component(name string) string { return sanitise(name, componentChars, 128) }

// sanitise returns name itself if it is valid, and else a valid name that no
// other name is given: names that differ only in what had to be replaced, such
// as "a+b" and "a b", must not share an image.
func sanitise(name string, valid *regexp.Regexp, most int) string {
	if len(name) <= most && valid.MatchString(name) && !hashed.MatchString(name) {
		return name
	}
	return mangle(name)
}

func mangle(name string) string {
	plain := strings.Trim(notPlain.ReplaceAllString(strings.ToLower(name), "-"), "-")
	if len(plain) > 40 {
		plain = strings.TrimRight(plain[:40], "-")
	}
	if plain == "" {
		plain = "name"
	}
	sum := sha256.Sum256([]byte(name))
	return plain + "-x" + hex.EncodeToString(sum[:8])
}

// short is a reference as people write it: the inverse of what normalising adds
// to a tag of [Tags].
func short(ref string) string { return strings.TrimPrefix(ref, "docker.io/") }
