package proxy

import (
	"context"
	"net"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy/reactor"
	"github.com/docex-proxy/docex-proxy/proxy/relay"
)

// driver carries a session's machine between its two sockets, from the login on: link with goroutines, strand on a
// reactor. Any goroutine may call cancel and drain; the others are for the one that concludes the session.
type driver interface {
	cancel(ctx context.Context) error
	drain()
	close(reason error) // nil when the client said goodbye
	sawFatal() bool
	transactions() uint64
	pinned() relay.Pins // at any time
}

// driver is nil before the session's login.
func (s *session) driver() driver {
	if d := s.driven.Load(); d != nil {
		return *d
	}
	return nil
}

func (s *session) drive(d driver) { s.driven.Store(&d) }

// serverState is what this room remembers of a server connection: pool.Conn.State.
type serverState struct {
	machine *relay.Server
	berth   *berth // where a reactor watches the connection, nil when none has yet
}

func stateOf(conn *pool.Conn, statements int) *serverState {
	state, ok := conn.State.(*serverState)
	if !ok {
		state = &serverState{machine: relay.NewServer(conn.PID(), conn.Parameters(), statements)}
		conn.State = state
	}
	return state
}

// yield gives the machine of a link whose session is idle to another driver, and what else is asked of the link.
func (l *link) yield(heir driver) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heir = heir
}

// resume is run for a session that comes from a reactor: with a server connection to attach, what the client has not
// taken yet, and what it has sent.
func (l *link) resume(conn *pool.Conn, unsent, early []byte) error {
	if len(unsent) > 0 {
		if err := l.writeClient(unsent); err != nil {
			conn.Release() // unused
			return err
		}
	}
	var out relay.Output
	l.mu.Lock()
	if err := l.join(conn, &out, true); err != nil {
		return err
	}
	return l.relay(&inbox{size: clientBuffer, buf: early, end: len(early)})
}

// farewell is a client's socket after its reactor has let go of it: to be told the last words, and closed.
type farewell struct {
	net.Conn        // nil: nothing else is done with it
	fd       int    // -1 when it is closed already
	unsent   []byte // what has to go before
	deadline time.Time
}

// SetDeadline implements net.Conn.
func (f *farewell) SetDeadline(t time.Time) error {
	f.deadline = t
	return nil
}

// Write implements net.Conn.
func (f *farewell) Write(b []byte) (int, error) {
	if len(f.unsent) > 0 {
		n, err := reactor.SendAll(f.fd, f.unsent, f.deadline)
		f.unsent = f.unsent[n:]
		if err != nil {
			return 0, err
		}
	}
	return reactor.SendAll(f.fd, b, f.deadline)
}

// Close implements net.Conn.
func (f *farewell) Close() error { return reactor.Close(f.fd) }

// noteEncrypted remembers that connections to a server speak TLS, so that sessions for it stay on goroutines.
func (s *Server) noteEncrypted(server string) { s.encrypted.Store(server, true) }

func (s *Server) encrypts(server string) bool {
	_, found := s.encrypted.Load(server)
	return found
}
