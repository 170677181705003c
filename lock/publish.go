package lock

import "sync"

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

// publish writes into the record what the entry e is now, if that has changed. It
// costs one pwrite, and nothing while a key is neither held nor waited for.
func (d *Dir) publish(e *entry) {
	e.pub.mu.Lock()
	defer e.pub.mu.Unlock()
	d.mu.Lock()
	now := e.text()
	d.mu.Unlock()
	if now == e.pub.last {
		return
	}
	e.pub.last = now
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
		t.wait.Since, t.wait.Operation = millis(g.since), clip(g.req.Operation, 60)
	case t.wait.Count > 0:
		w := e.queue.Front().Value.(*waiter)
		t.wait.Since, t.wait.Operation = millis(w.since), clip(w.req.Operation, 60)
	}
	return t
}
