package docker

import (
	"context"
	"io"
	"time"
)

// patience is how long a Write may take once the context has ended.
const patience = time.Second

// patient returns a writer that waits for w as long as ctx lasts, and a little
// longer: a terminal that somebody has stopped must not keep a cancelled build
// from returning, and with it whoever waits for the image. After that it fails,
// and w may still be reading what it was given.
func patient(ctx context.Context, w io.Writer) io.Writer {
	if w == nil {
		return nil
	}
	return &patientWriter{ctx, w}
}

type patientWriter struct {
	ctx context.Context
	w   io.Writer
}

func (p *patientWriter) Write(b []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := p.w.Write(b)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-p.ctx.Done():
	}
	select {
	case r := <-done:
		return r.n, r.err
	case <-time.After(patience):
		return 0, context.Cause(p.ctx)
	}
}
