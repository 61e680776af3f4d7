package proxy

import (
	"context"
	"sync"
)

// lifetime is a session's context: it ends with the session, and its cause is the reason.
type lifetime struct {
	mu     sync.Mutex // guards what follows
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (l *lifetime) begin(parent context.Context) {
	l.ctx, l.cancel = context.WithCancelCause(parent)
}

func (l *lifetime) context() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ctx
}

func (l *lifetime) end(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel(cause)
}

// renew puts a context of which nobody has asked to be told in the place of one that has been used for a login: it takes
// a third of the memory. An end that has come stays.
func (l *lifetime) renew(parent context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, cancel := l.ctx, l.cancel
	l.begin(parent)
	if before.Err() != nil {
		l.cancel(context.Cause(before))
	}
	cancel(nil)
}

// end ends the session, for a reason. Any goroutine may call it; the first reason counts.
func (s *session) end(reason error) {
	s.life.end(reason)
	if st, ok := s.driver().(*strand); ok {
		st.interrupt()
	}
}
