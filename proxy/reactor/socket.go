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
	return s.loop.poller.watch(s.fd, before, e, s.slot, s.loop.slots[s.slot].generation)
}

// Left reports whether Leave has been called.
func (s *Socket) Left() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

// Leave takes the descriptor out. Any goroutine may call it, more than once.
func (s *Socket) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left || s.loop == nil {
		return
	}
	s.left = true
	if before := Events(s.wants.Swap(0)); before != 0 {
		// It fails only for a descriptor that is not in the set, which then is what was asked for.
		s.loop.poller.watch(s.fd, before, 0, s.slot, 0) //nolint:errcheck
	}
	s.loop.Post((*vacancy)(s))
}

// vacancy frees the slot of a socket that has left, on the loop's thread.
type vacancy Socket

// Run implements Task.
func (v *vacancy) Run() {
	l := v.loop
	slot := &l.slots[v.slot]
	slot.socket, slot.handler = nil, nil
	slot.generation++
	l.free = append(l.free, v.slot)
}
