package proxy

import (
	"context"
	"time"

	"github.com/docex-proxy/docex-proxy/proxy/relay"
)

// cancel passes a client's cancel request on, to the connection that serves it now and to no other: the connection is
// not given back before the server has dealt with the request. While the session waits for one, the wait ends.
func (l *link) cancel(ctx context.Context) error {
	l.mu.Lock()
	if heir := l.heir; heir != nil {
		l.mu.Unlock()
		return heir.cancel(ctx)
	}
	conn := l.conn
	how := relay.CancelNothing
	if conn != nil && !l.closing {
		how = l.machine.Cancel()
	}
	switch how {
	case relay.CancelNothing:
		if l.waiting != nil {
			l.waiting(errCanceled)
		}
		l.mu.Unlock()
		return nil
	case relay.CancelLater:
		l.mu.Unlock()
		return cancelLater(ctx, l)
	}
	l.cancels.Add(1)
	l.mu.Unlock()
	defer l.cancels.Done()
	return conn.Cancel(ctx)
}

// drain ends the session, at once between transactions and else when it gives its server connection back.
func (l *link) drain() {
	l.mu.Lock()
	if heir := l.heir; heir != nil {
		l.mu.Unlock()
		heir.drain()
		return
	}
	l.draining = true
	idle := l.waiting == nil && !l.machine.Busy() && l.machine.Status() == 'I'
	l.mu.Unlock()
	if idle {
		l.end(errShutdown)
	}
}

// interrupt wakes both goroutines, after the session's context has ended.
func (l *link) interrupt() {
	past := time.Unix(1, 0)
	l.client.SetDeadline(past) //nolint:errcheck // first, so that nobody holds mu for long
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing = true
	if l.conn != nil {
		l.conn.NetConn().SetDeadline(past) //nolint:errcheck
	}
}

// close ends the relay for good. A connection that is still attached is not fit for others: what runs on it is
// canceled, and it is closed.
func (l *link) close(reason error) {
	l.end(nil)
	l.settle()
	l.reader.Wait()
	l.cancels.Wait()
	l.mu.Lock()
	conn, busy := l.conn, l.machine.Busy()
	l.watchdog.stop()
	l.course.conclude(reason, l.machine)
	l.conn = nil
	l.mu.Unlock()
	if conn != nil {
		discard(l.ctx, conn, busy)
	}
}
