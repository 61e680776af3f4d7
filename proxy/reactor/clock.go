package reactor

import "time"

// Clock keeps deadlines of one length. Those that were set first end first, so that setting and stopping one costs the
// same however many there are.
type Clock struct {
	loop        *Loop
	length      time.Duration
	ring        func(owner any)
	first, last *Alarm
	at          int // in loop.clocks while there is an alarm
}

// Alarm is one deadline. It may not be touched after it has rung or was stopped.
type Alarm struct {
	clock      *Clock
	owner      any
	due        time.Duration // since the loop began
	prev, next *Alarm
}

// Now is the time of the last wake-up: of what the loop is dealing with, at no cost.
func (l *Loop) Now() time.Time { return l.began.Add(l.now) }

// NewClock makes a clock whose deadlines are length away; ring is told the owner of one that has come. A length of 0 is
// never.
func (l *Loop) NewClock(length time.Duration, ring func(owner any)) *Clock {
	return &Clock{loop: l, length: length, ring: ring}
}

// Set sets a deadline from now. It is nil where there is none.
func (c *Clock) Set(owner any) *Alarm {
	if c.length <= 0 {
		return nil
	}
	a := c.loop.spare
	if a == nil {
		a = &Alarm{}
	} else {
		c.loop.spare = a.next
	}
	*a = Alarm{clock: c, owner: owner, due: c.loop.now + c.length, prev: c.last}
	if c.last == nil {
		c.first = a
		c.start()
	} else {
		c.last.next = a
	}
	c.last = a
	return a
}

// Of reports whether the alarm is one of the clock's. A nil alarm is nobody's.
func (a *Alarm) Of(c *Clock) bool { return a != nil && a.clock == c }

// Stop takes a deadline back. It returns nil, which the owner keeps instead. A nil alarm may be stopped.
func (a *Alarm) Stop() *Alarm {
	if a == nil {
		return nil
	}
	c := a.clock
	if a.prev == nil {
		c.first = a.next
	} else {
		a.prev.next = a.next
	}
	if a.next == nil {
		c.last = a.prev
	} else {
		a.next.prev = a.prev
	}
	if c.first == nil {
		c.rest()
	}
	*a = Alarm{next: c.loop.spare}
	c.loop.spare = a
	return nil
}

// start has the loop look at the clock.
func (c *Clock) start() {
	c.at = len(c.loop.clocks)
	c.loop.clocks = append(c.loop.clocks, c)
}

// rest ends it.
func (c *Clock) rest() {
	clocks := c.loop.clocks
	last := len(clocks) - 1
	clocks[c.at] = clocks[last]
	clocks[c.at].at = c.at
	clocks[last] = nil
	c.loop.clocks = clocks[:last]
}

// expire rings what is due on all clocks, from the last: those that come to rest meanwhile give their place to one that has
// been looked at.
func (l *Loop) expire() {
	for i := len(l.clocks) - 1; i >= 0; i-- {
		if i < len(l.clocks) {
			l.clocks[i].expire(l.now)
		}
	}
}

// expire rings what is due. ring has to stop the alarm of the owner that it is told of; one that it sets then may be the
// same Alarm, used again, which is not due.
func (c *Clock) expire(now time.Duration) {
	for c.first != nil && c.first.due <= now {
		a := c.first
		c.ring(a.owner)
		if c.first == a && a.due <= now {
			panic("reactor: an alarm was not stopped")
		}
	}
}
