package imagecache

import (
	"io"
	"os"
	"sync"
	"time"
)

// output is where a command prints, and where that is read from.
type output struct {
	w     *os.File // the command's standard output and error
	r     io.ReadCloser
	to    []io.Writer // what is read goes there
	ended func()      // tells r that nothing more is to come
}

// output chooses how the command's output gets into the log.
//
// The cache's own log is a file, and the command has it as its standard output:
// if this process is killed the command prints on, as it would not into a pipe
// without a reader (SIGPIPE), and its image may yet be finished. Another writer
// is fed through a pipe; one of ours and not of exec.Cmd's, since it must outlive
// the command as long as the rest of a cancelled group may still print.
func (c Command) output(b *Build) (*output, error) {
	if log, ok := b.Log.(*buildLog); ok {
		w, r, err := log.direct()
		if err != nil {
			return nil, err
		}
		f := &follower{file: r, stop: make(chan struct{})}
		return &output{w: w, r: f, to: []io.Writer{c.Progress}, ended: sync.OnceFunc(func() { close(f.stop) })}, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &output{w: w, r: r, to: []io.Writer{b.Log, c.Progress}, ended: func() {}}, nil
}

// followPause is how often a log is looked at for something new. Only what goes
// to a terminal waits for it.
const followPause = 50 * time.Millisecond

// follower reads a file that is being written, until it is told to stop at the
// end of it.
type follower struct {
	file *os.File
	stop chan struct{}
}

func (f *follower) Read(p []byte) (int, error) {
	for {
		stopped := false
		select {
		case <-f.stop:
			stopped = true // seen before the read, so that nothing is missed
		default:
		}
		n, err := f.file.Read(p)
		if n > 0 || err != io.EOF || stopped {
			return n, err
		}
		select {
		case <-f.stop:
		case <-time.After(followPause):
		}
	}
}

func (f *follower) Close() error { return f.file.Close() }
