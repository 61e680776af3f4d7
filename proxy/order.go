package proxy

import (
	"context"

	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy/reactor"
)

// order is a strand's wait for a server connection. It is the reactor's; deliver may come from anywhere.
type order struct {
	*pool.Request
	host   *host
	strand *strand                 // nil when it has gone meanwhile
	alarm  *reactor.Alarm          // of host.queue
	stop   context.CancelCauseFunc // of a goroutine that acquires; nil while the request is in the pool's queue
	reason error                   // why it is refused, although a connection may have come

	conn *pool.Conn // what has come
	err  error
}

// order takes one that is not in use.
func (h *host) order(st *strand) *order {
	var o *order
	if last := len(h.orders) - 1; last >= 0 {
		o = h.orders[last]
		h.orders = h.orders[:last]
	} else {
		o = &order{host: h}
		o.Request = pool.NewRequest(o.deliver)
	}
	o.strand = st
	return o
}

// free ends the use of an order that waits for nothing.
func (o *order) free() {
	o.alarm = o.alarm.Stop()
	*o = order{Request: o.Request, host: o.host}
	o.host.orders = append(o.host.orders, o)
}

// deliver is called by the pool.
func (o *order) deliver(conn *pool.Conn, err error) {
	o.conn, o.err = conn, err
	o.host.Post(o)
}

// place asks for a connection of the strand's present route: for one that is idle, else in the pool's queue.
func (st *strand) place() (*pool.Conn, error) {
	route := st.session.route.Load()
	if route.Held || route.Tenant.Route.Limits.Rate > 0 {
		return nil, pool.ErrBlocks
	}
	o := st.host.order(st)
	conn, err := st.session.o.Pool.Ask(o.Request, route.Target, st.session.server.portion(route.MaxConnections))
	if conn != nil || err != nil {
		o.free()
		return conn, err
	}
	st.order = o
	o.alarm = st.clocks().queue.Set(o)
	return nil, nil
}

// placeAside has a goroutine acquire, which may take a round trip or two to the registry on the way.
func (st *strand) placeAside() {
	o, session := st.host.order(st), st.session
	ctx, stop := context.WithCancelCause(session.life.context())
	st.order, o.stop = o, stop
	o.alarm = st.clocks().queue.Set(o)
	go func() {
		defer stop(nil)
		o.conn, o.err = session.acquire(ctx)
		if conn := o.conn; !o.host.Post(o) && conn != nil {
			conn.Release()
		}
	}()
}

// Run implements reactor.Task: something has come.
func (o *order) Run() {
	st, conn, err := o.strand, o.conn, o.err
	aside := o.stop != nil
	if reason := o.reason; reason != nil && err == nil {
		err = &pool.QueueError{Waited: o.Waited(), Err: reason}
	}
	again := conn != nil && !aside && !o.Accept(conn)
	o.free()
	switch {
	case again:
		conn = nil
	case conn != nil && (st == nil || err != nil):
		conn.Release()
	}
	if st == nil {
		return
	}
	st.order = nil
	switch {
	case err != nil:
		if !st.refused(err, aside) {
			return
		}
	case conn != nil && !aside && st.session.route.Load().Held: // no transaction may begin where the tenant is about to leave
		conn.Release()
		st.placeAside()
		return
	case conn != nil && !st.join(conn):
		return
	}
	st.offer(st.fromClient)
}

// giveUp ends the wait for a reason that the client is told.
func (o *order) giveUp(reason error) {
	o.alarm = o.alarm.Stop()
	switch {
	case o.stop != nil:
		o.stop(reason)
	case o.Withdraw():
		o.err = &pool.QueueError{Waited: o.Waited(), Err: reason}
		o.Run()
	default:
		o.reason = reason // something is on its way
	}
}

// abandon ends the wait because the session ends.
func (o *order) abandon() {
	o.strand = nil
	o.alarm = o.alarm.Stop()
	switch {
	case o.stop != nil:
		o.stop(errShutdown)
	case o.Withdraw():
		o.free()
	}
}
