package docker

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"syscall"

	"github.com/docker/docker/client"
)

// networkError is an error of the network's kind, for those who ask with
// errors.As for a net.Error.
type networkError struct{ text string }

func (e *networkError) Error() string { return e.text }

// Timeout is false: what is meant here is not a deadline of ours.
func (e *networkError) Timeout() bool { return false }

// Temporary is true: the network may be back at the next attempt.
func (e *networkError) Temporary() bool { return true }

var errNetwork error = &networkError{"network error"}

// networkText is what engines, registries and package managers say when the
// network lets them down. A wrong guess costs an attempt more.
var networkText = regexp.MustCompile(`(?i)dial tcp|no such host|connection (refused|reset|timed out)|i/o timeout|` +
	`tls handshake timeout|network is unreachable|could not resolve|temporary failure (in name resolution|resolving)|` +
	`transport is closing|error reading from server: EOF|toomanyrequests|too many requests`)

// recognise returns the error that the text of a failure stands for, nil if it is
// none that callers treat differently.
func recognise(texts ...string) error {
	for _, t := range texts {
		if strings.Contains(strings.ToLower(t), "no space left on device") {
			return syscall.ENOSPC
		}
	}
	for _, t := range texts {
		if networkText.MatchString(t) {
			return errNetwork
		}
	}
	return nil
}

// ctxError returns why ctx ended, nil if it has not.
func ctxError(ctx context.Context) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); err != nil && !errors.Is(cause, err) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// fail makes the error of a request from what the client returned: the end of
// ctx, no engine, or what the engine said.
func (s *Store) fail(ctx context.Context, op, ref string, err error) error {
	switch cerr := ctxError(ctx); {
	case cerr != nil:
		err = cerr
	case errors.Is(err, ErrInterrupted):
	case client.IsErrConnectionFailed(err):
		err = fmt.Errorf("%w: %w", ErrUnreachable, withoutURL(err))
	default:
		err = withoutURL(err)
		if cause := recognise(err.Error()); cause != nil && !errors.Is(err, cause) {
			err = &recognised{err, cause}
		}
	}
	return s.errorOf(op, ref, err)
}

func (s *Store) errorOf(op, ref string, err error) error {
	return &EngineError{Op: op, Host: s.host, Context: s.via, Reference: ref, Err: err}
}

// withoutURL takes the request's URL from an error of the client: that of a build
// holds its arguments, which may be secrets.
func withoutURL(err error) error {
	if uerr := (*url.Error)(nil); errors.As(err, &uerr) {
		return uerr.Err
	}
	return err
}

// recognised is an error that stands for another without saying so twice.
type recognised struct {
	error
	cause error
}

func (e *recognised) Unwrap() []error { return []error{e.error, e.cause} }
