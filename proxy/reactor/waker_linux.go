//go:build linux && (amd64 || arm64)

package reactor

import (
	"fmt"
	"syscall"
	"unsafe"
)

// waker is a descriptor, an eventfd, that can be read after it was roused.
type waker int

func newWaker() (waker, error) {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return -1, fmt.Errorf("reactor: eventfd: %w", errno)
	}
	return waker(fd), nil
}

// rouse ends the wait that is under way, or else the next one.
func (w waker) rouse() {
	one := uint64(1)
	// It fails only when the counter is at its end, and then the wait ends as well.
	syscall.RawSyscall(syscall.SYS_WRITE, uintptr(w), uintptr(unsafe.Pointer(&one)), 8)
}

// heard makes it silent again.
func (w waker) heard() {
	var count uint64
	syscall.RawSyscall(syscall.SYS_READ, uintptr(w), uintptr(unsafe.Pointer(&count)), 8)
}

func (w waker) close() { syscall.Close(int(w)) } //nolint:errcheck // nothing is lost with it
