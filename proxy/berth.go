package proxy

import (
	"context"
	"sync"

	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy/reactor"
)

// berth is a server connection's place on a reactor, from the first session there until the connection is closed or
// goes elsewhere; sessions come and go meanwhile without a call. It is the reactor's, except where it says otherwise.
type berth struct {
	host     *host
	conn     *pool.Conn
	socket   reactor.Socket
	strand   *strand // the session that the connection serves, nil for none
	unread   []byte  // what was read for it and not dealt with: with the connection, as sessions that rest have none
	cancels  int     // cancel requests under way
	released bool    // the connection is given back when they are done
	odd      bool    // and is not fit for others

	requests sync.WaitGroup // cancels, for the one that closes the session
}

// berth returns the place of a leased connection on this reactor, nil for one that speaks TLS.
func (h *host) berth(conn *pool.Conn, state *serverState) (*berth, error) {
	if b := state.berth; b != nil {
		if b.host == h && !b.socket.Left() {
			return b, nil
		}
		b.socket.Leave() // another reactor's
	}
	fd, err := conn.Descriptor(state.leave)
	if err != nil || fd < 0 {
		return nil, err
	}
	b := &berth{host: h, conn: conn}
	b.socket.Join(h.Loop, fd, b)
	state.berth = b
	return b, nil
}

// leave has no reactor watch the connection any more. It is called by whoever takes it elsewhere.
func (s *serverState) leave() { s.berth.socket.Leave() }

// Ready implements reactor.Handler. A connection that serves nobody says nothing but its end: the pool will find out.
func (b *berth) Ready(e reactor.Events) {
	st := b.strand
	if st == nil {
		b.socket.Want(0) //nolint:errcheck // nobody waits for it
		return
	}
	if e&reactor.Writable != 0 {
		st.writeServer()
	}
	if e&reactor.Readable != 0 && b.strand == st {
		st.readServer()
	}
}

// giveBack ends the lease, after the cancel requests that are under way: they must not hit the next session. A connection
// that has something to say or to take, although it serves nobody, is not for others.
func (b *berth) giveBack() {
	b.strand = nil
	unsent, unread := b.socket.Rest()
	b.odd = len(unsent) > 0 || len(unread) > 0
	if b.cancels > 0 {
		b.released = true
		return
	}
	b.end()
}

func (b *berth) end() {
	if b.odd {
		b.conn.Destroy()
		return
	}
	giveBack(b.conn)
}

// beginCancel holds the connection for a cancel request, until endCancel.
func (b *berth) beginCancel() {
	b.cancels++
	b.requests.Add(1)
}

// cancel passes a request on. It is called after beginCancel, on the goroutine of the request.
func (b *berth) cancel(ctx context.Context) error {
	defer b.host.Post(reactor.Func(b.endCancel))
	defer b.requests.Done()
	return b.conn.Cancel(ctx)
}

func (b *berth) endCancel() {
	if b.cancels--; b.released && b.cancels == 0 {
		b.released = false
		b.end()
	}
}
