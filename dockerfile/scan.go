package dockerfile

import (
	"fmt"
	"maps"
	"runtime"
	"slices"

	"github.com/imagelock/imagelock/imagecache"
)

// Options say of which build [Scan] tells. The zero value is a build for this machine's
// architecture on Linux, of the last stage, without build arguments.
type Options struct {
	// Target is the stage to build. By default it is the last.
	Target string

	// Args are the values of build arguments, those that BuildKit itself knows
	// among them (BUILDKIT_CACHE_MOUNT_NS, TARGETARCH).
	Args map[string]string

	// Platform is what the image is for, BuildPlatform what it is built on, such as
	// "linux/amd64" or "linux/arm/v7". By default Platform is linux on this machine's
	// architecture, and BuildPlatform is Platform.
	Platform, BuildPlatform string

	// BaseEnv returns the environment of a base image, as "NAME=value", and whether it
	// is known. The platform is the one that FROM asks for; empty for the target's.
	// Without, a variable that the Dockerfile does not set and a base might is
	// unresolved.
	BaseEnv func(reference, platform string) (env []string, known bool)

	// BaseTriggers returns the ONBUILD instructions of a base image, for a platform as
	// BaseEnv has it. With an error they may be any: then all counts that they might
	// use. Without, bases are taken to have none.
	BaseTriggers func(reference, platform string) ([]string, error)

	// Contexts are the build's named contexts (docker build --build-context): a
	// directory, "docker-image://" and a reference, or what else BuildKit or Compose
	// takes. A name hides the stage or the image of that name.
	Contexts map[string]string

	// OldFrontend is for engines whose built-in frontend does not expand variables in
	// the fields of a cache mount (Docker 20.10), unless the Dockerfile names another
	// one (# syntax=). They take an id of "target-$SERVICE" literally.
	OldFrontend bool
}

// Needs is what a build needs.
type Needs struct {
	// Stages are the stages that the target needs, in the file's order; the target
	// is the last.
	Stages []Stage
	// Namespace is the value of BUILDKIT_CACHE_MOUNT_NS.
	Namespace string
	// Syntax is the frontend that the Dockerfile asks for (# syntax=), if it does.
	// A frontend of another kind may do anything with what follows.
	Syntax string

	syntaxLine int
	escape     rune
}

// Stage is a FROM and what follows.
type Stage struct {
	// Index counts all stages of the file from 0; Name is empty if it has none.
	Index int
	Name  string
	// Line is that of its FROM.
	Line int
	// Base is what it begins with.
	Base Base
	// Mounts are its cache mounts, in the file's order.
	Mounts []imagecache.Mount
	// Runs are its RUN instructions.
	Runs []Run
	// Copies are the files it takes from the build's context, from other stages and
	// from images.
	Copies []Copy
	// Fetches are what it downloads by ADD.
	Fetches []Fetch
	// Needs are the indices of the stages it stands on or takes files from.
	Needs []int
	// Unknown says what can't be told of it.
	Unknown []Unknown

	from   []Base   // of mounts, and of ONBUILD instructions that run here
	recipe []string // all that its text does
}

// Base is an image, another stage, or a named context.
type Base struct {
	// Reference is the image as the Dockerfile names it, variables expanded; "scratch"
	// is no image. It is empty if it is a stage, or unresolved.
	Reference string
	// Context is the name of the context it is, if it is one. One that is an image
	// has its Reference, too. Written is then how the Dockerfile names it, which may be
	// otherwise: "alpine:latest" is the context alpine as well.
	Context, Written string
	// Stage is the index of the stage; -1 if it is an image.
	Stage int
	// Platform is what the Dockerfile asks for, if it does.
	Platform string
	// Line is where it is named.
	Line int
	// Unresolved says why it is not known, for people.
	Unresolved string
}

// Copy is what a COPY, an ADD or a bind mount takes.
type Copy struct {
	// Paths are its sources, patterns among them, variables expanded, as they are
	// written. Those of the context are relative to it.
	Paths []string
	// From is where they are taken from; nil for the build's context.
	From *Base
	// Exclude are the patterns of --exclude.
	Exclude []string
	// Parents is set for COPY --parents, whose patterns are those of a .dockerignore,
	// behind "/./" if that is in the path.
	Parents bool
	// Bind is set for a mount, whose path has no wildcards.
	Bind bool
	Line int
	// Unresolved says why Paths may be others, for people.
	Unresolved string
}

// Run is a RUN.
type Run struct {
	Line int
	// Command is what it runs, heredocs among it, as it is written.
	Command string
	// Mounts are its cache mounts.
	Mounts []RunMount
}

// RunMount is a cache mount as a Dockerfile has it.
type RunMount struct {
	imagecache.Mount
	// Line is that of its --mount.
	Line int
	// WrittenID and WrittenTarget are its id and its target, variables unexpanded.
	WrittenID, WrittenTarget string
	// Unset are the variables of its id (of its target, if it has none) that are
	// known to have no value here: no ARG or ENV gives them one.
	Unset []string
	// Literal is set if the frontend does not expand variables in a mount's fields.
	Literal bool
}

// Fetch is something that ADD downloads.
type Fetch struct {
	URL string
	// Checksum is that which it must have, if any.
	Checksum string
	Line     int
}

// Unknown is something that can't be told before the build.
type Unknown struct {
	Line int
	Why  string
}

func (u Unknown) String() string { return fmt.Sprintf("line %d: %s", u.Line, u.Why) }

// Mounts returns the cache mounts of all stages, for [imagecache.Image].
func (n *Needs) Mounts() []imagecache.Mount {
	var all []imagecache.Mount
	for i := range n.Stages {
		all = append(all, n.Stages[i].Mounts...)
	}
	return all
}

// Bases returns the images that must be there, each once, in the file's order: what
// stages begin with, and what they take files from. Named contexts are not among them
// unless they are images.
func (n *Needs) Bases() []Base {
	var all []Base
	add := func(b Base) {
		same := func(o Base) bool {
			return o.Reference == b.Reference && o.Platform == b.Platform && o.Written == b.Written && o.Unresolved == b.Unresolved
		}
		if b.Stage < 0 && b.Reference != scratch && (b.Context == "" || b.Reference != "") && !slices.ContainsFunc(all, same) {
			all = append(all, b)
		}
	}
	for i := range n.Stages {
		s := &n.Stages[i]
		add(s.Base)
		for _, c := range s.Copies {
			if c.From != nil {
				add(*c.From)
			}
		}
		for _, m := range s.from {
			add(m)
		}
	}
	return all
}

// Parallel returns the pairs of stages, by index, of which neither needs the other:
// BuildKit runs them at the same time.
func (n *Needs) Parallel() [][2]int {
	below := map[int]map[int]bool{} // what a stage needs, directly or not
	for i := range n.Stages {       // in the file's order: what is needed comes before
		s := &n.Stages[i]
		all := map[int]bool{}
		for _, j := range s.Needs {
			all[j] = true
			maps.Copy(all, below[j])
		}
		below[s.Index] = all
	}
	var pairs [][2]int
	for i := range n.Stages {
		for j := range i {
			a, b := n.Stages[j].Index, n.Stages[i].Index
			if !below[b][a] {
				pairs = append(pairs, [2]int{a, b})
			}
		}
	}
	return pairs
}

// scratch is the base that is no image.
const scratch = "scratch"

func (o *Options) platforms() (target, build platform, err error) {
	if target, err = parsePlatform(o.Platform, platform{OS: "linux", Architecture: runtime.GOARCH}); err != nil {
		return target, build, err
	}
	build, err = parsePlatform(o.BuildPlatform, target)
	return target, build, err
}
