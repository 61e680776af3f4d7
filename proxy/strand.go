package proxy

import (
	"context"
	"net"
	"syscall"
	"time"

	"github.com/docex-proxy/docex-proxy/metrics"
	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy/reactor"
	"github.com/docex-proxy/docex-proxy/proxy/relay"
)

// strand drives a session's machine on a reactor: no goroutine, and no buffer while nothing is under way. All of it is
// the reactor's, except what any goroutine may call (cancel, drain), and except after finish, when it is the goroutine's
// that concludes the session.
//
// What it holds for a session is bounded: from each side what was read of one unfinished message, to each side one
// read and what the machine makes of it. A side is not read while the other has not taken what it was sent; only the
// client is, up to maxUnsent, so that one that writes its whole pipeline before it reads does not lock itself out.
type strand struct {
	session *session
	host    *host
	machine *relay.Session
	tenant  *metrics.Tenant

	client     reactor.Socket
	fromClient []byte // read and not dealt with
	toClient   unsent
	toServer   unsent

	berth *berth // nil while detached
	order *order // nil unless a server connection is waited for

	silence     *reactor.Alarm // for the client to say more
	query       *reactor.Alarm
	transaction *reactor.Alarm
	unread      *reactor.Alarm // for the client to take what it was sent
	stopwatch   stopwatch

	course course

	held     bool // the machine waits for the server before it takes more from the client
	draining bool // the session ends when it is detached
	over     bool
	departed bool // over, and the session goes on with another driver
}

// maxUnsent is how many bytes of answers a client may leave untaken before it is not listened to any more: more than one
// read of the server makes.
const maxUnsent = 128 << 10

// handOver gives a session that has logged in to a reactor, which carries it from here on; it reports false where
// goroutines have to. Those whose traffic is encrypted stay: what a reactor could do for them is little beside that.
func (s *session) handOver() bool {
	h, l := s.server.hostOf(s), s.driver().(*link)
	if h == nil || s.tls != nil || s.server.encrypts(l.target.Server) {
		return false
	}
	socket, ok := bare(s.client).(syscall.Conn)
	if !ok {
		return false
	}
	fd, err := reactor.Duplicate(socket)
	if err != nil {
		return false
	}
	s.settle()
	l.settle()
	s.client.Close() // and out of the runtime's poller; the duplicate keeps the connection open
	s.settle, s.client = func() {}, nil
	s.life.rest(s.server.running)
	st := &strand{session: s, host: h, machine: l.machine, tenant: l.tenant}
	h.Post(reactor.Func(func() { st.begin(fd, l) })) // from here on the session is the reactor's
	return true
}

// bare is the socket itself, unless there is more to it.
func bare(conn net.Conn) net.Conn {
	if c, ok := conn.(*unreadConn); ok && len(c.unread) == 0 {
		return c.Conn
	}
	return conn
}

func (st *strand) begin(fd int, before *link) {
	st.client.Join(st.host.Loop, fd, (*clientSide)(st))
	before.yield(st)
	st.session.drive(st)
	if ctx := st.session.life.context(); ctx.Err() != nil {
		st.finish(context.Cause(ctx)) // whoever ended the session has not found the strand
		return
	}
	st.await(true)
	st.rest()
}

// interrupt ends the strand after its session has been ended. Any goroutine may call it.
func (st *strand) interrupt() { st.host.Post((*interruption)(st)) }

type interruption strand

// Run implements reactor.Task.
func (i *interruption) Run() { (*strand)(i).finish(context.Cause(i.session.life.context())) }

// rest is the end of a step: clocks and sockets as the state that is left demands.
func (st *strand) rest() {
	st.look()
	if err := st.watch(); err != nil {
		st.finish(err)
	}
}

// watch says what the sockets are to be watched for. That a side is not to be read is noticed when there is something:
// mostly the obstacle is gone by then, and two calls are saved.
func (st *strand) watch() error {
	if err := st.client.Want(interest(st.client.Wants(), st.hearsClient(), st.toClient.len() > 0)); err != nil {
		return &clientGoneError{err}
	}
	if b := st.berth; b != nil {
		if err := b.socket.Want(interest(b.socket.Wants(), st.hearsServer(), st.toServer.len() > 0)); err != nil {
			return errServerClosed
		}
	}
	return nil
}

func interest(now reactor.Events, read, write bool) reactor.Events {
	if now &^= reactor.Writable; write {
		now |= reactor.Writable
	}
	if read {
		now |= reactor.Readable
	}
	return now
}

// flush writes what a step gave out. It reports false when the session has ended over it.
func (st *strand) flush() bool {
	out := &st.host.out
	defer out.Reset()
	if b := out.ToServer.Bytes(); len(b) > 0 {
		if _, err := st.toServer.send(st.host, &st.berth.socket, b); err != nil {
			st.finish(errServerClosed)
			return false
		}
	}
	if b := out.ToClient.Bytes(); len(b) > 0 {
		n, err := st.toClient.send(st.host, &st.client, b)
		st.tenant.Sent(n)
		if err != nil {
			st.finish(&clientGoneError{err})
			return false
		}
	}
	return true
}

// finish lets go of the session, which ends for the given reason, nil when the client said goodbye.
func (st *strand) finish(err error) {
	if st.over {
		return
	}
	st.leave()
	go st.session.conclude(err)
}

// leave takes the strand off its reactor.
func (st *strand) leave() {
	st.over = true
	st.host.out.Reset()
	for _, alarm := range []**reactor.Alarm{&st.silence, &st.query, &st.transaction, &st.unread} {
		*alarm = (*alarm).Stop()
	}
	if st.order != nil {
		st.order.abandon()
		st.order = nil
	}
	if st.berth != nil {
		st.berth.strand = nil
		st.berth.socket.Rest() // what it has not sent or read goes with the connection
	}
	unsent, unread := st.client.Rest()
	st.toClient.before(unsent)
	st.fromClient = append(st.fromClient, unread...)
	st.client.Leave()
}

// depart hands the session back to goroutines, with a server connection that speaks TLS.
func (st *strand) depart(conn *pool.Conn) {
	st.session.server.noteEncrypted(conn.Target().Server)
	st.leave()
	st.departed = true
	l := &link{
		ctx: st.session.life.resume(), end: st.session.end, o: st.session.o, acquire: st.session.acquire, times: st.session.times, tenant: st.tenant,
		attached: st.session.attached, trace: st.session.trace, stopwatch: st.stopwatch, course: st.course,
		machine: st.machine, draining: st.draining, progress: make(chan struct{}, 1),
	}
	st.course = course{}
	st.session.drive(l)
	go st.session.comeBack(st, l, conn)
}

// comeBack goes on, on a goroutine, with what a strand has left.
func (s *session) comeBack(st *strand, l *link, conn *pool.Conn) {
	client, err := reactor.Restore(st.client.FD())
	if err != nil {
		conn.Release() // unused
		s.client, l.settle = &farewell{fd: -1}, func() {}
		s.conclude(&clientGoneError{err})
		return
	}
	s.client, l.client = client, client
	s.settle = onEnd(l.ctx, func() { client.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // it is closed then
	l.settle = onEnd(l.ctx, l.interrupt)
	s.conclude(l.resume(conn, st.toClient.buf[st.toClient.sent:], st.fromClient))
}

// cancel passes a client's cancel request on, to the connection that serves it now and to no other. While the session
// waits for one, the wait ends.
func (st *strand) cancel(ctx context.Context) error {
	passOn := make(chan func(context.Context) error, 1)
	if !st.host.Post(reactor.Func(func() { passOn <- st.beginCancel() })) {
		return nil
	}
	if f := <-passOn; f != nil {
		return f(ctx)
	}
	return nil
}

// beginCancel says how a cancel request is to be passed on, nil for not at all.
func (st *strand) beginCancel() func(context.Context) error {
	switch {
	case st.departed:
		return st.session.driver().cancel
	case st.over:
	case st.order != nil:
		st.order.giveUp(errCanceled)
	case st.berth != nil:
		switch st.machine.Cancel() {
		case relay.CancelNow:
			st.berth.beginCancel()
			return st.berth.cancel
		case relay.CancelLater:
			return func(ctx context.Context) error { return cancelLater(ctx, st) }
		}
	}
	return nil
}

// drain ends the session, at once between transactions and else when it gives its server connection back.
func (st *strand) drain() {
	st.host.Post(reactor.Func(func() {
		switch {
		case st.departed:
			st.session.driver().drain()
			return
		case st.over:
			return
		}
		st.draining = true
		if st.order == nil && !st.machine.Busy() && st.machine.Status() == 'I' {
			st.finish(errShutdown)
		}
	}))
}

// close lets go of what the session still holds on the server's side: what runs on it is canceled, and it is closed.
// The client's socket is the session's again, for its last words.
func (st *strand) close(reason error) {
	st.course.conclude(reason, st.machine)
	st.session.client = &farewell{fd: st.client.FD(), unsent: st.toClient.buf[st.toClient.sent:]}
	if st.berth == nil {
		return
	}
	st.berth.requests.Wait()
	discard(st.session.life.context(), st.berth.conn, st.machine.Busy())
}

func (st *strand) sawFatal() bool { return st.machine.SawFatal() }

func (st *strand) pinned() relay.Pins { return st.machine.EverPinned() }

func (st *strand) transactions() uint64 { return st.machine.Transactions() }
