package provision

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// MoverPrefix and a hash make the role that exists on both servers while a tenant is moved, and the names of publication,
// slot and subscription. Whatever may run a tenant's code, as a CHECK does where a row arrives, runs with that role's
// rights: the tenant's, and on the old server REPLICATION.
const MoverPrefix = "docex_move_"

// end is one of the two servers of a move.
type end struct {
	*Provisioner // whose DSN is the server's
	server       string
	id           registry.TenantID
	schema       string
	database     string // that the tenant is in
	role, mover  string
	own          bool   // the database is the tenant's alone
	seated       bool   // slots are lent to the tenant
	registry     string // the registry's database, which marks name

	admin, inside *side // superuser's: in the DSN's database, in the tenant's; nil before they are asked for
}

func (m *move) endAt(server string) *end {
	there, _ := m.at(server)
	route := m.tenant.Route
	sum := sha256.Sum256([]byte(m.home.work.database + "\x00" + string(m.request.ID)))
	return &end{
		Provisioner: there, server: server, id: m.request.ID, schema: m.tenant.SchemaName, database: route.Database, role: route.Role,
		mover: MoverPrefix + hex.EncodeToString(sum[:8]), own: route.Isolation == registry.IsolationDatabase, seated: route.Isolation == registry.IsolationSlot, registry: m.home.work.database,
	}
}

// openStarted connects beside any request; "" is the DSN's database. Marks name the registry's, "" is this one.
func (p *Provisioner) openStarted(ctx context.Context, database, registryDatabase string) (*side, error) {
	s, err := p.openSide(ctx, &work{}, database)
	if err != nil {
		return nil, err
	}
	err = s.transact(ctx, func(w *work) error {
		err := w.start(ctx)
		s.work = *w
		s.work.tx = nil
		return err
	})
	if err == nil {
		// What is done about a move has to outlive a crash, whatever the server's own setting is.
		err = s.exec(ctx, "SET synchronous_commit = on")
	}
	if err != nil {
		s.close(ctx)
		return nil, err
	}
	withDefault(&registryDatabase, s.work.database)
	s.registry = registryDatabase
	return s, nil
}

// administer connects to the DSN's database, where the tenant's can be created and dropped.
func (e *end) administer(ctx context.Context) (*side, error) { return e.open(ctx, &e.admin, "") }

// enter connects to the tenant's database.
func (e *end) enter(ctx context.Context) (*side, error) { return e.open(ctx, &e.inside, e.database) }

func (e *end) open(ctx context.Context, kept **side, database string) (*side, error) {
	if *kept != nil && !(*kept).conn.IsClosed() {
		return *kept, nil
	}
	s, err := e.openStarted(ctx, database, e.registry)
	if err != nil {
		return nil, e.wrap(err)
	}
	*kept = s
	return s, nil
}

func (e *end) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("server %q: %w", e.server, err)
}

// leave closes the connection to the tenant's database, which can be dropped then.
func (e *end) leave(ctx context.Context) {
	if e.inside != nil {
		e.inside.close(ctx)
		e.inside = nil
	}
}

func (e *end) close(ctx context.Context) {
	e.leave(ctx)
	if e.admin != nil {
		e.admin.close(ctx)
	}
}

// execute runs statements in one transaction in the tenant's database.
func (e *end) execute(ctx context.Context, statements ...string) error {
	s, err := e.enter(ctx)
	if err != nil {
		return err
	}
	return e.wrap(s.transact(ctx, func(w *work) error {
		for _, sql := range statements {
			if err := w.exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	}))
}

// row asks one question in the tenant's database.
func (e *end) row(ctx context.Context, into []any, sql string, args ...any) error {
	s, err := e.enter(ctx)
	if err != nil {
		return err
	}
	return e.wrap(s.conn.QueryRow(ctx, sql, args...).Scan(into...))
}

// texts asks for a column of text in the tenant's database.
func (e *end) texts(ctx context.Context, sql string, args ...any) ([]string, error) {
	s, err := e.enter(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := s.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, e.wrap(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return found, e.wrap(err)
}

// createMover makes the role that copies, or completes it. It gets in by password, as the tenants' roles do.
func (e *end) createMover(ctx context.Context, powers string) error {
	var exists, inherits bool
	if err := e.row(ctx, []any{&exists, &inherits}, `
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1), current_setting('server_version_num')::integer >= $2`, e.mover, membershipOptions); err != nil {
		return err
	}
	mover := quote(e.mover)
	var statements []string
	if !exists {
		statements = append(statements, "CREATE ROLE "+mover)
	}
	grant := "GRANT " + quote(e.role) + " TO " + mover
	if inherits {
		grant += " WITH INHERIT TRUE, SET TRUE"
	}
	return e.execute(ctx, append(statements,
		"ALTER ROLE "+mover+" LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE BYPASSRLS "+powers+" PASSWORD "+
			quoteLiteral(derivedVerifier(e.key, e.mover, firstGeneration)), grant)...)
}

// dropMover is the last that is done about a move in a place.
func (e *end) dropMover(ctx context.Context) error {
	var exists bool
	err := e.row(ctx, []any{&exists}, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, e.mover)
	if err != nil || !exists {
		return err
	}
	return e.execute(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = "+quoteLiteral(e.mover),
		"DROP OWNED BY "+quote(e.mover), "DROP ROLE "+quote(e.mover))
}

// moverConfig is how the role that copies logs in.
func (e *end) moverConfig() (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(e.dsn)
	if err != nil {
		return nil, err // pgx leaves the password out of it
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	config.Database, config.User, config.Password = e.database, e.mover, e.key.Password(e.mover, firstGeneration)
	config.RuntimeParams = map[string]string{ // values read alike on both servers
		"application_name": "docexctl", "search_path": "pg_catalog", "client_encoding": "UTF8", "standard_conforming_strings": "on",
		"datestyle": "ISO", "intervalstyle": "postgres", "timezone": "UTC", "bytea_output": "hex", "extra_float_digits": "3",
		"lock_timeout": lockTimeout,
	}
	return config, nil
}

// asMover logs in as the role that copies.
func (e *end) asMover(ctx context.Context) (*pgx.Conn, error) {
	config, err := e.moverConfig()
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("server %q: log in as %s: %w", e.server, e.mover, err)
	}
	return conn, nil
}
