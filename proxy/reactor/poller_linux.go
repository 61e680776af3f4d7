//go:build linux && (amd64 || arm64)

package reactor

import (
	"fmt"
	"io"
	"syscall"
	"time"
	"unsafe"
)

// Supported says whether this system has what a Loop needs.
const Supported = true

// What a socket can be watched for.
const (
	Readable Events = syscall.EPOLLIN
	Writable Events = syscall.EPOLLOUT
)

// ErrAgain is what Receive and Send return where they would have to wait.
const ErrAgain = syscall.EAGAIN

const (
	batchSize = 512
	// longestMoment is for how many milliseconds the thread may wait as if it were at work. It is longer than the kernel's
	// own tick, because a timer that would be the processor's next one has to be programmed at each wait, which in a
	// virtual machine costs more than the wait. Whoever needs the world to stop, as a collection of garbage does, sends
	// the thread a signal, which ends the wait at once.
	longestMoment = 50
	wakerSlot     = 1<<32 - 1 // that of no socket
	eventfdMode   = syscall.O_NONBLOCK | syscall.O_CLOEXEC
)

// poller is an epoll instance, and a descriptor that wakes it up.
type poller struct {
	epoll, waker int
	last         int // how many events the last wait found
	batch        [batchSize]syscall.EpollEvent
}

func (p *poller) open() error {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("reactor: epoll_create1: %w", err)
	}
	waker, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, eventfdMode, 0)
	if errno != 0 {
		syscall.Close(epoll) //nolint:errcheck
		return fmt.Errorf("reactor: eventfd: %w", errno)
	}
	p.epoll, p.waker = epoll, int(waker)
	if err := p.watch(p.waker, 0, Readable, wakerSlot, 0); err != nil {
		p.close()
		return fmt.Errorf("reactor: %w", err)
	}
	return nil
}

func (p *poller) close() {
	syscall.Close(p.waker) //nolint:errcheck
	syscall.Close(p.epoll) //nolint:errcheck
}

// rouse ends the wait that is under way, or else the next one.
func (p *poller) rouse() {
	one := uint64(1)
	// It fails only when the counter is at its end, and then the wait ends as well.
	syscall.RawSyscall(syscall.SYS_WRITE, uintptr(p.waker), uintptr(unsafe.Pointer(&one)), 8)
}

// watch changes what a descriptor is watched for.
func (p *poller) watch(fd int, before, after Events, slot, generation uint32) error {
	op := syscall.EPOLL_CTL_MOD
	switch {
	case before == 0:
		op = syscall.EPOLL_CTL_ADD
	case after == 0:
		op = syscall.EPOLL_CTL_DEL
	}
	event := syscall.EpollEvent{Events: uint32(after), Fd: int32(slot), Pad: int32(generation)}
	if err := syscall.EpollCtl(p.epoll, op, fd, &event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// wait returns how many events there are, after as long as it takes for one to come, or after the patience; a negative
// one has no end. A call that the runtime knows to block gives the processor back and takes it again, and keeps the
// runtime's monitor awake, which together cost more than the call: where something has just been going on, more comes
// within a moment, and that is waited for without telling anybody.
func (p *poller) wait(patience time.Duration) int {
	milliseconds := -1
	if patience >= 0 {
		milliseconds = int((patience + time.Millisecond - 1) / time.Millisecond)
	}
	if p.last > 0 || milliseconds == 0 {
		moment := longestMoment
		if 0 <= milliseconds && milliseconds < moment {
			moment = milliseconds
		}
		n, _, _ := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.batch[0])), batchSize, uintptr(moment), 0, 0)
		if p.last = max(0, int(n)); p.last > 0 || moment == milliseconds {
			return p.last
		}
	}
	n, _, _ := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.batch[0])), batchSize, uintptr(milliseconds), 0, 0)
	p.last = max(0, int(n)) // an error is an interruption
	return p.last
}

// event is one that wait has found. That of the waker itself leads nowhere.
func (p *poller) event(i int) (slot, generation uint32, events Events) {
	e := &p.batch[i]
	if slot = uint32(e.Fd); slot == wakerSlot {
		var count uint64
		syscall.RawSyscall(syscall.SYS_READ, uintptr(p.waker), uintptr(unsafe.Pointer(&count)), 8)
	}
	events = Events(e.Events)
	if events&(syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		events |= Readable | Writable
	}
	return slot, uint32(e.Pad), events
}

// Receive reads what there is. The error is ErrAgain where there is nothing, io.EOF at the end, or what is wrong.
func Receive(fd int, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0, 0)
		switch {
		case errno == syscall.EINTR:
		case errno != 0:
			return 0, errno
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		default:
			return int(n), nil
		}
	}
}

// Send writes as much as is taken, which may be less than all. The error is ErrAgain where nothing is, or what is wrong.
func Send(fd int, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_NOSIGNAL, 0, 0)
		switch {
		case errno == syscall.EINTR:
		case errno != 0:
			return 0, errno
		default:
			return int(n), nil
		}
	}
}
