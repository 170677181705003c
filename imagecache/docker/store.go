package docker

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/docker/docker/client"

	"github.com/imagelock/imagelock/imagecache"
)

const (
	// openLimit bounds the requests of Open together.
	openLimit = 5 * time.Second
	// requestLimit bounds every later request but a build. An engine that is
	// busy building may take its time; one that hangs must not hang us.
	requestLimit = 20 * time.Second
)

// Store is the images of a Docker Engine. It implements [imagecache.Store], and
// is safe for use by several goroutines, as the engine is by several processes.
// Its zero value is not usable.
type Store struct {
	api  *client.Client
	own  bool // api is ours to close
	host string

	engine   engine
	platform platform
	asked    bool // for a platform, by WithPlatform

	openLimit, requestLimit time.Duration
}

var _ imagecache.Store = (*Store)(nil)

// Option is an option of [Open].
type Option interface{ apply(*Store) error }

type optionFunc func(*Store) error

func (f optionFunc) apply(s *Store) error { return f(s) }

// WithClient sets the client, which stays the caller's to close. It should
// negotiate the API version (client.WithAPIVersionNegotiation), or older engines
// refuse it. By default Open makes a client from the environment (DOCKER_HOST,
// DOCKER_API_VERSION, DOCKER_CERT_PATH, DOCKER_TLS_VERIFY).
func WithClient(c *client.Client) Option {
	return optionFunc(func(s *Store) error {
		if c == nil {
			return fmt.Errorf("%w: WithClient: nil", ErrBadOption)
		}
		s.api = c
		return nil
	})
}

// WithHost sets the engine's address, such as "unix:///run/user/1000/docker.sock"
// or "tcp://build-7:2376". By default DOCKER_HOST is used, and if that is not set
// the system's own. It can't be used together with [WithClient].
func WithHost(host string) Option {
	return optionFunc(func(s *Store) error {
		if host == "" {
			return fmt.Errorf("%w: WithHost: empty address", ErrBadOption)
		}
		s.host = host
		return nil
	})
}

// WithPlatform sets the platform that images are for, such as "linux/amd64": it
// is what [Store.Probe] accepts and what builds are for. By default it is the
// engine's own.
func WithPlatform(p string) Option {
	return optionFunc(func(s *Store) (err error) {
		if s.platform, err = parsePlatform(p); err != nil {
			return fmt.Errorf("%w: WithPlatform: %w", ErrBadOption, err)
		}
		s.asked = true
		return nil
	})
}

// Open reaches the engine, agrees with it on a version of its API, and asks what
// it is. It takes five seconds at most, less if ctx ends; an engine that does not
// answer in that time counts as unreachable. It starts nothing.
//
// Every error is an [*EngineError]; it wraps [ErrUnreachable], [ErrBadOption], the
// end of ctx or what the engine said.
func Open(ctx context.Context, opts ...Option) (*Store, error) {
	s := &Store{openLimit: openLimit, requestLimit: requestLimit}
	if err := s.open(ctx, opts); err != nil {
		_ = s.Close() // only closes what is idle
		return nil, err
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, opts []Option) error {
	for _, o := range opts {
		if err := o.apply(s); err != nil {
			return &EngineError{Op: "open", Host: s.host, Err: err}
		}
	}
	if err := s.connect(); err != nil {
		return &EngineError{Op: "open", Host: s.host, Err: err}
	}
	ctx, cancel := limit(ctx, s.openLimit)
	defer cancel()
	if s.own {
		// Not left to the first request: it would go out with a version that
		// the engine may not know if this one request was lost.
		ping, err := s.api.Ping(ctx)
		if err != nil {
			return s.fail(ctx, "open", "", err)
		}
		s.api.NegotiateAPIVersionPing(ping)
	}
	var err error
	if s.engine, err = s.meet(ctx); err != nil {
		return s.fail(ctx, "open", "", err)
	}
	if !s.asked {
		s.platform = s.engine.platform
	}
	return nil
}

// connect makes the client. Nothing is sent yet.
func (s *Store) connect() error {
	if s.api != nil {
		if s.host != "" {
			return fmt.Errorf("%w: WithHost together with WithClient", ErrBadOption)
		}
		s.host = s.api.DaemonHost()
		return nil
	}
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if s.host != "" {
		opts = append(opts, client.WithHost(s.host))
	}
	api, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadOption, err)
	}
	s.api, s.own, s.host = api, true, api.DaemonHost()
	if strings.HasPrefix(s.host, "ssh://") {
		return fmt.Errorf("%w: only the docker command speaks ssh; forward the socket (ssh -L) and set DOCKER_HOST to it", ErrUnreachable)
	}
	return nil
}

// limit bounds ctx by d; to have been too slow is to be unreachable.
func limit(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("%w: no answer within %v", ErrUnreachable, d))
}

// Client returns the client of the engine's API, for what Store does not do.
func (s *Store) Client() *client.Client { return s.api }

// Platform returns the platform that images are for, such as "linux/amd64".
func (s *Store) Platform() string { return s.platform.String() }

// Close closes idle connections, unless the client was brought by [WithClient].
// Requests that are under way go on.
func (s *Store) Close() error {
	if !s.own {
		return nil
	}
	return s.api.Close()
}
