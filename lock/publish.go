package lock

import (
	"sync"
	"time"
)

// publication is what an entry has told of itself in the process's record.
type publication struct {
	mu   sync.Mutex // taken before Dir.mu; orders the writes of one entry
	slot int        // 0: none
	last text
}

// text is an entry's text without its constant parts, comparable.
type text struct {
	held heldText
	wait waitText
}

// linger is how long a record may go on to claim a key that its process has let go
// of. A loop that takes one key again and again then writes twice in this time and
// not at each turn. It is no more than what a reader has to expect anyway: a lock is
// released before its record says so, and records are checked against the system's
// table of locks.
const linger = time.Millisecond

// publish writes into the record what the entry e is now, if that has changed. It
// costs one pwrite, and nothing while a key is neither held nor waited for.
func (d *Dir) publish(e *entry) { d.tell(e, false) }

// retract is publish after a release. If it is that of the key which this process
// had last as well, the record may linger.
func (d *Dir) retract(e *entry) { d.tell(e, true) }

func (d *Dir) tell(e *entry, released bool) {
	e.pub.mu.Lock()
	defer e.pub.mu.Unlock()
	d.mu.Lock()
	now := e.text()
	late := released && now == (text{}) && d.spare == e
	if late && !d.lingers {
		d.lingers = true
		time.AfterFunc(linger, d.fade)
	}
	d.mu.Unlock()
	if late || now == e.pub.last {
		return
	}
	e.pub.last = now
	d.write(e, now)
}

// write is apart from tell, which seldom comes to it, because what it makes is on
// the heap. The caller holds e.pub.mu.
func (d *Dir) write(e *entry, now text) {
	if now == (text{}) {
		d.record.put(e.pub.slot, nil)
		d.record.dealloc(e.pub.slot)
		e.pub.slot = 0
		return
	}
	if e.pub.slot == 0 {
		e.pub.slot = d.record.alloc()
	}
	out := entryText{Hash: e.hash, Key: clip(e.key, 200)}
	if now.held.Count > 0 {
		out.Held = &now.held
	}
	if now.wait.Count > 0 {
		out.Wait = &now.wait
	}
	d.record.put(e.pub.slot, &out)
}

// fade ends the lingering of what is still not held.
func (d *Dir) fade() {
	d.mu.Lock()
	d.lingers = false
	e := d.spare
	d.mu.Unlock()
	if e != nil {
		d.publish(e)
	}
}

// text describes e; the caller holds Dir.mu.
func (e *entry) text() text {
	var t text
	g := e.group
	if g != nil && g.granted && !g.ending {
		t.held = heldText{
			Mode: g.mode.String(), Count: g.refs, Operation: clip(g.req.Operation, 60),
			Since: millis(g.since), LogPath: clip(g.req.LogPath, 500),
		}
	}
	t.wait.Count = e.queue.Len()
	switch {
	case g != nil && g.waiting && !g.granted:
		t.wait.Count++
		t.wait.Mode = g.mode.String()
		t.wait.Since, t.wait.Operation = millis(g.since), clip(g.req.Operation, 60)
	case t.wait.Count > 0:
		w := e.queue.Front().Value.(*waiter)
		t.wait.Mode = w.mode.String()
		t.wait.Since, t.wait.Operation = millis(w.since), clip(w.req.Operation, 60)
	}
	return t
}
