package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/docex-proxy/docex-proxy/registry"
)

// IsolationFile is the isolation level of a tenant with a file of its own.
const IsolationFile registry.Isolation = "file"

const (
	defaultTemplate = "storage/tenant_{tenant_id}/docex.db" // DocEX's default too
	variable        = "{tenant_id}"
	busyTimeout     = 5000 // milliseconds that a lock of another process is waited for
	fileMode        = 0o644
	timeLayout      = "2006-01-02 15:04:05.000000" // as SQLAlchemy stores times
)

var (
	// ErrNotInitialised is wrapped where there is no registry.
	ErrNotInitialised = errors.New("the registry is not initialised: run `docexctl init` first")
	// ErrExists is wrapped where the tenant is in the registry already.
	ErrExists = errors.New("already exists")
	// ErrNotFound is wrapped where it is not.
	ErrNotFound = errors.New("is not in the registry")
)

// StateError says that a tenant, or its file, is in a state in which something cannot be done.
type StateError struct{ Reason string }

func (e *StateError) Error() string { return e.Reason }

// Installation says where the files are. Relative paths are DocEX's: they begin where it is run.
type Installation struct {
	PathTemplate string           // "": DocEX's default
	SystemPath   string           // of the system tenant's file by the configuration, written into its row; "": as the template says
	Tables       string           // statements for Postgres that create a tenant's tables
	Now          func() time.Time // nil: time.Now
}

func (i Installation) path(id registry.TenantID) (string, error) {
	template := i.PathTemplate
	if template == "" {
		template = defaultTemplate
	}
	if !strings.Contains(template, variable) {
		return "", &StateError{fmt.Sprintf("the path template %q does not contain %s: all tenants would share one file", template, variable)}
	}
	return filepath.Clean(strings.ReplaceAll(template, variable, string(id))), nil
}

func (i Installation) now() time.Time {
	if i.Now != nil {
		return i.Now().UTC()
	}
	return time.Now().UTC()
}

// open opens a file that is there.
func open(path string) (*sql.DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	query := url.Values{"_pragma": {fmt.Sprintf("busy_timeout(%d)", busyTimeout), "foreign_keys(1)"}, "_txlock": {"immediate"}, "mode": {"rw"}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+query.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// Init creates the registry and the system tenant, where they are not there.
func (i Installation) Init(ctx context.Context, actor string) error {
	path, err := i.path(registry.SystemTenantID)
	if err != nil {
		return err
	}
	if err := touch(path); err != nil {
		return err
	}
	db, err := open(path)
	if err != nil {
		return err
	}
	defer db.Close()
	return within(ctx, db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, registryTable+ownTables+Dialect(i.Tables)); err != nil {
			return err
		}
		stamp := i.now().Format(timeLayout)
		recorded := i.SystemPath
		if recorded == "" {
			recorded = path
		}
		_, err := tx.ExecContext(ctx, `
INSERT INTO tenant_registry VALUES (?, 'DocEX System', 1, 'database', NULL, ?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING`,
			string(registry.SystemTenantID), recorded, stamp, actor, stamp)
		return err
	})
}

func touch(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return err
	}
	return file.Close()
}

func within(ctx context.Context, db *sql.DB, run func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	if err := run(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// Registry is an installation's, open.
type Registry struct {
	Installation
	db *sql.DB
}

// Open opens the registry: in the file that the template makes for the system tenant, where DocEX puts it, else in the one
// that the configuration names. Whoever opens it closes it.
func (i Installation) Open(ctx context.Context) (*Registry, error) {
	first, err := i.path(registry.SystemTenantID)
	if err != nil {
		return nil, err
	}
	for _, path := range slices.Compact([]string{first, i.SystemPath}) {
		if path == "" {
			continue
		}
		db, err := open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var rows int
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM tenant_registry`).Scan(&rows); err != nil || rows == 0 {
			db.Close()
			if err != nil && !strings.Contains(err.Error(), "no such table") {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			continue
		}
		if _, err := db.ExecContext(ctx, ownTables); err != nil {
			db.Close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return &Registry{i, db}, nil
	}
	return nil, fmt.Errorf("%s: %w", first, ErrNotInitialised)
}

// Close closes it.
func (r *Registry) Close() error { return r.db.Close() }

const selectTenants = `
SELECT r.tenant_id, display_name, is_system, isolation_strategy, coalesce(schema_name, ''), coalesce(database_path, ''),
       CAST(created_at AS TEXT), created_by, CAST(last_updated_at AS TEXT), coalesce(last_updated_by, ''),
       coalesce(status, ''), coalesce(version, 0), coalesce(updated_at, '')
  FROM tenant_registry AS r LEFT JOIN tenant_route AS t ON t.tenant_id = r.tenant_id`

// Tenants reads all tenants, the system tenant included, the oldest first. Those that DocEX made are active.
func (r *Registry) Tenants(ctx context.Context) ([]*registry.Tenant, error) {
	rows, err := r.db.QueryContext(ctx, selectTenants+` ORDER BY created_at, r.tenant_id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []*registry.Tenant
	for rows.Next() {
		t, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, rows.Err()
}

// Tenant reads one.
func (r *Registry) Tenant(ctx context.Context, id registry.TenantID) (*registry.Tenant, error) {
	t, err := scan(r.db.QueryRowContext(ctx, selectTenants+` WHERE r.tenant_id = ?`, string(id)))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("tenant '%s' %w", id, ErrNotFound)
	}
	return t, err
}

func scan(row interface{ Scan(...any) error }) (*registry.Tenant, error) {
	t, route := &registry.Tenant{}, &registry.Route{Isolation: IsolationFile, SchemaVersion: 1}
	var created, updated, routed string
	err := row.Scan(&t.ID, &t.DisplayName, &t.IsSystem, &t.IsolationStrategy, &t.SchemaName, &t.DatabasePath, &created, &t.CreatedBy, &updated,
		&t.LastUpdatedBy, &route.Status, &route.Version, &routed)
	if err != nil {
		return nil, err
	}
	t.CreatedAt, t.LastUpdatedAt, route.UpdatedAt = parseTime(created), parseTime(updated), parseTime(routed)
	if route.Status == "" {
		route.Status, route.Version, route.UpdatedAt = registry.StatusActive, 1, t.LastUpdatedAt
	}
	if route.Database = t.DatabasePath; !t.IsSystem {
		t.Route = route
	}
	return t, nil
}

// parseTime reads what SQLAlchemy and SQLite store; the zero time is what neither does.
func parseTime(text string) time.Time {
	for _, layout := range []string{"2006-01-02 15:04:05.999999999", time.RFC3339Nano, "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}
