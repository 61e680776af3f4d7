package reactor

import (
	"sync"
	"sync/atomic"
)

// Socket is a descriptor that a Loop watches. The zero value is one that nobody watches. Whoever owns it owns the
// descriptor too, and closes it after Leave.
type Socket struct {
	loop *Loop
	fd   int
	slot uint32
	flow *flow // of a ring

	wants atomic.Uint32 // Events; 0: the kernel does not watch. Changed with mu held
	mu    sync.Mutex    // guards what follows
	left  bool
}

// Join enters a descriptor, which has to be non-blocking. It is not watched before Want.
func (s *Socket) Join(l *Loop, fd int, h Handler) {
	s.loop, s.fd = l, fd
	if last := len(l.free) - 1; last >= 0 {
		s.slot, l.free = l.free[last], l.free[:last]
	} else {
		s.slot = uint32(len(l.slots))
		l.slots = append(l.slots, slot{generation: 1})
	}
	slot := &l.slots[s.slot]
	slot.socket, slot.handler = s, h
	l.engine.join(s)
}

// Loop is the one that the socket has joined, nil before.
func (s *Socket) Loop() *Loop { return s.loop }

// FD is the descriptor.
func (s *Socket) FD() int { return s.fd }

// Wants is what the socket is watched for.
func (s *Socket) Wants() Events { return Events(s.wants.Load()) }

// Want says what the socket is to be watched for, 0 for nothing, not even its end: a socket that nobody wants to hear of
// costs nothing. After Leave it does nothing.
func (s *Socket) Want(e Events) error {
	if s.Wants() == e {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return nil
	}
	before := Events(s.wants.Swap(uint32(e)))
	return s.loop.engine.want(s, before, e)
}

// tell tells the owner those events that it wants to hear of.
func (s *Socket) tell(e Events) {
	if e &= s.Wants(); e != 0 {
		s.loop.slots[s.slot].handler.Ready(e)
	}
}

// Receive reads what there is. The error is ErrAgain where there is nothing, io.EOF at the end, or what is wrong.
func (s *Socket) Receive(b []byte) (int, error) { return s.loop.engine.receive(s, b) }

// Send writes as much as is taken, which may be less than all. The error is ErrAgain where nothing is, or what is wrong,
// with this or with what was taken before.
func (s *Socket) Send(b []byte) (int, error) { return s.loop.engine.send(s, b) }

// Rest is for a descriptor that somebody else is about to use, until Want is called again: the loop has nothing under way
// with it from here on. What was taken by Send and could not be sent now, and what has come and was not fetched by
// Receive, is returned; it is the caller's now. On epoll that is never anything, and the socket stays watched, which
// costs nothing while nothing happens.
func (s *Socket) Rest() (unsent, unread []byte) {
	if s.Left() {
		return nil, nil
	}
	return s.loop.engine.rest(s)
}

// forget is Want(0) that the engine is not told of.
func (s *Socket) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wants.Store(0)
}

// Left reports whether Leave has been called.
func (s *Socket) Left() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

// Leave takes the descriptor out. Any goroutine may call it, more than once; after Rest, unless what is under way may be
// lost.
func (s *Socket) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left || s.loop == nil {
		return
	}
	s.left = true
	if before := Events(s.wants.Swap(0)); before != 0 {
		// It fails only for a descriptor that is not in the set, which then is what was asked for.
		s.loop.engine.want(s, before, 0) //nolint:errcheck
	}
	s.loop.Post((*vacancy)(s))
}

// vacancy frees the slot of a socket that has left, on the loop's thread.
type vacancy Socket

// Run implements Task.
func (v *vacancy) Run() {
	l := v.loop
	l.engine.rest((*Socket)(v))
	slot := &l.slots[v.slot]
	slot.socket, slot.handler = nil, nil
	slot.generation++
	l.free = append(l.free, v.slot)
}
