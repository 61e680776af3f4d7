package proxy_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/docex-proxy/docex-proxy/internal/pgtest"
	"github.com/docex-proxy/docex-proxy/metrics"
	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy"
	"github.com/docex-proxy/docex-proxy/registry"
	"github.com/docex-proxy/docex-proxy/router"
)

const patience = 30 * time.Second

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// bed is a proxy before a database of its own, whose superuser is every session's role.
type bed struct {
	t       *testing.T
	address string
	admin   *pgx.Conn // without the proxy
	options proxy.Options
	servers map[string]pool.Server
	mu      sync.Mutex // guards target, held and tenant
	target  pool.Target
	held    bool // the tenant is moving
	tenant  registry.Tenant
	login   registry.Login
	server  *proxy.Server
	pools   *pool.Set
	stop    func() // and wait for the end
	ended   func() // waits for the end
	key     []byte // BackendKeyData of the last session that was dialed
}

// onBoth runs a test on goroutines, on two reactors with epoll and on two with io_uring, where there are any.
func onBoth(t *testing.T, connections int, adapt func(*proxy.Options), test func(*testing.T, *bed)) {
	t.Helper()
	drivers := map[string]int{"goroutines": 0}
	if proxy.HasReactors {
		drivers["two reactors"] = 2
		if err := proxy.ProbeRing(); err == nil {
			drivers["two rings"] = 2
		} else {
			t.Logf("not on a ring: %v", err)
		}
	}
	for name, reactors := range drivers {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, connections)
			b.options.Reactors, b.options.Ring = reactors, name == "two rings"
			if adapt != nil {
				adapt(&b.options)
			}
			b.serve()
			test(t, b)
		})
	}
}

func newBed(t *testing.T, connections int) *bed {
	t.Helper()
	dsn, err := url.Parse(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(dsn.Port(), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := pgx.Connect(t.Context(), dsn.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close(context.Background()) })
	b := &bed{t: t, admin: admin, servers: map[string]pool.Server{"main": {
		Hosts: []pool.Host{{Name: dsn.Hostname(), Port: uint16(port)}}, SSLMode: "disable", MaxConnections: connections,
	}}, target: pool.Target{Server: "main", Database: strings.TrimPrefix(dsn.Path, "/"), Role: dsn.User.Username(), Tenant: "acme"}}
	b.tenant = registry.Tenant{ID: "acme", Route: &registry.Route{Isolation: registry.IsolationDatabase}}
	b.login = registry.Login{Name: "app"}
	b.options = proxy.Options{
		Router: b, Metrics: metrics.New(prometheus.NewRegistry(), metrics.Options{MaxTenants: 10}), Logger: slog.New(slog.DiscardHandler),
		Policy: proxy.Policy{TrustLogins: []string{"app"}, MaxClients: 5000, MaxStartups: 5000}, StartupTimeout: patience, AuthenticationTimeout: patience, QueueWait: patience,
		ClientWrite: patience, FrameTimeout: patience, Drain: patience, Recheck: time.Hour,
		MaxStatementBytes: 1 << 20, MaxStatements: 100, ServerStatements: 20,
	}
	return b
}

// Route lets everybody in as the login app.
func (b *bed) Route(context.Context, router.Startup) (router.Route, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	tenant := b.tenant // the cache has another one after a change
	return router.Route{Tenant: &tenant, Login: &b.login, User: "app", Named: "acme", Target: b.target, Held: b.held}, nil
}

// serve runs the proxy until the end of the test, or stop.
func (b *bed) serve() {
	b.t.Helper()
	pools, err := pool.New(pool.Options{Servers: b.servers, Metrics: b.options.Metrics})
	if err != nil {
		b.t.Fatal(err)
	}
	b.options.Pool, b.pools = pools, pools
	b.server = proxy.New(b.options)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	b.address = listener.Addr().String()
	ctx, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.server.Serve(ctx, listener) }()
	var once sync.Once
	b.ended = func() {
		once.Do(func() {
			if err := <-done; err != nil {
				b.t.Error(err)
			}
			pools.Close()
		})
	}
	b.stop = func() {
		end()
		b.ended()
	}
	b.t.Cleanup(b.stop)
}

// connect opens a session through the proxy.
func (b *bed) connect() *pgconn.PgConn {
	b.t.Helper()
	conn, err := pgconn.Connect(b.t.Context(), "postgres://app@"+b.address+"/db?sslmode=disable")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// mustExec runs a statement in a session and returns the first value of the first row.
func (b *bed) mustExec(conn *pgconn.PgConn, sql string) string {
	b.t.Helper()
	value, err := exec(b.t.Context(), conn, sql)
	if err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func exec(ctx context.Context, conn *pgconn.PgConn, sql string) (string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 || len(results[0].Rows) == 0 {
		return "", err
	}
	return string(results[0].Rows[0][0]), nil
}

// fails runs a statement that has to fail, with a SQLSTATE.
func (b *bed) fails(conn *pgconn.PgConn, sql, code string) {
	b.t.Helper()
	_, err := exec(b.t.Context(), conn, sql)
	if got := codeOf(err); got != code {
		b.t.Errorf("%s: %v, want SQLSTATE %s", sql, err, code)
	}
}

// codeOf is the SQLSTATE of an error, "" when it has none.
func codeOf(err error) string {
	if refusal, ok := errors.AsType[*pgconn.PgError](err); ok {
		return refusal.Code
	}
	return ""
}

// count asks the database itself.
func (b *bed) count(sql string) (n int) {
	b.t.Helper()
	if err := b.admin.QueryRow(b.t.Context(), sql).Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// active counts the proxy's server connections that run something.
func (b *bed) active() int {
	return b.count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active'")
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// wire is a client that sends what it likes.
type wire struct {
	t *testing.T
	net.Conn
}

// dial opens a session and takes what the login says.
func (b *bed) dial() *wire {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	w := &wire{b.t, conn}
	w.send(append(binary.BigEndian.AppendUint32(nil, 8+9+1), "\x00\x03\x00\x00user\x00app\x00\x00"...))
	b.key = w.until('K')
	w.until('Z')
	return w
}

func (w *wire) send(b []byte) {
	w.t.Helper()
	w.SetWriteDeadline(time.Now().Add(patience))
	if _, err := w.Write(b); err != nil {
		w.t.Fatal(err)
	}
}

// next reads one message.
func (w *wire) next() (kind byte, body []byte, err error) {
	w.SetReadDeadline(time.Now().Add(patience))
	var head [5]byte
	if _, err := io.ReadFull(w, head[:]); err != nil {
		return 0, nil, err
	}
	body = make([]byte, binary.BigEndian.Uint32(head[1:])-4)
	_, err = io.ReadFull(w, body)
	return head[0], body, err
}

// until reads up to a message of the kind and returns its body.
func (w *wire) until(want byte) []byte {
	w.t.Helper()
	for {
		kind, body, err := w.next()
		switch {
		case err != nil:
			w.t.Fatalf("waiting for %q: %v", want, err)
		case kind == want:
			return body
		case kind == 'E' && want != 'E':
			w.t.Fatalf("waiting for %q: %q", want, body)
		}
	}
}

// ended reads up to the end and returns the SQLSTATE of the last error.
func (w *wire) ended() (code string) {
	w.t.Helper()
	for {
		kind, body, err := w.next()
		if err != nil {
			return code
		}
		if _, rest, ok := strings.Cut(string(body), "\x00C"); kind == 'E' && ok {
			code = rest[:5]
		}
	}
}

// message frames a body.
func message(kind byte, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body))), body...)
}

func query(sql string) []byte { return message('Q', sql+"\x00") }

func queryf(format string, args ...any) []byte { return query(fmt.Sprintf(format, args...)) }
