package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sync/errgroup"
)

// bulk is one thing that is done to many tenants.
type bulk struct {
	what     string // "upgraded", for people
	noun     string // what the names are of; "": tenant
	parallel int
	fatal    func(error) bool // after such an error nothing more is begun; nil: none is
	budget   int              // after more failures than that nothing more is begun either; 0: no bound
}

// bulkOutcome is what has become of it.
type bulkOutcome struct {
	done    int
	failed  []error // one for each that failed, with its name
	skipped int     // not begun
}

// run does it to each name, several at a time, and goes on when one fails. A bar on a terminal says how far it is.
func (c *cli) bulk(ctx context.Context, b bulk, names []string, do func(ctx context.Context, name string) error) bulkOutcome {
	bar, finish := c.progress(b.what, len(names))
	var mu sync.Mutex
	var outcome bulkOutcome
	stopped := false
	var group errgroup.Group
	group.SetLimit(max(1, b.parallel))
	for _, name := range names {
		group.Go(func() error {
			mu.Lock()
			skip := stopped || ctx.Err() != nil
			if skip {
				outcome.skipped++
			}
			mu.Unlock()
			if skip {
				return nil
			}
			err := do(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			bar()
			if err == nil {
				outcome.done++
				return nil
			}
			outcome.failed = append(outcome.failed, fmt.Errorf("%s '%s': %w", cmp.Or(b.noun, "tenant"), name, err))
			stopped = stopped || b.fatal != nil && b.fatal(err) || b.budget > 0 && len(outcome.failed) > b.budget
			return nil
		})
	}
	group.Wait() //nolint:errcheck // failures are in the outcome
	finish()
	return outcome
}

// gathered is what a bulk has made of those that did not fail, by several workers. The zero value is none.
type gathered[T any] struct {
	mu  sync.Mutex
	all []T
}

// from is do for a bulk: what it makes is kept.
func (g *gathered[T]) from(do func(ctx context.Context, name string) (T, error)) func(ctx context.Context, name string) error {
	return func(ctx context.Context, name string) error {
		made, err := do(ctx, name)
		if err == nil {
			g.mu.Lock()
			g.all = append(g.all, made)
			g.mu.Unlock()
		}
		return err
	}
}

// made is what there is, after the bulk.
func (g *gathered[T]) made() []T {
	if g.all == nil {
		return []T{} // as JSON it is a list, too
	}
	return g.all
}

// err is nil when everything was done.
func (o bulkOutcome) err(what string) error {
	err := errors.Join(o.failed...)
	if o.skipped > 0 {
		err = errors.Join(err, fmt.Errorf("%d have not been begun: run it again to go on", o.skipped))
	}
	if err == nil || o.done == 0 {
		return err
	}
	return &partlyDoneError{done: fmt.Sprintf("%d of the tenants are %s", o.done, what), err: err}
}

// progress is a bar on standard error, where that is a terminal: bar counts one, finish ends it.
func (c *cli) progress(what string, total int) (bar, finish func()) {
	if !isTerminal(c.err) || total < 2 {
		return func() {}, func() {}
	}
	container := mpb.New(mpb.WithOutput(c.err), mpb.WithWidth(48))
	b := container.AddBar(int64(total), mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(what+" "), decor.CountersNoUnit("%d of %d")),
		mpb.AppendDecorators(decor.AverageSpeed(0, "%.0f/s "), decor.AverageETA(decor.ET_STYLE_MMSS)))
	return func() { b.Increment() }, func() {
		b.Abort(true) // when all are counted, nothing is left to abort
		container.Wait()
	}
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
