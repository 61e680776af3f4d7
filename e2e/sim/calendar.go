//go:build unix

package main

import "time"

// tick is how finely the simulation divides time. The pool's own timers are not rounded to it.
const tick = 100 * time.Microsecond

// moment is a number of ticks since the beginning.
type moment int32

func (m moment) duration() time.Duration { return time.Duration(m) * tick }

// momentAfter is the first moment that is not before the duration has passed.
func momentAfter(d time.Duration) moment { return moment((d + tick - 1) / tick) }

// happening is what takes place at a moment.
type happening interface{ happen() }

// entry is a happening's place in the calendar: one at a time.
type entry struct {
	what happening
	next *entry
}

// calendar has what is to happen, in order of moments, and within one in the order of its entering. What lies behind its
// end never happens.
type calendar struct {
	now   moment
	pages []page
}

type page struct{ first, last *entry }

func newCalendar(end time.Duration) calendar {
	return calendar{pages: make([]page, momentAfter(end)+1)}
}

// at enters something, for the present moment at the earliest.
func (c *calendar) at(m moment, e *entry) {
	m = max(m, c.now)
	if int(m) >= len(c.pages) {
		return
	}
	e.next = nil
	p := &c.pages[m]
	if p.last == nil {
		p.first = e
	} else {
		p.last.next = e
	}
	p.last = e
}

// after enters something for when so much time has passed, at least a tick.
func (c *calendar) after(d time.Duration, e *entry) { c.at(c.now+max(1, momentAfter(d)), e) }

// due takes the next happening of the present moment; nil when there is none.
func (c *calendar) due() *entry {
	p := &c.pages[c.now]
	e := p.first
	if e == nil {
		return nil
	}
	if p.first = e.next; p.first == nil {
		p.last = nil
	}
	return e
}

// act is a happening that is a function.
type act func()

func (a act) happen() { a() }

// do enters a function for when so much time has passed.
func (c *calendar) do(d time.Duration, f func()) { c.after(d, &entry{what: act(f)}) }
