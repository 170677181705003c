package imagecache

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"slices"
	"syscall"
)

// cause is a kind of failure, as it is put on record.
type cause string

const (
	causeBuild       cause = "build"        // the build said no
	causeNotProduced cause = "not-produced" // it said yes, and there is no image
	causeLimit       cause = "limit"        // the build limit passed
	causeDisk        cause = "disk"         // no space left
	causeNetwork     cause = "network"
	causeHost        cause = "host"      // out of descriptors, processes or memory
	causeKilled      cause = "killed"    // what the build ran was killed
	causeCancelled   cause = "cancelled" // something inside the build was
	causeTransient   cause = "transient" // it says so itself
)

// killed is implemented by errors of programs that a signal ended.
type killed interface{ Killed() bool }

// classify tells what kind of failure err is.
func classify(err error) cause {
	var k killed
	var exit *exec.ExitError
	switch {
	case errors.Is(err, ErrNotProduced):
		return causeNotProduced
	case errors.Is(err, ErrBuildLimit):
		return causeLimit
	case isAny(err, errNoSpace, syscall.EDQUOT):
		return causeDisk
	case isAny(err, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN):
		return causeHost
	case errors.As(err, &k) && k.Killed(),
		k == nil && errors.As(err, &exit) && exit.ExitCode() == -1: // by a signal
		return causeKilled
	case errors.Is(err, context.Canceled):
		return causeCancelled
	case ofNetwork(err):
		return causeNetwork
	}
	if t, ok := errors.AsType[transient](err); ok && t.Transient() {
		return causeTransient
	}
	return causeBuild
}

func ofNetwork(err error) bool {
	if e, ok := errors.AsType[net.Error](err); ok {
		// Every errno is a net.Error, that of a missing file too.
		if _, ok := e.(syscall.Errno); !ok {
			return true
		}
	}
	return isAny(err, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ETIMEDOUT,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH)
}

func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
}

// remembered is true for failures that would most likely be repeated by another
// attempt a moment later.
func (c cause) remembered() bool {
	return c == causeBuild || c == causeNotProduced || c == causeLimit
}

// transient is implemented by errors that know whether they may pass by themselves.
type transient interface {
	error
	Transient() bool
}

// isTransient tells whether another try may do better.
func isTransient(err error) bool {
	if t, ok := errors.AsType[transient](err); ok {
		return t.Transient()
	}
	c := classify(err)
	return c == causeNetwork || c == causeHost
}

// wrap gives a failure that was read from a record the errors.Is it had in the
// process where it happened.
func (c cause) wrap(err error) error {
	is := map[cause]error{causeNotProduced: ErrNotProduced, causeLimit: ErrBuildLimit, causeDisk: errNoSpace}[c]
	if is == nil {
		return err
	}
	return &elsewhere{err, is}
}

// elsewhere is an error of another process.
type elsewhere struct {
	error
	is error
}

func (e *elsewhere) Is(target error) bool { return target == e.is }
