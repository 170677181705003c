package wake

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// System returns the process's inotify source.
//
// There is one descriptor a process, opened at the first watch and never
// closed: closing a descriptor that has watches blocks for a kernel grace period
// (8 ms in the median), and a user has but 128 of them. Its reader is parked in
// the runtime's poller and costs no thread.
func System() Source { return &system }

var system inotify

// mask: IN_CLOSE_WRITE is a holder's release or death, if it had opened the file
// for writing. IN_ATTRIB is an unlink (the link count changes), after which the
// watched inode is no longer the file at that path. Read-only opens, such as a
// failed try's, make no event, or tries would feed on each other.
const mask = unix.IN_CLOSE_WRITE | unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_DONT_FOLLOW

// Into is the Watch of System with c for its channel, which several watches may
// share. It must have room for one value.
func Into(path string, c chan struct{}) (Watch, error) { return system.watch(path, mask, c) }

// Writes is the Watch of System that hears of every write as well. Other watches of
// the same file may then be woken by those too.
func Writes(path string) (Watch, error) {
	return system.watch(path, mask|unix.IN_MODIFY, make(chan struct{}, 1))
}

// largestEvent is that of a file in a watched directory: a read ends before an event
// for which there is no room left.
const largestEvent = unix.SizeofInotifyEvent + unix.NAME_MAX + 1

type inotify struct {
	mu   sync.Mutex // guards all below, and orders add_watch before its events
	fd   int
	file *os.File // nil until the first watch; keeps fd in the poller
	subs map[int32]map[*watch]struct{}
}

type watch struct {
	src *inotify
	wd  int32
	c   chan struct{}
}

func (n *inotify) Watch(path string) (Watch, error) {
	return n.watch(path, mask, make(chan struct{}, 1))
}

func (n *inotify) watch(path string, mask uint32, c chan struct{}) (Watch, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, fmt.Errorf("%w: inotify_init1: %w", ErrUnavailable, err)
		}
		file := os.NewFile(uintptr(fd), "inotify")
		conn, err := file.SyscallConn()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %w", ErrUnavailable, err), file.Close())
		}
		n.fd, n.file, n.subs = fd, file, map[int32]map[*watch]struct{}{}
		go n.read(conn)
	}
	// Added to what others watch the file for.
	wd, err := unix.InotifyAddWatch(n.fd, path, mask|unix.IN_MASK_ADD)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &fs.PathError{Op: "watch", Path: path, Err: err}
		}
		return nil, fmt.Errorf("%w: inotify_add_watch: %w", ErrUnavailable, err)
	}
	// A second watch of one inode has the first one's descriptor.
	w := &watch{src: n, wd: int32(wd), c: c}
	if n.subs[w.wd] == nil {
		n.subs[w.wd] = map[*watch]struct{}{}
	}
	n.subs[w.wd][w] = struct{}{}
	return w, nil
}

func (w *watch) C() <-chan struct{} { return w.c }

func (w *watch) Close() {
	n := w.src
	n.mu.Lock()
	defer n.mu.Unlock()
	set := n.subs[w.wd]
	if _, ok := set[w]; !ok {
		return
	}
	delete(set, w)
	if len(set) == 0 {
		delete(n.subs, w.wd)
		// EINVAL: the inode is gone and took the watch along.
		_, _ = unix.InotifyRmWatch(n.fd, uint32(w.wd))
	}
}

func (w *watch) wake() {
	select {
	case w.c <- struct{}{}:
	default: // one value is waiting already, and says as much
	}
}

// read is the life of the reader. One call that lasts, instead of one for each
// event: after what leaves room in the buffer it parks without asking the kernel
// again, and whoever it has just woken goes on so much earlier. An event that comes
// before it is parked is not lost, since the poller remembers it.
func (n *inotify) read(c syscall.RawConn) {
	buf := make([]byte, 64<<10)
	const full = 64<<10 - largestEvent
	_ = c.Read(func(fd uintptr) (done bool) {
		for {
			k, err := unix.Read(int(fd), buf)
			switch {
			case err == nil && k > 0:
				n.dispatch(buf[:k])
				if k < full {
					return false
				}
			case err == unix.EINTR:
			default:
				return err != unix.EAGAIN
			}
		}
	})
	// Not known to happen. Those who listen go on by their timers; the next watch
	// starts anew.
	n.mu.Lock()
	n.file = nil
	n.mu.Unlock()
}

func (n *inotify) dispatch(b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b[0:]))
		what := binary.NativeEndian.Uint32(b[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		b = b[min(size, len(b)):]
		if what&unix.IN_Q_OVERFLOW != 0 {
			for _, set := range n.subs {
				wakeAll(set)
			}
			continue
		}
		set := n.subs[wd]
		wakeAll(set)
		if what&unix.IN_IGNORED != 0 {
			delete(n.subs, wd)
		}
	}
}

func wakeAll(set map[*watch]struct{}) {
	for w := range set {
		w.wake()
	}
}
