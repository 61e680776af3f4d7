package proxy

import "time"

// watchdog ends a session whose query or transaction takes longer than the proxy allows, whatever the tenant has set
// itself: its own statement_timeout is its own to lift. Its methods are called with link.mu held.
type watchdog struct {
	query, transaction *time.Timer
}

// look starts and stops the clocks by what the session is doing now.
func (w *watchdog) look(l *link) {
	times := l.times()
	w.query = l.clock(w.query, times.query, l.machine.Busy(), errQueryTimeout)
	w.transaction = l.clock(w.transaction, times.transaction, l.conn != nil && (l.machine.Busy() || l.machine.Status() != 'I'), errTransactionTimeout)
}

// clock runs a timer while on holds. It is nil while it does not run.
func (l *link) clock(timer *time.Timer, limit time.Duration, on bool, reason error) *time.Timer {
	switch {
	case limit <= 0 || on == (timer != nil):
		return timer
	case on:
		return time.AfterFunc(limit, func() { l.end(reason) })
	}
	timer.Stop() // one that has fired already ends the session: it was too late by then
	return nil
}

// stop ends both clocks.
func (w *watchdog) stop() {
	for _, timer := range []*time.Timer{w.query, w.transaction} {
		if timer != nil {
			timer.Stop()
		}
	}
}
