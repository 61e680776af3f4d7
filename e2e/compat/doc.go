// Command compat shows that drivers cannot tell the proxy from Postgres: it runs their own test suites directly and
// through the proxy, in transaction pooling, and writes down which tests pass directly only, and why:
//
//	go run ./e2e/compat [-suite pgx,lib/pq,…] [-sources DIR] [-bin DIR]
//
// Each run has a private Postgres with one tenant at level role. Both ways to it have the same role, password, database
// and rights; only the port differs (site.go). The suites come from their drivers' published packages: Go modules, npm,
// and Debian's packages. Where a package comes without its tests, -sources names a directory that has them, by driver.
// A test that passes directly and not through the proxy has a reason (reasons.go) or is a fault, and a fault makes the
// exit status 1.
//
// The tests of this package are the other half: scripts of single messages (testdata/scripts), whose transcripts have to
// be the same directly and through a proxy with two server connections, which other sessions keep taking away.
//
// It knows nothing of the product's packages but how to start a Postgres (internal/localpg).
package main
