package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// AdoptRequest asks for what DocEX has not given a tenant that it made. Only ID is required.
type AdoptRequest struct {
	ID         registry.TenantID
	Actor      string             // "": "cli_user"
	Isolation  registry.Isolation // role, slot or trusted; "": role
	KeepAccess bool               // those who own the tables now become members of the tenant's role
}

// AdoptTenant gives a tenant that DocEX made itself a role, which gets all that is in the tenant's schema, and a route.
// The schema becomes docex_owner's. All or nothing; the data is not touched, and what DocEX's template has and the schema
// lacks is not created: see VerifyTenants and UpgradeTenant. It takes a superuser, or a member of the roles that own things
// in the schema. Nothing of the tenant's own code runs.
//
// Errors: *registry.InvalidTenantIDError, *InvalidRequestError, ErrNotFound, ErrExists for a tenant that has a route,
// *ConflictError for one without a schema, or whose schema is another's too, or for a role of that name,
// *KeyMismatchError, ErrNotInitialised.
func (p *Provisioner) AdoptTenant(ctx context.Context, r AdoptRequest) (*registry.Tenant, error) {
	if _, err := registry.ParseTenantID(string(r.ID)); err != nil {
		return nil, err
	}
	withDefault(&r.Actor, defaultCreatedBy)
	withDefault(&r.Isolation, registry.IsolationRole)
	if err := checkText("actor", r.Actor); err != nil {
		return nil, err
	}
	if r.Isolation == registry.IsolationDatabase {
		return nil, invalid("a tenant is adopted where it is, in a schema: that takes isolation role, slot or trusted, not database")
	}
	if err := checkIsolation(TenantRequest{Isolation: r.Isolation}); err != nil {
		return nil, err
	}
	var a *adoption
	err := p.transact(ctx, func(w *work) []step {
		a = &adoption{request: r, creation: &creation{work: w, Provisioner: p, tenant: &registry.Tenant{ID: r.ID, Route: &registry.Route{
			Status: registry.StatusActive, Isolation: r.Isolation, Server: defaultServer, Database: w.database, SecretGeneration: firstGeneration, Version: 1,
		}}}}
		return a.steps()
	})
	if err != nil {
		return nil, err
	}
	p.logger.Info("tenant adopted", slog.String("tenant", string(r.ID)), slog.String("schema", a.tenant.SchemaName))
	if p.dryRun != nil {
		return a.tenant, nil
	}
	store, err := registry.OpenStore(ctx, p.dsn)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	return store.Tenant(ctx, r.ID)
}

// adoption is one run of AdoptTenant.
type adoption struct {
	*creation
	request  AdoptRequest
	former   []string // who owned the schema, and what is in it
	outdated bool     // its tables are of an older DocEX
}

func (a *adoption) steps() []step {
	return []step{
		{"wait for the tenant's lock", a.enterForTenant},
		{"look for the tenant", func(ctx context.Context) error { return a.as(ctx, OwnerRole, a.find) }},
		{"look for what is in its schema", a.look},
		{"create the role", a.createTenantRole},
		{"take the schema over", a.takeOver},
		{"register the route", func(ctx context.Context) error { return a.as(ctx, OwnerRole, a.registerRoute) }},
		{"grant the shared rights", a.grantSharedRights},
		{"check the result", a.verifyOwner},
	}
}

func (a *adoption) find(ctx context.Context) error {
	var routed, shared, role bool
	t := a.tenant
	err := a.tx.QueryRow(ctx, `
SELECT is_system, coalesce(schema_name, ''), coalesce(database_path, ''),
       EXISTS (SELECT FROM docex_system.tenant_route AS t WHERE t.tenant_id = r.tenant_id),
       EXISTS (SELECT FROM docex_system.tenant_registry AS o WHERE o.tenant_id <> r.tenant_id AND o.schema_name = r.schema_name),
       EXISTS (SELECT FROM pg_roles WHERE rolname = r.schema_name)
  FROM docex_system.tenant_registry AS r WHERE tenant_id = $1`, string(t.ID)).Scan(&t.IsSystem, &t.SchemaName, &t.DatabasePath, &routed, &shared, &role)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("tenant '%s' %w", t.ID, ErrNotFound)
	case err != nil:
		return err
	case t.IsSystem:
		return a.refuse("is the system tenant: it has no route")
	case routed:
		return a.existsError()
	case t.SchemaName == "":
		return a.refuse(fmt.Sprintf("has no schema but the file %q: `docexctl tenant import` brings it here", t.DatabasePath))
	case t.SchemaName == systemSchema || !schemaPattern.MatchString(t.SchemaName) || len(t.SchemaName) > maxIdentifier:
		return a.refuse(fmt.Sprintf("has a schema %q that no tenant can have", t.SchemaName))
	case shared:
		return a.refuse(fmt.Sprintf("shares schema %q with another tenant", t.SchemaName))
	case role:
		return roleConflict(t.SchemaName)
	}
	t.Route.Role = RoleName(t.ID, t.SchemaName)
	a.verifier = derivedVerifier(a.key, t.Route.Role, firstGeneration)
	return nil
}

func (a *adoption) refuse(reason string) error {
	return &ConflictError{Object: "tenant", Name: string(a.tenant.ID), Reason: reason}
}

// ownedQuery lists what is in a schema and has an owner of its own, as ALTER spells it, with the owner. What belongs to
// something else goes with it: a row type, an index, a sequence of an identity column, an extension's member.
const ownedQuery = `
SELECT what, owner::regrole::text FROM (
  SELECT CASE relkind WHEN 'r' THEN 'TABLE' WHEN 'p' THEN 'TABLE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                      WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' END || format(' %I.%I', nspname, relname), relowner, 'pg_class'::regclass, c.oid
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
   WHERE nspname = $1 AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
     AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND relkind = 'S' AND d.deptype IN ('a', 'i'))
  UNION ALL
  SELECT CASE prokind WHEN 'p' THEN 'PROCEDURE ' WHEN 'a' THEN 'AGGREGATE ' ELSE 'FUNCTION ' END ||
         format('%I.%I(%s)', nspname, proname, pg_get_function_identity_arguments(p.oid)), proowner, 'pg_proc'::regclass, p.oid
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace WHERE nspname = $1
  UNION ALL
  SELECT CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END || format(' %I.%I', nspname, typname), typowner, 'pg_type'::regclass, t.oid
    FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = typnamespace
   WHERE nspname = $1 AND typtype IN ('c', 'd', 'e', 'r') AND (typrelid = 0 OR EXISTS (SELECT FROM pg_class AS c WHERE c.oid = typrelid AND relkind = 'c'))
) AS owned (what, owner, class, id)
 WHERE NOT EXISTS (SELECT FROM pg_depend WHERE classid = class AND objid = id AND deptype = 'e')`

// look reads who owns the schema and what is in it.
func (a *adoption) look(ctx context.Context) error {
	err := a.tx.QueryRow(ctx, `SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = $1`, a.tenant.SchemaName).Scan(new(string))
	if errors.Is(err, pgx.ErrNoRows) {
		return a.refuse(fmt.Sprintf("has no schema %q in this database", a.tenant.SchemaName))
	}
	if err != nil {
		return err
	}
	rows, err := a.tx.Query(ctx, `SELECT DISTINCT owner FROM (`+ownedQuery+`) AS o (what, owner)
 UNION SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = $1 ORDER BY 1`, a.tenant.SchemaName)
	if err != nil {
		return err
	}
	a.former, err = pgx.CollectRows(rows, pgx.RowTo[string]) // quoted where it has to be
	return err
}

// takeOver changes owners only: no row is read, and nothing of the tenant's runs.
func (a *adoption) takeOver(ctx context.Context) error {
	rows, err := a.tx.Query(ctx, ownedQuery, a.tenant.SchemaName)
	if err != nil {
		return err
	}
	role, schema := quote(a.tenant.Route.Role), quote(a.tenant.SchemaName)
	sql := "GRANT USAGE, CREATE ON SCHEMA " + schema + " TO " + role // an owner may create where its things are
	var what, owner string
	if _, err := pgx.ForEachRow(rows, []any{&what, &owner}, func() error {
		sql += ";\nALTER " + what + " OWNER TO " + role
		return nil
	}); err != nil {
		return err
	}
	sql += ";\nREVOKE ALL ON SCHEMA " + schema + " FROM " + role + ";\nALTER SCHEMA " + schema + " OWNER TO " + OwnerRole
	if err := a.exec(ctx, sql); err != nil {
		return err
	}
	err = a.as(ctx, OwnerRole, func(ctx context.Context) error {
		return a.exec(ctx, "REVOKE ALL ON SCHEMA "+schema+" FROM PUBLIC;\nGRANT USAGE, CREATE ON SCHEMA "+schema+" TO "+role)
	})
	if err != nil || !a.request.KeepAccess {
		return err
	}
	for _, former := range a.former {
		if former == OwnerRole || a.superuser && former == quote(a.user) || former == a.user {
			continue
		}
		if err := a.exec(ctx, "GRANT "+role+" TO "+former); err != nil {
			return err
		}
		if err := a.as(ctx, OwnerRole, func(ctx context.Context) error { return a.exec(ctx, "GRANT USAGE ON SCHEMA "+schema+" TO "+former) }); err != nil {
			return err
		}
	}
	return nil
}

func (a *adoption) registerRoute(ctx context.Context) error {
	t := a.tenant
	var complete bool
	err := a.tx.QueryRow(ctx, `SELECT count(*) = $2 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
 WHERE nspname = $1 AND relkind = 'r' AND relname = ANY ($3)`, t.SchemaName, businessTableCount, businessTableNames()).Scan(&complete)
	if err != nil {
		return err
	}
	if complete && !a.outdated { // and what an upgrade finds missing all the same it adds
		t.Route.SchemaVersion = schemaVersion
	}
	if err := registry.InsertRoute(ctx, a.tx, t.ID, t.Route); err != nil {
		if hasCode(err, uniqueViolation) {
			return a.existsError()
		}
		return err
	}
	if _, err := a.tx.Exec(ctx, `UPDATE docex_system.tenant_registry SET last_updated_at = $2, last_updated_by = $3 WHERE tenant_id = $1`,
		string(t.ID), a.timestamp(), a.request.Actor); err != nil {
		return err
	}
	return registry.InsertEvent(ctx, a.tx, t.ID, "adopt", a.request.Actor, struct {
		Schema    string             `json:"schema"`
		Role      string             `json:"role"`
		Isolation registry.Isolation `json:"isolation"`
		Former    []string           `json:"former_owners"`
	}{t.SchemaName, t.Route.Role, t.Route.Isolation, a.former})
}

// verifyOwner sees to it that nothing in the schema is another's.
func (a *adoption) verifyOwner(ctx context.Context) error {
	var left int
	err := a.tx.QueryRow(ctx, `SELECT count(*) FROM (`+ownedQuery+`) AS o (what, owner) WHERE owner <> quote_ident($2)`,
		a.tenant.SchemaName, a.tenant.Route.Role).Scan(&left)
	if err == nil && left > 0 {
		return fmt.Errorf("%d objects in schema %q are not the tenant's", left, a.tenant.SchemaName)
	}
	return err
}
