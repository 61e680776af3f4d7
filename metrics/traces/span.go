package traces

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// The spans. A login and a transaction begin a trace each, which attribute docex.session_id ties together.
const (
	session      = "session" // a login, from the connection to the first ReadyForQuery or the refusal
	transaction  = "transaction"
	Route        = "route"        // within session: whose tenant it is, from the registry or its cache
	Authenticate = "authenticate" // within session
	Queue        = "queue"        // within transaction: until there is a server connection
)

// Span is a piece of time that is traced; nil is one that is not. A Span is not safe for concurrent use.
type Span struct {
	span   trace.Span
	ctx    context.Context // to begin spans within this one
	tracer trace.Tracer
}

func begin(ctx context.Context, tracer trace.Tracer, name string, options ...trace.SpanStartOption) *Span {
	ctx, span := tracer.Start(ctx, name, options...)
	return &Span{span: span, ctx: ctx, tracer: tracer}
}

// Within begins one of the spans that lie within another.
func (s *Span) Within(name string) *Span {
	if s == nil {
		return nil
	}
	return begin(s.ctx, s.tracer, name)
}

// Of says whose the span is: the tenant, and its isolation level.
func (s *Span) Of(tenant, isolation string) {
	if s != nil {
		s.span.SetAttributes(attribute.String("docex.tenant_id", tenant), attribute.String("docex.isolation", isolation))
	}
}

// On says which Postgres server serves it, by its name in the configuration, and by what process there.
func (s *Span) On(server string, process uint32) {
	if s != nil {
		s.span.SetAttributes(attribute.String("docex.server", server), attribute.Int64("docex.server_process_id", int64(process)))
	}
}

// Pinned says what ties the session to its server connection as it ends.
func (s *Span) Pinned(reasons []string) {
	if s != nil && len(reasons) > 0 {
		s.span.SetAttributes(attribute.StringSlice("docex.pins", reasons))
	}
}

// Transactions says how many there were between the span's ends: a client may send one before it has read the answers to
// another.
func (s *Span) Transactions(n int) {
	if s != nil {
		s.span.SetAttributes(attribute.Int("docex.transactions", n))
	}
}

// Refused says with which SQLSTATE the proxy has refused or ended it; "" is a client that has gone.
func (s *Span) Refused(sqlstate string) {
	switch {
	case s == nil:
	case sqlstate == "":
		s.span.SetStatus(codes.Error, "the client has gone")
	default:
		s.span.SetAttributes(attribute.String("db.response.status_code", sqlstate))
		s.span.SetStatus(codes.Error, sqlstate)
	}
}

// End is the end of the span's time.
func (s *Span) End() {
	if s != nil {
		s.span.End()
	}
}

// Session begins the trace of a login that has begun at the given time. It is nil for most.
func (t *Tracer) Session(id uint64, began time.Time) *Span {
	if !t.Sampled() {
		return nil
	}
	return t.root(session, id, trace.WithTimestamp(began))
}

// Transaction begins the trace of a session's transaction. Whether there is one is asked before, by Sampled.
func (t *Tracer) Transaction(id uint64) *Span { return t.root(transaction, id) }

func (t *Tracer) root(name string, id uint64, options ...trace.SpanStartOption) *Span {
	return begin(context.Background(), t.tracer, name, append(options,
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("db.system.name", "postgresql"), attribute.Int64("docex.session_id", int64(id))))...)
}
