// Package peers is what the proxies that serve the same registry know of each other: how many there are, which number each
// has, what part of a limit is a proxy's when they share it, and where to send a cancel request that came to the wrong one.
//
// It owns the beat in the registry and the connections to peers, each of which carries one request. It does not know what
// a session is. The invariant: a request is passed on once at most.
package peers
