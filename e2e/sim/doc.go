//go:build unix

// Command sim has many proxies serve very many tenants in simulated time, and says what the caches, the queues and the
// servers saw:
//
//	make sim
//	make sim SIM='-scenario storm -seed 7'
//	go run ./e2e/sim -proxies 10 -servers 20 -tenants 10000 -rate 2000 -connections 40
//
// The proxies' own code decides: package router and registry.Cache with their times and bounds, pool.Set with its budget,
// its queues, its fairness and its timers, peers.Fleet and the share of a limit. It runs unchanged, goroutines and all, in
// a bubble of testing/synctest. What is around it is a model: clients, the balancer, Postgres servers that are a number of
// processors each, the registry's database, and of package proxy the part that sessions play: when the router is asked
// again, what a login borrows a connection for. docs/scale.md has the list.
//
// One goroutine turns the calendar, in ticks of 100 µs. Those of the proxies' code run only while it waits, hand in what
// they want of the world, and are served in an order that does not depend on who was faster: the same seed gives the same
// report, byte for byte. Reports go to the standard output; what depends on the machine goes to the standard error.
//
// A run fails, with exit code 1, when a route or a server connection is another tenant's or another server's, when a cache
// answers what it has heard is out of date, when a proxy has more sockets to a server than its budget, or a tenant more
// connections than its limit, when somebody waits for longer than the queue allows, and when at the end a connection or a
// waiting session is left over.
package main
