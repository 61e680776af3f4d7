// Package e2e tests both programs from outside: it builds them, runs them against a private Postgres cluster and talks
// to them as clients, operators and attackers do. It knows nothing of the other packages but internal/pgtest.
//
// The tests share one cluster, one database and one proxy (site), and make tenants of their own by docexctl. A test
// that needs another configuration, or a proxy that it may stop, starts its own.
//
// The invariant: every proxy that a test has started ends with exit code 0 and without a data race in its log, or the
// test fails.
package e2e
