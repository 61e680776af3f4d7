package proxy

import (
	"context"
	"sync"
)

// lifetime is a session's context: it ends with the session, and its cause is the reason.
type lifetime struct {
	mu     sync.Mutex // guards what follows
	ctx    context.Context
	cancel context.CancelCauseFunc // nil while ctx is the parent's
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
	if l.cancel == nil {
		l.begin(l.ctx)
	}
	l.cancel(cause)
}

// rest is for a session that is carried by somebody who does not watch its context: what idle sessions keep counts, and
// a context is a tenth of it. An end that has come stays.
func (l *lifetime) rest(parent context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() == nil {
		l.cancel(nil)
		l.ctx, l.cancel = parent, nil
	}
}

// resume ends what rest began. It returns the context to be watched.
func (l *lifetime) resume() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel == nil {
		l.begin(l.ctx)
	}
	return l.ctx
}

// end ends the session, for a reason. Any goroutine may call it; the first reason counts.
func (s *session) end(reason error) {
	s.life.end(reason)
	if st, ok := s.driver().(*strand); ok {
		st.interrupt()
	}
}
