//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/e2e/program"
)

// fault is one kind of harm.
type fault struct {
	name    string
	what    string        // is done
	lasting time.Duration // between strike and heal
	// prepare is done before anybody looks; nil is nothing to do.
	prepare func(ctx context.Context, s *site) error
	// strike does the harm, heal ends it; nil is nothing to do. What a strike starts in the background it ends in heal.
	strike, heal func(ctx context.Context, s *site) error
	unseen       bool          // no client may see an error
	within       time.Duration // all are served again, after heal; 0 is usual
	soak         bool          // fit for a soak, too
}

// usual is how soon all have to be served again.
const usual = 2 * time.Second

// errNotHere is a fault that needs more rights than the program has.
var errNotHere = errors.New("not to be had with these rights")

func at(r func(*site) *relay, do func(*relay)) func(context.Context, *site) error {
	return func(_ context.Context, s *site) error {
		do(r(s))
		return nil
	}
}

func toServer(s *site) *relay   { return s.server }
func toRegistry(s *site) *relay { return s.registry }
func toProxy(s *site) *relay    { return s.clients }

func gone(r *relay)   { r.refuse(); r.reset() }
func silent(r *relay) { r.silent.Store(true) }

// healed ends what a relay does.
func healed(r func(*site) *relay) func(context.Context, *site) error {
	return func(_ context.Context, s *site) error { return r(s).heal() }
}

func lag(d time.Duration) func(*relay) { return func(r *relay) { r.delay.Store(int64(d)) } }
func slow(bytes int64) func(*relay)    { return func(r *relay) { r.rate.Store(bytes) } }
func cutting(bytes int64) func(*relay) { return func(r *relay) { r.cut.Store(bytes) } }
func superuser(sql string) func(context.Context, *site) error {
	return func(ctx context.Context, s *site) error { return s.sql(ctx, database, sql) }
}

const backendsOfTenants = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = '" + database + "' AND usename <> 'postgres'"

// faults are all, in the order in which they are done.
func faults() []fault {
	var f furniture
	return []fault{
		{name: "server: connections reset", what: "RST on all server connections", strike: at(toServer, (*relay).reset), soak: true},
		{name: "server: connections closed", what: "FIN on all server connections", strike: at(toServer, (*relay).finish), soak: true},
		{name: "server: refuses", what: "connections reset, new ones refused for 3 s", lasting: 3 * time.Second, strike: at(toServer, gone), heal: healed(toServer), soak: true},
		{name: "server: silent, then there", what: "nothing is passed on for 3 s, and then all of it", lasting: 3 * time.Second, strike: at(toServer, silent), heal: healed(toServer), unseen: true, soak: true},
		{name: "server: half open", what: "silent for 5 s, then RST", lasting: 5 * time.Second, strike: at(toServer, silent), heal: func(_ context.Context, s *site) error {
			s.server.reset()
			return s.server.heal()
		}, soak: true},
		{name: "server: far away", what: "50 ms each way for 3 s", lasting: 3 * time.Second, strike: at(toServer, lag(50*time.Millisecond)), heal: healed(toServer), unseen: true, soak: true},
		{name: "server: thin line", what: "20 kB/s for each connection for 3 s", lasting: 3 * time.Second, strike: at(toServer, slow(20_000)), heal: healed(toServer), unseen: true, soak: true},
		{name: "server: its name leads elsewhere", what: "the address that its name had is gone, and the name has another (Go looks into /etc/hosts every 5 s)", strike: moveName, within: 8 * time.Second, soak: true},
		{name: "server: cut in mid-message", what: "each connection reset after 3,333 bytes of answers, for 3 s", lasting: 3 * time.Second, strike: at(toServer, cutting(3333)), heal: healed(toServer), soak: true},
		{name: "server: sessions terminated", what: "pg_terminate_backend on all of the proxy's", strike: superuser("SELECT pg_terminate_backend(pid) " + backendsOfTenants), soak: true},
		{name: "server: queries canceled", what: "pg_cancel_backend on all of the proxy's, 50 times", strike: func(ctx context.Context, s *site) error {
			for range 50 {
				if err := s.sql(ctx, database, "SELECT pg_cancel_backend(pid) "+backendsOfTenants); err != nil {
					return err
				}
				pause(ctx, 10*time.Millisecond)
			}
			return nil
		}, soak: true},
		{name: "server: frozen", what: "SIGSTOP to all of Postgres for 3 s", lasting: 3 * time.Second, strike: signaled(syscall.SIGSTOP), heal: signaled(syscall.SIGCONT), unseen: true, soak: true},
		{name: "server: restarted", what: "a fast shutdown, down for 2 s, started", lasting: 2 * time.Second, strike: func(_ context.Context, s *site) error { return s.cluster.Stop() }, heal: restarted},
		{name: "server: crashed", what: "SIGKILL to one backend: Postgres restarts all", strike: killedBackend, heal: func(ctx context.Context, s *site) error { return s.settle(ctx) }},
		{name: "server: killed", what: "SIGQUIT to the postmaster, down for 2 s, started with crash recovery", lasting: 2 * time.Second, strike: killedPostmaster, heal: restarted},
		{name: "server: out of connections", what: "others take all that Postgres has, for 3 s", lasting: 3 * time.Second, strike: f.crowdIn, heal: f.crowdOut},
		{name: "server: disk full", what: "the tenants' tables and what they grow by lie on a full disk for 2 s", lasting: 2 * time.Second, strike: f.fillDisk, heal: f.freeDisk},
		{name: "server: a table locked", what: "ACCESS EXCLUSIVE on a tenant's ledger for 3 s", lasting: 3 * time.Second, strike: f.lock, heal: f.unlock, unseen: true},
		{name: "slots: the switcher killed", what: "the session that grants roles to slots is terminated, 5 times", strike: killedSwitcher, soak: true},
		{name: "registry: refuses", what: "down for 8 s, four times what it may be asked for again", lasting: 8 * time.Second, strike: at(toRegistry, gone), heal: healed(toRegistry), unseen: true, soak: true},
		{name: "registry: silent", what: "nothing is passed on for 8 s", lasting: 8 * time.Second, strike: at(toRegistry, silent), heal: healed(toRegistry), unseen: true, soak: true},
		{name: "registry: LISTEN lost", what: "its connections reset; a tenant is suspended right after", strike: lostListen, unseen: true},
		{name: "registry: far away", what: "300 ms each way for 3 s, all clients log in anew", lasting: 3 * time.Second, strike: func(_ context.Context, s *site) error {
			lag(300 * time.Millisecond)(s.registry)
			s.clients.reset()
			return nil
		}, heal: healed(toRegistry), soak: true},
		{name: "clients: reset", what: "RST on all client connections", strike: at(toProxy, (*relay).reset), soak: true},
		{name: "clients: vanished in a transaction", what: "clients that fall silent with a transaction open hold their connections no longer than timeouts.idle_transaction", lasting: 4 * time.Second, strike: f.vanish, heal: f.vanished},
		{name: "clients: do not read", what: "four clients ask for 200 MB each and read nothing, for 4 s", lasting: 4 * time.Second, strike: f.gape, heal: f.gaped},
		{name: "proxy: killed", what: "SIGKILL, started anew", strike: killedProxy},
		{name: "proxy: frozen", what: "SIGSTOP for 3 s, as a machine that is suspended", lasting: 3 * time.Second, strike: func(_ context.Context, s *site) error { return syscall.Kill(s.proxy.PID(), syscall.SIGSTOP) }, heal: func(_ context.Context, s *site) error { return syscall.Kill(s.proxy.PID(), syscall.SIGCONT) }, unseen: true, soak: true},
		{name: "proxy: its clock jumps", what: "a day ahead, after 2 s a day behind, after 2 s right again; logins at each", lasting: 2 * time.Second, strike: jumps(24 * time.Hour), heal: clockRestored, unseen: true, soak: true},
		{name: "proxy: out of descriptors", what: "its limit lowered to what it has open, for 3 s; all clients log in anew", lasting: 3 * time.Second, strike: f.starve, heal: f.feed},
		{name: "proxy: killed under a herd", what: "SIGKILL with 10,000 sessions; all log in at once to the new one", strike: herd, within: 30 * time.Second},
		{name: "server: lost, its standby promoted", what: "SIGQUIT to the postmaster of a primary with a synchronous standby, which is promoted 2 s later; the registry is there, too", lasting: 2 * time.Second, prepare: followed, strike: killedPostmaster, heal: promoted}, // the last one: there is one server less then
	}
}

func signaled(signal syscall.Signal) func(context.Context, *site) error {
	return func(_ context.Context, s *site) error { return s.signalServer(signal) }
}

func restarted(ctx context.Context, s *site) error { return s.startCluster(ctx) }

func killedBackend(ctx context.Context, s *site) error {
	pid, err := s.number(ctx, "SELECT min(pid) "+backendsOfTenants)
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

func killedPostmaster(_ context.Context, s *site) error {
	pids, err := s.serverPIDs()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pids[0], syscall.SIGQUIT); err != nil {
		return err
	}
	s.cluster.Stop() //nolint:errcheck // it ends as it was told, not by itself
	return nil
}

func killedSwitcher(ctx context.Context, s *site) error {
	for range 5 {
		if err := s.sql(ctx, database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE '%switch%'"); err != nil {
			return err
		}
		pause(ctx, 200*time.Millisecond)
	}
	return nil
}

func killedProxy(ctx context.Context, s *site) error {
	if err := s.proxy.Kill(); err != nil {
		return err
	}
	s.clients.reset()
	return s.startProxy(ctx)
}

// lostListen suspends a tenant of its own right after the connection on which the proxy would hear of it is gone.
func lostListen(ctx context.Context, s *site) error {
	if err := s.docexctl(ctx, nil, "tenant", "create", "unheard", "--isolation", "role"); err != nil {
		return err
	}
	conn, err := pgconn.Connect(ctx, s.dsn(s.proxy.Address, appLogin, "unheard"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	s.registry.reset()
	if err := s.docexctl(ctx, nil, "tenant", "suspend", "unheard"); err != nil {
		return err
	}
	for end := time.Now().Add(5 * time.Second); ; pause(ctx, 20*time.Millisecond) {
		if _, err := conn.Exec(ctx, "SELECT 1").ReadAll(); err != nil {
			break
		}
		if time.Now().After(end) {
			return errors.New("a suspended tenant was served for 5 s after LISTEN was lost")
		}
	}
	return s.docexctl(ctx, nil, "tenant", "delete", "unheard", "--confirm", "unheard", "--purge")
}

// furniture is what strikes leave for heal to end.
type furniture struct{ undo []func() }

func (f *furniture) later(undo func()) { f.undo = append(f.undo, undo) }

func (f *furniture) clear() {
	for _, undo := range f.undo {
		undo()
	}
	f.undo = nil
}

// crowdIn takes all connections that ordinary roles may have. The proxy's own are closed first.
func (f *furniture) crowdIn(ctx context.Context, s *site) error {
	if err := s.sql(ctx, database, "DROP ROLE IF EXISTS crowd; CREATE ROLE crowd LOGIN PASSWORD 'crowd'"); err != nil {
		return err
	}
	crowd := strings.Replace(s.cluster.DSN("postgres"), s.cluster.Superuser()+"@", "crowd:crowd@", 1)
	gone(s.server)        // until there is none left for the proxy
	defer s.server.heal() //nolint:errcheck // the port was ours a moment ago
	for taken := 0; ; taken++ {
		conn, err := pgconn.Connect(ctx, crowd)
		var refusal *pgconn.PgError
		switch {
		case errors.As(err, &refusal) && refusal.Code == "53300":
			if taken == 0 {
				return errors.New("no connection was left to take")
			}
			return nil
		case err != nil:
			return err
		}
		f.later(func() { conn.Close(context.Background()) })
	}
}

func (f *furniture) crowdOut(context.Context, *site) error {
	f.clear()
	return nil
}

// fillDisk moves the ledgers to a small file system, and fills it.
func (f *furniture) fillDisk(ctx context.Context, s *site) error {
	dir := s.path("disk")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m,mode=0777"); err != nil {
		return errNotHere
	}
	space := filepath.Join(dir, "space")
	if err := os.Mkdir(space, 0o777); err != nil {
		return err
	}
	owner, err := os.Stat(s.options.DataDir)
	if err != nil {
		return err
	}
	id := owner.Sys().(*syscall.Stat_t)
	if err := os.Chown(space, int(id.Uid), int(id.Gid)); err != nil {
		return err
	}
	if err := s.sql(ctx, database, fmt.Sprintf("CREATE TABLESPACE small LOCATION '%s'", space)); err != nil {
		return err
	}
	if err := s.eachLedger(ctx, "SET TABLESPACE small"); err != nil {
		return err
	}
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		return err
	}
	defer filler.Close()
	block := make([]byte, 64<<10)
	for { // until it is full
		if _, err := filler.Write(block); err != nil {
			return nil
		}
	}
}

func (f *furniture) freeDisk(ctx context.Context, s *site) error {
	dir := s.path("disk")
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		return err
	}
	if err := s.eachLedger(ctx, "SET TABLESPACE pg_default"); err != nil {
		return err
	}
	if err := s.sql(ctx, database, "DROP TABLESPACE small"); err != nil {
		return err
	}
	return syscall.Unmount(dir, syscall.MNT_DETACH)
}

func (s *site) eachLedger(ctx context.Context, change string) error {
	conn, err := pgx.Connect(ctx, s.cluster.DSN(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	schemas, err := ledgerSchemas(ctx, conn)
	if err != nil {
		return err
	}
	for _, schema := range schemas {
		for _, what := range []string{"TABLE " + schema + ".ledger", "INDEX " + schema + ".ledger_pkey"} {
			if _, err := conn.Exec(ctx, "ALTER "+what+" "+change); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *furniture) lock(ctx context.Context, s *site) error {
	conn, err := pgx.Connect(ctx, s.cluster.DSN(database))
	if err != nil {
		return err
	}
	f.later(func() { conn.Close(context.Background()) })
	_, err = conn.PgConn().Exec(ctx, "BEGIN; LOCK TABLE tenant_"+tenantsOf(options{})[0].name+".ledger IN ACCESS EXCLUSIVE MODE").ReadAll()
	return err
}

func (f *furniture) unlock(context.Context, *site) error {
	f.clear()
	return nil
}

// vanish has clients open transactions, on more connections than there are server connections, and says nothing more.
func (f *furniture) vanish(ctx context.Context, s *site) error {
	for range connections / 2 {
		conn, err := pgconn.Connect(ctx, s.dsn(s.proxy.Address, appLogin, tenantsOf(options{})[0].name))
		if err != nil {
			return err
		}
		f.later(func() { shut(conn) })
		if _, err := conn.Exec(ctx, "BEGIN").ReadAll(); err != nil {
			return err
		}
	}
	return nil
}

func (f *furniture) vanished(ctx context.Context, s *site) error {
	defer f.clear()
	held, err := s.number(ctx, "SELECT count(*) "+backendsOfTenants+" AND state = 'idle in transaction' AND state_change < now() - interval '3.5 s'")
	if err == nil && held > 0 {
		err = fmt.Errorf("%d server connections are still held by clients that have vanished", held)
	}
	return err
}

// gape has clients ask for much and read nothing.
func (f *furniture) gape(ctx context.Context, s *site) error {
	before, err := program.ResidentKB(s.proxy.PID())
	if err != nil {
		return err
	}
	for i := range 4 {
		conn, err := pgconn.Connect(ctx, s.dsn(s.proxy.Address, appLogin, tenantsOf(options{})[i%4].name))
		if err != nil {
			return err
		}
		f.later(func() { conn.Conn().Close() })
		if _, err := conn.Conn().Write(query("SELECT repeat('x', 1000000) FROM generate_series(1, 200)")); err != nil {
			return err
		}
	}
	pause(ctx, time.Second)
	after, err := program.ResidentKB(s.proxy.PID())
	if err == nil && after > before+20_000 {
		err = fmt.Errorf("the proxy has grown by %d kB for clients that do not read", after-before)
	}
	return err
}

// query is the message of a simple query.
func query(sql string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(sql)+1)), sql+"\x00"...)
}

func (f *furniture) gaped(context.Context, *site) error {
	f.clear()
	return nil
}

// starve lowers the proxy's bound of descriptors to what it has open.
func (f *furniture) starve(ctx context.Context, s *site) error {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.proxy.PID()))
	if err != nil {
		return err
	}
	if err := s.limitDescriptors(len(open)); err != nil {
		return err
	}
	s.clients.reset()
	return nil
}

func (f *furniture) feed(_ context.Context, s *site) error { return s.limitDescriptors(15_000) }

func (s *site) limitDescriptors(n int) error {
	output, err := exec.Command("prlimit", "--pid", fmt.Sprint(s.proxy.PID()), fmt.Sprintf("--nofile=%d:", n)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("prlimit: %w: %s", err, output)
	}
	return nil
}

// herd opens ten thousand sessions, kills the proxy, and has all of them log in to the next one at once.
func herd(ctx context.Context, s *site) error {
	const size = 10_000
	gather := func() ([]*pgconn.PgConn, error) {
		sessions := make([]*pgconn.PgConn, size)
		errs := make([]error, size)
		var group sync.WaitGroup
		for i := range size {
			group.Go(func() {
				for end := time.Now().Add(time.Minute); ; pause(ctx, tryAgain) {
					sessions[i], errs[i] = pgconn.Connect(ctx, s.dsn(s.proxy.Address, herdLogin, tenantsOf(options{})[i%4].name))
					if errs[i] == nil || time.Now().After(end) || ctx.Err() != nil {
						return
					}
				}
			})
		}
		group.Wait()
		return sessions, errors.Join(errs...)
	}
	close := func(sessions []*pgconn.PgConn) {
		for _, session := range sessions {
			if session != nil {
				session.Conn().Close()
			}
		}
	}
	sessions, err := gather()
	defer func() { close(sessions) }()
	if err != nil {
		return err
	}
	if err := killedProxy(ctx, s); err != nil {
		return err
	}
	close(sessions)
	sessions, err = gather()
	return err
}
