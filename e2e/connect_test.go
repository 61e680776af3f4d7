package e2e_test

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// patience bounds whatever a test waits for that has no bound of its own.
const patience = 30 * time.Second

func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// dsn is the URL with which an account reaches its tenant, named by the suffix of the user.
func (p *proxy) dsn(a account) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(a.login+"."+a.tenant, a.password),
		Host: p.address(), Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// change is one deviation of a connection from what its account and pgx make of it.
type change func(*pgx.ConnConfig)

func with(parameter, value string) change {
	return func(c *pgx.ConnConfig) { c.RuntimeParams[parameter] = value }
}

func as(user string) change {
	return func(c *pgx.ConnConfig) { c.User = user }
}

func configure(t testing.TB, dsn string, changes ...change) *pgx.ConnConfig {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		change(config)
	}
	return config
}

// connect opens a session of a tenant, which ends with the test.
func (p *proxy) connect(t testing.TB, a account, changes ...change) *pgx.Conn {
	t.Helper()
	return dial(t, configure(t, p.dsn(a), changes...))
}

// direct opens a superuser's connection to Postgres, past the proxy.
func (s *site) direct(t testing.TB, changes ...change) *pgx.Conn {
	t.Helper()
	return dial(t, configure(t, s.dsn, changes...))
}

func dial(t testing.TB, config *pgx.ConnConfig) *pgx.Conn {
	t.Helper()
	conn, err := pgx.ConnectConfig(bounded(t), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hangUp(conn) })
	return conn
}

// hangUp says goodbye. It has a context of its own: the test's has ended when cleanups run.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn.Close(ctx) //nolint:errcheck // many tests end the connection another way
}

// refused tries to connect, which has to fail, and returns Postgres's error.
func (p *proxy) refused(t testing.TB, a account, changes ...change) *pgconn.PgError {
	t.Helper()
	conn, err := pgx.ConnectConfig(bounded(t), configure(t, p.dsn(a), changes...))
	if err == nil {
		hangUp(conn)
		t.Fatal("the client was let in")
	}
	var refusal *pgconn.PgError
	if !errors.As(err, &refusal) {
		t.Fatalf("no error of Postgres: %v", err)
	}
	return refusal
}

// sqlstate is the code of an error that a server sent, "" of any other.
func sqlstate(err error) string {
	if refusal, ok := errors.AsType[*pgconn.PgError](err); ok {
		return refusal.Code
	}
	return ""
}

// execute runs statements that have to succeed, one after the other, by the simple protocol.
func execute(t testing.TB, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.PgConn().Exec(bounded(t), sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// failure executes text by the simple protocol and returns the SQLSTATE it failed with, "" when it did not fail.
func failure(t testing.TB, conn *pgx.Conn, sql string) string {
	t.Helper()
	_, err := conn.PgConn().Exec(bounded(t), sql).ReadAll()
	if err != nil && sqlstate(err) == "" {
		t.Fatalf("%s: %v", sql, err)
	}
	return sqlstate(err)
}

// query returns the last row's first value, as text, of what the simple protocol answers.
func query(t testing.TB, conn *pgx.Conn, sql string) string {
	t.Helper()
	results, err := conn.PgConn().Exec(bounded(t), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	for i := len(results) - 1; i >= 0; i-- {
		if rows := results[i].Rows; len(rows) > 0 {
			return string(rows[len(rows)-1][0])
		}
	}
	t.Fatalf("%s: no row", sql)
	return ""
}

func expect(t testing.TB, conn *pgx.Conn, sql, want string) {
	t.Helper()
	if got := query(t, conn, sql); got != want {
		t.Errorf("%s: %q, want %q", sql, got, want)
	}
}

// backend is the process id of the server connection that serves the session now.
func backend(t testing.TB, conn *pgx.Conn) string {
	t.Helper()
	return query(t, conn, "SELECT pg_backend_pid()")
}

// occupy puts a session into a transaction, so that it holds the server connection it got, and returns that one's
// process id.
func occupy(t testing.TB, conn *pgx.Conn) string {
	t.Helper()
	return query(t, conn, "BEGIN; SELECT pg_backend_pid()")
}
