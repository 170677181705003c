package docker

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/image"

	"github.com/imagelock/imagelock/imagecache"
)

func TestAnEngineAskedDirectlySaysWhatItSaysToTheClient(t *testing.T) {
	s := realEngine(t)
	if s.direct == nil {
		t.Skip("the engine is not reached by a socket of this host")
	}
	ref := newRef(t, s)
	imported(t, s, ref, unique(), "LABEL a=ä b=\"1\\\"<\"", "LABEL "+imagecache.LabelReference+"="+ref)
	mustBuild(t, s, newRef(t, s), "FROM "+ref+"\nCOPY Dockerfile /\n")
	var mine inspected
	if err := s.direct.get(t.Context(), "/images/"+ref+"/json", &mine); err != nil {
		t.Fatal(err)
	}
	other, err := s.api.ImageInspect(t.Context(), ref)
	if err != nil || mine.ID == "" || len(mine.RepoTags) == 0 || len(mine.Config.Labels) < 3 || !reflect.DeepEqual(&mine, brief(other)) {
		t.Errorf("got %+v, %v; the client says %+v", mine, err, brief(other))
	}
	err = s.direct.get(t.Context(), "/images/"+newRef(t, s)+"/json", &mine)
	if !notFound(err) {
		t.Errorf("absent: %v", err)
	}
	byID := func(list []listed) map[string]listed {
		m := map[string]listed{}
		for _, img := range list {
			m[img.ID] = img
		}
		return m
	}
	var list []listed
	if err := s.direct.get(t.Context(), "/images/json", &list); err != nil {
		t.Fatal(err)
	}
	images, err := s.api.ImageList(t.Context(), image.ListOptions{})
	theirs := make([]listed, len(images))
	for i, img := range images {
		theirs[i] = listed{img.ID, img.RepoTags, img.Labels}
	}
	if got, ok := byID(list)[mine.ID]; err != nil || !ok || !reflect.DeepEqual(got, byID(theirs)[mine.ID]) {
		t.Errorf("listed as %+v; the client says %+v, %v", got, byID(theirs)[mine.ID], err)
	}
}

func TestOnlyAClientOfOurOwnOnASocketIsPassedOver(t *testing.T) {
	f := &fakeEngine{}
	if s := openFakeOn(t, "tcp", f); s.direct != nil {
		t.Error("over TCP")
	}
	s := openFakeOn(t, "unix", f)
	if s.direct == nil {
		t.Error("not over a socket")
	}
	if s, err := Open(t.Context(), WithClient(s.Client())); err != nil || s.direct != nil {
		t.Errorf("a client that was brought, %v", err)
	}
}

// lineServer answers each request on each of its connections, told their numbers, with
// what answer returns. The connection ends after an answer that ends with end.
func lineServer(t testing.TB, answer func(conn, request int, path string) string) func(context.Context) (net.Conn, error) {
	var conns atomic.Int32
	return func(context.Context) (net.Conn, error) {
		here, there := net.Pipe()
		n := int(conns.Add(1))
		go func() {
			defer there.Close()
			r := bufio.NewReader(there)
			for i := 1; ; i++ {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				text, cut := strings.CutSuffix(answer(n, i, req.URL.Path), end)
				if _, err := io.WriteString(there, text); err != nil || cut {
					return
				}
			}
		}()
		t.Cleanup(func() { here.Close() })
		return here, nil
	}
}

const end = "\x00"

func ok(id string) string {
	body := fmt.Sprintf(`{"Id":%q}`, id)
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func TestAConnectionServesOneRequestAfterAnother(t *testing.T) {
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{\"Id\":\r\n4\r\n\"c\"}\r\n0\r\n\r\n"
	for name, c := range map[string]struct {
		first  string // the answer to the first request
		err    string // what is told about it
		reused bool
	}{
		"good":                {ok("a"), "", true},
		"in parts":            {chunked, "", true},
		"absent":              {"HTTP/1.1 404 Not Found\r\nContent-Length: 18\r\n\r\n{\"message\":\"gone\"}", "gone", true},
		"refused":             {"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", "status 500", true},
		"absent, wordless":    {"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", "status 404", true},
		"no JSON":             {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{<", "invalid character", true},
		"the last":            {"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"Id\":\"a\"}" + end, "", false},
		"of an old server":    {"HTTP/1.0 200 OK\r\n\r\n{\"Id\":\"a\"}" + end, "", false},
		"cut":                 {"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"Id\":\"a\"}" + end, "unexpected EOF", false},
		"cut in parts":        {strings.TrimSuffix(chunked, "0\r\n\r\n") + end, "EOF", false},
		"none":                {end, "EOF", false},
		"not HTTP":            {"hello\r\n\r\n", "malformed", false},
		"more than was asked": {ok("a") + ok("b"), "", false},
		"not yet":             {"HTTP/1.1 103 Early Hints\r\n\r\n", "status 103", false},
	} {
		t.Run(name, func(t *testing.T) {
			served := 0
			d := &direct{base: "/v1", dial: lineServer(t, func(conn, request int, path string) string {
				if served = conn; conn == 1 && request == 1 {
					return c.first
				}
				return ok(path)
			})}
			defer d.close()
			var img inspected
			if err := d.get(t.Context(), "/first", &img); c.err == "" && (err != nil || img.ID == "") ||
				c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) || notFound(err) != (name == "absent") {
				t.Errorf("got %+v, %v", img, err)
			}
			if err := d.get(t.Context(), "/second", &img); err != nil || img.ID != "/v1/second" || (served == 1) != c.reused {
				t.Errorf("second: got %+v, %v on connection %d", img, err, served)
			}
		})
	}
}

func TestAnAnswerThatIsTooLongIsNotReadToItsEnd(t *testing.T) {
	d := &direct{dial: lineServer(t, func(int, int, string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", maxAnswer+100) + strings.Repeat(" ", maxAnswer+100)
	})}
	if err := d.get(t.Context(), "/", new(inspected)); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
	if len(d.idle) > 0 {
		t.Error("its connection was kept")
	}
}

func TestWhoGivesUpLeavesNoAnswerToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &direct{dial: lineServer(t, func(conn, request int, path string) string {
			time.Sleep(time.Second)
			return ok(path)
		})}
		defer d.close()
		for i := range 20 {
			// Before the answer, at the same moment, and after it.
			ctx, cancel := context.WithTimeout(t.Context(), time.Second+time.Duration(i%3-1)*time.Millisecond)
			start := time.Now()
			path := fmt.Sprintf("/%d", i)
			var img inspected
			if err := d.get(ctx, path, &img); err == nil && img.ID != path || err != nil && ctx.Err() == nil || time.Since(start) > time.Second+time.Millisecond {
				t.Errorf("%s: got %+v, %v after %v", path, img, err, time.Since(start))
			}
			cancel()
			if err := d.get(ctx, path, &img); err == nil {
				t.Error("asked with an ended context")
			}
		}
		d.close()
	})
}

// hasty is a connection whose user gives up when the answer has come.
type hasty struct {
	net.Conn
	giveUp func()
}

func (c *hasty) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.giveUp()
	return n, err
}

func TestAConnectionOnWhichSomebodyGaveUpIsNotKept(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dial := lineServer(t, func(_, _ int, path string) string { return ok(path) })
	d := &direct{dial: func(ctx context.Context) (net.Conn, error) {
		c, err := dial(ctx)
		return &hasty{c, cancel}, err
	}}
	var img inspected
	if err := d.get(ctx, "/a", &img); err != nil || img.ID != "/a" || len(d.idle) > 0 {
		t.Errorf("got %+v, %v, %d kept", img, err, len(d.idle))
	}
}

func TestConnectionsAreKeptForAWhileOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open, dialled atomic.Int32
		gate := make(chan struct{})
		dial := lineServer(t, func(conn, request int, path string) string {
			<-gate
			return ok(path)
		})
		d := &direct{dial: func(ctx context.Context) (net.Conn, error) {
			open.Add(1)
			dialled.Add(1)
			c, err := dial(ctx)
			return &counting{Conn: c, open: &open}, err
		}}
		var wg sync.WaitGroup
		for i := range 3 * maxIdle {
			wg.Go(func() {
				var img inspected
				path := fmt.Sprintf("/%d", i)
				if err := d.get(t.Context(), path, &img); err != nil || img.ID != path {
					t.Errorf("got %+v, %v", img, err)
				}
			})
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
		if n := open.Load(); n != maxIdle {
			t.Errorf("%d connections, want %d", n, maxIdle)
		}
		// The one that is used stays.
		for range 10 {
			time.Sleep(idleLimit / 4)
			if err := d.get(t.Context(), "/", new(inspected)); err != nil {
				t.Error(err)
			}
		}
		if n, made := open.Load(), dialled.Load(); n != 1 || made != 3*maxIdle {
			t.Errorf("%d connections, %d were made; want one of those that were there, %d", n, made, 3*maxIdle)
		}
		time.Sleep(idleLimit + time.Millisecond)
		synctest.Wait()
		if n := open.Load(); n != 0 || d.armed {
			t.Errorf("%d connections, armed: %v", n, d.armed)
		}
		for range 2 {
			if err := d.get(t.Context(), "/", new(inspected)); err != nil {
				t.Error(err)
			}
			d.close() // after which nothing is kept
		}
		if err := d.get(t.Context(), "/", new(inspected)); err != nil || open.Load() != 0 {
			t.Errorf("%d connections after the end, %v", open.Load(), err)
		}
	})
}

type counting struct {
	net.Conn
	open *atomic.Int32
	once sync.Once
}

func (c *counting) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

func TestAnEngineThatWasRestartedIsAskedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	f := &fakeEngine{image: func(w http.ResponseWriter, _, _ string) { isInspected(w, "sha256:1", "app:v1", "linux/amd64") }}
	start := func() *http.Server {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Skip(err)
		}
		srv := &http.Server{Handler: f}
		go srv.Serve(l)
		return srv
	}
	srv := start()
	s, err := Open(t.Context(), WithHost("unix://"+path))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 3 {
		if p, err := s.Probe(t.Context(), app); err != nil || p.State != imagecache.Present {
			t.Errorf("got %+v, %v", p, err)
		}
		srv.Close()
		srv = start()
	}
	srv.Close()
	if p, err := s.Probe(t.Context(), app); err == nil {
		t.Errorf("got %+v of an engine that is gone", p)
	}
}
