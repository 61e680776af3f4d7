package proxy

import "github.com/docex-proxy/docex-proxy/proxy/reactor"

// unsent is what a socket has not taken yet. The zero value is nothing.
type unsent struct {
	buf  []byte
	sent int
}

func (u *unsent) len() int { return len(u.buf) - u.sent }

// send writes behind what is still unsent. What the socket does not take now is kept. It returns how much was taken.
func (u *unsent) send(h *host, to *reactor.Socket, b []byte) (int, error) {
	n := 0
	if u.len() == 0 {
		var err error
		if n, err = to.Send(b); err != nil && err != reactor.ErrAgain {
			return n, err
		}
	}
	if n < len(b) {
		if u.buf == nil {
			u.buf = h.take()
		}
		u.buf = append(u.buf, b[n:]...)
	}
	return n, nil
}

// before puts what a socket had taken, and has not sent, in front.
func (u *unsent) before(b []byte) {
	if len(b) > 0 {
		*u = unsent{buf: append(b, u.buf[u.sent:]...)}
	}
}

// resume writes on. It returns how much was taken.
func (u *unsent) resume(h *host, to *reactor.Socket) (int, error) {
	if u.len() == 0 {
		return 0, nil
	}
	n, err := to.Send(u.buf[u.sent:])
	if err != nil && err != reactor.ErrAgain {
		return n, err
	}
	if u.sent += n; u.sent == len(u.buf) {
		h.giveBack(u.buf)
		*u = unsent{}
	}
	return n, nil
}
