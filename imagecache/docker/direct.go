package docker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"
)

// direct asks an engine on a socket of this host in the caller's own goroutine, with one
// write, and takes of the answer what it needs. The client's way leads through two more
// goroutines and the hooks for tracing, and decodes all that is known of an image, which
// takes as long as a lease does several times over. For all that goes wrong the client
// is asked again, which has an error for everything.
type direct struct {
	dial func(context.Context) (net.Conn, error)
	base string // such as "/v1.41"

	mu     sync.Mutex
	idle   []*wire // the one that was used last is the last
	timer  *time.Timer
	armed  bool
	closed bool
}

// wire is a connection. It is used by one request at a time.
type wire struct {
	net.Conn
	in    *bufio.Reader
	out   []byte
	body  bytes.Buffer
	since time.Time // when it was last used
}

const (
	// maxIdle and idleLimit bound the connections that are kept: a store that was
	// forgotten must not keep descriptors.
	maxIdle   = probesAtOnce
	idleLimit = 30 * time.Second
	// maxAnswer is how long an answer may be: a list of a hundred thousand images.
	maxAnswer = 64 << 20
)

// newDirect returns nil for an engine that is reached by more than a socket, or by a
// client that somebody else has made and which may do more than ask.
func (s *Store) newDirect() *direct {
	if !s.own || !isSocket(s.host) {
		return nil
	}
	return &direct{dial: s.api.Dialer(), base: "/v" + s.api.ClientVersion()}
}

// get asks for path, which needs no escaping, and decodes the answer. Its error is
// NotFound if the engine said so, with its message. About any other there is nothing to
// be told: ask the client.
func (d *direct) get(ctx context.Context, path string, answer any) error {
	w, err := d.take(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = w.SetDeadline(time.Unix(1, 0)) })
	status, again, err := w.ask(d.base + path)
	if !stop() || !again {
		_ = w.Close()
	} else {
		defer d.put(w)
	}
	switch {
	case err != nil:
		return err
	case status == http.StatusOK:
		return json.Unmarshal(w.body.Bytes(), answer)
	}
	var said struct{ Message string }
	if json.Unmarshal(w.body.Bytes(), &said) == nil && said.Message != "" && status == http.StatusNotFound {
		return errdefs.ErrNotFound.WithMessage(said.Message)
	}
	return fmt.Errorf("status %d", status)
}

// ask sends one request and reads its answer into body. again tells whether there may be
// another request.
func (w *wire) ask(path string) (status int, again bool, err error) {
	w.out = append(w.out[:0], "GET "...)
	w.out = append(w.out, path...)
	w.out = append(w.out, " HTTP/1.1\r\nHost: "+client.DummyHost+"\r\nUser-Agent: imagelock\r\n\r\n"...)
	if _, err := w.Write(w.out); err != nil {
		return 0, false, err
	}
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return 0, false, err
	}
	w.body.Reset()
	n, err := w.body.ReadFrom(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return 0, false, err
	case n > maxAnswer:
		return 0, false, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	return resp.StatusCode, !resp.Close && resp.StatusCode >= 200 && w.in.Buffered() == 0, nil
}

// take returns a connection that nobody uses.
func (d *direct) take(ctx context.Context) (*wire, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	if n := len(d.idle); n > 0 {
		w := d.idle[n-1]
		d.idle[n-1] = nil
		d.idle = d.idle[:n-1]
		d.mu.Unlock()
		return w, nil
	}
	d.mu.Unlock()
	c, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &wire{Conn: c, in: bufio.NewReader(c)}, nil
}

// put gives back a connection.
func (d *direct) put(w *wire) {
	if w.body.Cap() > 1<<20 {
		w.body = bytes.Buffer{}
	}
	w.since = time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.idle) >= maxIdle {
		_ = w.Close()
		return
	}
	d.idle = append(d.idle, w)
	d.arm(idleLimit)
}

// arm sees to it that there is a look at the connections that are idle. The caller holds
// mu.
func (d *direct) arm(in time.Duration) {
	switch {
	case d.armed:
		return
	case d.timer == nil:
		d.timer = time.AfterFunc(in, d.expire)
	default:
		d.timer.Reset(in)
	}
	d.armed = true
}

// expire closes what was idle for too long.
func (d *direct) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = false
	n := 0
	for ; n < len(d.idle) && time.Since(d.idle[n].since) >= idleLimit; n++ {
		_ = d.idle[n].Close()
	}
	if d.idle = append([]*wire(nil), d.idle[n:]...); len(d.idle) > 0 {
		d.arm(idleLimit - time.Since(d.idle[0].since))
	}
}

// close closes what is idle, and keeps nothing any more. A nil direct has nothing.
func (d *direct) close() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, w := range d.idle {
		_ = w.Close()
	}
	d.idle = nil
	if d.timer != nil {
		d.timer.Stop()
	}
}
