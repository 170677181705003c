package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/client"

	"github.com/imagelock/imagelock/imagecache"
)

// fakeEngine answers as an engine does, as far as the tests go. It is for faults
// that a real engine can't be made to show.
type fakeEngine struct {
	version, info string
	image         func(w http.ResponseWriter, name, query string)
	build         func(w http.ResponseWriter, r *http.Request)
	other         func(w http.ResponseWriter, r *http.Request) bool
}

func (f *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.49")
	w.Header().Set("Content-Type", "application/json")
	path := regexp.MustCompile(`^/v1\.\d+`).ReplaceAllString(r.URL.Path, "")
	name, isImage := strings.CutPrefix(path, "/images/")
	say := func(s, or string) {
		if s == "" {
			s = or
		}
		io.WriteString(w, s)
	}
	switch {
	case f.other != nil && f.other(w, r):
	case path == "/_ping":
	case path == "/version":
		say(f.version, `{"Os":"linux","Arch":"amd64","Components":[{"Name":"Engine"}]}`)
	case path == "/info":
		say(f.info, `{"ID":"A","DockerRootDir":"/var/lib/docker","Driver":"overlay2"}`)
	case isImage && f.image != nil:
		f.image(w, strings.TrimSuffix(name, "/json"), r.URL.RawQuery)
	case path == "/build" && f.build != nil:
		f.build(w, r)
	default:
		refuse(w, 404, "page not found")
	}
}

func refuse(w http.ResponseWriter, code int, message string) {
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"message":%q}`, message)
}

func noSuchImage(w http.ResponseWriter, name string) { refuse(w, 404, "No such image: "+name) }

func isInspected(w http.ResponseWriter, id, tag, platform string) {
	os, arch, _ := strings.Cut(platform, "/")
	fmt.Fprintf(w, `{"Id":%q,"RepoTags":[%q],"Os":%q,"Architecture":%q}`, id, tag, os, arch)
}

func openFake(t testing.TB, f *fakeEngine, opts ...Option) *Store {
	return openFakeOn(t, "tcp", f, opts...)
}

// networks are the ways to an engine: over a socket it is asked directly.
var networks = []string{"tcp", "unix"}

func openFakeOn(t testing.TB, network string, f http.Handler, opts ...Option) *Store {
	t.Helper()
	srv := httptest.NewUnstartedServer(f)
	if network == "unix" {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Skip(err)
		}
		srv.Listener.Close()
		srv.Listener = l
	}
	srv.Start()
	t.Cleanup(srv.Close)
	s, err := Open(t.Context(), append(opts, WithHost(network+"://"+srv.Listener.Addr().String()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

const app = "docker.io/library/app:v1"

func TestOnlyNoSuchImageMeansAbsent(t *testing.T) {
	for name, c := range map[string]struct {
		code    int
		message string
		absent  bool
	}{
		"no such image":       {404, "No such image: app:v1", true},
		"Podman's":            {404, "failed to find image app:v1: image not known", true},
		"another page":        {404, "page not found", false},
		"unauthorised":        {401, "No such image: you must log in", false},
		"too many":            {429, "toomanyrequests", false},
		"broken":              {500, "No such image: in the database", false},
		"not now":             {503, "not now", false},
		"an OK without image": {200, "", false},
	} {
		for _, network := range networks {
			t.Run(name+"/"+network, func(t *testing.T) {
				s := openFakeOn(t, network, &fakeEngine{image: func(w http.ResponseWriter, _, _ string) {
					if c.code == 200 {
						isInspected(w, "", "app:v1", "linux/amd64")
						return
					}
					refuse(w, c.code, c.message)
				}})
				p, err := s.Probe(t.Context(), app)
				var eerr *EngineError
				if c.absent && (err != nil || p.State != imagecache.Absent) ||
					!c.absent && (!errors.As(err, &eerr) || p != imagecache.Presence{}) {
					t.Errorf("got %+v, %v", p, err)
				}
			})
		}
	}
	for _, network := range networks {
		t.Run("no engine at all/"+network, func(t *testing.T) {
			s := openFakeOn(t, network, &fakeEngine{image: func(w http.ResponseWriter, _, _ string) {
				w.Header().Set("Content-Type", "text/html")
				w.WriteHeader(404)
				io.WriteString(w, "<html>nginx says 404 Not Found</html>")
			}})
			if p, err := s.Probe(t.Context(), app); err == nil {
				t.Errorf("got %+v", p)
			}
		})
	}
}

func TestANotFoundDuringARetagIsNotBelieved(t *testing.T) {
	const containerd = `{"ID":"A","DockerRootDir":"/d","Driver":"overlayfs","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}`
	for name, c := range map[string]struct {
		info           string
		missing, looks int32
		want           imagecache.State
	}{
		"seen at the second look": {containerd, 1, 2, imagecache.Present},
		"seen at the third look":  {containerd, 2, 3, imagecache.Present},
		"not there":               {containerd, 99, 3, imagecache.Absent},
		"graph drivers are atomic": {`{"ID":"A","DockerRootDir":"/d","Driver":"overlay2","DriverStatus":[["Backing Filesystem","extfs"]]}`,
			1, 1, imagecache.Absent},
		"unknown drivers may not be": {`{"ID":"A"}`, 1, 2, imagecache.Present},
	} {
		for _, network := range networks {
			t.Run(name+"/"+network, func(t *testing.T) {
				var looks atomic.Int32
				s := openFakeOn(t, network, &fakeEngine{info: c.info, image: func(w http.ResponseWriter, name, _ string) {
					if looks.Add(1) <= c.missing {
						noSuchImage(w, name)
						return
					}
					isInspected(w, "sha256:1", "app:v1", "linux/amd64")
				}})
				p, err := s.Probe(t.Context(), app)
				if err != nil || p.State != c.want || looks.Load() != c.looks {
					t.Errorf("got %+v, %v after %d looks", p, err, looks.Load())
				}
			})
		}
	}
}

func TestAnImageThatDoesNotCarryTheNameIsAbsent(t *testing.T) {
	for tag, want := range map[string]imagecache.State{
		"app:v1": imagecache.Present, "docker.io/library/app:v1": imagecache.Present,
		"app:v2": imagecache.Absent, "<none>:<none>": imagecache.Absent, "elsewhere/app:v1": imagecache.Absent,
		"localhost/app:v1": imagecache.Absent,
	} {
		s := openFake(t, &fakeEngine{image: func(w http.ResponseWriter, _, _ string) { isInspected(w, "sha256:1", tag, "linux/amd64") }})
		if p, err := s.Probe(t.Context(), app); err != nil || p.State != want {
			t.Errorf("image tagged %s: %+v, %v; want %v", tag, p, err, want)
		}
	}
}

func TestAnImageOfSeveralPlatformsIsAskedForTheWantedOne(t *testing.T) {
	for name, c := range map[string]struct {
		other func(w http.ResponseWriter)
		want  string // ID
	}{
		"has it":     {func(w http.ResponseWriter) { isInspected(w, "sha256:2", "app:v1", "linux/arm64") }, "sha256:2"},
		"has it not": {func(w http.ResponseWriter) { noSuchImage(w, "app:v1 for that platform") }, ""},
		"pretends":   {func(w http.ResponseWriter) { isInspected(w, "sha256:1", "app:v1", "linux/amd64") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := openFake(t, &fakeEngine{image: func(w http.ResponseWriter, _, query string) {
				if strings.Contains(query, "platform=") {
					c.other(w)
					return
				}
				isInspected(w, "sha256:1", "app:v1", "linux/amd64")
			}}, WithPlatform("linux/arm64"))
			p, err := s.Probe(t.Context(), app)
			var perr *PlatformError
			if c.want != "" && (err != nil || p.ID != c.want) || c.want == "" && !errors.As(err, &perr) {
				t.Errorf("got %+v, %v", p, err)
			}
		})
	}
}

func TestPodmanIsNamedByHostAndRootAndKeepsShortNamesAsLocal(t *testing.T) {
	var n atomic.Int32
	f := &fakeEngine{version: `{"Os":"linux","Arch":"amd64","Components":[{"Name":"Podman Engine","Version":"5.2.2"},{"Name":"Conmon"}]}`}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/info") {
			fmt.Fprintf(w, `{"ID":"new-%d","Name":"build-7","DockerRootDir":"/var/lib/containers","Driver":"overlay","SecurityOptions":["name=seccomp","name=rootless"]}`, n.Add(1))
			return
		}
		f.ServeHTTP(w, r)
	}))
	defer srv.Close()
	f.image = func(w http.ResponseWriter, name, _ string) {
		if name != "localhost/app:v1" {
			noSuchImage(w, name)
			return
		}
		isInspected(w, "sha256:1", "localhost/app:v1", "linux/amd64")
	}
	s, err := Open(t.Context(), WithHost("tcp://"+srv.Listener.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	one, err1 := s.Identity(t.Context())
	two, err2 := s.Identity(t.Context())
	if err1 != nil || err2 != nil || one != two || !strings.HasPrefix(one, "podman-") {
		t.Errorf("identities %q, %v and %q, %v", one, err1, two, err2)
	}
	if p, err := s.Probe(t.Context(), app); err != nil || p.State != imagecache.Present {
		t.Errorf("probe: %+v, %v", p, err)
	}
	absent(t, s, "docker.io/library/other:v1")
	absent(t, s, "registry.example/app:v1")
}

func TestAnEngineThatIsNotThereIsUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, host := range []string{"unix://" + filepath.Join(t.TempDir(), "none.sock"), "tcp://" + l.Addr().String(), "ssh://u@h"} {
		t.Setenv("DOCKER_HOST", host)
		_, err := Open(t.Context())
		var eerr *EngineError
		var nerr net.Error
		if !errors.As(err, &eerr) || !errors.Is(err, ErrUnreachable) || !errors.As(err, &nerr) ||
			eerr.Host != host || !strings.Contains(err.Error(), host) || !strings.Contains(err.Error(), "set DOCKER_HOST") {
			t.Errorf("got %v", err)
		}
		t.Log(err)
	}
	t.Setenv("DOCKER_HOST", "nonsense")
	if _, err := Open(t.Context()); !errors.Is(err, ErrBadOption) {
		t.Errorf("got %v", err)
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	c, err := client.NewClientWithOpts(client.WithHost("tcp://127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	for name, opts := range map[string][]Option{
		"platform": {WithPlatform("amd64")}, "odd platform": {WithPlatform("linux/a b")}, "client": {WithClient(nil)},
		"host": {WithHost("")}, "nil": {nil}, "both": {WithHost("tcp://127.0.0.1:1"), WithClient(c)},
	} {
		var eerr *EngineError
		if _, err := Open(t.Context(), opts...); !errors.Is(err, ErrBadOption) || !errors.As(err, &eerr) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestABroughtClientStaysItsOwners(t *testing.T) {
	srv := httptest.NewServer(&fakeEngine{})
	defer srv.Close()
	c, err := client.NewClientWithOpts(client.WithHost("tcp://"+srv.Listener.Addr().String()), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), WithClient(c))
	if err != nil || s.Client() != c || s.Platform() != "linux/amd64" {
		t.Fatalf("got %v", err)
	}
	if id, err := s.Identity(t.Context()); err != nil || id == "" {
		t.Errorf("got %q, %v", id, err)
	}
}

// hanging listens, accepts, and never says a word.
func hanging(t testing.TB, network string) string {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	}()
	return network + "://" + l.Addr().String()
}

func TestAnEngineThatHangsHangsNobody(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		host := hanging(t, network)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := Open(ctx, WithHost(host))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 2*time.Second {
			t.Errorf("%s: after %v: %v", network, time.Since(start), err)
		}
		// Without a deadline there is ours.
		short := optionFunc(func(s *Store) error { s.openLimit = 50 * time.Millisecond; return nil })
		start = time.Now()
		_, err = Open(t.Context(), WithHost(host), short)
		if !errors.Is(err, ErrUnreachable) || time.Since(start) > 2*time.Second {
			t.Errorf("%s: after %v: %v", network, time.Since(start), err)
		}
		t.Log(err)
	}
}

func TestAProbeOfAnEngineThatHangsEndsWithItsContextOrLimit(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			hang := make(chan struct{})
			f := &fakeEngine{image: func(http.ResponseWriter, string, string) { <-hang }}
			s := openFakeOn(t, network, f)
			t.Cleanup(func() { close(hang) })
			why := errors.New("no more patience")
			ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, why)
			defer cancel()
			start := time.Now()
			p, err := s.Probe(ctx, app)
			if !errors.Is(err, why) || !errors.Is(err, context.DeadlineExceeded) || p.State != imagecache.Unknown || time.Since(start) > 2*time.Second {
				t.Errorf("after %v: %+v, %v", time.Since(start), p, err)
			}
			s.requestLimit = 50 * time.Millisecond
			start = time.Now()
			p, err = s.Probe(t.Context(), app)
			if !errors.Is(err, ErrUnreachable) || p.State != imagecache.Unknown || time.Since(start) > 2*time.Second {
				t.Errorf("after %v: %+v, %v", time.Since(start), p, err)
			}
		})
	}
}

func TestABuildThatDoesNotEndWellIsNoSuccess(t *testing.T) {
	flush := func(w http.ResponseWriter) { w.(http.Flusher).Flush() }
	cut := func(w http.ResponseWriter) {
		flush(w)
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			c.Close()
		}
	}
	id := `{"id":"moby.image.id","aux":{"ID":"sha256:1"}}`
	for name, c := range map[string]struct {
		build func(w http.ResponseWriter, r *http.Request)
		is    error
		want  string
	}{
		"good":             {func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); io.WriteString(w, id) }, nil, ""},
		"cut before":       {func(w http.ResponseWriter, _ *http.Request) { cut2(w) }, ErrInterrupted, ""},
		"cut in the midst": {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"stream":"x"}`); cut(w) }, ErrInterrupted, ""},
		"cut after the ID": {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, id); cut(w) }, ErrInterrupted, ""},
		"no ID":            {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"stream":"x"}`) }, ErrInterrupted, "without an image"},
		"garbage":          {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, id+"hello") }, ErrInterrupted, ""},
		"error":            {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, id+`{"error":"strange"}`) }, nil, "strange"},
		"refused":          {func(w http.ResponseWriter, _ *http.Request) { refuse(w, 500, "no builder here") }, nil, "no builder here"},
		"no session":       {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"error":"no active sessions"}`) }, ErrNoSession, "# syntax="},
	} {
		t.Run(name, func(t *testing.T) {
			s := openFake(t, &fakeEngine{build: c.build})
			dir := contextOf(t, nil, map[string]string{"Dockerfile": "FROM scratch\n", "x": strings.Repeat("x", 1<<20)})
			_, err := buildOf(t, t.Context(), s, app, ContextBuild{Dir: dir, Args: map[string]string{"TOKEN": "hunter2"}})
			if name == "good" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var eerr *EngineError
			if !errors.As(err, &eerr) || eerr.Op != "build" || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a build argument is in the error: %v", err)
			}
			t.Log(err)
		})
	}
}

func cut2(w http.ResponseWriter) {
	if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
		c.Close()
	}
}

func TestABuildOnAnEngineThatHasGoneIsUnreachable(t *testing.T) {
	srv := httptest.NewServer(&fakeEngine{})
	s, err := Open(t.Context(), WithHost("tcp://"+srv.Listener.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	srv.Close()
	s.Close() // a connection that was kept would have to break first
	_, err = buildOf(t, t.Context(), s, app, ContextBuild{Dir: contextOf(t, nil, map[string]string{"Dockerfile": "FROM scratch\n"})})
	if !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrInterrupted) {
		t.Errorf("got %v", err)
	}
}

func TestTheBuildIsOverOnlyWhenItsAnswerIs(t *testing.T) {
	release := make(chan struct{})
	s := openFake(t, &fakeEngine{build: func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, `{"id":"moby.image.id","aux":{"ID":"sha256:1"}}`)
		w.(http.Flusher).Flush()
		<-release
	}})
	done := make(chan error, 1)
	go func() {
		_, err := buildOf(t, t.Context(), s, app, ContextBuild{Dir: contextOf(t, nil, map[string]string{"Dockerfile": "FROM scratch\n"})})
		done <- err
	}()
	select {
	case err := <-done:
		t.Errorf("it returned (%v) while the engine was not done", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestExposureSaysWhoElseReachesTheEngine(t *testing.T) {
	for name, c := range map[string]struct {
		s    *Store
		want string
	}{
		"remote":   {&Store{host: "tcp://build-7:2376"}, "remote engine tcp://build-7:2376"},
		"rootful":  {&Store{host: "unix:///nowhere/docker.sock"}, "rootful engine socket unix:///nowhere/docker.sock"},
		"rootless": {&Store{host: "unix:///run/user/1000/docker.sock", engine: engine{rootless: true}}, ""},
		"windows":  {&Store{host: "npipe:////./pipe/docker_engine"}, "engine pipe npipe:////./pipe/docker_engine"},
	} {
		if got := c.s.Exposure(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
