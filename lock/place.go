package lock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"github.com/imagelock/imagelock/internal/wake"
)

// A waiter whose turn it is may be stopped, or a program of another kind may have
// made its ticket. So whoever stands behind one ticket for stallAfter looks, at
// its timer, whether the lock is free. If it is, and is again some moments later,
// those before it lie still and are passed over.
const (
	stallAfter = time.Second
	// courtesy is how long those whose turn it is have to take a free lock that
	// they were told of by an event, or that they have to find by themselves.
	courtesy        = 20 * time.Millisecond
	courtesyPolling = 2 * longestPolling
)

// place is where a waiter stands and what it listens to: the ticket before its
// own, or, at the head of the line, the lockfile.
type place struct {
	c      *claim
	line   ticketLine
	ticket *ticket   // nil for a bystander, and if none could be had: that costs the order, not the lock
	drew   time.Time // when one was last asked for
	behind string    // the ticket before it; "" at the head
	ahead  int       // how many are before it, of whom some may be dead
	since  time.Time // when somebody before it last moved
	stall  time.Duration
	// offered is the first in line to whom a free lock was offered; passed are
	// those who did not take it.
	offered string
	passed  []string

	net     *backoff.ExponentialBackOff // under the events
	target  string                      // the file that is listened to
	watched os.FileInfo                 // which file that was
	watch   wake.Watch                  // nil where there are no events
	file    *rawLock                    // the lockfile, kept open for the next try
}

func (c *claim) stand(ctx context.Context) *place {
	p := &place{c: c, line: c.e.line, since: time.Now(), stall: stallAfter}
	// Callers with little time, one after another, must get by as well.
	limit := c.req.Wait
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end))
	}
	p.stall = min(p.stall, limit/4)
	if !c.req.bystander {
		p.draw()
	}
	p.net = c.d.net(longestInterval)
	p.look()
	if p.watch == nil {
		p.net = c.d.net(longestPolling)
	}
	return p
}

// draw gets the waiter a ticket, if one can be had.
func (p *place) draw() {
	t, err := p.line.draw(p.c.mode)
	p.drew = time.Now()
	if err != nil {
		d := p.c.d
		d.once.tickets.Do(func() {
			d.log.Debug("waiting out of line: no ticket can be written", zap.String("path", p.line.path), zap.Error(err))
		})
		return
	}
	p.ticket = t
}

// look finds out where the waiter stands by now, and listens there. It tells
// whether that is the lockfile and was not before: what happened to it until then
// is found out by a try.
func (p *place) look() (try bool) {
	for range 10 {
		behind, ahead := p.before()
		if behind != p.behind || ahead != p.ahead {
			// Its turn comes nearer. Where there are no events it has to look
			// more often now.
			p.behind, p.ahead, p.since, p.offered = behind, ahead, time.Now(), ""
			p.net.Reset()
		}
		if behind == "" {
			return p.listen(p.c.e.path)
		}
		if !p.listen(filepath.Join(p.line.path, behind)) {
			return false
		}
		// It may have gone before it was listened to: once more.
	}
	return false
}

func (p *place) before() (behind string, ahead int) {
	if p.ticket == nil && !p.c.req.bystander && time.Since(p.drew) > stallAfter {
		p.draw() // or newcomers would overtake it for as long as they come
	}
	t := p.ticket
	if t == nil {
		return "", 0
	}
	if there := t.there(); there && p.behind == "" && p.target != "" {
		return "", p.ahead // who is at the head stays there
	} else if !there {
		_ = t.put() // without it we are no worse than without a ticket
	}
	tickets, err := p.line.ahead(t.name, p.c.mode, p.passed)
	if err != nil {
		return p.behind, p.ahead // until it can be looked at again
	}
	return p.line.nearest(tickets), len(tickets)
}

// listen listens to the file at path, and tells whether it did not before. A
// file that stands there instead of the one before it is another.
func (p *place) listen(path string) bool {
	fi, err := os.Lstat(path)
	if p.target == path && (err != nil && p.watched == nil || err == nil && p.watched != nil && os.SameFile(fi, p.watched)) {
		return false
	}
	p.deafen()
	p.target, p.watched = path, nil
	if err == nil {
		p.watched = fi
	}
	d := p.c.d
	w, err := d.events.Watch(path)
	if err == nil {
		p.watch = w
	} else if !errors.Is(err, fs.ErrNotExist) {
		d.once.events.Do(func() { d.log.Debug("polling: no file events are to be had", zap.Error(err)) })
	}
	return true
}

func (p *place) deafen() {
	if p.file != nil {
		p.file.Close()
		p.file = nil
	}
	if p.watch != nil {
		p.watch.Close()
		p.watch = nil
	}
}

func (p *place) rung() <-chan struct{} {
	if p.watch == nil {
		return nil
	}
	return p.watch.C()
}

// push is for a waiter that has stood behind the same ticket for long: it makes
// sure that a free lock is taken, if not by the first in line then by the next.
// It returns when to look again.
func (p *place) push() (time.Duration, error) {
	if time.Since(p.since) < p.stall {
		return p.pause(), nil
	}
	free, err := p.c.offer()
	if err != nil {
		return p.pause(), err
	}
	if !free {
		p.offered = ""
		return p.pause(), nil
	}
	tickets, err := p.line.ahead(p.ticket.name, p.c.mode, p.passed)
	if err != nil {
		return p.pause(), nil
	}
	first := p.line.first(tickets)
	if first == "" {
		return 0, nil // they have just gone
	}
	if first != p.offered {
		p.offered = first
		if p.watch == nil {
			return courtesyPolling, nil
		}
		return courtesy, nil
	}
	// Its ticket is taken out of the line, or everybody behind would have to find
	// out as slowly. Where that is not possible this one passes it over alone.
	// Its process puts it back when it goes on.
	p.passed = append(p.passed, first)
	os.Remove(filepath.Join(p.line.path, first))
	// Nothing has moved by itself: those who lie still are passed one after the
	// other, without another stallAfter for each.
	p.ahead--
	return 0, nil
}

// offer tells whether the lock is free, and, if it is, wakes those who wait.
func (c *claim) offer() (bool, error) {
	f, err := c.d.tryFile(c.e.path, Exclusive, false, false)
	if f == nil {
		return false, err
	}
	f.ring(c.e.path)
	return true, f.release()
}

// keepOpen is how many goroutines of a process may wait before it stops to keep the
// lockfiles at whose head it is open. That spares the one who is woken an open,
// a tenth of the time from a release to the next grant, and costs a descriptor a
// key: good where few wait, and not where thousands do.
const keepOpen = 32

// try is tryFile for who is at the head of the line.
func (p *place) try() (*lockfile, error) {
	c := p.c
	few := keepsOpen && c.d.waits.Load()+c.d.queued.Load() <= keepOpen
	if p.file == nil && few {
		p.file = openRaw(c.e.path) // or else as always
	}
	if p.file != nil {
		ok, err := flockFile(p.file.File, c.mode)
		if err == nil && !ok {
			if !few {
				p.file.Close()
				p.file = nil
			}
			return nil, nil
		}
		l := p.file
		p.file = nil
		if ok {
			if same, err := l.isAt(c.e.path); same && err == nil {
				f := &lockfile{osLock: l}
				if c.raw {
					f.file = l.File
				}
				return f, nil
			}
		}
		l.Unlock() // and it may well be another file by now
	}
	f, err := c.d.tryFile(c.e.path, c.mode, false, c.raw)
	if f != nil {
		f.ring(c.e.path)
	}
	return f, err
}

// announce says that the wait has ended with a grant. The caller does not wait for
// it: it was a fifth of the time from a release to the next grant. What else is to be
// done is done at the release.
func (p *place) announce() {
	p.c.d.publish(p.c.e)
	if p.ticket != nil {
		p.ticket.lock.Unlock() // lets the next one come to the head of the line
	}
}

// leave removes all that was there to wait.
func (p *place) leave() {
	p.deafen()
	if p.ticket != nil {
		p.ticket.leave()
		p.line.clear()
	}
}
