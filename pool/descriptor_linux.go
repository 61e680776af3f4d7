package pool

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// Descriptor takes the socket out of the runtime's poller, for a leaseholder that waits for it in its own way, and
// returns it: non-blocking, and the Conn's to close. It stays out from lease to lease, until NetConn is called, or the
// connection is closed: then left is called first, from whichever goroutine it is, and has to see to it that nobody waits
// for the descriptor any more. Where it is out already, left is not replaced. It is -1 for a connection that has no
// plain socket because it speaks TLS.
func (c *Conn) Descriptor(left func()) (int, error) {
	if c.left != nil {
		return c.descriptor, nil
	}
	if c.Encrypted() || c.socket == nil {
		return -1, nil
	}
	fd, err := duplicate(c.socket)
	if err != nil {
		return -1, fmt.Errorf("pool: taking a socket out of the poller: %w", err)
	}
	c.net.Close() // the duplicate keeps the connection open
	c.descriptor, c.left = fd, left
	return fd, nil
}

// restore brings a socket that is out back to the runtime's poller. Where that fails, the connection is closed, and its
// user finds out by its first call.
func (c *Conn) restore() {
	if c.left == nil {
		return
	}
	c.left()
	file := os.NewFile(uintptr(c.descriptor), "server connection")
	defer file.Close() // FileConn makes its own
	c.left = nil
	if conn, err := net.FileConn(file); err == nil {
		c.net = conn
		c.socket, _ = conn.(syscall.Conn)
	}
}

// duplicate returns a second descriptor of a socket. Both are non-blocking: that is the socket's, not the descriptor's.
func duplicate(socket syscall.Conn) (int, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return -1, err
	}
	var fd uintptr
	var errno syscall.Errno
	err = raw.Control(func(original uintptr) {
		fd, _, errno = syscall.RawSyscall(syscall.SYS_FCNTL, original, syscall.F_DUPFD_CLOEXEC, 0)
	})
	switch {
	case err != nil:
		return -1, err
	case errno != 0:
		return -1, errno
	}
	return int(fd), nil
}
