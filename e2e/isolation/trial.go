package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// patience bounds a step of an attack that has no bound of its own, trialPatience all of it.
const (
	patience      = 20 * time.Second
	trialPatience = 2 * time.Minute
)

// trial is one run of one case.
type trial struct {
	*arena
	ctx context.Context

	heard     overheard
	accepted  int            // attacks that were let through to their end
	refusals  map[string]int // the others, by SQLSTATE
	refusable []string       // SQLSTATEs that are a refusal in this case
	checks    int            // how often somebody else was looked at
	leaked    []string
	notes     []string
	endings   []func()
}

var errNothingTried = errors.New("nothing was tried")

// abandoned is what a trial panics with when it cannot go on: attacks read better without an error at every step.
type abandoned struct{ err error }

// try runs a case and judges it.
func (a *arena) try(ctx context.Context, c attack) result {
	t := &trial{arena: a, refusals: make(map[string]int), refusable: a.refusals()}
	before, err := a.world(ctx)
	if err != nil {
		return result{err: err}
	}
	err = t.during(ctx, func() { c.run(t) })
	after, worldErr := a.worldAfter(ctx, before)
	// Only now, and with time of its own: some of it puts right what the attack has changed.
	err = errors.Join(err, worldErr, t.during(ctx, t.end))
	t.compare(before, after)
	t.searchCanaries()
	r := t.judge()
	if err != nil {
		r.outcome, r.err = unknown, err
	}
	return r
}

// during carries out a part of the trial, and returns why it was abandoned.
func (t *trial) during(ctx context.Context, part func()) (err error) {
	ctx, cancel := context.WithTimeout(ctx, trialPatience)
	defer cancel()
	t.ctx = ctx
	return untilAbandoned(part)
}

func untilAbandoned(part func()) (err error) {
	defer func() {
		switch gone := recover().(type) {
		case nil:
		case abandoned:
			err = gone.err
		default:
			panic(gone)
		}
	}()
	part()
	return nil
}

// aside carries out parts of the trial each in a goroutine of its own. wait returns when all of them have ended, and
// abandons the trial if one of them was. A part opens nothing and tallies nothing: that is for the trial's goroutine.
func (t *trial) aside(parts ...func()) (wait func()) {
	ends := make(chan error, len(parts))
	for _, part := range parts {
		go func() { ends <- untilAbandoned(part) }()
	}
	return func() {
		var all error
		for range parts {
			all = errors.Join(all, <-ends)
		}
		t.must(all)
	}
}

// refusals are the SQLSTATEs that say no. In another database what is not there is as good.
func (a *arena) refusals() []string {
	codes := []string{"42501", "28000", "28P01", "0A000", "08P01"}
	if a.level == levelDatabase {
		codes = append(codes, "42P01", "3F000", "3D000", "42704")
	}
	return codes
}

func (t *trial) abandon(err error) { panic(abandoned{err}) }

func (t *trial) must(err error) {
	if err != nil {
		t.abandon(err)
	}
}

// atEnd calls a function after the trial, the last one first.
func (t *trial) atEnd(f func()) { t.endings = append(t.endings, f) }

// end calls them all, even when one of them fails.
func (t *trial) end() {
	if len(t.endings) == 0 {
		return
	}
	last := t.endings[len(t.endings)-1]
	t.endings = t.endings[:len(t.endings)-1]
	defer t.end()
	last()
}

// maxLeaks is how many are told apart: the first say what there is to know.
const maxLeaks = 8

// leak records that the victim was reached.
func (t *trial) leak(format string, arguments ...any) {
	if text := fmt.Sprintf(format, arguments...); len(t.leaked) < maxLeaks && !slices.Contains(t.leaked, text) {
		t.leaked = append(t.leaked, text)
	}
}

func (t *trial) note(format string, arguments ...any) {
	if text := fmt.Sprintf(format, arguments...); !slices.Contains(t.notes, text) {
		t.notes = append(t.notes, text)
	}
}

// alsoRefusal adds SQLSTATEs that are a refusal in this case.
func (t *trial) alsoRefusal(codes ...string) { t.refusable = append(t.refusable, codes...) }

// tally counts how one way of an attack ended. An error that is no refusal would make a broken attack look harmless.
func (t *trial) tally(way string, err error) {
	if err == nil {
		t.accepted++
		return
	}
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || !slices.Contains(t.refusable, refusal.Code) {
		t.abandon(fmt.Errorf("%s: it failed, but not by a refusal: %w", t.named(way), err))
	}
	t.refusals[refusal.Code]++
}

// attempt tries statements each for itself, by both protocols.
func (t *trial) attempt(statements ...string) {
	for _, sql := range statements {
		for _, run := range []func(*session) error{
			func(s *session) error { _, err := s.run(sql); return err },
			func(s *session) error { _, err := s.runExtended(sql); return err },
		} {
			s := t.hostile()
			t.tally(sql, run(s))
			s.close()
		}
	}
}

// attack tries steps that need each other, in every way that they can be sent: in one Query, in several, within a
// transaction, by the extended protocol with and without waiting. The first step that is refused ends a way.
func (t *trial) attack(steps ...string) {
	eachOf := func(run func(string) ([][]string, error), first ...string) error {
		for _, sql := range append(first, steps...) {
			if _, err := run(sql); err != nil {
				return err
			}
		}
		return nil
	}
	ways := []func(*session) error{
		func(s *session) error { _, err := s.run(strings.Join(steps, "; ")); return err },
		func(s *session) error { return eachOf(s.run) },
		func(s *session) error { return eachOf(s.run, "BEGIN") },
		func(s *session) error { return eachOf(s.runExtended) },
		func(s *session) error { return s.runPipelined(steps...) },
	}
	for _, way := range ways {
		s := t.hostile()
		t.tally(strings.Join(steps, "; "), way(s))
		s.close()
	}
}

// searchCanaries looks for the canaries in what the hostile tenant has received, as text and as Postgres writes bytes.
func (t *trial) searchCanaries() {
	for _, c := range []canary{t.rows, t.code, t.name} {
		if t.heard.has(c.text) || t.heard.has(hex.EncodeToString([]byte(c.text))) {
			t.leak("saw the victim's %s", c.what)
		}
	}
}

func (t *trial) judge() result {
	detail := slices.Clone(t.leaked)
	if t.accepted > 0 {
		detail = append(detail, fmt.Sprintf("%d let through", t.accepted))
	}
	for _, code := range slices.Sorted(maps.Keys(t.refusals)) {
		detail = append(detail, fmt.Sprintf("%s ×%d", code, t.refusals[code]))
	}
	r := result{detail: strings.Join(append(detail, t.notes...), "; ")}
	switch {
	case len(t.leaked) > 0:
		r.outcome = leaks
	case t.accepted == 0 && len(t.refusals) > 0:
		r.outcome = refused
	case t.accepted > 0 || t.checks > 0:
		r.outcome = contained
	default:
		r.err = errNothingTried
	}
	return r
}
