package proxy

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/docex-proxy/docex-proxy/metrics"
	"github.com/docex-proxy/docex-proxy/metrics/traces"
	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy/relay"
)

// link drives a session's machine with goroutines: the session's own reads the client; while a server connection is
// attached, another reads that. Either may write to both sides. A write is begun in the order in which the machine
// gave it out: the lock of a direction is taken while mu is still held, and mu is not held while writing.
type link struct {
	ctx      context.Context
	end      context.CancelCauseFunc
	client   net.Conn
	o        *Options
	acquire  func(ctx context.Context) (*pool.Conn, error)
	times    func() times          // at this moment
	attached func(conn *pool.Conn) // told of every connection before it is used
	trace    func() *traces.Span   // begins that of a transaction, nil when it is not to be traced
	tenant   *metrics.Tenant
	settings relay.Pairs
	target   pool.Target
	settle   func()        // waits until interrupt has run for the end of ctx
	progress chan struct{} // a hint, for a client that is held back, that the server has answered something

	mu        sync.Mutex // guards what follows
	machine   *relay.Session
	conn      *pool.Conn              // attached
	waiting   context.CancelCauseFunc // set while a server connection is waited for
	watchdog  watchdog
	stopwatch stopwatch
	course    course
	closing   bool   // conn is not given back any more
	draining  bool   // the session ends when it is detached
	heir      driver // has the machine now, nil while the link has it

	toClient, toServer sync.Mutex     // held while writing to that side
	reader             sync.WaitGroup // the goroutine that reads conn
	cancels            sync.WaitGroup // cancel requests under way for conn
}

// run relays until the client says goodbye, one side fails, or the session is ended. The error is the reason.
func (l *link) run() error {
	return l.relay(&inbox{size: clientBuffer})
}

// relay is run with what of the client has been read already.
func (l *link) relay(in *inbox) error {
	var out relay.Output
	for {
		verdict, err := l.fromClient(in, &out)
		if err != nil {
			return err
		}
		switch verdict {
		case relay.Terminate:
			return nil
		case relay.Attach:
			err = l.attach(&out)
		case relay.Hold:
			err = l.awaitProgress()
		default:
			err = l.read(in)
		}
		if err != nil {
			return ended(l.ctx, err)
		}
	}
}

// fromClient offers the machine what the client has sent.
func (l *link) fromClient(in *inbox, out *relay.Output) (relay.Verdict, error) {
	l.mu.Lock()
	n, verdict, err := l.machine.FromClient(in.unread(), out)
	in.need = l.machine.Need()
	l.course.due = false
	l.look()
	l.measure(verdict == relay.Attach)
	if verdict == relay.Attach {
		l.course.wait(l.trace, l.machine)
	}
	werr := l.flush(out)
	in.consume(n)
	if err == nil {
		err = werr
	}
	return verdict, err
}

// look is the end of a step: clocks and traces as the state that is left demands. Called with mu held.
func (l *link) look() {
	l.watchdog.look(l)
	l.course.look(l.trace, l.machine)
}

// flush writes what a step gave out. It is called with mu held and gives it up.
func (l *link) flush(out *relay.Output) error {
	toServer, toClient := out.ToServer.Bytes(), out.ToClient.Bytes()
	conn := l.conn
	if len(toServer) > 0 {
		l.toServer.Lock()
	}
	if len(toClient) > 0 {
		l.toClient.Lock()
	}
	l.mu.Unlock()
	var err error
	if len(toServer) > 0 {
		_, err = conn.NetConn().Write(toServer)
		l.toServer.Unlock()
		if err != nil {
			err = errServerClosed
		}
	}
	if len(toClient) > 0 {
		if werr := l.writeClient(toClient); err == nil {
			err = werr
		}
		l.toClient.Unlock()
	}
	out.Reset()
	return err
}

func (l *link) writeClient(b []byte) error {
	if l.o.ClientWrite > 0 {
		l.client.SetWriteDeadline(time.Now().Add(l.o.ClientWrite)) //nolint:errcheck // the write fails too
	}
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx) // checked after the deadline is set, so that an end is never overwritten
	}
	if _, err := l.client.Write(b); err != nil {
		return &clientGoneError{err}
	}
	l.tenant.Sent(len(b))
	return nil
}

// attach leases a server connection for the session and starts to read it. When none is to be had, the client's
// request is answered with the reason and the session goes on.
func (l *link) attach(out *relay.Output) error {
	conn, err := l.lease()
	if l.ctx.Err() != nil {
		if err == nil {
			conn.Destroy()
		}
		return context.Cause(l.ctx)
	}
	l.mu.Lock()
	if err != nil {
		defer l.mu.Unlock()
		if l.draining {
			return errShutdown
		}
		v := judge(err, "", false)
		l.course.refused(v)
		l.machine.Refuse(v.relayed())
		return nil
	}
	return l.join(conn, out, true)
}

// lease waits for a server connection, no longer than it may and not after a cancel request.
func (l *link) lease() (*pool.Conn, error) {
	ctx, stop := context.WithCancelCause(l.ctx)
	defer stop(nil)
	if limit := l.times().queueWait; limit > 0 {
		timer := time.AfterFunc(limit, func() { stop(errQueueWait) })
		defer timer.Stop()
	}
	l.mu.Lock()
	l.waiting = stop
	l.mu.Unlock()
	conn, err := l.acquire(ctx)
	l.mu.Lock()
	l.waiting = nil
	l.mu.Unlock()
	return conn, err
}

// join attaches a connection. It is called with mu held and gives it up. With read, a goroutine reads the connection.
func (l *link) join(conn *pool.Conn, out *relay.Output, read bool) error {
	if conn.Target().Shared != l.machine.Shares() {
		l.mu.Unlock()
		conn.Destroy()
		return errIsolationChanged // no session runs on a connection that it does not know how to make its own
	}
	l.attached(conn)
	l.course.attached(conn)
	conn.NetConn() // a reactor may have had it: it comes back before two goroutines use it
	l.conn = conn
	l.machine.Attach(stateOf(conn, l.o.ServerStatements).machine, out)
	if read {
		l.reader.Add(1)
		go l.readServer(conn)
	}
	return l.flush(out)
}

// login attaches once, to learn and to check what the session's settings make of the server's parameters. What an
// earlier session has learned is taken from known.
func (l *link) login(known *knownParameters) error {
	var out relay.Output
	if parameters, ok := known.get(l.target, l.settings); ok {
		l.mu.Lock()
		l.machine.Report(parameters, &out)
		return l.flush(&out)
	}
	conn, err := l.lease()
	if err != nil {
		return ended(l.ctx, err)
	}
	l.course.under = true // as a part of the login
	l.mu.Lock()
	if err := l.join(conn, &out, false); err != nil {
		return err
	}
	l.mu.Lock()
	if l.machine.Clean() && !l.closing { // nothing had to be set
		l.machine.Detach()
		l.conn = nil
		l.look()
		l.mu.Unlock()
		giveBack(conn)
	} else {
		l.mu.Unlock()
		l.reader.Add(1)
		l.readServer(conn)
	}
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	known.put(l.target, l.settings, l.machine.Parameters())
	return nil
}

// readServer reads the attached connection until it is released, or fails, which ends the session. It owns the
// connection in the moment of its release.
func (l *link) readServer(conn *pool.Conn) {
	defer l.reader.Done()
	in := serverInboxes.Get().(*serverInbox)
	defer in.put()
	for {
		if err := in.fill(conn.NetConn()); err != nil {
			l.end(errServerClosed)
			return
		}
		l.mu.Lock()
		n, verdict, err := l.machine.FromServer(in.unread(), &in.out)
		released := verdict == relay.Release && !l.closing && err == nil
		if released {
			l.machine.Detach()
			l.conn = nil
		}
		l.look()
		draining := l.draining && released
		werr := l.flushReleasing(&in.out, conn, released)
		in.consume(n)
		if err == nil {
			err = werr
		}
		if err == nil && draining {
			err = errShutdown
		}
		if err != nil {
			l.end(err)
			return
		}
		select {
		case l.progress <- struct{}{}:
		default:
		}
		if released {
			return
		}
	}
}

// flushReleasing is flush, with the connection given back before the client is written to: a slow client must not
// keep it.
func (l *link) flushReleasing(out *relay.Output, conn *pool.Conn, released bool) error {
	l.measure(false)
	for _, reason := range l.machine.TakePins().Names() {
		l.o.Metrics.Pinned(reason)
		l.tenant.Pinned()
	}
	if !released {
		l.patience()
		return l.flush(out)
	}
	toClient := out.ToClient.Bytes()
	if len(toClient) > 0 {
		l.toClient.Lock()
		defer l.toClient.Unlock()
	}
	if l.times().clientIdle > 0 {
		l.patience()
	}
	l.mu.Unlock()
	l.cancels.Wait() // none can begin any more: conn is nil
	giveBack(conn)
	defer out.Reset()
	if len(toClient) == 0 {
		return nil
	}
	return l.writeClient(toClient)
}

func (l *link) sawFatal() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.machine.SawFatal()
}

func (l *link) pinned() relay.Pins {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.machine.EverPinned()
}

func (l *link) transactions() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.machine.Transactions()
}

func (l *link) awaitProgress() error {
	select {
	case <-l.progress:
		return nil
	case <-l.ctx.Done():
		return context.Cause(l.ctx)
	}
}
