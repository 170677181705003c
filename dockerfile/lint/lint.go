package lint

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/imagelock/imagelock/dockerfile"
)

// File is what one image is built from. A Dockerfile that several services build from,
// with other arguments or targets, is a File for each.
type File struct {
	// Name is the Dockerfile's path, for findings.
	Name string
	// Service is whose image it is. By default it is Name.
	Service string
	// Text is the Dockerfile.
	Text []byte
	// Context tells contexts apart: services with the same one share a workspace. By
	// default files of the same Name do.
	Context string

	dockerfile.Options
}

// Severity says how bad a finding is.
type Severity uint8

const (
	// Slow: builds work, and take longer than they need.
	Slow Severity = iota + 1
	// Unsafe: builds that run at the same time may break.
	Unsafe
	// Hangs: builds that run at the same time may stop for ever.
	Hangs
)

// String returns "slow", "unsafe" or "hangs".
func (s Severity) String() string {
	switch s {
	case Slow:
		return "slow"
	case Unsafe:
		return "unsafe"
	case Hangs:
		return "hangs"
	}
	return fmt.Sprintf("severity(%d)", uint8(s))
}

// Code names a rule. It stays the same from version to version.
type Code string

// Place is a line of a Dockerfile.
type Place struct {
	File string
	Line int
}

func (p Place) String() string { return fmt.Sprintf("%s:%d", printable(p.File), p.Line) }

// Finding is what a rule has found. Its texts are one line each, free of control
// characters, for people.
type Finding struct {
	Code     Code
	Severity Severity
	Place
	// Services are those whose builds are concerned.
	Services []string
	// Reason says what is wrong.
	Reason string
	// Remedy says what to do about it.
	Remedy string
	// Also are other places that have a part in it.
	Also []Place
}

func (f Finding) String() string {
	return fmt.Sprintf("%v: %s (%v): %s; %s", f.Place, f.Code, f.Severity, f.Reason, f.Remedy)
}

// FileError is the error of a Dockerfile that can't be read.
type FileError struct {
	Name string
	Err  error // a [*dockerfile.Error]
}

func (e *FileError) Error() string {
	if d, ok := errors.AsType[*dockerfile.Error](e.Err); ok && d.Line > 0 {
		return fmt.Sprintf("lint: %v: %v", Place{e.Name, d.Line}, d.Err)
	}
	return fmt.Sprintf("lint: %s: %v", printable(e.Name), e.Err)
}

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

const (
	// maxFiles is how many services a plan may have.
	maxFiles = 1000
	// maxStages is how many stages a build may need. Who writes more means no build.
	maxStages = 1000
)

// Check returns what it finds in the Dockerfiles, in the order of their names and lines,
// each thing once. Only what the targets need is looked at.
//
// A Dockerfile that can't be read is a [*FileError]; all of them are joined, and what is
// found in the others is returned as well. Check takes no time to speak of, and may be
// called by several goroutines.
func Check(files ...File) ([]Finding, error) {
	if len(files) > maxFiles {
		return nil, fmt.Errorf("lint: %w: %d Dockerfiles, at most %d", dockerfile.ErrTooLarge, len(files), maxFiles)
	}
	p := &plan{}
	var errs []error
	for _, f := range files {
		needs, err := dockerfile.Scan(strings.NewReader(string(f.Text)), f.Options)
		if err == nil && len(needs.Stages) > maxStages {
			err = &dockerfile.Error{Err: fmt.Errorf("%w: %d stages, at most %d", dockerfile.ErrTooLarge, len(needs.Stages), maxStages)}
		}
		if err != nil {
			errs = append(errs, &FileError{f.Name, err})
			continue
		}
		p.add(f, needs)
	}
	for _, rule := range rules {
		rule(p)
	}
	return p.findings(), errors.Join(errs...)
}

// rules are all there are, a file each.
var rules = []func(*plan){
	parallelStages, sharedTarget, idVariable, cargoRegistry, aptUnlocked, lockOrder, mixedSharing, wholeWorkspace,
}

// findings are what was found, each once: one Dockerfile may be that of many services.
func (p *plan) findings() []Finding {
	type key struct {
		code   Code
		place  Place
		reason string
	}
	var all []Finding
	at := map[key]int{}
	for _, f := range p.found {
		k := key{f.Code, f.Place, f.Reason}
		if i, ok := at[k]; ok {
			all[i].Services = append(all[i].Services, f.Services...)
			all[i].Also = append(all[i].Also, f.Also...)
			continue
		}
		at[k] = len(all)
		all = append(all, f)
	}
	for i := range all {
		f := &all[i]
		slices.Sort(f.Services)
		f.Services = slices.Compact(f.Services)
		slices.SortFunc(f.Also, comparePlaces)
		f.Also = slices.DeleteFunc(slices.Compact(f.Also), func(p Place) bool { return p == f.Place })
	}
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(comparePlaces(a.Place, b.Place), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Reason, b.Reason))
	})
	return all
}

func comparePlaces(a, b Place) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
}
