// Package reactor waits for many sockets on one thread and tells their owners which of them can be read or written. It
// knows neither the protocol nor the session: those are package proxy's, which hands it descriptors and deadlines.
//
// A Loop is one thread with an engine. On epoll sockets are watched level-triggered and are entered once: as long as
// what their owner wants does not change, a message costs no call but its own read and write. On io_uring one call does
// the reads and writes of all sockets, and waits. Handlers, Tasks and the
// ends of Clocks run on that thread, one after the other, and must not block: no lock that is held for long, no dial, no
// log. Everything else may be called on that thread only, except Post, Socket.Leave and Stop.
//
// The invariant: once Rest and Leave have returned, the kernel does nothing with the descriptor any more, so that it may
// be closed or go elsewhere; an event that was on its way by then finds nobody, or an owner to whom it is harmless.
//
// It runs on Linux (amd64, arm64). Elsewhere New fails, and sessions stay on goroutines.
package reactor
