package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/scram"
	"github.com/docex-proxy/docex-proxy/registry"
)

// lookout verifies tenants over one connection.
type lookout struct {
	*verification
	*work
	want   catalog
	abroad bool
}

func (l *lookout) tenant(ctx context.Context, t *registry.Tenant) error {
	exists, err := l.checkSchema(ctx, t)
	if err != nil {
		return err
	}
	role, err := l.checkRole(ctx, t)
	if err != nil || !exists || !role {
		return err
	}
	if err := l.checkTables(ctx, t); err != nil {
		return err
	}
	return l.checkRights(ctx, t)
}

func (l *lookout) checkSchema(ctx context.Context, t *registry.Tenant) (bool, error) {
	var owner string
	var public bool
	err := l.tx.QueryRow(ctx, `
SELECT nspowner::regrole::text, EXISTS (SELECT FROM aclexplode(nspacl) WHERE grantee = 0) FROM pg_namespace WHERE nspname = $1`, t.SchemaName).Scan(&owner, &public)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		l.find(t.ID, "schema", fmt.Sprintf("has no schema %q in database %q", t.SchemaName, t.Route.Database),
			fmt.Sprintf("restore it from an archive, or `docexctl tenant delete %s --purge`", t.ID))
		return false, nil
	case err != nil:
		return false, err
	case owner != OwnerRole:
		l.find(t.ID, "schema", fmt.Sprintf("schema %q is %s's, who can drop it and let others in", t.SchemaName, owner),
			"ALTER SCHEMA "+quote(t.SchemaName)+" OWNER TO "+OwnerRole)
	}
	if public {
		l.find(t.ID, "rights", fmt.Sprintf("everybody has rights on schema %q", t.SchemaName), "REVOKE ALL ON SCHEMA "+quote(t.SchemaName)+" FROM PUBLIC")
	}
	return true, nil
}

func (l *lookout) checkRole(ctx context.Context, t *registry.Tenant) (bool, error) {
	role := quote(t.Route.Role)
	var powerful, login, inherits bool
	var member, lent []string
	err := l.tx.QueryRow(ctx, `
SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls, rolcanlogin, rolinherit,
       ARRAY(SELECT roleid::regrole::text FROM pg_auth_members WHERE member = r.oid ORDER BY 1),
       ARRAY(SELECT pg_get_userbyid(member)::text FROM pg_auth_members WHERE roleid = r.oid ORDER BY 1)
  FROM pg_roles AS r WHERE rolname = $1`, t.Route.Role).Scan(&powerful, &login, &inherits, &member, &lent)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		l.find(t.ID, "role", fmt.Sprintf("role %q does not exist", t.Route.Role), "restore it from a backup of the cluster's roles")
		return false, nil
	case err != nil:
		return false, err
	case powerful:
		l.find(t.ID, "role", fmt.Sprintf("role %q has more rights than a tenant may have", t.Route.Role), "ALTER ROLE "+role+" "+noPowers)
	case !login:
		l.find(t.ID, "role", fmt.Sprintf("role %q may not log in", t.Route.Role), "ALTER ROLE "+role+" LOGIN, unless somebody has locked it on purpose")
	case len(member) > 0:
		l.find(t.ID, "role", fmt.Sprintf("role %q is a member of %s", t.Route.Role, strings.Join(member, ", ")), "REVOKE "+strings.Join(member, ", ")+" FROM "+role)
	}
	l.checkLent(t, role, lent)
	if err := l.checkSeat(ctx, t); err != nil {
		return false, err
	}
	return true, l.checkPassword(ctx, t)
}

// checkSeat is about whether slots are lent to a tenant that is to use them.
func (l *lookout) checkSeat(ctx context.Context, t *registry.Tenant) error {
	if t.Route.Isolation != registry.IsolationSlot {
		return nil
	}
	var seats, list bool
	err := l.tx.QueryRow(ctx, `
SELECT to_regprocedure('docex_system.seat(text, integer, boolean)') IS NOT NULL, to_regclass('docex_system.slot_tenant') IS NOT NULL`).Scan(&seats, &list)
	if err != nil {
		return err
	}
	if !seats {
		more := "`docexctl init --slots N`"
		if l.abroad {
			more = fmt.Sprintf("`docexctl init --slots N --server %s --server-dsn %[1]s=DSN`", t.Route.Server)
		}
		l.find(t.ID, "rights", fmt.Sprintf("database %q has no slots, which isolation slot needs", l.work.database), more)
		return nil
	}
	if !l.abroad || !list {
		return nil
	}
	var listed bool
	if err := l.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM docex_system.slot_tenant WHERE role_name = $1)`, t.Route.Role).Scan(&listed); err != nil || listed {
		return err
	}
	l.find(t.ID, "rights", fmt.Sprintf("no slot of server %q is lent to role %q", t.Route.Server, t.Route.Role),
		"as "+OwnerRole+": INSERT INTO docex_system.slot_tenant VALUES ("+quoteLiteral(t.Route.Role)+")")
	return nil
}

// checkLent is about who may become the tenant's role. A slot is a member for a moment.
func (l *lookout) checkLent(t *registry.Tenant, role string, lent []string) {
	pool := slices.Contains(lent, PoolRole)
	switch trusted := t.Route.Isolation == registry.IsolationTrusted; {
	case trusted && !pool:
		l.find(t.ID, "rights", PoolRole+" may not become the tenant's role, as isolation trusted needs", "GRANT "+role+" TO "+PoolRole)
	case !trusted && pool:
		l.find(t.ID, "rights", fmt.Sprintf("%s may become the tenant's role, which isolation %s does not allow", PoolRole, t.Route.Isolation), "REVOKE "+role+" FROM "+PoolRole)
	}
}

func (l *lookout) checkPassword(ctx context.Context, t *registry.Tenant) error {
	if l.request.Key == nil {
		return nil
	}
	stored, readable, err := l.storedVerifiers(ctx, t.Route.Role)
	if err != nil || !readable {
		return err
	}
	theirs, err := scram.ParseVerifier(stored[t.Route.Role])
	if err == nil {
		password := l.request.Key.Password(t.Route.Role, t.Route.SecretGeneration)
		if scram.DeriveVerifier(password, theirs.Salt, theirs.Iterations).String() == theirs.String() {
			return nil
		}
	}
	l.find(t.ID, "role", fmt.Sprintf("the password of role %q is not the one of generation %d of this master key", t.Route.Role, t.Route.SecretGeneration),
		"`docexctl tenant rotate "+string(t.ID)+"`, or name the right key with --key-file")
	return nil
}

// mostNamed is how many missing things a finding names.
const mostNamed = 5

func (l *lookout) checkTables(ctx context.Context, t *registry.Tenant) error {
	got, err := l.catalogOf(ctx, t.SchemaName)
	if err != nil {
		return err
	}
	if lacks := got.missing(l.want); len(lacks) > 0 {
		text := strings.Join(lacks[:min(mostNamed, len(lacks))], ", ")
		if more := len(lacks) - mostNamed; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		l.find(t.ID, "tables", "lacks, or has otherwise: "+text, "`docexctl tenant upgrade "+string(t.ID)+" --repair` creates tables and indexes that are missing")
	}
	var foreign int
	var owners []string
	err = l.tx.QueryRow(ctx, `SELECT count(*), array_agg(DISTINCT owner) FROM (`+ownedQuery+`) AS o (what, owner) WHERE owner <> quote_ident($2)`,
		t.SchemaName, t.Route.Role).Scan(&foreign, &owners)
	if err == nil && foreign > 0 {
		l.find(t.ID, "tables", fmt.Sprintf("%d objects in schema %q belong to %s", foreign, t.SchemaName, strings.Join(owners, ", ")),
			"ALTER … OWNER TO "+quote(t.Route.Role)+", each of them")
	}
	return err
}

func (l *lookout) checkRights(ctx context.Context, t *registry.Tenant) error {
	var rights, everybody, path bool
	err := l.tx.QueryRow(ctx, `
SELECT has_database_privilege(r.oid, current_database(), 'CONNECT') AND has_database_privilege(r.oid, current_database(), 'TEMPORARY')
   AND has_schema_privilege(r.oid, n.oid, 'USAGE') AND has_schema_privilege(r.oid, n.oid, 'CREATE')
   AND coalesce(has_schema_privilege(r.oid, to_regnamespace('ext'), 'USAGE'), false),
       has_database_privilege('public', current_database(), 'CONNECT'),
       EXISTS (SELECT FROM pg_db_role_setting WHERE setrole = r.oid AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND 'search_path=' || quote_ident($2) || ', ' || $3 || ', public' = ANY (setconfig))
  FROM pg_roles AS r, pg_namespace AS n WHERE r.rolname = $1 AND n.nspname = $2`,
		t.Route.Role, t.SchemaName, extensionSchema).Scan(&rights, &everybody, &path)
	if err != nil {
		return err
	}
	role, schema := quote(t.Route.Role), quote(t.SchemaName)
	if !rights {
		l.find(t.ID, "rights", fmt.Sprintf("role %q lacks rights on its schema or database", t.Route.Role),
			"as "+OwnerRole+": GRANT CONNECT, TEMPORARY ON DATABASE "+quote(l.work.database)+" TO "+role+"; GRANT USAGE, CREATE ON SCHEMA "+schema+" TO "+role+
				"; GRANT USAGE ON SCHEMA "+extensionSchema+", public TO "+role)
	}
	if everybody {
		l.find(t.ID, "rights", fmt.Sprintf("everybody may connect to database %q", l.work.database), "`docexctl init`, or REVOKE ALL ON DATABASE "+quote(l.work.database)+" FROM PUBLIC")
	}
	if !path {
		l.find(t.ID, "rights", fmt.Sprintf("role %q has another search_path than its schema, %s, public", t.Route.Role, extensionSchema),
			"ALTER ROLE "+role+" IN DATABASE "+quote(l.work.database)+" SET search_path = "+tenantSearchPath(t.SchemaName))
	}
	return nil
}
