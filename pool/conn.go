package pool

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"github.com/docex-proxy/docex-proxy/pool/slots"
)

const (
	// closePatience bounds the wait for the server to end a backend that was told to terminate. A backend in the
	// middle of a query does not listen; it is then counted as gone although it is not.
	closePatience = time.Second
	// closeDrain bounds what is read meanwhile: an idle backend sends nothing, a broken session could send gigabytes.
	closeDrain = 64 << 10
	// lifetimeJitter keeps connections that were opened together from being closed together.
	lifetimeJitter = 0.1
)

// Conn is a leased server connection, authenticated and at ReadyForQuery "idle" when the lease begins. Whoever leased
// it owns it, State included, until Release or Destroy; it must not be touched afterwards.
type Conn struct {
	// State is the leaseholder's own memory of the connection; the next leaseholder finds it as it was left, even when
	// it is of another target that shares the connection.
	State any

	net    net.Conn
	socket syscall.Conn // what net runs on, TLS or not
	// Set while the socket is out of the runtime's poller; net and socket are closed then. See Descriptor.
	left       func()
	descriptor int

	dialed *pgconn.HijackedConn
	host   Host       // where it leads
	wants  attributes // what the server was when the connection was opened
	turned turn       // and is no more. Of the leaseholder

	parameters map[string]string

	server *server
	pool   *targetPool // changes only while nobody leases the connection
	leased atomic.Bool
	seat   *slots.Seat // nil unless the connection is a slot's
	serves Target      // whose a slot's connection has been made last; nobody's at first. Of the leaseholder
	opened time.Time
	expiry time.Time

	// The rest is guarded by server.mu.
	resource  *puddle.Resource[*Conn]
	epoch     int            // of the pool when the dial began; a drain raises the pool's
	place     element[*Conn] // in server.idle
	inGroup   element[*Conn] // in group.idle, when it is shared
	idleSince time.Time
	seen      map[string]struct{} // tenants that it has been leased for; nil when it does not pass to others
	doubtful  bool                // to be checked before it is used; whoever leases the connection does, outside the mutex
}

func newConn(dialed *pgconn.HijackedConn, p *targetPool, epoch int, o *Options) *Conn {
	now := time.Now()
	jitter := 1 + lifetimeJitter*(2*rand.Float64()-1)
	c := &Conn{
		State: o.NewState(),

		parameters: dialed.ParameterStatuses,
		net:        dialed.Conn,
		dialed:     dialed,
		host:       hostOf(dialed),
		wants:      p.server.dialer.wants,
		server:     p.server,
		pool:       p,
		epoch:      epoch,
		opened:     now,
		expiry:     now.Add(time.Duration(float64(o.Lifetime) * jitter)),
	}
	c.place.value, c.inGroup.value = c, c
	if c.wants.accept(dialed.ParameterStatuses) != nil {
		c.wants = anyHost // it is a second choice, and stays one
	}
	if p.target.passes() {
		c.seen = map[string]struct{}{p.target.Tenant: {}}
	}
	c.socket, _ = bare(c.net).(syscall.Conn)
	return c
}

// NetConn is the connection's socket, or the TLS connection on it. No deadline may be left on it at Release. It ends
// what Descriptor began, with the first call in a lease, which therefore must not run beside another.
func (c *Conn) NetConn() net.Conn {
	c.restore()
	return c.net
}

// Encrypted reports whether the connection speaks TLS.
func (c *Conn) Encrypted() bool {
	_, encrypted := c.net.(*tls.Conn)
	return encrypted
}

// Parameters are the ParameterStatus values that the server sent at start-up, or by when the connection was made its
// present tenant's. They must not be modified.
func (c *Conn) Parameters() map[string]string { return c.parameters }

// Target is what the connection is leased for. It differs from the one of the lease before only among Shared ones.
func (c *Conn) Target() Target { return c.pool.target }

// PID is the process id of the server's backend.
func (c *Conn) PID() uint32 { return c.dialed.PID }

// Report says what the server is by now, a standby or not, and whether its transactions are read-only unless they say
// otherwise, as ParameterStatus has told (section 55.2.7). Where the connection was opened to one of another kind, it is
// closed when it is released, and so are idle ones to the same host when that has become a standby, or is none any more: a
// standby that is promoted keeps its connections. It is for the leaseholder.
func (c *Conn) Report(inStandby, readOnly bool) {
	switch {
	case c.wants.suit(inStandby, readOnly) == nil:
		c.turned = notTurned
	case c.wants.suit(inStandby, !readOnly) == nil: // a tenant's function may have set that
		c.turned = connectionTurned
	default:
		c.turned = hostTurned
	}
}

// turn says what is not any more what a connection was opened to.
type turn uint8

const (
	notTurned turn = iota
	connectionTurned
	hostTurned
)

// Release ends the lease of a connection that is at ReadyForQuery "idle" and owes nothing: the target's first waiter
// gets it, or that of a target that shares it, or it turns idle, or it is closed when it is too old, drained, or more
// needed by another target. It does not block. It panics when the connection is not leased.
func (c *Conn) Release() {
	c.endLease()
	c.server.release(c)
}

// Destroy ends the lease of a connection that nobody shall use again. It does not block: the connection is closed in
// the background. It panics when the connection is not leased.
func (c *Conn) Destroy() {
	c.endLease()
	c.server.discard(c)
}

func (c *Conn) endLease() {
	if !c.leased.CompareAndSwap(true, false) {
		panic("pool: release of a server connection that is not leased")
	}
}

// Cancel asks the server to cancel what this connection's backend is running, over a connection of its own, and
// returns once the server has closed that one: the signal has been sent by then, though maybe not yet acted upon. It
// may run beside any use of the connection. Only the leaseholder can know that the backend still runs its own query.
func (c *Conn) Cancel(ctx context.Context) error {
	request := *c.dialed
	request.Conn = addressOnly{c.net.RemoteAddr()}
	conn, err := pgconn.Construct(&request)
	if err != nil {
		return fmt.Errorf("pool: cancel request: %w", err)
	}
	if err := conn.CancelRequest(ctx); err != nil {
		return fmt.Errorf("pool: cancel request: %w", err)
	}
	// CancelRequest ignores how its wait for the server's end of file went.
	if ctx.Err() != nil {
		return fmt.Errorf("pool: cancel request: %w", context.Cause(ctx))
	}
	return nil
}

// addressOnly stands for a socket where only its peer's address may be used: pgconn dials there to cancel, and
// anything else would disturb the session that owns the socket, so it panics.
type addressOnly struct{ address net.Addr }

func (a addressOnly) RemoteAddr() net.Addr             { return a.address }
func (a addressOnly) LocalAddr() net.Addr              { panic("pool: not a socket") }
func (a addressOnly) Read([]byte) (int, error)         { panic("pool: not a socket") }
func (a addressOnly) Write([]byte) (int, error)        { panic("pool: not a socket") }
func (a addressOnly) Close() error                     { panic("pool: not a socket") }
func (a addressOnly) SetDeadline(time.Time) error      { panic("pool: not a socket") }
func (a addressOnly) SetReadDeadline(time.Time) error  { panic("pool: not a socket") }
func (a addressOnly) SetWriteDeadline(time.Time) error { panic("pool: not a socket") }

// usable checks a connection that was just leased, if there is any doubt about it.
func (c *Conn) usable() bool {
	c.doubtful = c.doubtful && !c.alive()
	return !c.doubtful
}

// alive reports whether an idle connection can be leased: the server has neither closed it nor said anything.
func (c *Conn) alive() bool {
	if c.left != nil {
		return silentDescriptor(c.descriptor)
	}
	return c.socket != nil && silent(c.socket)
}

// bare is the socket itself: closing a tls.Conn can take seconds, its socket closes at once.
func bare(conn net.Conn) net.Conn {
	if encrypted, ok := conn.(*tls.Conn); ok {
		return encrypted.NetConn()
	}
	return conn
}

// close ends the connection politely and waits, within closePatience, until the server has closed its side: only
// then has the backend left the server's own count. Errors leave nothing to do.
func (c *Conn) close() {
	if c.seat != nil {
		defer c.seat.Release()
	}
	c.restore()
	hangUp(c.net)
}

// hangUp is close for a socket, or the TLS connection on it.
func hangUp(conn net.Conn) {
	defer bare(conn).Close()
	if conn.SetDeadline(time.Now().Add(closePatience)) != nil {
		return
	}
	terminate := [...]byte{'X', 0, 0, 0, 4}
	if _, err := conn.Write(terminate[:]); err != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, conn, closeDrain)
}
