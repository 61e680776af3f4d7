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

	frame, idle, idleTransaction *reactor.Clock // for the client to say more
	query, transaction           *reactor.Clock // for the server to be done
	queue                        *reactor.Clock // for a server connection
	write                        *reactor.Clock // for the client to take what it was sent
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
	h := &host{Loop: loop}
	ending := func(length time.Duration, reason error) *reactor.Clock {
		return loop.NewClock(length, func(owner any) { owner.(*strand).finish(reason) })
	}
	h.frame = ending(o.FrameTimeout, errFrameTimeout)
	h.idle = ending(o.ClientIdle, errClientIdle)
	h.idleTransaction = ending(o.IdleTransaction, errIdleTransaction)
	h.query = ending(o.Query, errQueryTimeout)
	h.transaction = ending(o.Transaction, errTransactionTimeout)
	h.write = ending(o.ClientWrite, &clientGoneError{os.ErrDeadlineExceeded})
	h.queue = loop.NewClock(o.QueueWait, func(owner any) { owner.(*order).giveUp(errQueueWait) })
	return h, nil
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
