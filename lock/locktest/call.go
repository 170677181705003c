package locktest

import (
	"time"

	"github.com/imagelock/imagelock/lock"
)

// call is a request on its way.
type call struct {
	y    *party
	op   op
	id   int
	c    <-chan reply
	sent time.Time
}

// answer is what came of a call.
type answer struct {
	reply
	y *party
}

// option changes a request.
type option func(*request)

func limit(d time.Duration) option   { return func(r *request) { r.Wait = &d } }
func timeout(d time.Duration) option { return func(r *request) { r.Timeout = d } }
func ended(r *request)               { r.Ended = true }

func wants(mode lock.Mode, keys ...string) option {
	return func(r *request) {
		r.Mode = wireMode(mode)
		for _, k := range keys {
			r.Keys = append(r.Keys, []byte(k))
		}
	}
}

// start sends a request to the party's process, which does not wait for others to
// be done.
func (y *party) start(o op, opts ...option) *call {
	y.s.t.Helper()
	req := request{Op: o, Session: y.session}
	for _, opt := range opts {
		opt(&req)
	}
	id, c, err := y.p.ask(req)
	if err != nil {
		y.s.t.Fatal(err)
	}
	return &call{y: y, op: o, id: id, c: c, sent: time.Now()}
}

// end waits for the answer, which must come within limit.
func (c *call) end(limit time.Duration) answer {
	t := c.y.s.t
	t.Helper()
	select {
	case r, ok := <-c.c:
		if !ok {
			t.Fatal(c.y.p.endError())
		}
		for _, text := range r.Broken {
			t.Errorf("%s: %s", c.y.p, text)
		}
		return answer{r, c.y}
	case <-time.After(limit):
		t.Fatalf("%s: %s has not returned within %v", c.y.p, c.op, limit)
	}
	return answer{}
}

// done tells whether there is an answer already, which end then returns.
func (c *call) done() bool { return len(c.c) > 0 }

// stop ends the context of the call.
func (c *call) stop() {
	c.y.s.t.Helper()
	c.y.start(opStop, func(r *request) { r.Target = c.id })
}

func (a answer) err() error {
	if a.Failure == nil {
		return nil
	}
	return a.Failure
}

// held returns the lock that was granted, and fails the test if none was.
func (a answer) held(why string) *held {
	t := a.y.s.t
	t.Helper()
	if a.Failure != nil {
		t.Fatalf("%s: %s, but: %v", a.y.p, why, a.Failure)
	}
	if len(a.Grants) == 0 {
		t.FailNow() // which Broken has said
	}
	return &held{a.y, a.Grants[0]}
}

// held is a lock some party holds.
type held struct {
	y *party
	grant
}

// acquire acquires a key that is free.
func (y *party) acquire(key string, mode lock.Mode, opts ...option) *held {
	y.s.t.Helper()
	// Not the long limit of a wait: the error says more than "has not returned".
	c := y.wait(key, mode, append([]option{limit(y.s.prompt())}, opts...)...)
	return c.end(y.s.prompt() * 3 / 2).held("the key is free")
}

// wait begins to acquire a key. The limit is longer than any wait of a test.
func (y *party) wait(key string, mode lock.Mode, opts ...option) *call {
	y.s.t.Helper()
	return y.start(opAcquire, append([]option{wants(mode, key), limit(y.s.b.Crash + 10*y.s.b.Prompt)}, opts...)...)
}

// try tries for a key.
func (y *party) try(key string, mode lock.Mode, opts ...option) answer {
	y.s.t.Helper()
	return y.start(opTry, append([]option{wants(mode, key)}, opts...)...).end(y.s.prompt())
}

// refused fails the test if a try for the key is granted.
func (y *party) refused(why, key string, mode lock.Mode) {
	t := y.s.t
	t.Helper()
	a := y.try(key, mode)
	if a.Failure == nil {
		t.Errorf("%s was given %.80q %v although %s", y.p, key, mode, why)
		return
	}
	y.s.is("a try for "+key, a.err(), lock.ErrHeld)
}

// carried has the context of an acquire carry the lock.
func (h *held) carried(r *request) { r.Carry = h.Lock }

func (h *held) about(r *request) { r.Lock = h.Lock }

// releasing begins to release the lock, release also ends it.
func (h *held) releasing() *call {
	h.y.s.t.Helper()
	return h.y.start(opRelease, h.about)
}

func (h *held) release() {
	t := h.y.s.t
	t.Helper()
	if err := h.releasing().end(h.y.s.prompt()).err(); err != nil {
		t.Errorf("%s: release of %.80q: %v", h.y.p, h.Key, err)
	}
}

// state returns whether the lock's context has ended, and why.
func (h *held) state() (ended bool, cause error) {
	h.y.s.t.Helper()
	a := h.y.start(opState, h.about).end(h.y.s.prompt())
	if a.Cause != nil {
		cause = a.Cause
	}
	return a.Ended, cause
}
