package registry

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// InsertTenant writes a row of tenant_registry, all ten columns of it since a table that DocEX has made has no
// defaults, and a row of tenant_route when t.Route is set; Route.Version and Route.UpdatedAt are the database's
// own and are ignored. The error wraps a *pgconn.PgError, unique_violation where the tenant exists.
func InsertTenant(ctx context.Context, tx pgx.Tx, t *Tenant) error {
	// UTC: the columns have no time zone, and a driver drops the offset of what it is given.
	_, err := tx.Exec(ctx, `
INSERT INTO docex_system.tenant_registry (tenant_id, display_name, is_system, isolation_strategy, schema_name,
       database_path, created_at, created_by, last_updated_at, last_updated_by)
VALUES ($1, $2, $3, $4, nullif($5, ''), nullif($6, ''), $7, $8, $9, nullif($10, ''))`,
		string(t.ID), t.DisplayName, t.IsSystem, t.IsolationStrategy, t.SchemaName,
		t.DatabasePath, t.CreatedAt.UTC(), t.CreatedBy, t.LastUpdatedAt.UTC(), t.LastUpdatedBy)
	if err != nil {
		return fmt.Errorf("registry: insert tenant %q: %w", t.ID, err)
	}
	if t.Route == nil {
		return nil
	}
	return InsertRoute(ctx, tx, t.ID, t.Route)
}

// InsertRoute writes the row of tenant_route of a tenant that the registry has already. Version and UpdatedAt are ignored. The
// error wraps a *pgconn.PgError, unique_violation where the tenant has a route, or another tenant the role.
func InsertRoute(ctx context.Context, tx pgx.Tx, id TenantID, r *Route) error {
	_, err := tx.Exec(ctx, `
INSERT INTO docex_system.tenant_route (tenant_id, status, isolation, server, database_name, role_name,
       secret_generation, limits, schema_version)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		string(id), string(r.Status), string(r.Isolation), r.Server, r.Database, r.Role,
		r.SecretGeneration, r.Limits, r.SchemaVersion)
	if err != nil {
		return fmt.Errorf("registry: insert route of tenant %q: %w", id, err)
	}
	return nil
}

// InsertLogin writes a login and its permissions. The tenants must exist. The error wraps a *pgconn.PgError; its
// text never holds the verifier.
func InsertLogin(ctx context.Context, tx pgx.Tx, l *Login) error {
	var validUntil any
	if !l.ValidUntil.IsZero() {
		validUntil = l.ValidUntil
	}
	_, err := tx.Exec(ctx, `
INSERT INTO docex_system.proxy_login (login, verifier, valid_until, all_tenants) VALUES ($1, $2, $3, $4)`,
		l.Name, l.Verifier, validUntil, l.AllTenants)
	if err != nil {
		return fmt.Errorf("registry: insert login %q: %w", l.Name, err)
	}
	for _, id := range l.Tenants {
		_, err := tx.Exec(ctx, `
INSERT INTO docex_system.proxy_login_tenant (login, tenant_id) VALUES ($1, $2)`, l.Name, string(id))
		if err != nil {
			return fmt.Errorf("registry: permit login %q tenant %q: %w", l.Name, id, err)
		}
	}
	return nil
}

// InsertEvent adds to the audit trail that actor did verb to the tenant, now. Detail is stored as its JSON; nil
// is an empty object. It must hold no secret.
func InsertEvent(ctx context.Context, tx pgx.Tx, tenant TenantID, verb, actor string, detail any) error {
	if detail == nil {
		detail = struct{}{}
	}
	encoded, err := json.Marshal(detail)
	if err != nil {
		return fmt.Errorf("registry: event %q of tenant %q: %w", verb, tenant, err)
	}
	_, err = tx.Exec(ctx, `
INSERT INTO docex_system.tenant_event (tenant_id, verb, actor, detail) VALUES ($1, $2, $3, $4)`,
		string(tenant), verb, actor, encoded)
	if err != nil {
		return fmt.Errorf("registry: event %q of tenant %q: %w", verb, tenant, err)
	}
	return nil
}
