package proxy

import (
	"os"
	"time"

	"github.com/docex-proxy/docex-proxy/proxy/reactor"
	"github.com/docex-proxy/docex-proxy/proxy/relay"
)

// host is a reactor with what the strands on it share, because only one of them is at work at a time.
type host struct {
	*reactor.Loop
	out    relay.Output // of the step at hand
	orders []*order     // not in use
	spare  [][]byte     // buffers not in use

	frame *reactor.Clock // for the client to say the rest
	write *reactor.Clock // for the client to take what it was sent
	usual clocks
	other map[times]*clocks // of tenants with limits of their own
}

// clocks are by times.
type clocks struct {
	idle, idleTransaction *reactor.Clock // for the client to say more
	query, transaction    *reactor.Clock // for the server to be done
	queue                 *reactor.Clock // for a server connection
}

const (
	// joinedBytes is up to where what was left of the read before is copied in front of the next one. More is kept in
	// a buffer of its own that is read into.
	joinedBytes = 4 << 10
	// spareBuffers are kept, of at most keptBuffer bytes each.
	spareBuffers = 64
)

func newHost(o *Options) (*host, error) {
	kind := reactor.Epoll
	if o.Ring {
		kind = reactor.Ring
	}
	loop, err := reactor.New(kind)
	if err != nil {
		return nil, err
	}
	h := &host{Loop: loop, other: make(map[times]*clocks)}
	h.frame = h.ending(o.FrameTimeout, errFrameTimeout)
	h.write = h.ending(o.ClientWrite, &clientGoneError{os.ErrDeadlineExceeded})
	h.usual = h.newClocks(o.times())
	return h, nil
}

// ending is a clock that ends sessions.
func (h *host) ending(length time.Duration, reason error) *reactor.Clock {
	return h.NewClock(length, func(owner any) { owner.(*strand).finish(reason) })
}

func (h *host) newClocks(t times) clocks {
	return clocks{
		idle: h.ending(t.clientIdle, errClientIdle), idleTransaction: h.ending(t.idleTransaction, errIdleTransaction),
		query: h.ending(t.query, errQueryTimeout), transaction: h.ending(t.transaction, errTransactionTimeout),
		queue: h.NewClock(t.queueWait, func(owner any) { owner.(*order).giveUp(errQueueWait) }),
	}
}

// clocksOf makes clocks once: those that were set before go on when a tenant's limits have changed.
func (h *host) clocksOf(t times) *clocks {
	c := h.other[t]
	if c == nil {
		made := h.newClocks(t)
		c = &made
		h.other[t] = c
	}
	return c
}

// openHosts starts the reactors.
func (s *Server) openHosts() error {
	for range s.o.Reactors {
		h, err := newHost(&s.o)
		if err != nil {
			s.closeHosts()
			return err
		}
		s.hosts = append(s.hosts, h)
		go h.Run()
	}
	return nil
}

// closeHosts stops the reactors. No session is left.
func (s *Server) closeHosts() {
	for _, h := range s.hosts {
		h.Stop()
	}
}

// hostOf picks a reactor for a session, nil when there is none.
func (s *Server) hostOf(session *session) *host {
	if len(s.hosts) == 0 {
		return nil
	}
	return s.hosts[session.id%uint64(len(s.hosts))]
}

// receive reads once, behind what was left of the read before. What it returns is valid until the next receive.
func (h *host) receive(from *reactor.Socket, left *[]byte, need int) (b []byte, n int, err error) {
	if len(*left) <= joinedBytes {
		b = h.Buffer()
		copy(b, *left)
	} else {
		b = *left
		if len(b) == cap(b) { // by no more than has come already: the length that a client gives is only a word
			b = append(b, make([]byte, min(max(need-len(b), joinedBytes), len(b)))...)
		}
		b = b[:cap(b)]
		*left = b[:len(*left)]
	}
	n, err = from.Receive(b[len(*left):])
	return b[:len(*left)+n], n, err
}

// keep has left hold the rest of what receive returned.
func (h *host) keep(left, rest []byte) []byte {
	if len(rest) == 0 {
		h.giveBack(left)
		return nil
	}
	if left == nil {
		left = h.take()
	}
	return append(left[:0], rest...)
}

func (h *host) take() []byte {
	last := len(h.spare) - 1
	if last < 0 {
		return nil
	}
	b := h.spare[last]
	h.spare = h.spare[:last]
	return b
}

func (h *host) giveBack(b []byte) {
	if 0 < cap(b) && cap(b) <= keptBuffer && len(h.spare) < spareBuffers {
		h.spare = append(h.spare, b[:0])
	}
}
