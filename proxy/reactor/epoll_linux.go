//go:build linux && (amd64 || arm64)

package reactor

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

const (
	batchSize = 512
	wakerSlot = 1<<32 - 1 // that of no socket
	// longestMoment is for how many milliseconds the thread may wait as if it were at work. It is longer than the kernel's
	// own tick, because a timer that would be the processor's next one has to be programmed at each wait, which in a
	// virtual machine costs more than the wait. Whoever needs the world to stop, as a collection of garbage does, sends
	// the thread a signal, which ends the wait at once.
	longestMoment = 50
)

// epoll is an engine that is told which sockets are ready, and reads and writes with calls of its own.
type epoll struct {
	fd    int
	waker waker
	last  int // how many events the last wait found
	batch [batchSize]syscall.EpollEvent
}

func newEpoll() (engine, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("reactor: epoll_create1: %w", err)
	}
	waker, err := newWaker()
	if err != nil {
		syscall.Close(fd) //nolint:errcheck
		return nil, err
	}
	p := &epoll{fd: fd, waker: waker}
	if err := p.watch(int(waker), 0, Readable, wakerSlot, 0); err != nil {
		p.close()
		return nil, fmt.Errorf("reactor: %w", err)
	}
	return p, nil
}

func (p *epoll) close() {
	p.waker.close()
	syscall.Close(p.fd) //nolint:errcheck
}

func (p *epoll) start() error { return nil }

func (p *epoll) rouse() { p.waker.rouse() }

func (p *epoll) turn(l *Loop, patience time.Duration) {
	n := p.wait(patience)
	l.wake()
	for i := range n {
		at, generation, events := p.event(i)
		if s := l.socketAt(at, generation); s != nil {
			s.tell(events)
		}
	}
}

func (p *epoll) join(*Socket) {}

func (p *epoll) want(s *Socket, before, after Events) error {
	generation := uint32(0)
	if after != 0 { // one that leaves may be on any thread, where the slots are not to be read
		generation = s.loop.slots[s.slot].generation
	}
	return p.watch(s.fd, before, after, s.slot, generation)
}

func (p *epoll) receive(s *Socket, b []byte) (int, error) { return Receive(s.fd, b) }

func (p *epoll) send(s *Socket, b []byte) (int, error) { return Send(s.fd, b) }

// rest does nothing: a socket that stays watched costs less than one that is watched anew each time.
func (p *epoll) rest(*Socket) (unsent, unread []byte) { return nil, nil }

// watch changes what a descriptor is watched for.
func (p *epoll) watch(fd int, before, after Events, slot, generation uint32) error {
	op := syscall.EPOLL_CTL_MOD
	switch {
	case before == 0:
		op = syscall.EPOLL_CTL_ADD
	case after == 0:
		op = syscall.EPOLL_CTL_DEL
	}
	event := syscall.EpollEvent{Events: uint32(after), Fd: int32(slot), Pad: int32(generation)}
	if err := syscall.EpollCtl(p.fd, op, fd, &event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// wait returns how many events there are, after as long as it takes for one to come, or after the patience; a negative
// one has no end. A call that the runtime knows to block gives the processor back and takes it again, and keeps the
// runtime's monitor awake, which together cost more than the call: where something has just been going on, more comes
// within a moment, and that is waited for without telling anybody.
func (p *epoll) wait(patience time.Duration) int {
	milliseconds := -1
	if patience >= 0 {
		milliseconds = int((patience + time.Millisecond - 1) / time.Millisecond)
	}
	if p.last > 0 || milliseconds == 0 {
		moment := longestMoment
		if 0 <= milliseconds && milliseconds < moment {
			moment = milliseconds
		}
		n, _, _ := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.batch[0])), batchSize, uintptr(moment), 0, 0)
		if p.last = max(0, int(n)); p.last > 0 || moment == milliseconds {
			return p.last
		}
	}
	n, _, _ := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.batch[0])), batchSize, uintptr(milliseconds), 0, 0)
	p.last = max(0, int(n)) // an error is an interruption
	return p.last
}

// event is one that wait has found. That of the waker itself leads nowhere.
func (p *epoll) event(i int) (slot, generation uint32, events Events) {
	e := &p.batch[i]
	if slot = uint32(e.Fd); slot == wakerSlot {
		p.waker.heard()
	}
	events = Events(e.Events)
	if events&(syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		events |= Readable | Writable
	}
	return slot, uint32(e.Pad), events
}
