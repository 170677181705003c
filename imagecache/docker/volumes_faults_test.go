package docker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// TestOnlyNoSuchVolumeMeansAbsent: not another's 404, nor an answer about nothing.
func TestOnlyNoSuchVolumeMeansAbsent(t *testing.T) {
	ref := packDomain + "a:" + strings.Repeat("0", 64)
	p, err := parsePack(ref)
	if err != nil {
		t.Fatal(err)
	}
	content := p.prefix() + "-1"
	mark := `{"Name":"` + p.mark() + `","Labels":{"` + imagecache.LabelReference + `":"` + ref + `","` + labelVolume + `":"` + content + `"}}`
	for name, c := range map[string]struct {
		code, contentCode int
		mark, content     string
		want              imagecache.State
	}{
		"no mark":                     {404, 0, `{"message":"get x: no such volume"}`, "", imagecache.Absent},
		"no content":                  {200, 404, mark, `{"message":"get x: no such volume"}`, imagecache.Absent},
		"an empty volume by a mount":  {200, 200, mark, `{"Name":"` + content + `"}`, imagecache.Absent},
		"both":                        {200, 200, mark, strings.Replace(mark, p.mark(), content, 1), imagecache.Present},
		"another page":                {404, 0, `{"message":"page not found"}`, "", imagecache.Unknown},
		"broken":                      {500, 0, `{"message":"no such volume"}`, "", imagecache.Unknown},
		"an OK without a mark":        {200, 0, `{}`, "", imagecache.Unknown},
		"somebody's mark":             {200, 0, `{"Name":"` + p.mark() + `"}`, "", imagecache.Unknown},
		"a mark of another pack":      {200, 200, strings.Replace(mark, ref, packDomain+"b:"+strings.Repeat("0", 64), 1), strings.Replace(mark, p.mark(), content, 1), imagecache.Unknown},
		"a mark that leads elsewhere": {200, 200, strings.Replace(mark, content, "somebodys", 1), `{"Name":"somebodys"}`, imagecache.Unknown},
		"content: another page":       {200, 404, mark, `{"message":"page not found"}`, imagecache.Unknown},
		"content: broken":             {200, 500, mark, `{"message":"not now"}`, imagecache.Unknown},
		"content: an OK without it":   {200, 200, mark, `{}`, imagecache.Unknown},
	} {
		s := openFake(t, &fakeEngine{other: func(w http.ResponseWriter, r *http.Request) bool {
			_, name, ok := strings.Cut(r.URL.Path, "/volumes/")
			if !ok {
				return false
			}
			code, text := c.code, c.mark
			if name != p.mark() {
				code, text = c.contentCode, c.content
			}
			w.WriteHeader(code)
			_, _ = io.WriteString(w, text)
			return true
		}})
		got, err := s.Volumes().Probe(t.Context(), ref)
		if got.State != c.want || (err == nil) != (c.want != imagecache.Unknown) || (got.ID == content) != (c.want == imagecache.Present) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// proxied opens the real engine through a proxy. serve is told of each request.
func proxied(t *testing.T, real *Store, serve func(w http.ResponseWriter, r *http.Request, engine http.Handler)) *Store {
	t.Helper()
	path, ok := strings.CutPrefix(real.host, "unix://")
	if !ok {
		t.Skip("the engine is not reached by a socket of this host")
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	engine := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: "docker"})
	}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(w, r, engine) }))
	t.Cleanup(srv.Close)
	return realEngine(t, WithHost("tcp://"+srv.Listener.Addr().String()))
}

// behind opens the real engine through a proxy that does not answer requests to create
// a mark while lose is set: it passes them on before, or it does not at all.
func behind(t *testing.T, real *Store, pass bool) (s *Store, lose *atomic.Bool) {
	t.Helper()
	lose = new(atomic.Bool)
	return proxied(t, real, func(w http.ResponseWriter, r *http.Request, engine http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/volumes/create") && lose.Load() {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			if bytes.Contains(body, []byte(`.complete"`)) {
				if pass {
					engine.ServeHTTP(httptest.NewRecorder(), r)
				}
				panic(http.ErrAbortHandler)
			}
		}
		engine.ServeHTTP(w, r)
	}), lose
}

// TestWhatTheEngineIsCreatingWhenAFillIsCancelledIsRemoved: it goes on with it, whether
// it has only begun or is about to answer.
func TestWhatTheEngineIsCreatingWhenAFillIsCancelledIsRemoved(t *testing.T) {
	real := realEngine(t)
	for _, path := range []string{"/volumes/create", "/images/load", "/containers/create"} {
		for _, begun := range []bool{true, false} {
			name := newPack(t, real)
			ctx, cancel := context.WithCancel(t.Context())
			created := make(chan struct{})
			s := proxied(t, real, func(w http.ResponseWriter, r *http.Request, engine http.Handler) {
				if !strings.HasSuffix(r.URL.Path, path) {
					engine.ServeHTTP(w, r)
					return
				}
				defer close(created)
				r = r.WithContext(context.WithoutCancel(r.Context()))
				answer := httptest.NewRecorder()
				if begun {
					cancel()
					time.Sleep(100 * time.Millisecond)
				}
				engine.ServeHTTP(answer, r)
				if !begun {
					cancel()
					time.Sleep(100 * time.Millisecond)
				}
				maps.Copy(w.Header(), answer.Header())
				w.WriteHeader(answer.Code)
				_, _ = w.Write(answer.Body.Bytes())
			})
			packs := openPacks(t, s, t.TempDir())
			if _, err := packs.Ensure(ctx, dirPack(t, s, name, packDir(t, map[string]string{"a": "text"}))); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", path, err)
			}
			if err := packs.Close(); err != nil { // which waits for the fill
				t.Error(err)
			}
			<-created
			if marks, contents := volumesOf(t, real, name); len(marks)+len(contents) > 0 {
				t.Errorf("%s, begun %v: volumes %q, %q", path, begun, marks, contents)
			}
			noEmptyImage(t, real)
		}
	}
}

// TestAnAnswerThatIsLostAtTheMark: nobody knows whether the mark is there, and others may
// use by now what it names. So the content stays, and the next fill finds out.
func TestAnAnswerThatIsLostAtTheMark(t *testing.T) {
	real := realEngine(t)
	for what, pass := range map[string]bool{"the request": false, "the answer": true} {
		s, lose := behind(t, real, pass)
		lose.Store(true)
		name := newPack(t, real)
		packs := openPacks(t, s, t.TempDir(), imagecache.WithFailureMemory(0))
		img := dirPack(t, s, name, packDir(t, map[string]string{"a": "text"}))
		if _, err := packs.Ensure(t.Context(), img); !errors.As(err, new(*imagecache.BuildError)) || !errors.As(err, new(*EngineError)) {
			t.Errorf("%s is lost: %v", what, err)
		}
		_, contents := volumesOf(t, real, name)
		if p, err := real.Volumes().Probe(t.Context(), img.Tag); err != nil || len(contents) != 1 || (p.State == imagecache.Present) != pass {
			t.Errorf("%s is lost: %q, %+v, %v", what, contents, p, err)
		}
		lose.Store(false)
		res := ensurePack(t, packs, img)
		if marks, after := volumesOf(t, real, name); len(marks) != 1 || len(after) != 1 || after[0] != res.ID || (res.ID == contents[0]) != pass {
			t.Errorf("%s was lost: %q, %q, before %q", what, marks, after, contents)
		}
	}
}
