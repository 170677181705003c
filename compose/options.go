package compose

import (
	"io"

	"github.com/imagelock/imagelock/imagecache"
)

// Options say which project [Load] reads. The zero value is that of the working
// directory, as `docker compose` without flags has it.
type Options struct {
	// Files are the Compose files; of a value that several have, that of the last
	// counts. By default they are those that COMPOSE_FILE names, else compose.yaml
	// and its override in Dir or above.
	Files []string

	// Dir is the project's directory, to which its paths are relative. By default it
	// is that of the first of Files, else the working directory.
	Dir string

	// Name is the project's name. By default it is COMPOSE_PROJECT_NAME, else the
	// one that the files say, else the name of Dir.
	Name string

	// Profiles are those that are active, "*" for all. By default they are those of
	// COMPOSE_PROFILES.
	Profiles []string

	// EnvFiles are files of variables. By default they are those that COMPOSE_ENV_FILES
	// names in Env, with commas between them, else .env in Dir, if it exists.
	EnvFiles []string

	// Env are variables, as "NAME=value", which come before those of files. By
	// default it is the process's environment; give an empty list, not nil, for none.
	Env []string

	// Ignore are fields of a service's build that may be there although they can't be
	// honoured, such as "cache_from". Not to honour them may make another image than
	// Compose would.
	Ignore []string
}

// PlanOptions say what [Project.Plan] plans. The zero value is all services that have
// something to build and whose profiles are active.
type PlanOptions struct {
	// Services are those whose images are wanted, also if their profiles are not
	// active. What they are built on is planned too. By default all are.
	Services []string

	// Args are build arguments for all services, which come before those of the
	// files.
	Args map[string]string

	// NoCache runs every step of what is built, even if the engine has its result. It
	// builds nothing that is there.
	NoCache bool

	// Mount is called for each cache mount of each service's Dockerfile, and may
	// set its Policy and Version. By default they are the cache's
	// ([imagecache.WithMountPolicy]).
	Mount func(service string, m *imagecache.Mount)

	// Base returns how to get a base that no service makes and that is not in the
	// store, such as a command that pulls it; nil if there is no way. By default the
	// plan is refused without it.
	Base func(reference string) imagecache.BuildFunc

	// Progress takes the builds' progress as text, from several goroutines. By default
	// it goes to the builds' logs alone.
	Progress io.Writer
}
