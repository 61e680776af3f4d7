package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	applicationName  = "docex-proxy" // as pg_stat_activity shows the registry's connections
	statementTimeout = "5s"
	connectTimeout   = 5 * time.Second
	storeConnections = 4

	// maxNameBytes is what the registry can hold of a name: 255 characters of at most four bytes.
	maxNameBytes = 4 * 255
)

// Store reads the registry. It keeps nothing; sessions ask a Cache instead. Its methods return ErrNotFound, or
// an *UnavailableError for everything else that goes wrong. Safe for concurrent use.
type Store struct{ pool *pgxpool.Pool }

// NewStore reads through a pool that the caller owns; do not Close such a Store.
func NewStore(pool *pgxpool.Pool) *Store { return &Store{pool: pool} }

// OpenStore reads through a small pool of its own to the DSN's server, which Close ends. It connects at the
// first read: a server that is down is no error here, a malformed DSN is.
func OpenStore(ctx context.Context, dsn string) (*Store, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	config.MaxConns = storeConnections
	// Without it a connection that has died silently would hold a lookup until the lookup's own deadline.
	config.PingTimeout = time.Second
	prepareConnection(config.ConnConfig)
	config.ConnConfig.RuntimeParams["statement_timeout"] = statementTimeout
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	return &Store{pool: pool}, nil
}

func prepareConnection(config *pgx.ConnConfig) {
	config.RuntimeParams["application_name"] = applicationName
	type host struct {
		name string
		port uint16
	}
	hosts := map[host]bool{{config.Host, config.Port}: true}
	for _, f := range config.Fallbacks { // the same host with and without TLS, too
		hosts[host{f.Host, f.Port}] = true
	}
	// Each host is given as long: one that does not answer leaves the next its time.
	if limit := connectTimeout / time.Duration(len(hosts)); config.ConnectTimeout == 0 || config.ConnectTimeout > limit {
		config.ConnectTimeout = limit
	}
}

// Reconnect has the next reads open connections, those that are idle are closed: the server may be another one by now.
func (s *Store) Reconnect() { s.pool.Reset() }

// Close closes the connections of a Store from OpenStore, after the reads that are under way.
func (s *Store) Close() { s.pool.Close() }

// A tenant without a route gives empty values for the route's columns, and false for the first of them.
const selectTenants = `
SELECT r.tenant_id, r.display_name, r.is_system, r.isolation_strategy, coalesce(r.schema_name, ''),
       coalesce(r.database_path, ''), r.created_at, r.created_by, r.last_updated_at, coalesce(r.last_updated_by, ''),
       t.tenant_id IS NOT NULL, coalesce(t.status, ''), coalesce(t.isolation, ''), coalesce(t.server, ''),
       coalesce(t.database_name, ''), coalesce(t.role_name, ''), coalesce(t.secret_generation, 0),
       coalesce(t.limits, '{}'), coalesce(t.schema_version, 0), coalesce(t.version, 0), coalesce(t.updated_at, 'epoch')
  FROM docex_system.tenant_registry AS r
  LEFT JOIN docex_system.tenant_route AS t ON t.tenant_id = r.tenant_id`

// valid_until 'infinity' means what NULL means, as in CREATE ROLE.
const selectLogins = `
SELECT l.login, l.verifier, nullif(l.valid_until, 'infinity'), l.all_tenants,
       ARRAY(SELECT p.tenant_id::text FROM docex_system.proxy_login_tenant AS p
              WHERE p.login = l.login AND NOT l.all_tenants ORDER BY p.tenant_id)
  FROM docex_system.proxy_login AS l`

// Tenant reads one tenant, whatever its status, the system tenant included.
func (s *Store) Tenant(ctx context.Context, id TenantID) (*Tenant, error) {
	return readOne(ctx, s.pool, scanTenant, selectTenants+` WHERE r.tenant_id = $1`, string(id))
}

// TenantBySchema reads the tenant whose schema_name is exactly the given text, which is not folded to lower
// case. The column is not unique: of several the system tenant wins, so that its schema cannot be claimed, then
// one that is not deleted, then the oldest.
func (s *Store) TenantBySchema(ctx context.Context, schema string) (*Tenant, error) {
	return readOne(ctx, s.pool, scanTenant, selectTenants+` WHERE r.schema_name = $1
 ORDER BY r.is_system DESC, (t.status IS NOT DISTINCT FROM 'deleted'), r.created_at, r.tenant_id LIMIT 1`, schema)
}

// Tenants reads all tenants, the system tenant included, the oldest first.
func (s *Store) Tenants(ctx context.Context) ([]*Tenant, error) {
	return readAll(ctx, s.pool, scanTenant, selectTenants+` ORDER BY r.created_at, r.tenant_id`)
}

// Login reads one login with the tenants that it may use.
func (s *Store) Login(ctx context.Context, name string) (*Login, error) {
	return readOne(ctx, s.pool, scanLogin, selectLogins+` WHERE l.login = $1`, name)
}

// Statuses reads where tenants stand, by their ids. One without a route has an empty status; one that is not in the
// registry is left out.
func (s *Store) Statuses(ctx context.Context, ids []string) (map[string]Status, error) {
	rows, err := s.pool.Query(ctx, `SELECT r.tenant_id, coalesce(t.status, '')
  FROM docex_system.tenant_registry AS r
  LEFT JOIN docex_system.tenant_route AS t ON t.tenant_id = r.tenant_id
 WHERE r.tenant_id = ANY($1)`, slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !storable(id) }))
	if err != nil {
		return nil, readError(err)
	}
	statuses := make(map[string]Status, len(ids))
	var id string
	var status Status
	_, err = pgx.ForEachRow(rows, []any{&id, &status}, func() error {
		statuses[id] = status
		return nil
	})
	if err != nil {
		return nil, readError(err)
	}
	return statuses, nil
}

// Database is one on a server of the configuration.
type Database struct{ Server, Name string }

// SlotDatabases are those with tenants at isolation level slot.
func (s *Store) SlotDatabases(ctx context.Context) ([]*Database, error) {
	return readAll(ctx, s.pool, pgx.RowToAddrOfStructByPos[Database], `SELECT DISTINCT server, database_name
  FROM docex_system.tenant_route WHERE isolation = 'slot' AND status <> 'deleted'`)
}

// Logins reads all logins, by name.
func (s *Store) Logins(ctx context.Context) ([]*Login, error) {
	return readAll(ctx, s.pool, scanLogin, selectLogins+` ORDER BY l.login`)
}

func readOne[T any](ctx context.Context, pool *pgxpool.Pool, scan pgx.RowToFunc[*T], query, name string) (*T, error) {
	if !storable(name) {
		return nil, ErrNotFound
	}
	rows, err := pool.Query(ctx, query, name)
	if err != nil {
		return nil, readError(err)
	}
	found, err := pgx.CollectOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, readError(err)
	}
	return found, nil
}

func readAll[T any](ctx context.Context, pool *pgxpool.Pool, scan pgx.RowToFunc[*T], query string) ([]*T, error) {
	rows, err := pool.Query(ctx, query)
	if err != nil {
		return nil, readError(err)
	}
	found, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, readError(err)
	}
	return found, nil
}

// storable reports whether a row of the registry can have the name at all. Names come from clients; one that
// Postgres would refuse as a parameter must not look like a registry that is down.
func storable(name string) bool {
	return len(name) <= maxNameBytes && utf8.ValidString(name) && strings.IndexByte(name, 0) < 0
}

func scanTenant(row pgx.CollectableRow) (*Tenant, error) {
	var (
		t      Tenant
		r      Route
		routed bool
	)
	err := row.Scan(&t.ID, &t.DisplayName, &t.IsSystem, &t.IsolationStrategy, &t.SchemaName,
		&t.DatabasePath, &t.CreatedAt, &t.CreatedBy, &t.LastUpdatedAt, &t.LastUpdatedBy,
		&routed, &r.Status, &r.Isolation, &r.Server,
		&r.Database, &r.Role, &r.SecretGeneration,
		&r.Limits, &r.SchemaVersion, &r.Version, &r.UpdatedAt)
	if err != nil {
		return nil, err
	}
	if routed {
		r.UpdatedAt = r.UpdatedAt.UTC()
		t.Route = &r
	}
	return &t, nil
}

func scanLogin(row pgx.CollectableRow) (*Login, error) {
	var (
		l          Login
		validUntil *time.Time
	)
	if err := row.Scan(&l.Name, &l.Verifier, &validUntil, &l.AllTenants, &l.Tenants); err != nil {
		return nil, err
	}
	if validUntil != nil {
		l.ValidUntil = validUntil.UTC()
	}
	return &l, nil
}
