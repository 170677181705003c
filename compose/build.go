package compose

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/imagelock/imagelock/dockerfile"
	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/contextdir"
	"github.com/imagelock/imagelock/internal/printable"
)

// build is how a service's image is made.
type build struct {
	service string
	ref     string // normalised

	dir        string
	dockerfile string // slash-separated and inside dir, if text is nil
	text       []byte // of a Dockerfile that is not inside dir
	args       map[string]string
	labels     map[string]string
	target     string
	network    string
	noCache    bool
	contexts   map[string]string // "docker-image://…", by name
	on         []string          // the services that are its contexts

	inline     bool
	recipePath string // of the Dockerfile, for errors

	// What a look at it has found.
	needs   *dockerfile.Needs
	inputs  string
	unknown []string // what the digest does not know, for people
	sent    *recipe  // nil if the Dockerfile is sent as it is
	parents []string // normalised
}

// inlineName is the name under which a Dockerfile that is no file of the context is sent
// along with it.
const inlineName = ".dockerfile.imagelock"

// labelProject is the label by which Compose knows what belongs to a project.
const labelProject = "com.docker.compose.project"

// resolve makes a build of what a service says, for a store of that platform.
func (p *Project) resolve(s *types.ServiceConfig, platform string, opts *PlanOptions, bad *problems) *build {
	in := s.Build
	p.refuse(s, bad)
	b := &build{
		service: s.Name, target: in.Target, noCache: in.NoCache || opts.NoCache,
		labels: maps.Clone(map[string]string(in.Labels)), args: map[string]string{}, contexts: map[string]string{},
	}
	refuse := func(field string, err error) { bad.add(p.at(s.Name, field, err)) }
	var err error
	if b.ref, err = imagecache.Normalize(p.image(s)); err != nil {
		refuse("image", err)
	}
	for k, v := range in.Args {
		if v != nil {
			b.args[k] = *v
		}
	}
	maps.Copy(b.args, opts.Args)
	switch in.Network {
	case "", "default", "none", "host":
		b.network = in.Network
	default:
		refuse("build.network", fmt.Errorf("%w: %q: BuildKit knows default, none and host", ErrUnsupported, printed(in.Network)))
	}
	if s.Platform != "" && !samePlatform(s.Platform, platform) {
		refuse("platform", unfit(s.Platform, platform))
	}
	if want := p.model.Environment["DOCKER_DEFAULT_PLATFORM"]; s.Platform == "" && want != "" && !samePlatform(want, platform) {
		refuse("platform", fmt.Errorf("by default it is DOCKER_DEFAULT_PLATFORM: %w", unfit(want, platform)))
	}
	for _, want := range in.Platforms {
		if len(in.Platforms) > 1 || !samePlatform(want, platform) {
			refuse("build.platforms", unfit(strings.Join(in.Platforms, ", "), platform))
			break
		}
	}
	p.content(b, s, refuse)
	return b
}

// unfit is the error of a platform that is not the store's.
func unfit(want, platform string) error {
	return fmt.Errorf("%w: %s: this store is for %s (docker.WithPlatform), one platform at a time", ErrUnsupported, printed(want), platform)
}

// content finds the context, the Dockerfile and the named contexts.
func (p *Project) content(b *build, s *types.ServiceConfig, refuse func(string, error)) {
	in := s.Build
	for _, name := range slices.Sorted(maps.Keys(in.AdditionalContexts)) {
		v := in.AdditionalContexts[name]
		field := "build.additional_contexts." + name
		if target, ok := strings.CutPrefix(v, types.ServicePrefix); ok {
			other, found := p.service(target)
			if !found {
				refuse(field, fmt.Errorf("%w: %q", ErrUnknownService, printed(target)))
				continue
			}
			if other.Build == nil {
				refuse(field, fmt.Errorf("%w: service %q has nothing to build: give it a build, or use docker-image://", ErrInvalid, printed(target)))
				continue
			}
			b.on = append(b.on, target)
			v = imageScheme + p.image(&other)
		}
		if !strings.HasPrefix(v, imageScheme) {
			refuse(field, fmt.Errorf("%w: %q: only images can be contexts beside the main one (service:…, docker-image://…)", ErrUnsupported, printed(printable.WithoutUser(v))))
			continue
		}
		b.contexts[name] = v
	}
	if isRemote(in.Context) {
		refuse("build.context", fmt.Errorf("%w: %q: it has to be a directory", ErrUnsupported, printed(printable.WithoutUser(in.Context))))
		return
	}
	dir, err := contextdir.Open(in.Context)
	if err != nil {
		refuse("build.context", missing(in.Context, err))
		return
	}
	b.dir = dir.Path
	if in.DockerfileInline != "" {
		b.text, b.inline = []byte(in.DockerfileInline), true
		return
	}
	path := absolute(in.Context, filepath.FromSlash(in.Dockerfile))
	b.recipePath = path
	if rel, err := filepath.Rel(in.Context, path); err == nil && filepath.IsLocal(rel) {
		b.dockerfile = filepath.ToSlash(rel)
		if _, _, err := dir.Dockerfile(b.dockerfile); err != nil {
			refuse("build.dockerfile", missing(in.Context, err))
		}
		return
	}
	if b.text, err = readFile(path); err != nil {
		refuse("build.dockerfile", missing(path, err))
	}
	if _, err := os.Lstat(path + ".dockerignore"); err == nil {
		refuse("build.dockerfile", fmt.Errorf("%w: %s.dockerignore, which lies outside the context: use .dockerignore in the context", ErrUnsupported, path))
	}
}

const imageScheme = "docker-image://"

// missing is an error about a path in a directory.
func missing(dir string, err error) error {
	if e, ok := errors.AsType[*contextdir.Error](err); ok {
		dir, err = filepath.Join(dir, filepath.FromSlash(e.Path)), e.Err
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err // the path is said once
	}
	return fmt.Errorf("%s: %w", dir, err)
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return contextdir.ReadRegular(f, contextdir.Limit)
}

// isRemote tells whether a context is fetched, as Compose tells.
func isRemote(context string) bool {
	for _, prefix := range []string{"github.com/", "git@", types.ServicePrefix} {
		if strings.HasPrefix(context, prefix) {
			return true
		}
	}
	return strings.Contains(context, "://")
}

// difference names a field of the build in which two differ, so that it matters which of
// them is made; empty if there is none.
func (b *build) difference(o *build) string {
	switch {
	case b.dir != o.dir:
		return "context"
	case b.dockerfile != o.dockerfile || string(b.text) != string(o.text):
		return "dockerfile"
	case !maps.Equal(b.args, o.args):
		return "args"
	case b.target != o.target:
		return "target"
	case !maps.Equal(b.labels, o.labels):
		return "labels"
	case b.network != o.network:
		return "network"
	case b.noCache != o.noCache:
		return "no_cache"
	case !maps.Equal(b.contexts, o.contexts):
		return "additional_contexts"
	}
	return ""
}
