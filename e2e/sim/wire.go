//go:build unix

package main

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

// wire is a server connection's socket: what package pool sees of it. Nothing is sent through it: what a transaction does
// is a span of time.
type wire struct {
	net.Conn // nil: whatever else the pool may call is an error of the simulation
	world    *world
	proxy    *proxy
	server   *server
	epoch    int32 // of the server when it was opened; it is dead when the server has another
	role     string
	id       int64
	holder   *session
	ended    chan struct{} // closed when the server has closed its side
}

var errReset = errors.New("connection reset by peer")

func (c *wire) dead() bool { return c.server.epoch.Load() != c.epoch }

// Write takes Terminate, which is all that the pool sends.
func (c *wire) Write(b []byte) (int, error) {
	if c.dead() {
		return 0, errReset
	}
	return len(b), nil
}

// Read waits for the server's end of file.
func (c *wire) Read([]byte) (int, error) {
	c.ended = make(chan struct{})
	c.world.desk.hand(news{kind: ofClosing, proxy: c.proxy.serial, server: c.server.index, name: c.role, id: c.id, tell: func() {
		c.world.do(goodbye, func() { c.world.wake(c.ended) })
	}})
	<-c.ended
	return 0, io.EOF
}

// Close implements net.Conn.
func (c *wire) Close() error {
	c.proxy.sockets[c.server.index].Add(-1)
	c.server.sockets.Add(-1)
	return nil
}

// SetDeadline implements net.Conn: a server closes in time, or the connection is dead.
func (c *wire) SetDeadline(time.Time) error { return nil }

// SyscallConn implements syscall.Conn, for the pool's look whether an idle connection is alive: the descriptor is that of a
// socket that is as the wire is.
func (c *wire) SyscallConn() (syscall.RawConn, error) {
	if c.dead() {
		return descriptor(c.world.sockets.closed), nil
	}
	return descriptor(c.world.sockets.silent), nil
}

type descriptor uintptr

func (d descriptor) Control(f func(uintptr)) error   { f(uintptr(d)); return nil }
func (d descriptor) Read(f func(uintptr) bool) error { f(uintptr(d)); return nil }
func (d descriptor) Write(func(uintptr) bool) error  { return errReset }

// samples are real sockets, one to which nothing was sent and one whose other side is closed.
type samples struct{ silent, closed, other int }

func newSamples() (samples, error) {
	quiet, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return samples{}, err
	}
	over, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return samples{}, err
	}
	return samples{silent: quiet[0], other: quiet[1], closed: over[0]}, errors.Join(
		syscall.SetNonblock(quiet[0], true), syscall.SetNonblock(over[0], true), syscall.Close(over[1]))
}

func (s samples) close() {
	for _, fd := range []int{s.silent, s.closed, s.other} {
		syscall.Close(fd) //nolint:errcheck // nothing was written
	}
}
