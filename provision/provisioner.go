package provision

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/registry"
)

const (
	connectTimeout  = 10 * time.Second
	rollbackTimeout = 5 * time.Second
	// clearPatience bounds what is done after a failure: dropping a database makes Postgres write a checkpoint.
	clearPatience = time.Minute
	// lockTimeout bounds the wait for a lock. A tenant can hold its own role's row in an open transaction, and
	// whoever waits for a lock makes others wait behind it.
	lockTimeout = "5s"
)

// The keys of the advisory locks; see doc.go. They mean something to this package only.
const (
	gateLock        int64 = 0x646f63657801
	accessListsLock int64 = 0x646f63657802
	placementLock   int64 = 0x646f63657803
	// The two-part keys have a space of their own in Postgres; the second part is the name's hash. Two names that
	// share one wait for each other, which costs time and nothing else.
	tenantLockClass int32 = 0x646f6301
	sideLockClass   int32 = 0x646f6302
	// A tenant whose server is chosen has one by its id, and shares one by the server's name until it is registered.
	sharedLockClass  int32 = 0x646f6305 // by a server's name: held by who makes the database there that tenants share
	placingLockClass int32 = 0x646f6303
	placedLockClass  int32 = 0x646f6304
)

// Options are what a Provisioner works with. DSN and, except for logins, Key are required.
type Options struct {
	// DSN of the database that holds, or shall hold, registry and tenants, as a superuser. After Init, a role
	// with CREATEROLE and the membership of docex_owner, admin option included, can create tenants and logins; it
	// needs CREATEDB for tenants with a database of their own. An empty DSN means libpq's environment variables.
	DSN    string
	Key    secret.Key
	Logger *slog.Logger     // nil: nothing is logged
	Now    func() time.Time // nil: time.Now

	// Servers are the DSNs of other servers that hold tenants, by the proxy's names for them, as a superuser or as a role
	// with CREATEROLE and CREATEDB. Which database of the server is named does not matter.
	Servers map[string]string

	// Citus are the names of those servers, "main" among them, that are coordinators of Citus clusters, where tenants' schemas
	// are distributed (citus.go). It takes superusers.
	Citus []string

	// Idle is how many connections to DSN's database are kept for the next request, until Close. A server process that has
	// worked on one tenant has the catalogs at hand for the next: with one for each request, creating tenants takes half
	// as long again.
	Idle int

	// DryRun, when set, gets each statement that changes something, without verifiers, and every transaction is
	// rolled back at its end. Its locks are real while it runs. What a transaction could not take back is not
	// run at all, only handed over.
	DryRun func(statement string)
}

// A Provisioner opens one connection for each request, unless Options.Idle has it keep some. It is safe for concurrent use.
type Provisioner struct {
	idle    chan *pgx.Conn // nobody's transaction is on one
	dsn     string
	servers map[string]string
	citus   []string
	key     secret.Key
	logger  *slog.Logger
	now     func() time.Time
	dryRun  func(statement string)
	silent  *sync.Map // of servers that did not answer, by name, their silence

	afterStep func(name string) error // nil but in tests
}

// New returns a Provisioner. It does not connect.
func New(o Options) *Provisioner {
	p := &Provisioner{dsn: o.DSN, servers: o.Servers, citus: o.Citus, key: o.Key, logger: o.Logger, now: o.Now, dryRun: o.DryRun, silent: new(sync.Map)}
	if o.DryRun == nil {
		p.idle = make(chan *pgx.Conn, max(0, o.Idle))
	}
	if p.logger == nil {
		p.logger = slog.New(slog.DiscardHandler)
	}
	if p.now == nil {
		p.now = time.Now
	}
	return p
}

// Close closes the connections that are kept. No request may be under way.
func (p *Provisioner) Close(ctx context.Context) {
	for {
		select {
		case conn := <-p.idle:
			closeDetached(ctx, conn)
		default:
			return
		}
	}
}

// lease returns a connection for a request, and what ends it. A transaction leaves nothing on one: its settings, roles and
// locks are its own.
func (p *Provisioner) lease(ctx context.Context) (*pgx.Conn, func(), error) {
	var conn *pgx.Conn
	select {
	case conn = <-p.idle:
	default:
		var err error
		if conn, err = p.connect(ctx, ""); err != nil {
			return nil, nil, err
		}
	}
	return conn, func() {
		if !conn.IsClosed() && conn.PgConn().TxStatus() == 'I' {
			select {
			case p.idle <- conn:
				return
			default:
			}
		}
		closeDetached(ctx, conn)
	}, nil
}

// timestamp is the present as Postgres can store it.
func (p *Provisioner) timestamp() time.Time { return p.now().UTC().Truncate(time.Microsecond) }

// step is one part of a request's transaction. Its name says what it does, for errors.
type step struct {
	name string
	run  func(ctx context.Context) error
}

// transact connects, runs the steps that begin returns in one transaction, and commits it.
func (p *Provisioner) transact(ctx context.Context, begin func(*work) []step) error {
	conn, done, err := p.lease(ctx)
	if err != nil {
		return err
	}
	defer done()
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer rollbackDetached(ctx, tx) // after a commit it does nothing
	w := &work{tx: tx, registryDSN: registryDSN(&conn.Config().Config)}
	if err := w.start(ctx); err != nil {
		return err
	}
	for _, s := range begin(w) {
		if err := p.runStep(ctx, s); err != nil {
			return err
		}
	}
	if p.dryRun != nil {
		return nil
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

func (p *Provisioner) runStep(ctx context.Context, s step) error {
	err := s.run(ctx)
	if err == nil && p.afterStep != nil {
		err = p.afterStep(s.name)
	}
	switch {
	case hasCode(err, lockNotAvailable):
		return fmt.Errorf("%s: another transaction has held a lock for %s, try again: %w", s.name, lockTimeout, err)
	case isPostgres(err):
		return fmt.Errorf("%s: %w", s.name, err)
	default:
		return err
	}
}

// connect connects to a database of the DSN's server; "" is the DSN's own.
func (p *Provisioner) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(p.dsn)
	if err != nil {
		return nil, err // pgx leaves the password out of it
	}
	if database != "" {
		config.Database = database
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	config.RuntimeParams["application_name"] = "docexctl"
	// Nothing that somebody else has made can stand in for a function or type that is meant here.
	config.RuntimeParams["search_path"] = "pg_catalog"
	config.RuntimeParams["standard_conforming_strings"] = "on" // quoteLiteral's premise
	if p.dryRun != nil {
		config.Tracer = recorder(p.dryRun)
	}
	return pgx.ConnectConfig(ctx, config)
}

// closeDetached says good-bye although ctx may have ended.
func closeDetached(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	_ = conn.Close(ctx) // there is nobody to tell: the transaction has ended one way or the other
}

func rollbackDetached(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	_ = tx.Rollback(ctx) // the connection is closed next, which rolls back as well
}

// work is one transaction under way.
type work struct {
	tx          pgx.Tx
	show        func(statement string) // not nil: statements are shown instead of run, and there is no tx
	registryDSN string
	database    string // current_database()
	user        string // session_user
	superuser   bool   // the session's own role is one
	version     int    // server_version_num
}

func (w *work) start(ctx context.Context) error {
	err := w.tx.QueryRow(ctx, `
SELECT current_database(), rolname, rolsuper, current_setting('server_version_num')::integer
  FROM pg_roles WHERE rolname = session_user`).Scan(&w.database, &w.user, &w.superuser, &w.version)
	if err != nil {
		return fmt.Errorf("read the session's role: %w", err)
	}
	return w.exec(ctx, "SET LOCAL lock_timeout = '"+lockTimeout+"'")
}

// exec runs statements that take no parameters; several are separated by semicolons.
func (w *work) exec(ctx context.Context, sql string) error {
	if w.show != nil {
		w.show(sql)
		return nil
	}
	_, err := w.tx.Exec(ctx, sql)
	return err
}

// lock takes an advisory lock until the transaction's end.
func (w *work) lock(ctx context.Context, function string, key ...any) error {
	if w.show != nil {
		return nil
	}
	sql := "SELECT " + function + "($1)"
	if len(key) == 2 {
		sql = "SELECT " + function + "($1, hashtext($2))"
	}
	_, err := w.tx.Exec(ctx, sql, key...)
	return err
}

// enter takes the gate shared, and answers ErrNotInitialised where Init has not run.
func (w *work) enter(ctx context.Context) error {
	if err := w.lock(ctx, "pg_advisory_xact_lock_shared", gateLock); err != nil {
		return err
	}
	var ready bool
	err := w.tx.QueryRow(ctx, `
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)
   AND EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                WHERE n.nspname = 'docex_system' AND c.relname = 'tenant_route')`, OwnerRole).Scan(&ready)
	if err != nil {
		return err
	}
	if !ready {
		return ErrNotInitialised
	}
	return nil
}

// as runs a function with the rights of a role. After an error the role stays: the transaction is over then.
func (w *work) as(ctx context.Context, role string, run func(context.Context) error) error {
	if err := w.exec(ctx, "SET LOCAL ROLE "+quote(role)); err != nil {
		return err
	}
	if err := run(ctx); err != nil {
		return err
	}
	return w.exec(ctx, "SET LOCAL ROLE NONE")
}

// tenantExists reports whether the registry has a row with that id.
func (w *work) tenantExists(ctx context.Context, id registry.TenantID) (exists bool, err error) {
	err = w.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM docex_system.tenant_registry WHERE tenant_id = $1)`, string(id)).Scan(&exists)
	return exists, err
}
