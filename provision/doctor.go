package provision

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// Diagnose is VerifyTenants for all tenants, and looks at what belongs to no tenant as well: schemas with a tenant's tables
// that the registry does not know, traces of runs that were ended, the system tenant, the triggers that tell proxies of
// changes, the roles of the proxy itself, logins that nobody can use.
func (p *Provisioner) Diagnose(ctx context.Context, r VerifyRequest) ([]Finding, error) {
	v := &verification{Provisioner: p, request: r}
	err := p.transact(ctx, func(w *work) []step {
		d := &diagnosis{verification: v, work: w}
		return []step{
			{"wait for the registry's lock", w.enter},
			{"look at the registry", func(ctx context.Context) error { return w.as(ctx, OwnerRole, d.registry) }},
			{"look at the roles", d.roles},
		}
	})
	if err != nil {
		return nil, err
	}
	r.IDs = nil
	tenants, err := p.VerifyTenants(ctx, r)
	return append(v.findings, tenants...), err
}

// diagnosis is what Diagnose does in the registry's database.
type diagnosis struct {
	*verification
	*work
}

// coreTables are those by which DocEX's tenants are known.
var coreTables = []string{"docbasket", "document", "document_metadata", "operations", "doc_events"}

func (d *diagnosis) registry(ctx context.Context) error {
	for _, look := range []func(context.Context) error{d.systemTenant, d.strays, d.traces, d.triggers, d.logins, d.moves} {
		if err := look(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *diagnosis) systemTenant(ctx context.Context) error {
	var there bool
	err := d.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM docex_system.tenant_registry WHERE tenant_id = $1 AND is_system)`, string(registry.SystemTenantID)).Scan(&there)
	if err == nil && !there {
		d.find("", "registry", "has no row of the system tenant "+string(registry.SystemTenantID), "`docexctl init`")
	}
	return err
}

// strays are schemas with a tenant's tables that no tenant has.
func (d *diagnosis) strays(ctx context.Context) error {
	rows, err := d.tx.Query(ctx, `
SELECT nspname FROM pg_namespace AS n
 WHERE (SELECT count(*) FROM pg_class WHERE relnamespace = n.oid AND relkind IN ('r', 'p') AND relname = ANY ($1)) = cardinality($1)
   AND nspname <> $2 AND NOT EXISTS (SELECT FROM docex_system.tenant_registry WHERE schema_name = nspname) ORDER BY 1`, coreTables, systemSchema)
	if err != nil {
		return err
	}
	return d.each(rows, func(schema string) {
		d.find("", "schema", fmt.Sprintf("schema %q has a tenant's tables, and is in no row of the registry", schema), "`docexctl migrate v2-to-v3` registers it")
	})
}

func (d *diagnosis) each(rows pgx.Rows, find func(string)) error {
	var text string
	_, err := pgx.ForEachRow(rows, []any{&text}, func() error { find(text); return nil })
	return err
}

func (d *diagnosis) traces(ctx context.Context) error {
	rows, err := d.tx.Query(ctx, `
SELECT datname FROM pg_database AS d JOIN pg_shdescription ON objoid = d.oid AND classoid = 'pg_database'::regclass
 WHERE starts_with(description, 'docex-proxy: tenant ') AND description LIKE '%, provisioning'
UNION ALL SELECT datname FROM pg_database WHERE starts_with(datname, 'docex_archive_') AND datdba = to_regrole($1) ORDER BY 1`, OwnerRole)
	if err != nil {
		return err
	}
	return d.each(rows, func(database string) {
		d.find("", "schema", fmt.Sprintf("database %q is left from a run that is under way or was ended", database), "run the same command again")
	})
}

func (d *diagnosis) triggers(ctx context.Context) error {
	rows, err := d.tx.Query(ctx, `
SELECT t FROM unnest(ARRAY['tenant_registry', 'tenant_route', 'proxy_login', 'proxy_login_tenant']) AS t
 WHERE NOT EXISTS (SELECT FROM pg_trigger AS g JOIN pg_class AS c ON c.oid = tgrelid JOIN pg_namespace AS n ON n.oid = relnamespace
                    WHERE nspname = $1 AND relname = t AND tgname = 'docex_proxy_notify' AND tgenabled IN ('O', 'A'))`, systemSchema)
	if err != nil {
		return err
	}
	return d.each(rows, func(table string) {
		d.find("", "registry", fmt.Sprintf("changes of docex_system.%s are not told to proxies", table), "`docexctl init`")
	})
}

func (d *diagnosis) logins(ctx context.Context) error {
	rows, err := d.tx.Query(ctx, `
SELECT format('login %L %s', login, CASE WHEN valid_until < $1 THEN 'has been valid until ' || valid_until ELSE 'has no tenant' END)
  FROM docex_system.proxy_login AS l
 WHERE valid_until < $1 OR NOT all_tenants AND NOT EXISTS (SELECT FROM docex_system.proxy_login_tenant AS p WHERE p.login = l.login) ORDER BY 1`,
		d.now().UTC().Format(time.RFC3339))
	if err != nil {
		return err
	}
	return d.each(rows, func(text string) { d.find("", "login", text, "`docexctl login delete`, or create it anew") })
}

func (d *diagnosis) roles(ctx context.Context) error {
	for _, role := range systemRoles() {
		exists, err := d.roleExists(ctx, role)
		if err == nil && !exists {
			d.find("", "role", fmt.Sprintf("role %q does not exist", role.name), "`docexctl init`")
		}
		if conflict, ok := asConflict(err); ok {
			d.find("", "role", conflict.Error(), "see `docexctl init --help`")
			continue
		}
		if err != nil {
			return err
		}
	}
	if d.request.Key == nil {
		return nil
	}
	err := d.checkKey(ctx, *d.request.Key, RegistryRole, PoolRole)
	if mismatch, ok := asMismatch(err); ok {
		d.find("", "role", mismatch.Error(), "name the right one with --key-file, or `docexctl init --rekey`")
		return nil
	}
	return err
}
