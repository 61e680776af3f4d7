// Package relay is the protocol state machine of one session after its login: bytes in, decisions out. It knows
// no socket, no clock and no goroutine, so it can be driven by goroutines or by a reactor, and tested as a value.
//
// A Session stands between one client connection and, while it is attached, one server connection. A driver feeds
// it what either side sent (FromClient, FromServer), writes what comes out (Output) in order, and does what the
// returned Verdict says:
//
//	detached ── client message that needs a server ──► Attach verdict ── driver acquires, Attach ──► attached
//	attached ── nothing outstanding, status I, no pin ──► Release verdict ── driver calls Detach ──► detached
//
// Within attached, queue holds one expectation for each message the server still owes an answer to, in order. The
// head decides what a server message means: forwarded, swallowed (ours), or answered by us without the server.
//
// Invariants:
//   - A client message reaches the server whole, or the session never gives the connection back (MidFrame).
//   - The connection is released only when the queue is empty, no extended-protocol message waits for its Sync,
//     the transaction status is I, and no question of ours is open.
//   - Names of prepared statements on the server are ours. A client's name never reaches it.
//   - What a session left on the connection (settings, statements) is known to its Server value, or the session
//     is pinned to the connection.
//
// Protocol: Postgres documentation, sections 55.2 (message flow) and 55.7 (message formats).
package relay
