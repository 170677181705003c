package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// measure goes through the methods round by round, so that what else the machine does
// meets all of them.
func (l *lab) measure(ctx context.Context, scenes []scene) ([]*row, error) {
	byName := map[string]*row{}
	for _, s := range scenes {
		for _, st := range s.steps {
			for _, m := range slices.Concat(st...) {
				byName[m.name] = &row{Method: m.name, Rounds: (l.rounds + s.every - 1) / s.every}
			}
		}
	}
	var rows []*row
	for _, m := range slices.Concat(shared(), aptly(), opposed(), planned()) {
		if r := byName[m.name]; r != nil {
			rows = append(rows, r)
		}
	}
	for n := range l.rounds {
		for _, s := range scenes {
			for _, st := range s.steps {
				if n%s.every != 0 {
					break
				}
				if err := l.step(ctx, st, byName, n); err != nil {
					return nil, err
				}
			}
		}
		_ = l.clean(ctx) // or after the next round
	}
	for _, r := range rows {
		r.reckon()
	}
	compare(byName)
	return rows, nil
}

// step measures a round of what is measured at the same time.
func (l *lab) step(ctx context.Context, st step, rows map[string]*row, n int) error {
	var wg sync.WaitGroup
	errs := make([]error, len(st))
	for i, chain := range st {
		wg.Go(func() {
			for _, m := range chain {
				m.beside = len(st) > 1
				if err := l.round(ctx, rows[m.name], m, n); err != nil {
					errs[i] = fmt.Errorf("%s, round %d: %w", m.name, n+1, err)
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// round builds all services by a method with a fresh cache, and then once more after a
// change.
func (l *lab) round(ctx context.Context, r *row, m method, n int) error {
	name := fmt.Sprintf("%s-%s-%d", l.run, strings.NewReplacer(" ", "-", ",", "").Replace(m.name), n)
	b, err := l.all(ctx, r, m, name, first)
	if err != nil {
		return err
	}
	r.whole = append(r.whole, b.took)
	if b.failures == 0 {
		r.first = append(r.first, b.took)
		if m.declared && m.kind == workspace {
			r.bounded(b)
		}
	}
	if m.kind != workspace {
		return nil
	}
	if b.failures > 0 {
		// As people do, who build again until it works, if not as long.
		if _, err := l.wave(ctx, m, [][]unit{{l.filled(m, name)}}); err != nil {
			return err
		}
	}
	b, err = l.all(ctx, r, m, name, again)
	if err == nil && b.failures == 0 {
		r.again = append(r.again, b.took)
	}
	return err
}

// built is what became of all services, built once.
type built struct {
	took     time.Duration
	failures int
	outcomes []outcome
}

// all builds all services once.
func (l *lab) all(ctx context.Context, r *row, m method, name, phase string) (built, error) {
	var waves [][][]unit
	for _, wave := range m.waves {
		var processes [][]unit
		for _, service := range wave {
			processes = append(processes, []unit{l.unit(m, service, name, phase)})
		}
		if m.kind == plan { // is one process's
			processes = [][]unit{append([]unit{l.fetched(m, name)}, slices.Concat(processes...)...)}
		}
		waves = append(waves, processes)
	}
	b, err := l.wave(ctx, m, waves...)
	if err == nil {
		err = r.count(&b)
	}
	return b, err
}

// wave builds waves of units, each in a process of its own. The processes are there
// before the clock starts.
func (l *lab) wave(ctx context.Context, m method, waves ...[][]unit) (b built, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends those that are left
	workers := make([][]*worker, len(waves))
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for i, wave := range waves {
		workers[i] = make([]*worker, len(wave))
		for k, units := range wave {
			wg.Go(func() {
				j, err := l.job(m, units...)
				if err == nil {
					workers[i][k], err = start(ctx, j)
				}
				if err != nil {
					errs <- err
				}
			})
		}
	}
	wg.Wait()
	outcomes := make([][][]outcome, len(waves))
	for i, wave := range workers {
		if len(errs) > 0 {
			break
		}
		outcomes[i] = make([][]outcome, len(wave))
		if i == 0 && !m.beside {
			// Engines that compare layers by themselves (fuse-overlayfs, vfs) end each
			// build at a whole second of the clock. So all begin at one.
			time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
		}
		begun := time.Now()
		for k, w := range wave {
			wg.Go(func() {
				var err error
				if outcomes[i][k], err = w.do(); err != nil {
					errs <- err
				}
			})
		}
		wg.Wait()
		b.took += time.Since(begun)
		b.outcomes = append(b.outcomes, slices.Concat(outcomes[i]...)...)
	}
	if len(errs) > 0 {
		cancel()
		err = <-errs
	}
	for _, w := range slices.Concat(workers...) {
		if w != nil {
			if werr := w.end(); werr != nil && (err == nil || len(b.outcomes) == 0) {
				err = errors.Join(err, werr)
			}
		}
	}
	return b, err
}
