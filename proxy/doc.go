// Package proxy is the wire side of docex-proxy: it accepts client connections, reads their startup, authenticates
// them, and carries their sessions on pooled server connections. One client connection's story is session.serve; what
// a session may do next is decided by package relay, which knows no socket, and link drives it with goroutines.
//
// The room owns every client connection from accept to close. It owns a server connection only between Acquire and
// Release or Destroy. It knows no SQL of its own and never asks the registry: the router does.
//
// The invariant: every phase has a deadline and a size limit from its first byte on, and every refusal goes through
// errors.go, the only place that turns errors into SQLSTATEs.
//
// Protocol: Postgres documentation, chapter 55.
package proxy
