//go:build unix

package pool

import (
	"errors"
	"syscall"
)

// silent reports whether the socket is open with nothing to read, without waiting and without taking anything: Go's
// sockets are non-blocking, so a peek at an empty one is EAGAIN.
func silent(socket syscall.Conn) bool {
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	var peeked error
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		for {
			_, _, peeked = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
			if !errors.Is(peeked, syscall.EINTR) {
				return true
			}
		}
	})
	return err == nil && errors.Is(peeked, syscall.EAGAIN)
}
