package docker

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
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
	via  string // the docker command's context that names host, if one does

	engine   engine
	platform platform
	asked    bool         // for a platform, by WithPlatform
	images   atomic.Int64 // how many the engine had when it was last heard of

	openLimit, requestLimit time.Duration
	limits                  limits  // of probes
	direct                  *direct // for what is asked most often; may be nil
}

var _ imagecache.Store = (*Store)(nil)

// Option is an option of [Open].
type Option interface{ apply(*Store) error }

type optionFunc func(*Store) error

func (f optionFunc) apply(s *Store) error { return f(s) }

// WithClient sets the client, which stays the caller's to close. It should
// negotiate the API version (client.WithAPIVersionNegotiation), or older engines
// refuse it. By default Open makes one.
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
// or "tcp://build-7:2376". By default it is found as [Open] says. It can't be used
// together with [WithClient].
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
// The engine is the one that the docker command would use: that of [WithClient] or
// [WithHost], else of DOCKER_HOST, else of the context that DOCKER_CONTEXT names,
// else of the context chosen by `docker context use` (currentContext in
// config.json of DOCKER_CONFIG or ~/.docker), else the system's own. If what comes
// first can't be used the next is not tried. DOCKER_CERT_PATH and
// DOCKER_TLS_VERIFY are for addresses without a context; DOCKER_API_VERSION is for
// all. An address "ssh://…" is refused: only the docker command speaks ssh.
//
// Every error is an [*EngineError]; it wraps [ErrUnreachable], [ErrBadOption],
// [ErrBadEngineContext], the end of ctx or what the engine said.
func Open(ctx context.Context, opts ...Option) (*Store, error) {
	s := &Store{openLimit: openLimit, requestLimit: requestLimit}
	if err := s.open(ctx, opts); err != nil {
		_ = s.Close() // only closes what is idle
		return nil, err
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, opts []Option) error {
	for i, o := range opts {
		if o == nil {
			return s.errorOf("open", "", fmt.Errorf("%w: the option at %d is nil", ErrBadOption, i))
		}
		if err := o.apply(s); err != nil {
			return s.errorOf("open", "", err)
		}
	}
	if err := s.connect(); err != nil {
		return s.errorOf("open", "", err)
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
	s.direct = s.newDirect()
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
	opts, err := s.reach()
	if err != nil {
		return err
	}
	api, err := client.NewClientWithOpts(append(opts, client.WithVersionFromEnv(), client.WithAPIVersionNegotiation())...)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadOption, err)
	}
	s.api, s.own = api, true
	if strings.HasPrefix(s.host, "ssh://") {
		return fmt.Errorf("%w: only the docker command speaks ssh; forward the socket (ssh -L) and set DOCKER_HOST to it", ErrUnreachable)
	}
	return nil
}

// reach finds the engine's address, in the order that [Open] tells.
func (s *Store) reach() ([]client.Opt, error) {
	if s.host == "" {
		s.host = os.Getenv(client.EnvOverrideHost)
	}
	secure := client.WithTLSClientConfigFromEnv()
	if s.host == "" {
		c, err := currentContext()
		if err != nil {
			return nil, err
		}
		s.host, s.via = c.host, c.name
		if c.name == "" {
			s.host = client.DefaultDockerHost
		} else if c.tls != nil {
			secure = withTLS(c.tls)
		} else {
			secure = func(*client.Client) error { return nil }
		}
	}
	s.host = withoutPassword(s.host) // nobody asks for it, and errors show the address
	if isSocket(s.host) {
		return []client.Opt{client.WithHost(s.host)}, nil
	}
	return []client.Opt{secure, client.WithHost(s.host)}, nil
}

// withoutPassword takes the password from an address such as "tcp://me:secret@host".
func withoutPassword(host string) string {
	scheme, rest, _ := strings.Cut(host, "://")
	at := strings.LastIndexByte(rest, '@')
	if at < 0 || isSocket(host) {
		return host
	}
	name, _, secret := strings.Cut(rest[:at], ":")
	if !secret {
		return host
	}
	return scheme + "://" + name + ":xxxxx" + rest[at:]
}

// limit bounds ctx by d; to have been too slow is to be unreachable.
func limit(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, tooSlow(d))
}

// tooSlow is the cause of a request's end by its time limit.
type tooSlow time.Duration

func (d tooSlow) Error() string {
	return fmt.Sprintf("%v: no answer within %v", ErrUnreachable, time.Duration(d))
}

func (tooSlow) Unwrap() error { return ErrUnreachable }

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
	s.direct.close()
	return s.api.Close()
}
