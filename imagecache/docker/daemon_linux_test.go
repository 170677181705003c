package docker

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// daemon is an engine of the test's own.
type daemon struct {
	cmd  *exec.Cmd
	host string
	done chan struct{}
}

// startDaemon starts an engine that shares nothing with the machine's. It is
// stopped, and what it leaves is removed, when the test ends.
func startDaemon(t *testing.T) *daemon {
	t.Helper()
	path, err := exec.LookPath("dockerd")
	if err != nil {
		t.Skip("there is no dockerd to start an engine of the test's own")
	}
	if os.Geteuid() != 0 {
		t.Skip("an engine of the test's own needs root")
	}
	// Not t.TempDir: a socket's path must be short.
	dir, err := os.MkdirTemp("", "il-")
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(in("config.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(in("log"))
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{host: "unix://" + in("s"), done: make(chan struct{})}
	d.cmd = exec.Command(path, "--config-file", in("config.json"), "--data-root", in("root"), "--exec-root", in("exec"),
		"--pidfile", in("pid"), "--host", d.host, "--storage-driver", "vfs",
		"--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	// In a network of its own: with --bridge=none it removes any docker0 it finds,
	// which may be the host's.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.done)
	}()
	t.Cleanup(func() {
		d.end(syscall.SIGTERM)
		log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(in("log"))
			t.Logf("dockerd:\n%s", b)
		}
		// Its containerd, if it did not take it along.
		if b, err := os.ReadFile(in("exec/containerd/containerd.pid")); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				for _, p := range processes(in("exec/containerd/containerd.toml")) {
					if p == pid {
						_ = syscall.Kill(pid, syscall.SIGKILL)
					}
				}
			}
		}
		unmount(dir)
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if err := os.RemoveAll(dir); err == nil {
				return
			} else if time.Now().After(end) {
				t.Errorf("left behind: %v", err)
				return
			}
			unmount(dir)
		}
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		s, err := Open(t.Context(), WithHost(d.host))
		if err == nil {
			s.Close()
			return d
		}
		if time.Now().After(end) || d.ended() {
			b, _ := os.ReadFile(in("log"))
			require(t, "an engine of the test's own does not start: "+err.Error()+"\n"+string(b))
		}
	}
}

func (d *daemon) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// end ends the engine with sig, after a while with SIGKILL.
func (d *daemon) end(sig syscall.Signal) {
	if d.ended() {
		return
	}
	_ = d.cmd.Process.Signal(sig)
	select {
	case <-d.done:
	case <-time.After(20 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.done
	}
}

// unmount takes off what is mounted below dir, the innermost first.
func unmount(dir string) {
	b, _ := os.ReadFile("/proc/self/mounts")
	lines := strings.Split(string(b), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			_ = syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
}

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
	d := startDaemon(t)
	other := realEngine(t, WithHost(d.host))
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
			d := startDaemon(t)
			s := realEngine(t, WithHost(d.host))
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
			if err := d.cmd.Process.Signal(sig); err != nil {
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
			d.end(sig)
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
