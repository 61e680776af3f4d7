package proxy

import (
	"errors"

	"github.com/docex-proxy/docex-proxy/metrics/traces"
	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy/relay"
	"github.com/docex-proxy/docex-proxy/router"
)

// course follows the transactions of a session, one after the other, for those that are traced. It belongs to whoever has
// the session's machine, and goes on with it to another driver.
type course struct {
	under  bool    // way: there is a transaction, and whether it is traced has been decided
	due    bool    // it has begun with a message that waits for a server connection
	traced *traced // nil: it is not
}

// traced is a transaction that is.
type traced struct {
	span, queue *traces.Span
	before      uint64 // relay.Session.Transactions when it began
}

// begin is for the first message of a transaction. What comes after it changes nothing.
func (c *course) begin(trace func() *traces.Span, machine *relay.Session) {
	if c.under {
		return
	}
	c.under = true
	if span := trace(); span != nil {
		c.traced = &traced{span: span, before: machine.Transactions()}
	}
}

// wait is for a message that a server connection has to be got for.
func (c *course) wait(trace func() *traces.Span, machine *relay.Session) {
	c.due = true
	c.begin(trace, machine)
	if t := c.traced; t != nil && t.queue == nil {
		t.queue = t.span.Within(traces.Queue)
	}
}

// attached is the end of that wait, with a connection.
func (c *course) attached(conn *pool.Conn) {
	if t := c.traced; t != nil {
		t.span.On(conn.Target().Server, conn.PID())
		t.endQueue()
	}
}

// refused is its end without one.
func (c *course) refused(v verdict) {
	if t := c.traced; t != nil {
		t.queue.Refused(v.code)
		t.span.Refused(v.code)
		t.endQueue()
	}
}

// look begins and ends by what the session is doing after a step.
func (c *course) look(trace func() *traces.Span, machine *relay.Session) {
	serving := machine.Serving() || c.due
	switch {
	case serving == c.under:
	case serving:
		c.begin(trace, machine)
	default:
		c.end(machine)
	}
}

func (c *course) end(machine *relay.Session) {
	if t := c.traced; t != nil {
		t.span.Pinned(machine.Pins().Names())
		t.span.Transactions(int(machine.Transactions() - t.before))
		t.endQueue()
		t.span.End()
	}
	*c = course{}
}

// conclude ends with the session, for the session's reason.
func (c *course) conclude(reason error, machine *relay.Session) {
	if t := c.traced; t != nil {
		refuse(t.span, reason)
	}
	c.end(machine)
}

func (t *traced) endQueue() {
	t.queue.End()
	t.queue = nil
}

// trace begins the trace of a transaction. It is nil for one that is not sampled.
func (s *session) trace() *traces.Span {
	if !s.o.Traces.Sampled() {
		return nil
	}
	span := s.o.Traces.Transaction(s.id)
	span.Of(tenantOf(s.route.Load()))
	return span
}

// tenantOf is whose a route is, and how it is kept apart; empty for a tenant that there is not.
func tenantOf(route *router.Route) (id, isolation string) {
	if route.Tenant == nil || route.Tenant.Route == nil {
		return "", ""
	}
	return string(route.Tenant.ID), string(route.Tenant.Route.Isolation)
}

// endSpan ends a span of the login, for the reason why it has come to nothing, nil when it has not.
func endSpan(span *traces.Span, err error) {
	if err != nil && span != nil {
		refuse(span, err)
	}
	span.End()
}

// refuse says in a span what judge has to say.
func refuse(span *traces.Span, reason error) {
	var gone *clientGoneError
	if reason == nil || errors.As(reason, &gone) {
		span.Refused("")
		return
	}
	span.Refused(judge(reason, "", false).code)
}
