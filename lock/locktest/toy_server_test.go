package locktest_test

import (
	"bufio"
	"encoding/json"
	"math/rand/v2"
	"net"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// toyLease is how long the toy's locks last without being renewed.
const toyLease = time.Second

// toyServer keeps locks in memory and serves them over TCP, a connection each. Who
// has a lock must renew it, or loses it. It is sound unless a defect is chosen.
type toyServer struct {
	defect string
	ln     net.Listener

	mu     sync.Mutex
	tokens map[string]uint64
	keys   map[string]*toyKey
	conns  map[*toyConn]bool
}

type toyKey struct {
	holders, queue []*toyConn
	token          uint64
}

// toyConn is somebody who wants a key, or has it.
type toyConn struct {
	net.Conn
	key  string
	mode lock.Mode
	// confirmed is set by the first renewal: the client knows that it has the lock.
	confirmed bool
	expiry    *time.Timer
}

// toyRequest is what a client says, toyReply what it is told.
type toyRequest struct {
	Op   string // acquire, try, renew, release, free
	Key  []byte `json:",omitempty"`
	Mode uint8  // as a number, also for one that does not exist
}

type toyReply struct {
	Op    string // granted, held, renewed, gone, released
	Token uint64
}

func startToy(t *testing.T, defect string) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &toyServer{defect: defect, ln: ln, tokens: map[string]uint64{}, keys: map[string]*toyKey{}, conns: map[*toyConn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			tc := &toyConn{Conn: c}
			s.mu.Lock()
			s.conns[tc] = true
			s.mu.Unlock()
			wg.Go(func() { s.serve(tc) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		s.mu.Lock()
		for c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

func (s *toyServer) is(defect string) bool { return s.defect == defect }

func (s *toyServer) serve(c *toyConn) {
	for in := bufio.NewReader(c); ; {
		line, err := in.ReadBytes('\n')
		s.mu.Lock()
		if err != nil {
			s.gone(c)
			delete(s.conns, c)
			s.mu.Unlock()
			c.Close()
			return
		}
		var r toyRequest
		_ = json.Unmarshal(line, &r)
		s.take(c, r)
		s.mu.Unlock()
	}
}

func (s *toyServer) take(c *toyConn, r toyRequest) {
	switch r.Op {
	case "acquire", "try":
		c.key, c.mode = s.name(string(r.Key)), lock.Mode(r.Mode)
		k := s.keys[c.key]
		if k == nil {
			k = &toyKey{token: s.tokens[c.key]}
			s.keys[c.key] = k
		}
		overtakes := s.is("starves writers") && c.mode == lock.Shared
		if (len(k.queue) == 0 || overtakes) && s.fits(k, c) {
			s.grant(k, c)
		} else if r.Op == "try" {
			s.tell(c, toyReply{Op: "held"})
		} else {
			k.queue = append(k.queue, c)
		}
	case "renew":
		k := s.keys[c.key]
		if k == nil || !slices.Contains(k.holders, c) {
			s.tell(c, toyReply{Op: "gone"})
			return
		}
		c.confirmed = true
		s.expire(c)
		s.tell(c, toyReply{Op: "renewed"})
	case "release":
		k := s.keys[c.key]
		waited := k != nil && len(k.queue) > 0
		if s.is("one release frees all") && k != nil {
			k.holders = nil
		}
		silent := s.is("lost wake-up") && rand.IntN(10) == 0 || (s.is("a wake-up goes with who gives up") || s.is("who gives up lets nobody past")) && !c.confirmed
		s.free(c, !silent)
		if !(s.is("release waits for the next one") && waited) {
			s.tell(c, toyReply{Op: "released"})
		}
	case "free": // whoever has it
		if k := s.keys[s.name(string(r.Key))]; k != nil {
			for _, h := range slices.Clone(k.holders) {
				s.free(h, true)
			}
		}
		s.tell(c, toyReply{Op: "released"})
	}
}

// fits tells whether c may hold k beside those who do.
func (s *toyServer) fits(k *toyKey, c *toyConn) bool {
	if s.is("two holders") && rand.IntN(20) == 0 {
		return true
	}
	for _, h := range k.holders {
		beside := h.mode == lock.Shared && c.mode == lock.Shared
		if s.is("shared beside exclusive") && c.mode == lock.Shared || s.is("exclusive beside shared") && h.mode == lock.Shared {
			beside = true
		}
		if s.is("shared is exclusive") {
			beside = false
		}
		if !beside {
			return false
		}
	}
	return true
}

func (s *toyServer) grant(k *toyKey, c *toyConn) {
	k.holders = append(k.holders, c)
	k.token++
	s.tokens[c.key] = k.token
	if s.is("token of the key's present life") {
		delete(s.tokens, c.key)
	}
	token := k.token
	if s.is("token is used twice") {
		token = (token + 1) / 2
	}
	s.expire(c)
	s.tell(c, toyReply{Op: "granted", Token: token})
}

// expire begins c's lease anew.
func (s *toyServer) expire(c *toyConn) {
	if s.is("a crash frees nothing") || !c.confirmed && (s.is("waits for a stopped one") || s.is("a dead waiter keeps its place")) {
		return
	}
	if c.expiry != nil {
		c.expiry.Stop()
	}
	c.expiry = time.AfterFunc(toyLease, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.free(c, true)
	})
}

// free takes c's lock away, and gives it to the next.
func (s *toyServer) free(c *toyConn, wake bool) {
	k := s.keys[c.key]
	if k == nil {
		return
	}
	if c.expiry != nil {
		c.expiry.Stop()
	}
	k.holders = slices.DeleteFunc(k.holders, func(h *toyConn) bool { return h == c })
	if wake {
		s.advance(k)
	}
	if len(k.holders) == 0 && len(k.queue) == 0 && s.keys[c.key] == k {
		delete(s.keys, c.key)
	}
}

func (s *toyServer) advance(k *toyKey) {
	for len(k.queue) > 0 && s.fits(k, k.queue[0]) {
		next := k.queue[0]
		k.queue = k.queue[1:]
		s.grant(k, next)
	}
}

// gone is what happens when a connection ends: one that waits leaves, one that has
// a lock keeps it until its lease has run out, unless it had not heard of it.
func (s *toyServer) gone(c *toyConn) {
	k := s.keys[c.key]
	if k == nil {
		return
	}
	if i := slices.Index(k.queue, c); i >= 0 {
		if s.is("a dead waiter keeps its place") {
			return
		}
		k.queue = slices.Delete(k.queue, i, i+1)
		if !s.is("a wake-up goes with who gives up") && !s.is("who gives up lets nobody past") {
			s.advance(k)
		}
		return
	}
	if slices.Contains(k.holders, c) && !c.confirmed {
		if s.is("a dead waiter keeps its place") {
			return
		}
		s.free(c, !s.is("a wake-up goes with who gives up"))
	}
}

func (s *toyServer) tell(c *toyConn, r toyReply) {
	b, _ := json.Marshal(r)
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = c.Write(append(b, '\n'))
}

// name is the key as the server keeps it.
func (s *toyServer) name(key string) string {
	switch s.defect {
	case "keys are folded":
		return strings.ToLower(key)
	case "keys are paths":
		return path.Clean(key)
	case "keys end at a NUL":
		key, _, _ = strings.Cut(key, "\x00")
	case "keys are text":
		return strings.ToValidUTF8(key, "\ufffd")
	case "keys are cut":
		return key[:min(len(key), 255)]
	case "a key is its first letter":
		return key[:min(len(key), 1)]
	case "all keys are one":
		return "k"
	}
	return key
}
