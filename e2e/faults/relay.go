//go:build linux

package main

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// relay passes connections on, to an address that may change, and does harm to them on request. It listens on the same
// address all the time.
type relay struct {
	address  string
	upstream atomic.Pointer[string]

	delay  atomic.Int64 // of each piece, in ns
	rate   atomic.Int64 // bytes a second and connection; 0: as fast as it goes
	cut    atomic.Int64 // bytes from upstream after which a connection is reset; 0: never
	silent atomic.Bool  // nothing is passed on, and nothing lost

	mu       sync.Mutex // guards what follows
	listener net.Listener
	conns    map[*passage]struct{}
	work     sync.WaitGroup
}

// passage is one connection with its continuation.
type passage struct{ down, up *net.TCPConn }

func newRelay(upstream string) (*relay, error) { return newRelayAt("127.0.0.1:0", upstream) }

func newRelayAt(address, upstream string) (*relay, error) {
	r := &relay{address: address, conns: make(map[*passage]struct{})}
	r.upstream.Store(&upstream)
	return r, r.open()
}

// open listens, again after refuse.
func (r *relay) open() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil {
		return nil
	}
	listener, err := net.Listen("tcp", r.address)
	if err != nil {
		return err
	}
	r.listener, r.address = listener, listener.Addr().String()
	r.work.Go(func() { r.accept(listener) })
	return nil
}

func (r *relay) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		r.work.Go(func() { r.serve(conn.(*net.TCPConn)) })
	}
}

func (r *relay) serve(down *net.TCPConn) {
	conn, err := net.DialTimeout("tcp", *r.upstream.Load(), 5*time.Second)
	if err != nil {
		abort(down)
		return
	}
	p := &passage{down, conn.(*net.TCPConn)}
	r.mu.Lock()
	r.conns[p] = struct{}{}
	r.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { r.pump(p.up, p.down, nil) })
	both.Go(func() { r.pump(p.down, p.up, &r.cut) })
	both.Wait()
	r.mu.Lock()
	delete(r.conns, p)
	r.mu.Unlock()
}

// pump copies one direction to its end, which it passes on.
func (r *relay) pump(to, from *net.TCPConn, cut *atomic.Int64) {
	defer to.CloseWrite()
	buffer := make([]byte, 16<<10)
	for total := int64(0); ; {
		for r.silent.Load() { // what comes stays in the kernel
			if !pauseOpen(from) {
				return
			}
		}
		n, err := from.Read(buffer)
		if d := time.Duration(r.delay.Load()); d > 0 && n > 0 {
			time.Sleep(d)
		}
		for r.silent.Load() && n > 0 && pauseOpen(to) { // it was on its way
		}
		if rate := r.rate.Load(); rate > 0 && n > 0 {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(rate))
		}
		total += int64(n)
		if cut != nil {
			if limit := cut.Load(); limit > 0 && total > limit {
				to.Write(buffer[:max(0, n-int(total-limit))]) //nolint:errcheck // it is reset next
				abort(to)
				abort(from)
				return
			}
		}
		if _, writeErr := to.Write(buffer[:n]); writeErr != nil || err != nil {
			if err != nil && err != io.EOF || writeErr != nil {
				abort(to)
				abort(from)
			}
			return
		}
	}
}

// pauseOpen waits a moment, and reports whether the connection has not been closed by us.
func pauseOpen(conn *net.TCPConn) bool {
	time.Sleep(2 * time.Millisecond)
	return conn.SetReadDeadline(time.Time{}) == nil
}

// abort closes a connection with an RST.
func abort(conn *net.TCPConn) {
	conn.SetLinger(0) //nolint:errcheck
	conn.Close()
}

// reset ends all connections with an RST.
func (r *relay) reset() { r.each(func(p *passage) { abort(p.down); abort(p.up) }) }

// finish ends all connections with a FIN, as a server does that shuts down.
func (r *relay) finish() { r.each(func(p *passage) { p.down.Close(); p.up.Close() }) }

func (r *relay) each(do func(*passage)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.conns {
		do(p)
	}
}

// refuse has new connections refused.
func (r *relay) refuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil {
		r.listener.Close()
		r.listener = nil
	}
}

// heal undoes all harm but what is lost.
func (r *relay) heal() error {
	r.delay.Store(0)
	r.rate.Store(0)
	r.cut.Store(0)
	r.silent.Store(false)
	return r.open()
}

func (r *relay) close() {
	r.refuse()
	r.silent.Store(false)
	r.reset()
	r.work.Wait()
}
