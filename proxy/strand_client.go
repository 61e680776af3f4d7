package proxy

import (
	"github.com/docex-proxy/docex-proxy/proxy/reactor"
	"github.com/docex-proxy/docex-proxy/proxy/relay"
)

// clientSide is a strand as the owner of its client's socket.
type clientSide strand

// Ready implements reactor.Handler.
func (c *clientSide) Ready(e reactor.Events) {
	st := (*strand)(c)
	if e&reactor.Writable != 0 {
		st.writeClient()
	}
	if e&reactor.Readable != 0 && !st.over {
		st.readClient()
	}
}

// hearsClient reports whether more of the client could be dealt with now.
func (st *strand) hearsClient() bool {
	return !st.held && st.order == nil && st.toServer.len() == 0 && st.toClient.len() < maxUnsent
}

func (st *strand) readClient() {
	if !st.hearsClient() {
		st.client.Want(st.client.Wants() &^ reactor.Readable) //nolint:errcheck // to want less does not fail
		return
	}
	b, n, err := st.host.receive(&st.client, &st.fromClient, st.machine.Need())
	switch {
	case err == nil:
		st.tenant.Received(n)
		st.offer(b)
	case err != reactor.ErrAgain:
		st.finish(&clientGoneError{err})
	}
}

// offer has the machine deal with what the client has sent, and keeps what it does not take.
func (st *strand) offer(b []byte) {
	out := &st.host.out
	for more := true; more; {
		n, verdict, err := st.machine.FromClient(b, out)
		b, more, st.course.due = b[n:], false, false
		switch {
		case err != nil || verdict == relay.Terminate:
			if st.flush() {
				st.finish(err)
			}
		case verdict == relay.Attach:
			st.course.wait(st.session.trace, st.machine)
			more = st.attach(b)
		case verdict == relay.Hold:
			st.held = true
		}
		if st.over {
			return
		}
	}
	if !st.flush() {
		return
	}
	st.fromClient = st.host.keep(st.fromClient, b)
	st.await(true)
	st.rest()
}

// writeClient writes on what the client has not taken.
func (st *strand) writeClient() {
	n, err := st.toClient.resume(st.host, &st.client)
	if err != nil {
		st.finish(&clientGoneError{err})
		return
	}
	st.tenant.Sent(n)
	st.await(false)
	st.rest()
}

// await runs the clock for the client to say more, or none. It begins anew when the client has just said something, and
// when the state has changed.
func (st *strand) await(anew bool) {
	clock := st.allowed()
	if st.silence.Of(clock) && !anew {
		return
	}
	if st.silence = st.silence.Stop(); clock != nil {
		st.silence = clock.Set(st)
	}
}

// allowed is the clock for how long the client may be silent now, nil for as long as it likes.
func (st *strand) allowed() *reactor.Clock {
	switch {
	case !st.hearsClient():
		return nil
	case len(st.fromClient) > 0 || st.machine.MidFrame():
		return st.host.frame
	case st.berth != nil && st.machine.Busy():
		return nil
	case st.machine.Status() != 'I':
		return st.clocks().idleTransaction
	}
	return st.clocks().idle
}

// look runs the other clocks, and the traces, by what the session is doing now.
func (st *strand) look() {
	busy, clocks := st.machine.Busy(), st.clocks()
	working := busy || st.machine.Status() != 'I'
	st.query = st.clock(st.query, clocks.query, busy)
	st.transaction = st.clock(st.transaction, clocks.transaction, st.berth != nil && working)
	st.countTransactions() // those that the machine has answered itself
	st.stopwatch.look(working || st.order != nil, st.host.Now())
	st.course.look(st.session.trace, st.machine)
	st.unread = st.clock(st.unread, st.host.write, st.toClient.len() > 0)
}

// clocks are those of the strand's tenant.
func (st *strand) clocks() *clocks {
	limits := st.session.limits()
	if limits.QueueWait|limits.Query|limits.Transaction|limits.IdleTransaction|limits.ClientIdle == 0 {
		return &st.host.usual
	}
	return st.host.clocksOf(st.session.times())
}

// clock runs an alarm while on holds. It is nil while it does not run.
func (st *strand) clock(alarm *reactor.Alarm, clock *reactor.Clock, on bool) *reactor.Alarm {
	switch {
	case on == (alarm != nil):
		return alarm
	case on:
		return clock.Set(st)
	}
	return alarm.Stop()
}
