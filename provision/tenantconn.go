package provision

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// ConnectAsTenant logs in as a tenant's own role, in its database and schema, whatever the tenant has made of the
// role's settings. This is the way to run SQL on what a tenant has had its hands on: a trigger, a default, an
// operator's function is the tenant's code, and after a mere SET ROLE it could RESET ROLE and be the superuser who
// runs it. The caller closes the connection. In a dry run, too, what is run over it is run.
//
// Errors: ErrNotFound, *ConflictError for a tenant that has no role, or what the registry or Postgres said.
func (p *Provisioner) ConnectAsTenant(ctx context.Context, id registry.TenantID) (*pgx.Conn, error) {
	_, config, err := p.tenantConfig(ctx, id)
	if err != nil {
		return nil, err
	}
	return connectAsTenant(ctx, id, config)
}

func connectAsTenant(ctx context.Context, id registry.TenantID, config *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("log in as tenant '%s': %w", id, err)
	}
	return conn, nil
}

// tenantConfig reads a tenant, and says how to log in as its role.
func (p *Provisioner) tenantConfig(ctx context.Context, id registry.TenantID) (*registry.Tenant, *pgx.ConnConfig, error) {
	store, err := registry.OpenStore(ctx, p.dsn)
	if err != nil {
		return nil, nil, err
	}
	defer store.Close()
	tenant, err := store.Tenant(ctx, id)
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return nil, nil, fmt.Errorf("tenant '%s' %w", id, ErrNotFound)
	case err != nil:
		return nil, nil, err
	case tenant.Route == nil:
		return nil, nil, &ConflictError{Object: "tenant", Name: string(id), Reason: "has no role of its own"}
	}
	route := tenant.Route
	there, _ := p.at(route.Server)
	config, err := pgx.ParseConfig(there.dsn)
	if err != nil {
		return nil, nil, err // pgx leaves the password out of it
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	config.Database, config.User, config.Password = route.Database, route.Role, p.key.Password(route.Role, route.SecretGeneration)
	config.RuntimeParams = map[string]string{ // none of the superuser's; these win over ALTER ROLE SET
		"application_name":              "docexctl",
		"search_path":                   tenantSearchPath(tenant.SchemaName),
		"client_encoding":               "UTF8",
		"standard_conforming_strings":   "on",
		"default_transaction_read_only": "off",
		"lock_timeout":                  lockTimeout,
	}
	return tenant, config, nil
}
