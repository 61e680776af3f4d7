//go:build !unix

package pool

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

const peekPatience = 100 * time.Microsecond

// silent reports whether the socket is open with nothing to read. Without a peek it reads, briefly: whatever arrives
// on an idle connection condemns it, so nothing of value is lost.
func silent(socket syscall.Conn) bool {
	conn, ok := socket.(net.Conn)
	if !ok || conn.SetReadDeadline(time.Now().Add(peekPatience)) != nil {
		return false
	}
	var one [1]byte
	_, err := conn.Read(one[:])
	return errors.Is(err, os.ErrDeadlineExceeded) && conn.SetReadDeadline(time.Time{}) == nil
}

// silentDescriptor is never asked here: sockets do not leave the runtime's poller.
func silentDescriptor(int) bool { return false }
