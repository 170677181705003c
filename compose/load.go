package compose

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/compose-spec/compose-go/v2/utils"
)

// Project is a Compose project. It is safe for use by several goroutines.
type Project struct {
	model    *types.Project
	sources  *sources
	ignore   []string
	warnings []string
}

// Load reads a project's files. It looks at no Dockerfile, and asks no engine anything;
// what is included or extended it reads from the local file system only. It reads the
// files, and ends with the error of ctx soon after that.
//
// Every error is an [*Error], with the file, line and column where they are known. It
// wraps [ErrInvalid], [ErrUnknownService], [ErrCycle] or [ErrBadOption], and
// [fs.ErrNotExist] if a file is missing or none is found.
//
// What Compose only warns of, such as a variable that is not set, is in
// [Project.Warnings].
func Load(ctx context.Context, opts Options) (*Project, error) {
	p := &Project{sources: newSources(), ignore: slices.Clone(opts.Ignore)}
	for _, f := range p.ignore {
		if !ignorable(f) {
			return nil, &Error{Err: fmt.Errorf("%w: Ignore: %q is no field that can't be honoured", ErrBadOption, printed(f))}
		}
	}
	options, err := projectOptions(opts)
	if err != nil {
		return nil, &Error{Err: err}
	}
	if len(options.ConfigPaths) == 0 {
		dir, _ := options.GetWorkingDir()
		return nil, &Error{File: dir, Err: fmt.Errorf("%w: %s in it or above: %w", ErrBadOption, strings.Join(cli.DefaultFileNames, ", "), os.ErrNotExist)}
	}
	// What the parser says of a syntax error is told apart from the rest here, where the
	// file it is in is known.
	for _, path := range options.ConfigPaths {
		if err := p.sources.read(path); err != nil {
			return nil, err
		}
	}
	options.WithListeners(p.sources.listen)
	p.model, p.warnings, err = load(ctx, options)
	switch {
	case ctx.Err() != nil:
		return nil, &Error{Err: context.Cause(ctx)}
	case err != nil:
		return nil, p.sources.explain(err)
	}
	return p, nil
}

// projectOptions are opts as compose-go has them.
func projectOptions(opts Options) (*cli.ProjectOptions, error) {
	env := opts.Env
	if env == nil {
		env = os.Environ()
	}
	if files := utils.GetAsEqualsMap(env)["COMPOSE_ENV_FILES"]; len(opts.EnvFiles) == 0 && files != "" {
		opts.EnvFiles = strings.Split(files, ",") // the docker command's doing, and not in the parser
	}
	steps := []cli.ProjectOptionsFn{
		cli.WithWorkingDirectory(opts.Dir),
		cli.WithEnv(env),
		cli.WithEnvFiles(opts.EnvFiles...),
		cli.WithDotEnv,
		cli.WithConfigFileEnv,
		cli.WithDefaultConfigPath,
		// .env of the directory that the files turn out to be in, as Compose has it.
		cli.WithEnvFiles(opts.EnvFiles...),
		cli.WithDotEnv,
		cli.WithDefaultProfiles(opts.Profiles...),
		// They are for containers, and not needed to build.
		cli.WithoutEnvironmentResolution,
		cli.WithoutLabelsResolution,
	}
	if opts.Name != "" {
		steps = append(steps, cli.WithName(opts.Name))
	}
	var o *cli.ProjectOptions
	_, err := quietly(func() (err error) {
		o, err = cli.NewProjectOptions(slices.Clone(opts.Files), steps...)
		return err
	})
	if err != nil {
		return nil, &worded{ErrBadOption, err}
	}
	return o, nil
}

// load has compose-go load the project.
func load(ctx context.Context, options *cli.ProjectOptions) (p *types.Project, warnings []string, err error) {
	defer func() {
		// The parser is not ours, and Compose files are anybody's.
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("the parser of Compose files: %v", r)
		}
	}()
	warnings, err = quietly(func() (err error) {
		p, err = options.LoadProject(ctx)
		return err
	})
	if err == nil && p == nil {
		err = errors.New("there is nothing in it")
	}
	return p, warnings, err
}

// Name is the project's name.
func (p *Project) Name() string { return p.model.Name }

// Dir is the project's directory.
func (p *Project) Dir() string { return p.model.WorkingDir }

// Files are the Compose files, without those that they include or extend.
func (p *Project) Files() []string { return slices.Clone(p.model.ComposeFiles) }

// Warnings are what Compose would warn of, a sentence each.
func (p *Project) Warnings() []string { return slices.Clone(p.warnings) }

// Service is a service of a project.
type Service struct {
	Name string
	// Image is what its containers are created from, as Compose names it:
	// "<project>-<service>" if the service says nothing.
	Image string
	// Builds is set if the image is built, and not just pulled.
	Builds bool
	// Active is set unless the service has profiles of which none is active.
	Active bool
}

// Services returns all services, by name.
func (p *Project) Services() []Service {
	var list []Service
	for _, set := range []types.Services{p.model.Services, p.model.DisabledServices} {
		for _, name := range slices.Sorted(maps.Keys(set)) {
			s := set[name]
			_, active := p.model.Services[name]
			list = append(list, Service{Name: name, Image: p.image(&s), Builds: s.Build != nil, Active: active})
		}
	}
	slices.SortFunc(list, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// service returns the service of that name, whether it is active or not.
func (p *Project) service(name string) (types.ServiceConfig, bool) {
	s, ok := p.model.Services[name]
	if !ok {
		s, ok = p.model.DisabledServices[name]
	}
	return s, ok
}

// image is the name of the image of s. That of a service without one is Compose's own
// doing, and not in its parser.
func (p *Project) image(s *types.ServiceConfig) string {
	if s.Image != "" {
		return s.Image
	}
	if utils.StringToBool(p.model.Environment["COMPOSE_COMPATIBILITY"]) { // as Compose 1 did
		return p.model.Name + "_" + s.Name
	}
	return p.model.Name + "-" + s.Name
}
