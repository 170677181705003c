//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// config is the command line.
type config struct {
	Run  *regexp.Regexp
	Size size
	JSON string
	Dir  string
	Soak time.Duration // 0: none
}

const usage = `usage: go run ./bench [flags]

Measures imagelock's lock side by side with other ways to lock and prints one
table. A full run takes about fifteen minutes, one with -quick about a minute.
It exits 0 whether or not the bars are met.

Scenarios: %s

`

// parseFlags reads and checks the command line. It writes nothing but help. Its
// error is [flag.ErrHelp] or a mistake in args, and nothing was touched.
func parseFlags(args []string, stderr io.Writer) (*config, error) {
	var c config
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Func("run", "measure the scenarios whose name matches `regexp` only", func(s string) (err error) {
		c.Run, err = regexp.Compile(s)
		return err
	})
	f.BoolFunc("quick", "fewer rounds and shorter ones; the figures are rough", func(string) error {
		c.Size = quick
		return nil
	})
	f.StringVar(&c.JSON, "json", "", "write the figures to `file` as well, an array of {scenario, contender, metric, unit, value}")
	f.StringVar(&c.Dir, "dir", "", "`directory` for the lockfiles, which are removed at the end; its filesystem is what is measured (default: the system's temporary one)")
	f.Func("soak", "measure nothing, but kill processes at random instants for a `duration` and check every promise; exits 1 if one was broken", func(s string) (err error) {
		if c.Soak, err = time.ParseDuration(s); err == nil && c.Soak <= 0 {
			err = errors.New("it must be positive")
		}
		return err
	})
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stderr, usage, strings.Join(scenarioNames(), ", "))
		f.SetOutput(stderr)
		f.PrintDefaults()
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w (-h prints the flags)", err)
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if c.Soak > 0 && (c.Run != nil || c.Size != full || c.Dir != "") {
		return nil, errors.New("-soak goes with none of -run, -quick and -dir")
	}
	if c.Run != nil && len(c.scenarios()) == 0 {
		return nil, fmt.Errorf("no scenario matches %q, there are: %s", c.Run, strings.Join(scenarioNames(), ", "))
	}
	return &c, nil
}

// scenarios are those that -run selects.
func (c *config) scenarios() []scenario {
	var out []scenario
	for _, s := range scenarios {
		if c.Run == nil || c.Run.MatchString(s.name) {
			out = append(out, s)
		}
	}
	return out
}
