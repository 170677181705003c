package imagecache

import (
	"context"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/imagelock/imagelock/internal/wake"
)

// The net under the events of a log that is followed. When the kernel ends a killed
// builder the event may come an instant before the log is unlocked.
const (
	firstNet       = time.Millisecond
	longestNet     = time.Second
	longestNetPoll = 100 * time.Millisecond
)

// following reads a log while it grows. It keeps nothing of it in memory.
type following struct {
	ctx   context.Context
	file  *os.File
	held  func(*os.File) (bool, error) // isHeld
	watch wake.Watch                   // nil where there are no events

	once   sync.Once
	closed chan struct{}

	at    int64 // the next byte
	ended bool  // the writer is gone; what it has written may not all have been read
	pause time.Duration
}

func follow(ctx context.Context, file *os.File) *following {
	f := &following{ctx: ctx, file: file, held: isHeld, closed: make(chan struct{}), pause: firstNet}
	f.watch, _ = wake.Writes(file.Name())
	return f
}

func (f *following) Close() error {
	f.once.Do(func() {
		close(f.closed)
		if f.watch != nil {
			f.watch.Close()
		}
		f.file.Close()
	})
	return nil
}

func (f *following) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if err := f.over(); err != nil {
			return 0, err
		}
		n, err := f.file.ReadAt(p, f.at)
		if n > 0 {
			f.at += int64(n)
			f.pause = firstNet
			return n, nil
		}
		if err != io.EOF {
			return 0, f.fail(err)
		}
		if f.ended {
			return 0, io.EOF
		}
		held, err := f.held(f.file)
		if err != nil {
			return 0, f.fail(err)
		}
		if !held {
			f.ended = true
			continue
		}
		fi, err := f.file.Stat()
		if err != nil {
			return 0, f.fail(err)
		}
		if fi.Size() < f.at {
			f.at = 0 // somebody has emptied it; the writer goes on at its new end
			continue
		}
		f.wait()
	}
}

// wait returns when it is worth looking again.
func (f *following) wait() {
	var rung <-chan struct{}
	longest := longestNetPoll
	if f.watch != nil {
		rung, longest = f.watch.C(), longestNet
	}
	t := time.NewTimer(f.pause)
	defer t.Stop()
	select {
	case <-rung:
		f.pause = firstNet
	case <-t.C:
		f.pause = min(4*f.pause, longest)
	case <-f.ctx.Done():
	case <-f.closed:
	}
}

// over is the error of a read that need not go on.
func (f *following) over() error {
	select {
	case <-f.closed:
		return fs.ErrClosed
	default:
	}
	if f.ctx.Err() != nil {
		return whyEnded(f.ctx)
	}
	return nil
}

// fail is the error of a read. One that Close has cut off says so.
func (f *following) fail(err error) error {
	if over := f.over(); over != nil {
		return over
	}
	return &Error{Op: "follow", Path: f.file.Name(), Err: err}
}
