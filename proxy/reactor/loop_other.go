//go:build !linux || !(amd64 || arm64)

package reactor

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// Supported says whether this system has what a Loop on epoll needs.
const Supported = false

// What a socket can be watched for.
const (
	Readable Events = 1 << iota
	Writable
)

// ErrAgain is what Receive and Send return where they would have to wait.
var ErrAgain = errors.New("reactor: try again")

// flow is a ring's, of which there is none here.
type flow struct{}

func newEpoll() (engine, error) { return nil, ErrUnsupported }

func newRing() (engine, error) { return nil, ErrUnsupported }

// Receive reads what there is.
func Receive(int, []byte) (int, error) { return 0, ErrUnsupported }

// Send writes as much as is taken.
func Send(int, []byte) (int, error) { return 0, ErrUnsupported }

// Duplicate returns a second descriptor of a socket.
func Duplicate(syscall.Conn) (int, error) { return -1, ErrUnsupported }

// Restore gives a descriptor back to the runtime's poller.
func Restore(int) (net.Conn, error) { return nil, ErrUnsupported }

// Close closes a descriptor.
func Close(int) error { return ErrUnsupported }

// SendAll writes all.
func SendAll(int, []byte, time.Time) (int, error) { return 0, ErrUnsupported }
