package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/registry"
)

// VerifyRequest says which tenants are looked at.
type VerifyRequest struct {
	IDs            []registry.TenantID // none: all
	SchemaTemplate string              // as in TenantRequest
	Template       Template            // likewise
	Key            *secret.Key         // nil: passwords are not looked at
}

// Finding is something that is not as it should be.
type Finding struct {
	Tenant  registry.TenantID // "" where it is nobody's
	Check   string            // registry, route, server, schema, tables, role, rights or login
	Problem string
	Remedy  string // the command that mends it, or what to do
}

// VerifyTenants compares what the registry says of tenants with what Postgres holds of them, and their tables with those
// of the template. It reads catalogs only, and creates the template's tables once for each database, in a transaction that
// it rolls back. What a tenant has beside the template is its own business.
//
// Errors: ErrNotFound for an id that is named, ErrNotInitialised. A server that cannot be reached is a finding.
func (p *Provisioner) VerifyTenants(ctx context.Context, r VerifyRequest) ([]Finding, error) {
	tenants, err := p.tenantsNamed(ctx, r.IDs)
	if err != nil {
		return nil, err
	}
	v := &verification{Provisioner: p, request: r, places: make(map[place][]*registry.Tenant)}
	schemas := make(map[string]registry.TenantID)
	for _, t := range tenants {
		v.checkRow(t)
		if t.IsSystem || t.Route == nil || t.Route.Status == registry.StatusProvisioning || t.Route.Status == registry.StatusMoving {
			continue // one that is held is closed on purpose
		}
		key := t.Route.Server + "\x00" + t.Route.Database + "\x00" + t.SchemaName
		if other, twice := schemas[key]; twice {
			v.find(t.ID, "registry", fmt.Sprintf("has the same schema %q as tenant '%s'", t.SchemaName, other), "give one of them a schema of its own: no wall is between the two")
		}
		schemas[key] = t.ID
		at := place{t.Route.Server, t.Route.Database}
		v.places[at] = append(v.places[at], t)
	}
	for _, at := range slices.SortedFunc(maps.Keys(v.places), place.compare) {
		if err := v.look(ctx, at); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			for _, t := range v.places[at] {
				v.find(t.ID, "server", fmt.Sprintf("database %q of server %q: %v", at.database, at.server, err),
					fmt.Sprintf("say with --server-dsn %s=DSN how the server is reached, and see that it runs", at.server))
			}
		}
	}
	return v.findings, nil
}

// tenantsNamed reads the tenants of the ids, or all.
func (p *Provisioner) tenantsNamed(ctx context.Context, ids []registry.TenantID) ([]*registry.Tenant, error) {
	store, err := registry.OpenStore(ctx, p.dsn)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	if len(ids) == 0 {
		return store.Tenants(ctx)
	}
	var tenants []*registry.Tenant
	for _, id := range ids {
		t, err := store.Tenant(ctx, id)
		if errors.Is(err, registry.ErrNotFound) {
			return nil, fmt.Errorf("tenant '%s' %w", id, ErrNotFound)
		}
		if err != nil {
			return nil, err
		}
		tenants = append(tenants, t)
	}
	return tenants, nil
}

// place is a database of a server of the proxy's configuration.
type place struct{ server, database string }

func (p place) compare(q place) int {
	return cmp.Or(strings.Compare(p.server, q.server), strings.Compare(p.database, q.database))
}

// verification is one run of VerifyTenants.
type verification struct {
	*Provisioner
	request  VerifyRequest
	places   map[place][]*registry.Tenant
	findings []Finding
}

func (v *verification) find(id registry.TenantID, check, problem, remedy string) {
	v.findings = append(v.findings, Finding{Tenant: id, Check: check, Problem: problem, Remedy: remedy})
}

// checkRow is about what the registry says by itself.
func (v *verification) checkRow(t *registry.Tenant) {
	if t.IsSystem {
		if t.Route != nil {
			v.find(t.ID, "route", "is the system tenant and has a route", "DELETE FROM docex_system.tenant_route WHERE tenant_id = "+quoteLiteral(string(t.ID)))
		}
		return
	}
	if _, err := registry.ParseTenantID(string(t.ID)); err != nil {
		v.find(t.ID, "registry", err.Error(), "clients cannot name it: migrate it to a valid id (`docexctl migrate v2-to-v3`)")
	}
	switch {
	case t.Route == nil && t.SchemaName == "":
		v.find(t.ID, "route", fmt.Sprintf("is the SQLite file %q, which the proxy does not serve", t.DatabasePath), "`docexctl tenant import`")
	case t.Route == nil:
		v.find(t.ID, "route", "has no route: DocEX has made it", "`docexctl tenant adopt "+string(t.ID)+"`")
	case t.Route.Status == registry.StatusProvisioning:
		v.find(t.ID, "route", fmt.Sprintf("is being provisioned on server %q, or a run was ended", t.Route.Server), "`docexctl tenant create "+string(t.ID)+"` again, as before")
	}
	if t.SchemaName == "" {
		return
	}
	if want, err := schemaName(v.request.SchemaTemplate, t.ID); err == nil && want != t.SchemaName {
		v.find(t.ID, "registry", fmt.Sprintf("has schema %q, and the template makes %q", t.SchemaName, want),
			"DocEX looks for the template's: see that its configuration has the template that the tenant was made with")
	}
}

// look verifies the tenants of one database.
func (v *verification) look(ctx context.Context, at place) error {
	there, abroad := v.at(at.server)
	conn, err := there.connect(ctx, at.database)
	if err != nil {
		return err
	}
	defer closeDetached(ctx, conn)
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return err
	}
	defer rollbackDetached(ctx, tx)
	w := &work{tx: tx}
	if err := w.start(ctx); err != nil {
		return err
	}
	want, err := w.referenceCatalog(ctx, v.request.Template.orDefault())
	if err != nil {
		return err
	}
	l := &lookout{verification: v, work: w, want: want, abroad: abroad}
	for _, t := range v.places[at] {
		if err := l.tenant(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// referenceSchema is where the template's tables are for as long as the transaction.
const referenceSchema = "docex_verify"

// catalog is what there is of tables, by a line that says what it is.
type catalog map[string]bool

// referenceCatalog makes the template's tables to see what they look like on this server.
func (w *work) referenceCatalog(ctx context.Context, t Template) (catalog, error) {
	if err := w.exec(ctx, "SAVEPOINT reference"); err != nil {
		return nil, err
	}
	err := w.as(ctx, OwnerRole, func(ctx context.Context) error {
		if err := w.exec(ctx, "CREATE SCHEMA "+referenceSchema); err != nil {
			return err
		}
		return w.fill(ctx, t, referenceSchema)
	})
	if err != nil {
		return nil, fmt.Errorf("the template's tables: %w", err)
	}
	want, err := w.catalogOf(ctx, referenceSchema)
	if err != nil {
		return nil, err
	}
	return want, w.exec(ctx, "ROLLBACK TO SAVEPOINT reference")
}

// catalogOf lists tables, columns, constraints and indexes of a schema, without its name.
func (w *work) catalogOf(ctx context.Context, schema string) (catalog, error) {
	rows, err := w.tx.Query(ctx, `
WITH tables AS (SELECT c.oid, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = $1 AND relkind IN ('r', 'p'))
SELECT 'table ' || relname FROM tables
UNION ALL
SELECT format('column %s.%s %s%s%s', relname, attname, format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN ' NOT NULL' END,
              ' DEFAULT ' || replace(pg_get_expr(adbin, adrelid), quote_ident($1) || '.', ''))
  FROM tables JOIN pg_attribute ON attrelid = tables.oid AND attnum > 0 AND NOT attisdropped LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
UNION ALL
SELECT format('constraint %s on %s %s', conname, relname, replace(pg_get_constraintdef(k.oid), quote_ident($1) || '.', ''))
  FROM tables JOIN pg_constraint AS k ON conrelid = tables.oid AND contype <> 'n'
UNION ALL
SELECT 'index ' || replace(replace(pg_get_indexdef(indexrelid), ' ON ' || quote_ident($1) || '.', ' ON '), quote_ident($1) || '.', '')
  FROM tables JOIN pg_index ON indrelid = tables.oid WHERE indisvalid`, schema)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	found := make(catalog, len(all))
	for _, line := range all {
		found[line] = true
	}
	return found, nil
}

// missing is what there is of want and not of got, in order, without what a missing table would have had.
func (got catalog) missing(want catalog) []string {
	var lacks []string
	for line := range want {
		if got[line] {
			continue
		}
		if kind, rest, _ := strings.Cut(line, " "); kind == "column" {
			if table, _, _ := strings.Cut(rest, "."); !got["table "+table] {
				continue
			}
		}
		lacks = append(lacks, line)
	}
	slices.Sort(lacks)
	return lacks
}
