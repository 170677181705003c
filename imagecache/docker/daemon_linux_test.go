package docker

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/dockerd"
)

// rule is what imagecache wants of an identity.
var rule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func TestAnEngineIsOneAndTheSameByWhateverWayItIsReached(t *testing.T) {
	s := realEngine(t)
	one, err := s.Identity(t.Context())
	if err != nil || !rule.MatchString(one) {
		t.Fatalf("identity %q, %v", one, err)
	}
	path, ok := strings.CutPrefix(s.host, "unix://")
	if !ok {
		t.Skip("the engine is not reached by a socket of this host")
	}
	link := filepath.Join(t.TempDir(), "s")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	two, err := realEngine(t, WithHost("unix://"+link)).Identity(t.Context())
	if err != nil || one != two {
		t.Errorf("identities %q and %q, %v", one, two, err)
	}
}

func TestTwoEnginesOfAHostAreTwo(t *testing.T) {
	s := realEngine(t)
	d := dockerd.Start(t)
	other := realEngine(t, WithHost(d.Host))
	one, err1 := s.Identity(t.Context())
	two, err2 := other.Identity(t.Context())
	if err1 != nil || err2 != nil || one == two || !rule.MatchString(two) {
		t.Errorf("identities %q, %v and %q, %v", one, err1, two, err2)
	}
	a, err1 := s.Client().Info(t.Context())
	b, err2 := other.Client().Info(t.Context())
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	t.Logf("engine IDs %s and %s", a.ID, b.ID)
	ref := newRef(t, s)
	mustBuild(t, s, ref, "FROM scratch\nCOPY Dockerfile /\n")
	absent(t, other, ref)
}

func TestAnEngineThatGoesAwayInTheMidstOfABuildIsAnError(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			d := dockerd.Start(t)
			s := realEngine(t, WithHost(d.Host))
			mark := unique()
			t.Cleanup(func() {
				for _, pid := range processes(mark) { // the step may outlive its engine
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			})
			dir := contextOf(t, s, map[string]string{"Dockerfile": "FROM scratch\nCOPY helper /helper\nRUN [\"/helper\", \"sleep\", \"60s\", \"" + mark + "\"]\n"})
			var progress lockedBuffer
			done := make(chan error, 1)
			go func() {
				_, err := buildOf(t, t.Context(), s, app, ContextBuild{Dir: dir, Progress: &progress})
				done <- err
			}()
			waitFor(t, "the step to run", func() bool { return strings.Contains(progress.String(), "sleeping") })
			start := time.Now()
			if err := d.Signal(sig); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-done:
				var eerr *EngineError
				if !errors.As(err, &eerr) || !errors.Is(err, ErrInterrupted) {
					t.Errorf("got %v (%T), want an *EngineError that is ErrInterrupted", err, err)
				}
				t.Logf("after %v: %v", time.Since(start), err)
			case <-time.After(20 * time.Second):
				t.Fatal("the build did not return")
			}
			d.End(sig)
			if p, err := s.Probe(t.Context(), app); !errors.Is(err, ErrUnreachable) || p.State != 0 {
				t.Errorf("probe of an engine that is gone: %+v, %v", p, err)
			}
		})
	}
}

func TestASocketOfOnesOwnIsNoExposure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &Store{host: "unix://" + path}
	for mode, exposed := range map[os.FileMode]bool{0o600: false, 0o755: false, 0o660: true, 0o666: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if got := s.Exposure(); (got != "") != exposed {
			t.Errorf("mode %v: %q", mode, got)
		}
	}
}
