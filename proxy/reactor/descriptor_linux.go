//go:build linux && (amd64 || arm64)

package reactor

import (
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// Duplicate returns a second descriptor of a socket, which is non-blocking as the socket is. When the first is closed,
// the socket is out of the runtime's poller.
func Duplicate(socket syscall.Conn) (int, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("reactor: %w", err)
	}
	var fd uintptr
	var errno syscall.Errno
	err = raw.Control(func(original uintptr) {
		fd, _, errno = syscall.RawSyscall(syscall.SYS_FCNTL, original, syscall.F_DUPFD_CLOEXEC, 0)
	})
	switch {
	case err != nil:
		return -1, fmt.Errorf("reactor: %w", err)
	case errno != 0:
		return -1, fmt.Errorf("reactor: fcntl: %w", errno)
	}
	return int(fd), nil
}

// Restore gives a descriptor back to the runtime's poller. It owns the descriptor, whatever comes of it.
func Restore(fd int) (net.Conn, error) {
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close() // FileConn makes its own
	return net.FileConn(file)
}

// Close closes a descriptor that no loop watches.
func Close(fd int) error { return syscall.Close(fd) }

// SendAll writes all, and waits for it where it has to, until the deadline. It blocks a thread: it is for what seldom
// happens.
func SendAll(fd int, b []byte, deadline time.Time) (int, error) {
	for sent := 0; ; {
		n, err := Send(fd, b[sent:])
		if sent += n; sent == len(b) || err != nil && err != ErrAgain {
			return sent, err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return sent, os.ErrDeadlineExceeded
		}
		awaitWritable(fd, left)
	}
}

const pollOut = 4

// awaitWritable waits until more can be written, or not any more.
func awaitWritable(fd int, patience time.Duration) {
	watched := struct {
		fd              int32
		events, revents int16
	}{fd: int32(fd), events: pollOut}
	limit := syscall.NsecToTimespec(int64(patience))
	// Whatever comes of it, the next write says.
	syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&watched)), 1, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
}

// Supported says whether this system has what a Loop on epoll needs.
const Supported = true

// What a socket can be watched for.
const (
	Readable Events = syscall.EPOLLIN
	Writable Events = syscall.EPOLLOUT
)

// ErrAgain is what Receive and Send return where they would have to wait.
const ErrAgain = syscall.EAGAIN

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
