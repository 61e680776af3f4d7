// Package traces sends spans of what clients wait for to an OpenTelemetry collector, by OTLP over HTTP.
//
// It owns which spans there are, what may be said in them, which logins and transactions are traced at all, and that nobody
// ever waits for the collector: finished spans wait in a queue of bounded length, and what does not fit is left out. It
// does not know sessions or the protocol.
//
// The one invariant: a span carries names, numbers and codes that the operator has chosen or the proxy has made. There is
// no method by which a statement, a parameter's value or a password could get into one.
//
// Everything may be called on nil, which is how tracing is off, and how what is not sampled costs nothing.
package traces
