//go:build linux && (amd64 || arm64)

package reactor

import (
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"
	"unsafe"
)

// ring is an engine on io_uring. It has one receive under way for each socket that is to be read and has nothing unread,
// into memory that the kernel takes from those lent to it when there is something: a silent socket holds none. What is
// sent is kept until the next wait, goes with it, and is done when that returns, as far as the socket takes it: the
// kernel never reads memory of ours at another time. For the rest the socket is polled.
type ring struct {
	uring   *uring
	waker   waker
	quick   bool         // the last wait found something
	going   []*Socket    // to be sent to with the next wait
	inline  uint32       // sends whose completion has not been seen
	look    []*Socket    // have something to tell without the kernel
	looking []*Socket    // what look was, while it is worked off
	late    []completion // were there when others were waited for
	seen    int          // of late, those that have been looked at
	spare   []*outgoing  // of nobody
}

// flow is what a ring has under way for a socket. There is one for each client, however idle: it is kept small.
type flow struct {
	receiving, sending, polling bool // the kernel has been asked to
	going, looked               bool // the socket is in the ring's lists
	drawn                       bool // the last receive has probably taken all that there was

	buffer int16     // which of the lent ones unread lies in, -1 for none
	end    code      // what a Receive after unread returns
	broken code      // what the next Send returns
	unread []byte    // has come and was not fetched
	out    *outgoing // nil when nothing is to be sent
}

// outgoing is what was taken by Send and is not sent.
type outgoing struct {
	unsent []byte // its beginning is gone
	base   []byte // its memory
}

// code is an error of a socket: a number of the kernel's, or the end, or none.
type code int32

const ended code = -1

func (c code) err() error {
	if c == ended {
		return io.EOF
	}
	return syscall.Errno(c)
}

// unsent is what is to be sent.
func (f *flow) unsent() []byte {
	if f.out == nil {
		return nil
	}
	return f.out.unsent
}

// What a completion is for, in its token's uppermost bits.
const (
	tokenRecv = iota << 62
	tokenSend
	tokenPoll
	tokenOther // a cancellation, a knock; the waker, with wakerToken

	tokenKinds      = 3 << 62
	wakerToken      = tokenOther | 1
	generationBits  = 30
	generationShift = 32
)

const (
	// sendMax is what Send takes at most while nothing of it is with the kernel, in bytes. Larger pieces are written with
	// a call of their own, which copies them once less.
	sendMax = 16 << 10
	// ringSpare is how many pieces of memory are kept, of sendMax bytes each.
	ringSpare = 64
)

func newRing() (engine, error) {
	uring, err := openUring()
	if err != nil {
		return nil, fmt.Errorf("reactor: %w", err)
	}
	waker, err := newWaker()
	if err != nil {
		uring.close()
		return nil, err
	}
	return &ring{uring: uring, waker: waker}, nil
}

func (r *ring) start() error {
	if err := r.uring.enable(); err != nil {
		return fmt.Errorf("reactor: %w", err)
	}
	r.hearWaker()
	return nil
}

func (r *ring) hearWaker() {
	r.uring.push(submission{opcode: opPollAdd, fd: int32(r.waker), opFlags: uint32(Readable), token: wakerToken})
}

func (r *ring) rouse() { r.waker.rouse() }

func (r *ring) close() {
	r.uring.close()
	r.waker.close()
}

func (r *ring) join(s *Socket) { s.flow = &flow{buffer: -1} }

func (r *ring) turn(l *Loop, patience time.Duration) {
	r.submitSends()
	if len(r.look) > 0 || r.seen < len(r.late) {
		patience = 0
	}
	r.wait(patience)
	l.wake()
	for {
		c, ok := r.next()
		if !ok {
			break
		}
		if c.token == wakerToken {
			r.waker.heard()
			r.hearWaker()
			continue
		}
		if s := r.settle(l, c); s != nil {
			r.tell(s)
		}
	}
	now := r.look
	r.look = r.looking[:0] // those that come meanwhile are for the next turn
	for i, s := range now {
		now[i] = nil
		s.flow.looked = false
		r.tell(s)
	}
	r.looking = now
}

// wait is as epoll's: where something has just been going on, it goes on without the runtime's knowing.
func (r *ring) wait(patience time.Duration) {
	want := r.inline + 1
	if patience == 0 {
		want = r.inline
	}
	const moment = longestMoment * time.Millisecond
	if r.quick || patience == 0 {
		limit := moment
		if 0 <= patience && patience < moment {
			limit = patience
		}
		r.uring.enter(want, limit, true)
		if r.quick = r.uring.waiting() > r.inline; r.quick || limit == patience {
			return
		}
	}
	r.uring.enter(want, patience, false)
	r.quick = r.uring.waiting() > r.inline
}

// next is a completion that came at another time, or one that is there.
func (r *ring) next() (c completion, ok bool) {
	if r.seen == len(r.late) {
		r.late, r.seen = r.late[:0], 0
		return r.uring.pop()
	}
	r.seen++
	return r.late[r.seen-1], true
}

func (s *Socket) token(kind uint64) uint64 {
	return kind | uint64(s.loop.slots[s.slot].generation&(1<<generationBits-1))<<generationShift | uint64(s.slot)
}

// socketOf is whose the completion is, nil for one that belongs to nobody any more.
func (r *ring) socketOf(l *Loop, c completion) *Socket {
	at := uint32(c.token)
	if c.token&tokenKinds == tokenOther || at >= uint32(len(l.slots)) {
		return nil
	}
	if s := l.slots[at].socket; s != nil && s.token(c.token&tokenKinds) == c.token {
		return s
	}
	return nil
}

// settle notes what a completion says, and returns whose it is.
func (r *ring) settle(l *Loop, c completion) *Socket {
	s := r.socketOf(l, c)
	if s == nil {
		if c.flags&completionBuffer != 0 {
			r.uring.lend(uint16(c.flags >> completionBufferShift))
		}
		return nil
	}
	f := s.flow
	switch c.token & tokenKinds {
	case tokenRecv:
		f.receiving = false
		r.settleReceive(f, c)
	case tokenSend:
		f.sending = false
		r.inline--
		r.settleSend(s, c)
	case tokenPoll:
		f.polling = false
		if f.out != nil && c.result >= 0 {
			r.queue(s)
		}
	}
	return s
}

func (r *ring) settleReceive(f *flow, c completion) {
	switch errno := syscall.Errno(-c.result); {
	case c.result > 0:
		f.buffer = int16(c.flags >> completionBufferShift)
		f.unread = r.uring.lent(uint16(f.buffer), int(c.result))
		f.drawn = c.result < ringBufferSize
		return
	case c.result == 0:
		f.end = ended
	case errno == syscall.ECANCELED, errno == syscall.ENOBUFS, errno == syscall.EINTR, errno == syscall.EAGAIN: // again, if it is wanted
		f.drawn = false
	default:
		f.end = code(errno)
	}
	if c.flags&completionBuffer != 0 {
		r.uring.lend(uint16(c.flags >> completionBufferShift))
	}
}

func (r *ring) settleSend(s *Socket, c completion) {
	f := s.flow
	switch errno := syscall.Errno(-c.result); {
	case c.result >= 0:
		f.out.unsent = f.out.unsent[c.result:]
	case errno == syscall.EAGAIN, errno == syscall.EINTR:
	default:
		f.broken, f.out.unsent = code(errno), nil
	}
	if len(f.out.unsent) == 0 {
		r.recycle(f)
		return
	}
	r.poll(s)
}

func (r *ring) recycle(f *flow) {
	if f.out != nil && len(r.spare) < ringSpare {
		r.spare = append(r.spare, f.out)
	}
	f.out = nil
}

// events are what a socket is ready for.
func (f *flow) events() (e Events) {
	if len(f.unread) > 0 || f.end != 0 {
		e |= Readable
	}
	if f.out == nil && !f.polling {
		e |= Writable
	}
	return e
}

// tell tells a socket's owner what it wants to hear, and has the kernel do what it wants besides. A lent buffer goes
// back in any case.
func (r *ring) tell(s *Socket) {
	f := s.flow
	s.tell(f.events())
	if f.buffer >= 0 && len(f.unread) > 0 {
		f.unread = slices.Clone(f.unread)
		r.uring.lend(uint16(f.buffer))
		f.buffer = -1
	}
	if e := s.Wants(); e != 0 {
		r.arrange(s, e)
	}
}

func (r *ring) want(s *Socket, _, after Events) error {
	if after != 0 {
		r.arrange(s, after)
	}
	return nil
}

// arrange sees to it that the owner will be told.
func (r *ring) arrange(s *Socket, wanted Events) {
	f := s.flow
	if wanted&f.events() != 0 {
		if !f.looked {
			f.looked, r.look = true, append(r.look, s)
		}
		return
	}
	if wanted&Readable != 0 && !f.receiving {
		f.receiving = true
		entry := submission{opcode: opRecv, fd: int32(s.fd), flags: entryBufferSelect, token: s.token(tokenRecv)}
		if f.drawn {
			entry.priority = recvPollFirst
		}
		r.uring.push(entry)
	}
}

func (r *ring) receive(s *Socket, b []byte) (int, error) {
	f := s.flow
	if len(f.unread) == 0 {
		if f.end != 0 {
			return 0, f.end.err()
		}
		return 0, ErrAgain
	}
	n := copy(b, f.unread)
	if f.unread = f.unread[n:]; len(f.unread) == 0 {
		r.takeBack(f)
	}
	return n, nil
}

// takeBack has the kernel have the buffer again that was received into.
func (r *ring) takeBack(f *flow) {
	if f.buffer >= 0 {
		r.uring.lend(uint16(f.buffer))
	}
	f.buffer, f.unread = -1, nil
}

func (r *ring) send(s *Socket, b []byte) (int, error) {
	f := s.flow
	switch {
	case f.broken != 0:
		return 0, f.broken.err()
	case f.sending || f.polling:
		return 0, ErrAgain
	case !f.going && len(b) > sendMax:
		n, err := Send(s.fd, b)
		if err == ErrAgain || err == nil && n < len(b) {
			r.poll(s)
		}
		return n, err
	}
	n := min(len(b), sendMax-len(f.unsent()))
	if n <= 0 {
		return 0, ErrAgain
	}
	if f.out == nil {
		f.out = r.take()
	}
	f.out.unsent = append(f.out.unsent, b[:n]...)
	r.queue(s)
	return n, nil
}

// take is memory for what is to be sent.
func (r *ring) take() *outgoing {
	o := &outgoing{}
	if last := len(r.spare) - 1; last >= 0 {
		o, r.spare = r.spare[last], r.spare[:last]
	} else {
		o.base = make([]byte, 0, sendMax)
	}
	o.unsent = o.base
	return o
}

// queue has a socket be sent to with the next wait.
func (r *ring) queue(s *Socket) {
	if !s.flow.going {
		s.flow.going, r.going = true, append(r.going, s)
	}
}

func (r *ring) submitSends() {
	for i, s := range r.going {
		r.going[i] = nil
		f := s.flow
		f.going, f.sending = false, true
		r.inline++
		r.uring.reserve(2)
		r.uring.push(submission{
			opcode: opSend, flags: entryLink, fd: int32(s.fd), address: uint64(uintptr(unsafe.Pointer(&f.out.unsent[0]))), length: uint32(len(f.out.unsent)),
			opFlags: syscall.MSG_NOSIGNAL | syscall.MSG_DONTWAIT | syscall.MSG_WAITALL, token: s.token(tokenSend),
		})
		// The wait is for the sends, which takes no time, and for one thing more. A send that is not complete has to be
		// that thing: it breaks its link, and that is told. So has one whose owner has more to say.
		knock := submission{opcode: opNop, token: tokenOther}
		if s.Wants()&Writable == 0 {
			knock.flags = entrySkipSuccess
		}
		r.uring.push(knock)
	}
	r.going = r.going[:0]
}

// poll has the kernel say when more can be sent.
func (r *ring) poll(s *Socket) {
	s.flow.polling = true
	r.uring.push(submission{opcode: opPollAdd, fd: int32(s.fd), opFlags: uint32(Writable), token: s.token(tokenPoll)})
}

func (r *ring) rest(s *Socket) (unsent, unread []byte) {
	s.forget()
	f := s.flow
	if f.busy() {
		r.submitSends()
		r.uring.enter(0, 0, true)
		for r.collect(s); f.receiving || f.polling || f.sending; r.collect(s) {
			r.uring.push(submission{opcode: opAsyncCancel, fd: int32(s.fd), opFlags: cancelAll | cancelFD, token: tokenOther})
			r.uring.enter(1, -1, true)
		}
		if f.going = false; len(r.going) > 0 {
			r.going = slices.DeleteFunc(r.going, func(one *Socket) bool { return one == s })
		}
	}
	unsent, unread = slices.Clone(f.unsent()), slices.Clone(f.unread)
	r.recycle(f)
	r.takeBack(f)
	return unsent, unread
}

// busy reports whether the kernel has to be asked before the descriptor is somebody else's.
func (f *flow) busy() bool { return f.receiving || f.sending || f.polling || f.going }

// collect settles what the kernel has said of one socket, and keeps what it has said of others.
func (r *ring) collect(s *Socket) {
	for c, ok := r.uring.pop(); ok; c, ok = r.uring.pop() {
		r.late = append(r.late, c)
	}
	for i := r.seen; i < len(r.late); i++ {
		if r.socketOf(s.loop, r.late[i]) == s {
			r.settle(s.loop, r.late[i])
			r.late[i] = completion{token: tokenOther} // nobody's any more
		}
	}
}
