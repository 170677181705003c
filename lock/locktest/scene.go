package locktest

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// kit is what the subtests of one Run share: children that have nothing to do.
type kit struct {
	t *testing.T
	b Backend

	mu   sync.Mutex
	idle []*process
}

func newKit(t *testing.T, b Backend) *kit {
	k := &kit{t: t, b: b}
	t.Cleanup(func() {
		for _, p := range k.idle {
			if err := p.end(); err != nil {
				t.Error(err)
			}
		}
	})
	return k
}

// scene is one subtest: a set of locks of its own, and those who want them.
type scene struct {
	t       *testing.T
	k       *kit
	b       Backend
	where   string
	ref     *referee
	own     *process
	parties []*party
	held    []*process // children of this scene
}

// party is a Locker that was opened by some process.
type party struct {
	s       *scene
	p       *process
	session int
	closed  bool
}

func newScene(t *testing.T, k *kit) *scene {
	s := &scene{t: t, k: k, b: k.b, where: k.b.New(t), ref: newReferee(k.b.Lose != nil)}
	t.Cleanup(s.end) // before what New has registered
	return s
}

// end closes everything and gives the children back. After a failure they are
// killed instead: what a broken backend does in them ends with them.
func (s *scene) end() {
	bad, _ := s.ref.verdict()
	for _, text := range bad {
		s.t.Error(text)
	}
	if !s.t.Failed() {
		for _, y := range s.parties {
			y.close()
		}
	}
	for _, p := range s.held {
		select {
		case <-p.gone:
			continue
		default:
		}
		if s.t.Failed() {
			if err := p.kill(); err != nil {
				s.t.Error(err)
			}
			if text := p.out.String(); text != "" {
				s.t.Logf("%s printed:\n%s", p, text)
			}
			continue
		}
		p.mu.Lock()
		p.listen = nil
		p.mu.Unlock()
		s.k.mu.Lock()
		s.k.idle = append(s.k.idle, p)
		s.k.mu.Unlock()
	}
}

// here opens a Locker in the test's own process.
func (s *scene) here() *party {
	s.t.Helper()
	if s.own == nil {
		s.own = own(s.b)
		s.own.listen = s.ref.note
	}
	return s.open(s.own)
}

// child opens a Locker in a process of its own.
func (s *scene) child() *party {
	s.t.Helper()
	s.k.mu.Lock()
	var p *process
	if n := len(s.k.idle); n > 0 {
		p, s.k.idle = s.k.idle[n-1], s.k.idle[:n-1]
	}
	s.k.mu.Unlock()
	if p == nil {
		var err error
		if p, err = startChild(s.k.t); err != nil {
			s.t.Fatal(err)
		}
	}
	p.mu.Lock()
	p.listen = s.ref.note
	p.mu.Unlock()
	s.held = append(s.held, p)
	return s.open(p)
}

// open opens another Locker in a process, openAt one of other locks.
func (s *scene) open(p *process) *party {
	s.t.Helper()
	return s.openAt(p, s.where)
}

func (s *scene) openAt(p *process, where string) *party {
	s.t.Helper()
	y := &party{s: s, p: p, session: len(s.parties) + 1}
	if err := y.start(opOpen, func(r *request) { r.Where = where }).end(startLimit).err(); err != nil {
		s.t.Fatalf("%s: Backend.Open: %v", p, err)
	}
	s.parties = append(s.parties, y)
	return y
}

// close releases what the party has and closes its Locker.
func (y *party) close() {
	y.s.t.Helper()
	if y.closed {
		return
	}
	y.closed = true
	if err := y.start(opClose).end(y.s.crash()).err(); err != nil {
		y.s.t.Errorf("%s: closing: %v", y.p, err)
	}
}

// kill kills the party's process.
func (y *party) kill() {
	y.s.t.Helper()
	y.s.ref.drop(y.p)
	for _, other := range y.s.parties {
		other.closed = other.closed || other.p == y.p
	}
	if err := y.p.kill(); err != nil {
		y.s.t.Fatal(err)
	}
}

// stop stops the party's process as SIGSTOP does, resume lets it go on.
func (y *party) stop() {
	y.s.t.Helper()
	if err := stopProcess(y.p.child.Process); err != nil {
		y.s.t.Fatal(err)
	}
}

func (y *party) resume() {
	y.s.t.Helper()
	if err := continueProcess(y.p.child.Process); err != nil {
		y.s.t.Fatal(err)
	}
}

// prompt is for what waits for nobody, crash for what may wait until a lease has
// run out.
func (s *scene) prompt() time.Duration { return s.b.Prompt }
func (s *scene) crash() time.Duration  { return s.b.Crash + s.b.Prompt }

// rounds is how often something is tried that goes wrong by chance.
func rounds(n int) int {
	if testing.Short() {
		return max(1, n/4)
	}
	return n
}

// modes are those the backend has.
func (s *scene) modes() []lock.Mode {
	if s.b.ExclusiveOnly {
		return []lock.Mode{lock.Exclusive}
	}
	return []lock.Mode{lock.Exclusive, lock.Shared}
}

// settle gives somebody who was told to wait the time to begin. Nothing is proved
// by it: if it is too short a round is easier than it should be.
func settle() { time.Sleep(20 * time.Millisecond) }

// is fails the test unless err is all of the targets.
func (s *scene) is(what string, err error, targets ...error) {
	s.t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			s.t.Errorf("%s: the error is %v, want one that is %q", what, err, target)
		}
	}
}
