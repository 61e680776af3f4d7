package main

import "regexp"

// reason is why tests that pass directly cannot pass through the proxy. They are what docs/compatibility.md names; a
// test that has none is a fault of the proxy's.
type reason struct {
	suite string
	tests *regexp.Regexp // of names in the report
	why   string
}

// Reasons that several suites meet.
const (
	processID = "uses the process id of BackendKeyData, or of a statement before, as that of a server process that is the session's own"
	protocol  = "expects protocol 3.0 of a server before Postgres 18; the proxy speaks 3.2 whatever the server does"
	catalog   = "reads pg_prepared_statements within a pipeline or a transaction, where statements have the proxy's names and are shared"
)

func reasons() []reason {
	tests := regexp.MustCompile
	return []reason{
		{"pgx", tests(`/v5\.(TestFatalRxError|TestFatalTxError)$`), processID},
		{"pgx", tests(`/(pgconn\.TestConnCheckConn|pgxpool\.TestPoolAcquireChecksIdleConns|stdlib\.TestCheckIdleConn)$`), processID},
		{"pgx", tests(`/pgconn\.TestConnectProtocolVersion32$`), protocol},
		{"lib/pq", tests(`pq\.TestPing$`), processID},
		{"psycopg2", tests(`TestConnectionInfo\.test_backend_pid$|CursorTests\.test_external_close_(a?sync)$`), processID},
		{"psycopg", tests(`test_connection(_async)?\.test_broken$|test_context_inerror_rollback_no_clobber`), processID},
		{"psycopg", tests(`test_connection(_async)?\.test_notify_handlers$|test_pgconn\.test_notify$`), processID},
		{"psycopg", tests(`test_pipeline(_async)?\.test_auto_prepare$|test_prepared(_async)?\.test_dont_prepare`), catalog},
		{"node-postgres", tests(`connection-pool/error-tests\.js$|gh-issues/130-tests\.js$`), processID},
		{"postgres.js", tests(`^listen (reconnects|result reports correct connection state after reconnection)$`), processID},
		{"pgJDBC", tests(`\.CopyTest\.testLockReleaseOnCancelFailure$|\.IsValidTest\.testIsValidRemoteClose$`), processID},
	}
}

// why is the reason for a test of a suite, or "" where there is none.
func why(suite, test string) string {
	for _, r := range reasons() {
		if r.suite == suite && r.tests.MatchString(test) {
			return r.why
		}
	}
	return ""
}
