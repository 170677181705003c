//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// holder is a process that holds keys for others to wait for.
type holder struct{ *child }

// newHolder starts one for contender c. For a command, which can't be told to
// let go, a process with the same lock on the same file stands in.
func (e *env) newHolder(ctx context.Context, c contender, dir string) (holder, error) {
	name := c.name
	if c.open == nil {
		name = blocking
	}
	ch, err := e.start("worker", name, dir)
	if err == nil {
		err = ch.expect(ctx, "ready")
	}
	return holder{ch}, err
}

func (h holder) hold(ctx context.Context, keys int) error {
	if err := h.tell("hold %d", keys); err != nil {
		return err
	}
	return h.expect(ctx, "held")
}

// release lets go and returns when it began to.
func (h holder) release(ctx context.Context) (t int64, err error) {
	if err := h.tell("release"); err != nil {
		return 0, err
	}
	err = h.expect(ctx, "released", &t)
	return t, err
}

// party waits for the first key again and again.
type party interface {
	// begin begins a turn: wait for the key, hold it for so long, release it.
	begin(ctx context.Context, mode lock.Mode, hold, quiet time.Duration) error
	// end waits for the end of the turn and returns when the key was had and
	// when it was let go.
	end(context.Context) (acquired, released int64, err error)
}

func (e *env) newParty(ctx context.Context, c contender, dir string) (party, error) {
	if c.open == nil {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		return &commandParty{e: e, c: c, path: lockPath(dir, keyName(0))}, nil
	}
	ch, err := e.start("worker", c.name, dir)
	if err != nil {
		return nil, err
	}
	return processParty{ch}, ch.expect(ctx, "ready")
}

// processParty is a process that lives on from turn to turn.
type processParty struct{ *child }

func (p processParty) begin(ctx context.Context, mode lock.Mode, hold, quiet time.Duration) error {
	if err := p.tell("turn %v %d %d", mode, hold, quiet); err != nil {
		return err
	}
	return p.expect(ctx, "waiting")
}

func (p processParty) end(ctx context.Context) (acquired, released int64, err error) {
	err = p.expect(ctx, "turn", &acquired, &released)
	return acquired, released, err
}

// commandParty starts a process for each turn. The lock is let go when that ends.
type commandParty struct {
	e    *env
	c    contender
	path string
	now  *child
}

func (p *commandParty) begin(_ context.Context, mode lock.Mode, hold, _ time.Duration) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	argv := append(p.c.command(filepath.Clean(p.path), mode, exe), fmt.Sprint(int64(hold)))
	p.now, err = p.e.startCommand("under", argv)
	return err
}

func (p *commandParty) end(ctx context.Context) (acquired, released int64, err error) {
	if err := p.now.expect(ctx, "acquired", &acquired); err != nil {
		return 0, 0, err
	}
	select {
	case <-p.now.done:
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	released, err = p.now.ended, p.now.err
	p.e.kill(p.now)
	return acquired, released, err
}

// sleep is time.Sleep that ctx can end.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
