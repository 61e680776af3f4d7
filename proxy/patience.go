package proxy

import (
	"time"
)

// read waits for the client to send more, as long as the state of its session allows.
func (l *link) read(in *inbox) error {
	for {
		l.mu.Lock()
		limit, reason := l.allowed(in.partial())
		l.mu.Unlock()
		l.setReadDeadline(limit)
		if l.ctx.Err() != nil {
			return l.ctx.Err() // checked after the deadline is set, so that an end is never overwritten
		}
		n, err := in.fill(l.client)
		l.tenant.Received(n)
		if err == nil {
			return nil
		}
		if timedOut(err, errFrameTimeout) != errFrameTimeout {
			return &clientGoneError{err}
		}
		// The limit may have been set, or have passed, in another state than the one it is judged in.
		l.mu.Lock()
		_, now := l.allowed(in.partial())
		l.mu.Unlock()
		if now != nil && (reason == now || reason == nil) {
			return now
		}
	}
}

// allowed says how long the client may be silent now, 0 for as long as it likes, and what it is ended with. partial
// says that a message has begun. Called with mu held.
func (l *link) allowed(partial bool) (time.Duration, error) {
	switch {
	case partial || l.machine.MidFrame():
		return l.o.FrameTimeout, errFrameTimeout
	case l.machine.Attached() && l.machine.Busy():
		return 0, nil
	case l.machine.Status() != 'I':
		return l.times().idleTransaction, errIdleTransaction
	}
	return l.times().clientIdle, errClientIdle
}

// patience sets the client's deadline when it is the server that has changed the session's state, while the session's
// own goroutine is already reading. Called with mu held.
func (l *link) patience() {
	if l.machine.Busy() || l.machine.MidFrame() {
		return
	}
	if limit, _ := l.allowed(false); limit > 0 {
		l.setReadDeadline(limit)
	}
}

func (l *link) setReadDeadline(limit time.Duration) {
	var deadline time.Time
	if limit > 0 {
		deadline = time.Now().Add(limit)
	}
	l.client.SetReadDeadline(deadline) //nolint:errcheck // a closed connection fails its read too
}
