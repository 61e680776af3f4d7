package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docex-proxy/docex-proxy/registry"
)

// Create creates a tenant with a file of its own, or finishes what a run that was ended has begun.
//
// Errors: *registry.InvalidTenantIDError, ErrExists, *StateError for a file that is there without a tenant.
func (r *Registry) Create(ctx context.Context, id registry.TenantID, displayName, actor string) (*registry.Tenant, error) {
	if _, err := registry.ParseTenantID(string(id)); err != nil {
		return nil, err
	}
	path, err := r.path(id)
	if err != nil {
		return nil, err
	}
	err = within(ctx, r.db, func(tx *sql.Tx) error { return r.enter(ctx, tx, id, displayName, path, actor) })
	if err != nil {
		return nil, err
	}
	if err := r.fill(ctx, path); err != nil {
		return nil, fmt.Errorf("tenant '%s' is registered and not provisioned, create it again to finish: %w", id, err)
	}
	if err := r.set(ctx, id, "create", actor, registry.StatusActive, registry.StatusProvisioning); err != nil {
		return nil, err
	}
	return r.Tenant(ctx, id)
}

// enter registers a tenant that is being provisioned.
func (r *Registry) enter(ctx context.Context, tx *sql.Tx, id registry.TenantID, displayName, path, actor string) error {
	var status string
	err := tx.QueryRowContext(ctx, `
SELECT coalesce(status, 'active') FROM tenant_registry AS r LEFT JOIN tenant_route AS t ON t.tenant_id = r.tenant_id WHERE r.tenant_id = ?`, string(id)).Scan(&status)
	switch {
	case err == nil && registry.Status(status) == registry.StatusProvisioning:
		return nil
	case err == nil:
		return fmt.Errorf("tenant '%s' %w", id, ErrExists)
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	if _, err := os.Lstat(path); err == nil { // nothing is adopted silently
		return &StateError{fmt.Sprintf("file %q exists without a tenant in the registry: `docexctl migrate v2-to-v3` registers it", path)}
	}
	stamp := r.now().Format(timeLayout)
	if _, err := tx.ExecContext(ctx, `INSERT INTO tenant_registry VALUES (?, ?, 0, 'database', NULL, ?, ?, ?, ?, NULL)`,
		string(id), displayName, path, stamp, actor, stamp); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO tenant_route (tenant_id, status, updated_at) VALUES (?, 'provisioning', ?)`, string(id), stamp)
	return err
}

// fill makes a file with all tables in one piece: under another name until it is whole.
func (r *Registry) fill(ctx context.Context, path string) error {
	if _, err := os.Stat(path); err == nil {
		return r.complete(ctx, path)
	}
	draft := path + ".new"
	if err := os.Remove(draft); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := touch(draft); err != nil {
		return err
	}
	if err := r.complete(ctx, draft); err != nil {
		return err
	}
	return os.Rename(draft, path)
}

// complete creates what a file lacks of a tenant's tables.
func (r *Registry) complete(ctx context.Context, path string) error {
	db, err := open(path)
	if err != nil {
		return err
	}
	err = within(ctx, db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, Dialect(r.Tables))
		return err
	})
	return errors.Join(err, db.Close())
}

// Rename changes a tenant's display name.
func (r *Registry) Rename(ctx context.Context, id registry.TenantID, displayName, actor string) error {
	return r.change(ctx, id, "update", actor, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE tenant_registry SET display_name = ? WHERE tenant_id = ?`, displayName, string(id))
		return err
	})
}

// transitions are the steps in a tenant's life: where they lead, and from where.
var transitions = map[string]struct {
	to   registry.Status
	from []registry.Status
}{
	"suspend": {registry.StatusSuspended, []registry.Status{registry.StatusActive}},
	"resume":  {registry.StatusActive, []registry.Status{registry.StatusSuspended}},
	"delete":  {registry.StatusDeleted, []registry.Status{registry.StatusActive, registry.StatusSuspended}},
	"restore": {registry.StatusActive, []registry.Status{registry.StatusDeleted}},
}

// Transition takes a step in a tenant's life: suspend, resume, delete or restore. The file stays as it is.
//
// Errors: ErrNotFound, *StateError.
func (r *Registry) Transition(ctx context.Context, id registry.TenantID, verb, actor string) error {
	step := transitions[verb]
	return r.set(ctx, id, verb, actor, step.to, step.from...)
}

// set changes a tenant's status. What is so already is no error.
func (r *Registry) set(ctx context.Context, id registry.TenantID, verb, actor string, to registry.Status, from ...registry.Status) error {
	t, err := r.Tenant(ctx, id)
	switch {
	case err != nil:
		return err
	case t.IsSystem:
		return &StateError{fmt.Sprintf("tenant '%s' is the system tenant", id)}
	case t.Route.Status == to:
		return nil
	case !slices.Contains(from, t.Route.Status):
		return &StateError{fmt.Sprintf("tenant '%s' is %s: it cannot be %s", id, t.Route.Status, to)}
	}
	return r.change(ctx, id, verb, actor, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `
INSERT INTO tenant_route (tenant_id, status, version, updated_at) VALUES (?1, ?2, 2, ?3)
ON CONFLICT (tenant_id) DO UPDATE SET status = ?2, version = version + 1, updated_at = ?3`, string(id), string(to), r.now().Format(timeLayout))
		return err
	})
}

// change writes the audit columns and the audit trail with a change.
func (r *Registry) change(ctx context.Context, id registry.TenantID, verb, actor string, run func(*sql.Tx) error) error {
	return within(ctx, r.db, func(tx *sql.Tx) error {
		stamp := r.now().Format(timeLayout)
		result, err := tx.ExecContext(ctx, `
UPDATE tenant_registry SET last_updated_at = CASE WHEN ?4 THEN last_updated_at ELSE ?1 END, last_updated_by = CASE WHEN ?4 THEN last_updated_by ELSE ?2 END
 WHERE tenant_id = ?3 AND NOT is_system`, stamp, actor, string(id), verb == "create") // which has written them
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("tenant '%s' %w", id, ErrNotFound))
		}
		if err := run(tx); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO tenant_event (tenant_id, verb, actor, at) VALUES (?, ?, ?, ?)`, string(id), verb, actor, stamp)
		return err
	})
}

// Purge removes a deleted tenant's file and its rows; the audit trail stays. A run that is ended is finished by the next.
func (r *Registry) Purge(ctx context.Context, id registry.TenantID, actor string) error {
	t, err := r.Tenant(ctx, id)
	switch {
	case err != nil:
		return err
	case t.IsSystem || t.Route.Status != registry.StatusDeleted:
		return &StateError{fmt.Sprintf("tenant '%s' is not deleted: it is purged after it has been", id)}
	}
	for _, suffix := range []string{"", "-journal", "-wal", "-shm", ".new"} {
		if err := os.Remove(t.DatabasePath + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	_ = os.Remove(filepath.Dir(t.DatabasePath)) // only when nothing else is in it
	return r.change(ctx, id, "purge", actor, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM tenant_route WHERE tenant_id = ?1`, string(id))
		if err == nil {
			_, err = tx.ExecContext(ctx, `DELETE FROM tenant_registry WHERE tenant_id = ?1`, string(id))
		}
		return err
	})
}

// Finding is something that is not as it should be.
type Finding struct {
	Tenant  registry.TenantID
	Problem string
	Remedy  string
}

// Verify compares a tenant with its file, and the file with the template.
func (r *Registry) Verify(ctx context.Context, t *registry.Tenant) ([]Finding, error) {
	if t.IsSystem {
		return nil, nil
	}
	if t.Route.Status == registry.StatusProvisioning {
		return []Finding{{t.ID, "is being provisioned, or a run was ended", "`docexctl tenant create " + string(t.ID) + "` again"}}, nil
	}
	var found []Finding
	if want, err := r.path(t.ID); err == nil && want != filepath.Clean(t.DatabasePath) {
		found = append(found, Finding{t.ID, fmt.Sprintf("has the file %q, and the template makes %q", t.DatabasePath, want), "DocEX looks for the template's: see that its configuration has the template that the tenant was made with"})
	}
	got, err := columnsOf(ctx, t.DatabasePath)
	if errors.Is(err, os.ErrNotExist) {
		return append(found, Finding{t.ID, fmt.Sprintf("its file %q is not there", t.DatabasePath), "restore it from a backup, or `docexctl tenant delete " + string(t.ID) + " --purge`"}), nil
	}
	if err != nil {
		return append(found, Finding{t.ID, fmt.Sprintf("its file %q: %v", t.DatabasePath, err), "restore it from a backup"}), nil
	}
	want, err := r.wanted(ctx)
	if err != nil {
		return nil, err
	}
	var lacks []string
	for column := range want {
		if !got[column] {
			lacks = append(lacks, column)
		}
	}
	if len(lacks) > 0 {
		slices.Sort(lacks)
		found = append(found, Finding{t.ID, "lacks, or has otherwise: " + strings.Join(lacks[:min(5, len(lacks))], ", "), "`docexctl migrate v2-to-v3` adds what is missing"})
	}
	return found, nil
}

// wanted are the columns of the template's tables.
func (r *Registry) wanted(ctx context.Context) (map[string]bool, error) {
	dir, err := os.MkdirTemp("", "docex-verify-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "template.db")
	if err := touch(path); err != nil {
		return nil, err
	}
	if err := r.complete(ctx, path); err != nil {
		return nil, err
	}
	return columnsOf(ctx, path)
}

// columnsOf lists the columns of a file's tables, as "table.column TYPE".
func columnsOf(ctx context.Context, path string) (map[string]bool, error) {
	db, err := open(path)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, `
SELECT m.name || '.' || c.name || ' ' || c.type || CASE WHEN c."notnull" THEN ' NOT NULL' ELSE '' END
  FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c WHERE m.type = 'table'`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := make(map[string]bool)
	for rows.Next() {
		var column string
		if err := rows.Scan(&column); err != nil {
			return nil, err
		}
		all[column] = true
	}
	return all, rows.Err()
}
