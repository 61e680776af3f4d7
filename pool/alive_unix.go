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
	found := false
	err = raw.Read(func(fd uintptr) bool {
		found = silentDescriptor(int(fd))
		return true
	})
	return err == nil && found
}

// silentDescriptor is silent for a descriptor of one's own.
func silentDescriptor(fd int) bool {
	var one [1]byte
	for {
		if _, _, err := syscall.Recvfrom(fd, one[:], syscall.MSG_PEEK); !errors.Is(err, syscall.EINTR) {
			return errors.Is(err, syscall.EAGAIN)
		}
	}
}
