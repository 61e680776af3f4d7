// Package pool keeps the server connections: one puddle pool per Target, all of a server's pools under one budget.
//
// It owns dialling and authentication (through pgconn, whose connections it hijacks), the decision who gets a
// connection next, and every timer of an idle connection. It does not own what happens on a leased connection: it
// neither resets nor parses anything, and it cannot ask who a tenant is. No Go API is promised to other modules.
//
// A connection belongs to one Target for life, or, when it is Shared, to one Target at a time: it passes to another of
// the same Server, Database, Role and Generation without a touch of its socket. It takes one slot of its server's
// budget from before its socket is dialled until after its socket is closed, in one of these states:
//
//	connecting ──► active ──► idle ──► active …      leased by Acquire, ended by Release
//	     │            │         │
//	     └──failed    └─────────┴──► closing          Terminate sent, the server's end of file awaited
//
// When a connection is closed for the sake of another target, which cannot share it, its slot passes to that target at
// once, and the new connection is dialled after the old socket is closed.
//
// The one invariant: at any instant the slots taken (connecting + active + idle + closing) are at most MaxConnections,
// and so are the sockets. Two more follow from how every change ends in settle and dispatch:
//
//   - no permit is lost: a slot is given back exactly when its socket has closed or its dial has failed;
//   - no wake-up is lost: while a target waits for a connection that its limit allows, there is no free slot, no idle
//     connection that it shares, and another idle one only for about the time of a reconnect, in which its own tenant
//     is likely to come back (a timer is set).
//
// A server may be several hosts, of which one takes another's place: see hosts.go and server.arrived.
//
// Waiters of a target are served in order of arrival. Between targets: see fairness.go.
//
// Protocol: https://www.postgresql.org/docs/current/protocol-flow.html (start-up, termination, cancelling requests).
package pool
