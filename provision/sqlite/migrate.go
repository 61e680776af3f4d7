package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/docex-proxy/docex-proxy/registry"
)

// firstTenant is the id that DocEX 2.8 made up where nobody named one.
const firstTenant = "docex_first_tenant"

// coreTables are those by which DocEX's tenants are known.
var coreTables = []string{"docbasket", "document", "document_metadata", "operations", "doc_events"}

// MigrationStep is what is to be done about one file.
type MigrationStep struct {
	Path   string
	ID     registry.TenantID // "" where it becomes none
	Action string            // migrate, nothing, skip or refuse
	Detail string
}

// PlanMigration finds the files that the template makes, and tells tenants from others. It changes nothing.
func (r *Registry) PlanMigration(ctx context.Context) ([]MigrationStep, error) {
	template := r.PathTemplate
	if template == "" {
		template = defaultTemplate
	}
	before, after, found := strings.Cut(filepath.Clean(template), variable)
	if !found || strings.Contains(after, variable) {
		return nil, &StateError{fmt.Sprintf("the path template %q does not have %s once: a file's path does not say whose it is", template, variable)}
	}
	pattern := regexp.MustCompile(`\A` + regexp.QuoteMeta(before) + `([^/]+)` + regexp.QuoteMeta(after) + `\z`)
	paths, err := filepath.Glob(escapeGlob(before) + "*" + escapeGlob(after))
	if err != nil {
		return nil, err
	}
	var steps []MigrationStep
	for _, path := range paths {
		id := pattern.FindStringSubmatch(path)
		if id == nil || registry.TenantID(id[1]) == registry.SystemTenantID {
			continue
		}
		step, err := r.decide(ctx, path, id[1])
		if err != nil {
			return nil, err
		}
		steps = append(steps, step)
	}
	return steps, nil
}

func escapeGlob(text string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(text)
}

func (r *Registry) decide(ctx context.Context, path, id string) (MigrationStep, error) {
	s := MigrationStep{Path: path, Action: "skip"}
	has, err := columnsOf(ctx, path)
	if err != nil {
		s.Detail = err.Error()
		return s, nil
	}
	core := 0
	for _, table := range coreTables {
		if hasTable(has, table) {
			core++
		}
	}
	_, err = r.Tenant(ctx, registry.TenantID(id))
	known := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return s, err
	}
	want, err := r.wanted(ctx)
	if err != nil {
		return s, err
	}
	switch {
	case core < len(coreTables):
		s.Detail = fmt.Sprintf("has %d of the five tables by which a tenant is known: %s", core, strings.Join(coreTables, ", "))
		return s, nil
	case id == firstTenant && !known:
		rows, err := r.rows(ctx, path)
		if err != nil || rows == 0 {
			s.Detail = "is the tenant that DocEX makes up, and empty"
			return s, err
		}
	}
	if _, err := registry.ParseTenantID(id); err != nil {
		s.Action, s.Detail = "refuse", err.Error()+": rename the file by hand"
		return s, nil
	}
	s.ID, s.Action = registry.TenantID(id), "migrate"
	if known && covers(has, want) {
		s.Action = "nothing"
	}
	return s, nil
}

func hasTable(columns map[string]bool, table string) bool {
	for column := range columns {
		if strings.HasPrefix(column, table+".") {
			return true
		}
	}
	return false
}

func covers(has, want map[string]bool) bool {
	for column := range want {
		if !has[column] {
			return false
		}
	}
	return true
}

// rows counts what is in the core tables.
func (r *Registry) rows(ctx context.Context, path string) (total int, err error) {
	db, err := open(path)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	for _, table := range coreTables {
		var n int
		if err := db.QueryRowContext(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// Migrate carries a step out: what the file lacks, then its row. It may run again.
func (r *Registry) Migrate(ctx context.Context, s MigrationStep, actor string) error {
	if s.Action != "migrate" {
		return nil
	}
	if err := r.modernise(ctx, s.Path); err != nil {
		return err
	}
	if _, err := r.Tenant(ctx, s.ID); err == nil {
		return nil
	}
	return within(ctx, r.db, func(tx *sql.Tx) error {
		stamp := r.now().Format(timeLayout)
		if _, err := tx.ExecContext(ctx, `INSERT INTO tenant_registry VALUES (?, ?, 0, 'database', NULL, ?, ?, ?, ?, NULL)`,
			string(s.ID), string(s.ID), s.Path, stamp, actor, stamp); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO tenant_route (tenant_id, status, updated_at) VALUES (?, 'active', ?)
ON CONFLICT (tenant_id) DO UPDATE SET status = 'active', updated_at = excluded.updated_at`, string(s.ID), stamp); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO tenant_event (tenant_id, verb, actor, at) VALUES (?, 'migrate', ?, ?)`, string(s.ID), actor, stamp)
		return err
	})
}

// modernise adds the columns that older versions of DocEX lack, and tables and indexes.
func (r *Registry) modernise(ctx context.Context, path string) error {
	has, err := columnsOf(ctx, path)
	if err != nil {
		return err
	}
	want, err := r.wanted(ctx)
	if err != nil {
		return err
	}
	var missing []string
	for column := range want {
		table, rest, _ := strings.Cut(column, ".")
		if !has[column] && hasTable(has, table) && !strings.Contains(rest, "NOT NULL") {
			missing = append(missing, "ALTER TABLE "+table+" ADD COLUMN "+rest)
		}
	}
	slices.Sort(missing)
	db, err := open(path)
	if err != nil {
		return err
	}
	err = within(ctx, db, func(tx *sql.Tx) error {
		for _, statement := range append(missing, Dialect(r.Tables)) {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		return nil
	})
	return errors.Join(err, db.Close())
}
