package provision

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// refuseExisting never adopts: DocEX silently takes over a schema that happens to be there, with whatever it holds.
func (c *creation) refuseExisting(ctx context.Context) error {
	if err := c.refuseRegistered(ctx); err != nil {
		return err
	}
	var err error
	if c.left, err = c.findLeftovers(ctx, c.tenant.ID, c.database); err != nil {
		return err
	}
	return c.refuseObjects(ctx)
}

// refuseRegistered is about the registry.
func (c *creation) refuseRegistered(ctx context.Context) error {
	var owner, status, isolation, server, database, role string
	err := c.tx.QueryRow(ctx, `
SELECT tenant_id, coalesce(status, ''), coalesce(isolation, ''), coalesce(server, ''), coalesce(database_name, ''), coalesce(role_name, '')
  FROM docex_system.tenant_registry LEFT JOIN docex_system.tenant_route USING (tenant_id)
 WHERE tenant_id = $1 OR schema_name = $2 ORDER BY tenant_id <> $1, tenant_id LIMIT 1`, string(c.tenant.ID), c.tenant.SchemaName).
		Scan(&owner, &status, &isolation, &server, &database, &role)
	switch route := c.tenant.Route; {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return err
	case owner != string(c.tenant.ID):
		return &ConflictError{Object: "schema", Name: c.tenant.SchemaName, Reason: fmt.Sprintf("belongs to tenant %q", owner)}
	case registry.Status(status) != registry.StatusProvisioning:
		return c.existsError()
	case route.Status == registry.StatusProvisioning && route.Server == server:
		route.Isolation, route.Database, route.Role = registry.Isolation(isolation), database, role
		return errUnopened
	default:
		return fmt.Errorf("tenant '%s' %w, and is being provisioned on server %q: create it there again to finish", c.tenant.ID, ErrExists, server)
	}
}

// refuseObjects is about the tenant's server.
func (c *creation) refuseObjects(ctx context.Context) error {
	route := c.tenant.Route
	var schema, role, database bool
	err := c.tx.QueryRow(ctx, `
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1), EXISTS (SELECT FROM pg_roles WHERE rolname = $2 AND rolname <> ALL ($3)),
       EXISTS (SELECT FROM pg_database WHERE datname = $4 AND datname <> ALL ($5))`,
		c.tenant.SchemaName, route.Role, list(c.left.roles), route.Database, list(c.left.databases)).Scan(&schema, &role, &database)
	switch {
	case err != nil:
		return err
	case schema:
		return &ConflictError{Object: "schema", Name: c.tenant.SchemaName, Reason: "exists without a tenant in the registry"}
	case role:
		return roleConflict(route.Role)
	case database && route.Isolation == registry.IsolationDatabase:
		return databaseConflict(route.Database)
	}
	return nil
}

// list is never nil, which Postgres would take for NULL.
func list(names []string) []string { return append([]string{}, names...) }

func (c *creation) existsError() error { return fmt.Errorf("tenant '%s' %w", c.tenant.ID, ErrExists) }

func roleConflict(role string) error {
	return &ConflictError{Object: "role", Name: role, Reason: "exists without a tenant in this registry"}
}

// existingTenant reads the tenant that a request with IfNotExists found, and refuses one that it would not have made.
func (p *Provisioner) existingTenant(ctx context.Context, r TenantRequest) (*registry.Tenant, error) {
	store, err := registry.OpenStore(ctx, p.dsn)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	tenant, err := store.Tenant(ctx, r.ID)
	switch {
	case err != nil:
		return nil, err
	case tenant.Route == nil:
		return nil, fmt.Errorf("tenant '%s' %w, made by DocEX itself: it has no role and no route", r.ID, ErrExists)
	case tenant.Route.Status == registry.StatusDeleted:
		return nil, fmt.Errorf("tenant '%s' %w, but it is deleted", r.ID, ErrExists)
	case r.Isolation != "" && r.Isolation != tenant.Route.Isolation:
		return nil, fmt.Errorf("tenant '%s' %w, at isolation %s", r.ID, ErrExists, tenant.Route.Isolation)
	case tenant.Route.Status == registry.StatusProvisioning:
		return nil, fmt.Errorf("tenant '%s' %w, and is being provisioned on server %q", r.ID, ErrExists, tenant.Route.Server)
	case r.Database != "" && r.Database != tenant.Route.Database:
		return nil, fmt.Errorf("tenant '%s' %w, in database %q", r.ID, ErrExists, tenant.Route.Database)
	}
	return tenant, nil
}
