package provision

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docex-proxy/docex-proxy/registry"
)

// prepare makes role and place on the new server, marked and closed, after it has cleared away what an earlier run has
// left there. It is what CreateTenant does for a tenant on another server, without tables.
func (m *move) prepare(ctx context.Context) error {
	m.say("prepare the new server", 0, 0)
	m.target.leave(ctx)
	like, err := m.source.texts(ctx, `
SELECT format(' ENCODING %L LC_COLLATE %L LC_CTYPE %L', pg_encoding_to_char(encoding), datcollate, datctype) FROM pg_database WHERE datname = current_database()`)
	if err != nil {
		return err
	}
	return m.home.transact(ctx, func(w *work) error {
		tenant := *m.tenant
		route := *m.tenant.Route
		route.Server = m.target.server
		tenant.Route = &route
		c := &creation{
			work: w, Provisioner: m.Provisioner, tenant: &tenant, like: like[0],
			verifier: derivedVerifier(m.key, route.Role, route.SecretGeneration),
		}
		defer c.closeSide(ctx)
		steps := []func(context.Context) error{c.reachServer, c.refuseExistingAbroad, c.clearLeftoversAbroad, c.createMarkedRole, c.createDatabase, c.markDatabase, c.fillDatabase}
		if route.Isolation != registry.IsolationDatabase {
			steps = []func(context.Context) error{c.reachServer, c.provideShared, c.clearShared, c.createClosed}
		}
		for _, run := range steps {
			if err := run(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// createMovers makes the roles that copy, and gives the new place what the tenant's structure stands on.
func (m *move) createMovers(ctx context.Context) error {
	if err := m.source.createMover(ctx, "REPLICATION"); err != nil {
		return err
	}
	// pg_dump reads the database's comment and settings, which light hardening keeps from PUBLIC.
	if err := m.source.execute(ctx, "GRANT SELECT ON pg_catalog.pg_shdescription, pg_catalog.pg_db_role_setting TO "+quote(m.source.mover)); err != nil {
		return err
	}
	if err := m.target.createMover(ctx, "NOREPLICATION"); err != nil {
		return err
	}
	if err := m.guard(ctx); err != nil {
		return err
	}
	extensions, err := m.source.texts(ctx, `
SELECT format('CREATE SCHEMA IF NOT EXISTS %I; CREATE EXTENSION IF NOT EXISTS %I SCHEMA %1$I CASCADE', nspname, extname)
  FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = extnamespace WHERE extname <> 'plpgsql' AND nspname <> $1 ORDER BY e.oid`, m.source.schema)
	if err != nil {
		return err
	}
	if err := m.target.execute(ctx, extensions...); err != nil {
		return err
	}
	return m.copySettings(ctx)
}

// listSettings are those whose value is a list of names, which ALTER ROLE must not get as one.
const listSettings = "'search_path', 'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries'"

// copySettings copies what ALTER ROLE … SET has set for the tenant's role, and its bound of connections.
func (m *move) copySettings(ctx context.Context) error {
	settings, err := m.source.texts(ctx, `
SELECT format('ALTER ROLE %I%s SET %s = ', $1::text, CASE WHEN setdatabase <> 0 THEN format(' IN DATABASE %I', current_database()) END, split_part(line, '=', 1)) ||
       CASE WHEN split_part(line, '=', 1) IN (`+listSettings+`) THEN substr(line, strpos(line, '=') + 1) ELSE quote_literal(substr(line, strpos(line, '=') + 1)) END
  FROM pg_db_role_setting, unnest(setconfig) AS line
 WHERE setrole = to_regrole(quote_ident($1)) AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
UNION ALL SELECT format('ALTER ROLE %I CONNECTION LIMIT %s', rolname, rolconnlimit) FROM pg_roles WHERE rolname = $1`, m.source.role)
	if err != nil {
		return err
	}
	return m.target.execute(ctx, settings...)
}

// copyStructure has pg_dump and pg_restore copy everything but rows, both as the role that copies. Triggers that fire for
// replicated rows are off until the new server is opened: what they do arrives by itself.
func (m *move) copyStructure(ctx context.Context) error {
	m.say("copy the structure", 0, 0)
	var err error
	if m.detail.Structure, err = m.structure(ctx); err != nil { // before pg_dump: a change that it misses is one
		return err
	}
	dir, err := os.MkdirTemp("", "docexctl-move-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "structure.dump")
	from, err := m.source.programs(ctx)
	if err != nil {
		return err
	}
	to, err := m.target.programs(ctx)
	if err != nil {
		return err
	}
	dump := from.command(ctx, m.source.database, dumpProgram, "--format=custom", "--schema-only", "--no-owner", "--no-publications", "--no-subscriptions",
		"--strict-names", "--schema="+quote(m.source.schema), "--file="+file)
	if err := say(dump); err != nil {
		return m.source.wrap(err)
	}
	restore := to.command(ctx, m.target.database, restoreProgram, "--exit-on-error", "--single-transaction", "--no-owner",
		"--role="+m.target.role, "--schema="+m.target.schema, "--dbname="+m.target.database, file)
	if err := say(restore); err != nil {
		return m.target.wrap(err)
	}
	disable, err := m.target.texts(ctx, alwaysTriggers("'ALTER TABLE %s DISABLE TRIGGER %I'"), m.target.schema)
	if err != nil {
		return err
	}
	return m.target.execute(ctx, disable...)
}

// alwaysTriggers are those that fire for replicated rows, each as a statement.
func alwaysTriggers(format string) string {
	return `SELECT format(` + format + `, c.oid::regclass, tgname, CASE tgenabled WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END)
  FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = tgrelid JOIN pg_namespace AS n ON n.oid = relnamespace
 WHERE nspname = $1 AND NOT tgisinternal AND tgenabled IN ('A', 'R') ORDER BY t.oid`
}

// programs are pg_dump and pg_restore for this server, as the role that copies.
func (e *end) programs(ctx context.Context) (*archive, error) {
	config, err := e.moverConfig()
	if err != nil {
		return nil, err
	}
	a := &archive{Provisioner: e.Provisioner, config: config}
	return a, a.findPrograms(ctx)
}

// structure is a hash of what the tenant's schema has beside rows, as the old server puts it. It changes when the tenant
// changes its tables, which replication does not do on the new server.
func (m *move) structure(ctx context.Context) (hash string, err error) {
	s, err := m.source.enter(ctx)
	if err != nil {
		return "", err
	}
	var lines []string
	err = s.transact(ctx, func(w *work) error {
		tables, err := w.catalogOf(ctx, m.source.schema)
		if err != nil {
			return err
		}
		lines = slices.Sorted(maps.Keys(tables))
		return nil
	})
	if err != nil {
		return "", m.source.wrap(err)
	}
	others, err := m.source.texts(ctx, `
SELECT 'view ' || c.relname || pg_get_viewdef(c.oid) AS line FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = $1 AND relkind IN ('v', 'm')
UNION ALL SELECT 'function ' || p.oid::regprocedure || md5(prosrc) FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace WHERE nspname = $1
UNION ALL SELECT 'trigger ' || pg_get_triggerdef(t.oid) || tgenabled::text FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = tgrelid JOIN pg_namespace AS n ON n.oid = relnamespace
           WHERE nspname = $1 AND NOT tgisinternal
UNION ALL SELECT 'sequence ' || s::text FROM pg_sequence AS s JOIN pg_class AS c ON c.oid = seqrelid JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = $1
UNION ALL SELECT 'policy ' || p::text FROM pg_policies AS p WHERE schemaname = $1
UNION ALL SELECT 'type ' || typname || coalesce((SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid), '')
            FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = typnamespace WHERE nspname = $1 AND typtype IN ('e', 'd', 'r', 'c')
UNION ALL SELECT 'table ' || relname || coalesce(relacl::text, '') || relrowsecurity || relpersistence::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
           WHERE nspname = $1 AND relkind IN ('r', 'p', 'v', 'm')
ORDER BY 1`, m.source.schema)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(append(lines, others...), "\n")))
	return hex.EncodeToString(sum[:]), nil
}

// guard keeps the role that copies, which is the subscription's owner, from changing it: code of the tenant's may run as
// that role, and a subscription's connection is made by the server.
func (m *move) guard(ctx context.Context) error {
	name := quote(m.target.mover)
	return m.target.execute(ctx, fmt.Sprintf(`
CREATE OR REPLACE FUNCTION %[1]s.%[2]s() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $guard$
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        RAISE EXCEPTION 'a subscription is changed by superusers only while a tenant is moved' USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$guard$;
DROP EVENT TRIGGER IF EXISTS %[2]s;
CREATE EVENT TRIGGER %[2]s ON ddl_command_start WHEN TAG IN ('ALTER SUBSCRIPTION', 'DROP SUBSCRIPTION') EXECUTE FUNCTION %[1]s.%[2]s();
ALTER EVENT TRIGGER %[2]s ENABLE ALWAYS`, extensionSchema, name))
}
