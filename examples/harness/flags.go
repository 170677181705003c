package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// The values of -engine.
const (
	engineAuto   = "auto"
	engineDocker = "docker"
	engineOCI    = "oci"
)

// config is the command line.
type config struct {
	Engine    string
	Plan      []Instance
	Processes int
	Workers   int
	Slots     int
	BuildTime span
	Seed      uint64
	KillEvery time.Duration
	Each      bool
	Budget    *int64 // nil for none
	CacheDir  string
	Keep      string
	Unsafe    bool
	Progress  bool
	Evidence  string
	JSON      bool
}

// Limits that keep a slip of the finger from taking the machine down.
const (
	maxProcesses = 256
	maxWorkers   = 1024
	maxSlots     = 1024
	maxBuildTime = time.Hour
	minKillEvery = 100 * time.Millisecond
	maxRunName   = 40
)

// usageError is a mistake in the command line: the program ends with status 2
// and has touched nothing.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

const usage = `usage: harness [flags]

Many processes with many workers each prepare the same environments at once
(base, environment, instance), and every image is built once.

`

// parseFlags reads and checks the command line. It writes nothing but help.
// Its error is flag.ErrHelp or a *usageError.
func parseFlags(args []string, stderr io.Writer) (*config, error) {
	var (
		c         = config{BuildTime: span{200 * time.Millisecond, 200 * time.Millisecond}}
		plan      string
		instances int
		budget    int64
	)
	f := flag.NewFlagSet("harness", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&c.Engine, "engine", engineAuto, "where images are built: docker, oci (the embedded store), or auto: docker if it is reachable")
	f.StringVar(&plan, "plan", "", "`file` with the columns instance_id, repo, version, separated by tabs (default: 24 instances, embedded)")
	f.IntVar(&c.Processes, "processes", 8, "worker processes")
	f.IntVar(&c.Workers, "workers", 4, "workers in each process")
	f.IntVar(&instances, "instances", 0, "use the first `N` instances of the plan only (default: all)")
	f.IntVar(&c.Slots, "slots", runtime.NumCPU(), "builds at the same time, over all processes")
	f.Var(&c.BuildTime, "build-time", "how long a build takes, besides the engine's own time: a `duration`, or a range such as 21ms..380ms")
	f.Uint64Var(&c.Seed, "seed", 1, "`number` from which each image's build time, the orders and the killed processes are drawn")
	f.DurationVar(&c.KillEvery, "kill-every", 0, "kill a worker process (SIGKILL) each `interval` and start it again, but for the last one that runs")
	f.Int64Var(&budget, "budget", 0, "remove images as the run goes on, the least recently used first, so that they have at most so many `bytes`; each process then prepares its share of the plan (default: none)")
	f.BoolVar(&c.Each, "each", false, "prepare instance by instance, as harnesses with a pool of workers do, instead of the whole plan by one call")
	f.StringVar(&c.CacheDir, "cache", "", "cache `directory`: locks, logs, and the embedded store's images (default: the library's own; temporary for the embedded store)")
	f.StringVar(&c.Keep, "keep", "", "keep the images under this `name`; a second run with it finds them present (on Docker they have the label "+runLabel+"=name)")
	f.BoolVar(&c.Unsafe, "unsafe", false, "without locks: look, then build; shows what goes wrong and exits 0")
	f.StringVar(&c.Evidence, "evidence", "", "`file` to which every executed build appends a line; overwritten at the start (default: temporary)")
	f.BoolVar(&c.Progress, "progress", false, "show the progress as lines of text, where stderr is no terminal")
	f.BoolVar(&c.JSON, "json", false, "print the result as one line of JSON")

	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stderr, usage)
		f.SetOutput(stderr)
		f.PrintDefaults()
		return nil, err
	} else if err != nil {
		return nil, &usageError{err}
	}
	bad := func(format string, args ...any) (*config, error) {
		return nil, &usageError{fmt.Errorf(format, args...)}
	}
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	switch {
	case f.NArg() > 0:
		return bad("unexpected argument %q: everything is a flag", f.Arg(0))
	case c.Engine != engineAuto && c.Engine != engineDocker && c.Engine != engineOCI:
		return bad("-engine %q is unknown: use auto, docker or oci", c.Engine)
	case c.Processes < 1 || c.Processes > maxProcesses:
		return bad("-processes %d is not between 1 and %d", c.Processes, maxProcesses)
	case c.Workers < 1 || c.Workers > maxWorkers:
		return bad("-workers %d is not between 1 and %d", c.Workers, maxWorkers)
	case c.Slots < 1 || c.Slots > maxSlots:
		return bad("-slots %d is not between 1 and %d", c.Slots, maxSlots)
	case given["kill-every"] && c.KillEvery < minKillEvery:
		return bad("-kill-every %v is less than %v: no process would come to anything", c.KillEvery, minKillEvery)
	case budget < 0:
		return bad("-budget %d is negative", budget)
	case given["budget"] && c.Unsafe:
		return bad("-budget with -unsafe: without locks nobody can tell what is in use")
	case given["instances"] && instances < 1:
		return bad("-instances %d is not positive", instances)
	case given["keep"] && (!runName.MatchString(c.Keep) || len(c.Keep) > maxRunName):
		return bad("-keep %q is no name: use at most %d lower-case letters and digits, with single dashes between them", c.Keep, maxRunName)
	}
	for name, value := range map[string]string{"plan": plan, "evidence": c.Evidence} {
		if given[name] && value == "" {
			return bad("-%s is empty: name a file", name)
		}
	}
	if given["budget"] {
		c.Budget = &budget
	}
	var err error
	if c.Plan, err = LoadPlan(plan); err != nil {
		return nil, &usageError{err}
	}
	if given["instances"] && instances < len(c.Plan) {
		c.Plan = c.Plan[:instances]
	}
	if given["cache"] {
		if c.CacheDir == "" {
			return bad("-cache is empty: name a directory")
		}
		if err := checkDir(c.CacheDir); err != nil {
			return bad("-cache: %w", err)
		}
		if c.CacheDir, err = filepath.Abs(c.CacheDir); err != nil {
			return bad("-cache: %w", err)
		}
	}
	if err := checkEvidence(c.Evidence); err != nil {
		return bad("-evidence: %w", err)
	}
	return &c, nil
}

// checkDir finds out whether dir is, or can become, a directory to write
// to, and leaves nothing behind.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		// What is not there is created later; here only its parent counts.
		if parent := filepath.Dir(filepath.Clean(dir)); parent != dir {
			return checkDir(parent)
		}
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	probe, err := os.CreateTemp(dir, ".harness-probe-*")
	if err != nil {
		return err
	}
	probe.Close()
	return os.Remove(probe.Name())
}

// checkEvidence refuses to overwrite a file that holds anything but evidence.
func checkEvidence(file string) error {
	if file == "" {
		return nil
	}
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		dir := filepath.Dir(file)
		if _, err := os.Stat(dir); err != nil {
			return err // nobody makes the directory later
		}
		return checkDir(dir)
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", file)
	}
	if _, err := ReadEvidence(file); err != nil {
		return fmt.Errorf("not overwriting what is no evidence: %w", err)
	}
	return nil
}
