package dockerd

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Engine is an engine of the test's own.
type Engine struct {
	// Host is how clients reach it, as in DOCKER_HOST.
	Host string

	dir  string
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{} // closed when the process has ended
}

// Start starts an engine. It is stopped, and what it leaves is removed, when the test
// ends. The test is skipped where that is not possible, or fails if the environment
// says that it must be (IMAGELOCK_REQUIRE_DOCKER=1).
func Start(t testing.TB) *Engine {
	t.Helper()
	if _, err := exec.LookPath("dockerd"); err != nil {
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
	e := &Engine{Host: "unix://" + filepath.Join(dir, "s"), dir: dir}
	t.Cleanup(func() { e.remove(t) })
	if e.log, err = os.Create(e.in("log")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(e.in("config.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := e.start(t.Context()); err != nil {
		text, _ := os.ReadFile(e.in("log"))
		missing := "an engine of the test's own does not start: " + err.Error() + "\n" + string(text)
		if os.Getenv("IMAGELOCK_REQUIRE_DOCKER") == "1" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	return e
}

// Restart starts the engine again, with all it had, after End.
func (e *Engine) Restart(t testing.TB) {
	t.Helper()
	e.endContainerd()
	if err := e.start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Signal sends a signal to the engine.
func (e *Engine) Signal(sig syscall.Signal) error { return e.cmd.Process.Signal(sig) }

// End ends the engine with sig, after a while with SIGKILL.
func (e *Engine) End(sig syscall.Signal) {
	if e.ended() {
		return
	}
	_ = e.Signal(sig)
	select {
	case <-e.done:
	case <-time.After(20 * time.Second):
		_ = e.cmd.Process.Kill()
		<-e.done
	}
}

func (e *Engine) in(name string) string { return filepath.Join(e.dir, name) }

// start starts the process and waits until it answers.
func (e *Engine) start(ctx context.Context) error {
	cmd := exec.Command("dockerd", "--config-file", e.in("config.json"), "--data-root", e.in("root"), "--exec-root", e.in("exec"),
		"--pidfile", e.in("pid"), "--host", e.Host, "--storage-driver", "vfs",
		"--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none")
	cmd.Stdout, cmd.Stderr = e.log, e.log
	// In a network of its own: with --bridge=none it removes any docker0 it finds,
	// which may be the host's.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	e.cmd, e.done = cmd, done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", e.in("s"))
		},
	}}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/_ping", nil)
		if err != nil {
			return err
		}
		if answer, err := client.Do(ask); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-done:
			return errors.New("it has ended")
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (e *Engine) ended() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// remove ends the engine and takes away its files.
func (e *Engine) remove(t testing.TB) {
	if e.cmd != nil && e.done != nil {
		e.End(syscall.SIGTERM)
	}
	if e.log != nil {
		e.log.Close()
	}
	if t.Failed() {
		text, _ := os.ReadFile(e.in("log"))
		t.Logf("dockerd:\n%s", text)
	}
	e.endContainerd()
	e.unmount()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err := os.RemoveAll(e.dir); err == nil {
			return
		} else if time.Now().After(end) {
			t.Errorf("left behind: %v", err)
			return
		}
		e.unmount()
	}
}

// endContainerd ends the engine's containerd, if it did not take it along, and
// returns when it is gone: an engine that is started beside one that is dying waits
// for it in vain.
func (e *Engine) endContainerd() {
	pidfile := e.in("exec/containerd/containerd.pid")
	text, err := os.ReadFile(pidfile)
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		// By its command line, too: the pid may be another's by now.
		line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err != nil || !strings.Contains(string(line), e.in("exec/containerd/containerd.toml")) {
			break
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = os.Remove(pidfile)
}

// unmount takes off what is mounted below the engine's directory, the innermost first.
func (e *Engine) unmount() {
	text, _ := os.ReadFile("/proc/self/mounts")
	lines := strings.Split(string(text), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 1 && strings.HasPrefix(f[1], e.dir+"/") {
			_ = syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
}
