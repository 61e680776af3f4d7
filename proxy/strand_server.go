package proxy

import (
	"errors"

	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy/reactor"
	"github.com/docex-proxy/docex-proxy/proxy/relay"
)

// attach gets the session a server connection, or its refusal. It reports false when the client's messages have to wait
// for it, or the session is over; rest is what the machine has not taken of them.
func (st *strand) attach(rest []byte) bool {
	conn, err := st.place()
	switch {
	case err != nil:
		return st.refused(err, false)
	case conn == nil:
		return false
	case conn.Encrypted(): // the session is about to leave
		if !st.flush() {
			conn.Release()
			return false
		}
		st.fromClient = st.host.keep(st.fromClient, rest)
	}
	return st.join(conn)
}

// refused has the client's request answered with the reason why there is no server connection. It reports false when the
// session is over, or tries once more, aside, what it has not tried there.
func (st *strand) refused(err error, aside bool) bool {
	switch {
	case st.draining:
		st.finish(errShutdown)
		return false
	case !aside && (errors.Is(err, pool.ErrBlocks) || roleRefused(err)):
		st.placeAside()
		return false
	}
	v := judge(err, "", false)
	st.course.refused(v)
	st.machine.Refuse(v.relayed())
	return true
}

// join attaches a connection. It reports false when the session is over, here at least.
func (st *strand) join(conn *pool.Conn) bool {
	if conn.Target().Shared != st.machine.Shares() {
		conn.Destroy()
		st.finish(errIsolationChanged) // no session runs on a connection that it does not know how to make its own
		return false
	}
	state := stateOf(conn, st.session.o.ServerStatements)
	b, err := st.host.berth(conn, state)
	switch {
	case err != nil:
		conn.Destroy()
		return st.refused(&pool.ConnectError{Server: conn.Target().Server, Err: err}, true)
	case b == nil:
		st.depart(conn)
		return false
	}
	st.session.attached(conn)
	st.course.attached(conn)
	st.berth, b.strand = b, st
	st.machine.Attach(state.machine, &st.host.out)
	return true
}

// hearsServer reports whether an answer could be passed on now.
func (st *strand) hearsServer() bool { return st.toClient.len() == 0 }

func (st *strand) readServer() {
	if !st.hearsServer() {
		st.berth.socket.Want(st.berth.socket.Wants() &^ reactor.Readable) //nolint:errcheck // to want less does not fail
		return
	}
	b, _, err := st.host.receive(&st.berth.socket, &st.berth.unread, 0)
	switch {
	case err == nil:
		st.answer(b)
	case err != reactor.ErrAgain:
		st.finish(errServerClosed)
	}
}

// answer has the machine deal with what the server has sent. The connection is given back before the client is written
// to: a slow client must not keep it.
func (st *strand) answer(b []byte) {
	n, verdict, err := st.machine.FromServer(b, &st.host.out)
	berth, buffer := st.berth, st.berth.unread
	berth.unread = nil
	st.count()
	released := err == nil && verdict == relay.Release && st.release()
	if !st.flush() {
		return
	}
	if buffer = st.host.keep(buffer, b[n:]); !released {
		berth.unread = buffer
	}
	if err == nil && released && st.draining {
		err = errShutdown
	}
	if err != nil {
		st.finish(err)
		return
	}
	st.goOn()
}

// goOn is what follows when the server's side has moved: the client's messages that waited for it, or rest.
func (st *strand) goOn() {
	if st.held && st.toServer.len() == 0 {
		st.held = false
		st.offer(st.fromClient)
		return
	}
	st.await(!st.machine.Busy() && !st.machine.MidFrame() && len(st.fromClient) == 0)
	st.rest()
}

// release gives the server connection back, unless it has still to take something that asks for no answer.
func (st *strand) release() bool {
	if st.toServer.len() > 0 {
		return false
	}
	st.machine.Detach()
	st.course.end(st.machine)
	b := st.berth
	st.berth = nil
	b.giveBack()
	return true
}

// writeServer writes on what the server has not taken.
func (st *strand) writeServer() {
	if _, err := st.toServer.resume(st.host, &st.berth.socket); err != nil {
		st.finish(errServerClosed)
		return
	}
	if st.toServer.len() == 0 && st.machine.Clean() && len(st.berth.unread) == 0 && st.release() && st.draining {
		st.finish(errShutdown)
		return
	}
	st.goOn()
}

func (st *strand) count() {
	st.countTransactions()
	for _, reason := range st.machine.TakePins().Names() {
		st.session.o.Metrics.Pinned(reason)
		st.tenant.Pinned()
	}
}

func (st *strand) countTransactions() {
	if n := st.machine.TakeTransactions(); n > 0 {
		st.stopwatch.done(n, st.tenant, st.host.Now())
	}
}
