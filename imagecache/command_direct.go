package imagecache

import (
	"io"
	"os"
	"time"
)

// output is where a command prints, and where that is read from.
type output struct {
	w     *os.File // the command's standard output and error
	r     io.ReadCloser
	to    []io.Writer // what is read goes there
	ended func()      // tells that nothing more is to come
}

// output chooses how the command's output gets into the log.
//
// The cache's own log is a file, and the command has it as its standard output:
// if this process is killed the command prints on, as it would not into a pipe
// without a reader (SIGPIPE), and its image may yet be finished. Another writer
// is fed through a pipe; one of ours and not of exec.Cmd's, since it must outlive
// the command as long as the rest of a cancelled group may still print.
//
// The last lines go to last. From a file they are read at the end: nothing stops a
// command from printing faster than Progress, or we, can follow.
func (c Command) output(b *Build, last *tail) (*output, error) {
	if log, ok := b.Log.(*buildLog); ok {
		w, r, err := log.direct()
		if err != nil {
			return nil, err
		}
		f := &follower{file: r, stop: make(chan struct{})}
		if f.start, err = r.Seek(0, io.SeekCurrent); err != nil {
			w.Close()
			r.Close()
			return nil, err
		}
		return &output{w: w, r: f, to: []io.Writer{c.Progress}, ended: func() { f.end(last) }}, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &output{w: w, r: r, to: []io.Writer{writer(last.write), b.Log, c.Progress}, ended: func() {}}, nil
}

// followPause is how often a log is looked at for something new. Only what goes
// to a terminal waits for it.
const followPause = 50 * time.Millisecond

// follower reads a file that is being written, until it is told to stop at the
// end of it.
type follower struct {
	file  *os.File
	start int64
	stop  chan struct{}
}

// end stops f, and reads what was written last without regard to how far f is.
func (f *follower) end(last *tail) {
	defer close(f.stop)
	fi, err := f.file.Stat()
	if err != nil {
		return
	}
	const most = 4 * tailLines * lineBytes
	from := max(f.start, fi.Size()-most)
	b, _ := io.ReadAll(io.NewSectionReader(f.file, from, most))
	last.write(b)
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
