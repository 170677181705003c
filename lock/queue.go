package lock

import (
	"container/list"
	"time"
)

// entry is a key that this process holds or wants. Its waiters stand in a queue,
// and only the group at the head has to do with the file. All of an entry is
// guarded by Dir.mu, but for what its comments name.
//
// In front of a file lock there must be such a queue: the goroutines of one
// process would otherwise have to be told apart by the kernel, at the price of a
// descriptor each, and would be served in any order.
type entry struct {
	key, hash, path string
	line            ticketLine
	group           *group      // holds the file, or tries for it; nil if nobody does
	queue           list.List   // of *waiter, first come first
	pub             publication // has a mutex of its own
	seen            sighting    // likewise
}

// group is one lock on the file and those in this process who share it: one
// exclusive holder, or any number of shared ones.
type group struct {
	mode    Mode
	refs    int       // members that have not left
	granted bool      // the file is locked; until then refs is 1, the leader
	ending  bool      // the last member has left and is unlocking
	file    *lockfile // set by the leader before granted
	waiting bool      // the leader has found the file locked by others
	since   time.Time // of the grant; before it, when the leader came
	req     Request   // of the leader
	// moved is closed when a group that was in motion has come to rest; nil
	// if nobody asked.
	moved chan struct{}
}

// rest tells those who asked that the group stands still, or is gone.
func (g *group) rest() {
	if g.moved != nil {
		close(g.moved)
		g.moved = nil
	}
}

// waiter is a goroutine in the queue of its key.
type waiter struct {
	mode  Mode
	req   Request
	since time.Time
	// rejoin has a value when the waiter is first and could join the group but for
	// a writer that may wait in another process: it has to look after that one.
	rejoin chan struct{}
	// turn receives the group the waiter has become a member of: a granted
	// one, or one it has to lead to the file.
	turn chan *group
	elem *list.Element // nil once it has left the queue
}

// enter makes the caller a member of the key's group if nothing stands in its
// way, else a waiter. Nobody overtakes: a shared request joins a shared group
// only while nobody waits, so a waiting exclusive one is not starved by this
// process; nor is one of another process, if yield is set for it.
func (e *entry) enter(mode Mode, req Request, now time.Time, queue, yield bool) (*group, *waiter) {
	joinable := mode == Shared && e.joinable()
	switch {
	case e.queue.Len() == 0 && e.group == nil:
		e.group = &group{mode: mode, refs: 1, req: req, since: now}
		return e.group, nil
	case joinable && !yield:
		e.group.refs++
		return e.group, nil
	case !queue:
		return nil, nil
	}
	w := &waiter{mode: mode, req: req, since: now, rejoin: make(chan struct{}, 1), turn: make(chan *group, 1)}
	if joinable {
		w.rejoin <- struct{}{}
	}
	w.elem = e.queue.PushBack(w)
	return nil, w
}

// joinable tells whether a shared request could join those who hold the key.
func (e *entry) joinable() bool {
	g := e.group
	return e.queue.Len() == 0 && g != nil && g.mode == Shared && g.granted && !g.ending
}

// left is called when a waiter has given up: those behind may be able to join the
// group now. The first of them looks, which takes a look at the line of processes.
func (e *entry) left() {
	g, front := e.group, e.queue.Front()
	if front == nil || g == nil || g.mode != Shared || !g.granted || g.ending {
		return
	}
	if w := front.Value.(*waiter); w.mode == Shared {
		select {
		case w.rejoin <- struct{}{}:
		default:
		}
	}
}

// inMotion returns a channel for a shared try that was turned away by a shared
// group which is just being locked or unlocked: nobody has the key in a mode that
// conflicts, the kernel's answer is but some microseconds off. Else it is nil.
func (e *entry) inMotion(mode Mode) <-chan struct{} {
	g := e.group
	if mode != Shared || e.queue.Len() > 0 || g == nil || g.mode != Shared || g.waiting && !g.granted || e.joinable() {
		return nil
	}
	if g.moved == nil {
		g.moved = make(chan struct{})
	}
	return g.moved
}

// next makes the first waiter the leader of a new group, when there is none.
func (e *entry) next() {
	if w := e.pop(); w != nil {
		e.group = &group{mode: w.mode, refs: 1, req: w.req, since: w.since}
		w.turn <- e.group
	}
}

// admit lets the shared waiters at the head of the queue join a shared group: one
// that was just granted, or that no writer of another process waits for.
func (e *entry) admit() {
	g := e.group
	if g == nil || g.mode != Shared || !g.granted || g.ending {
		return
	}
	for e.queue.Len() > 0 && e.queue.Front().Value.(*waiter).mode == Shared {
		g.refs++
		e.pop().turn <- g
	}
}

func (e *entry) pop() *waiter {
	front := e.queue.Front()
	if front == nil {
		return nil
	}
	w := e.queue.Remove(front).(*waiter)
	w.elem = nil
	return w
}

// idle is true when nobody in this process holds or wants the key any more.
func (e *entry) idle() bool { return e.group == nil && e.queue.Len() == 0 }
