package main

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// goldenPrivileges is what docexctl gives a tenant, its role written as TENANT.
//
//go:embed golden/privileges.txt
var goldenPrivileges string

// privilegesOf leaves out what this program has made.
const privilegesOf = `
SELECT concat_ws(' ', 'schema', nspowner::regrole, nspacl) FROM pg_namespace WHERE nspname = '{alpha}'
UNION ALL (SELECT concat_ws(' ', 'relation', relname, relkind, relowner::regrole, coalesce(relacl::text, '-')) FROM pg_class
 WHERE relnamespace = '{alpha}'::regnamespace AND relkind IN ('r', 'v', 'm', 'S', 'f', 'p') AND relname !~ '^(own|shared_name|evil)' ORDER BY relname)
UNION ALL (SELECT concat_ws(' ', 'function', proname, proowner::regrole, coalesce(proacl::text, '-')) FROM pg_proc
 WHERE pronamespace = '{alpha}'::regnamespace AND proname !~ '^evil' ORDER BY proname)
UNION ALL SELECT concat_ws(' ', 'role', rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls) FROM pg_roles WHERE rolname = '{alpha role}'
UNION ALL SELECT concat_ws(' ', 'member of', roleid::regrole) FROM pg_auth_members WHERE member = '"{alpha role}"'::regrole`

// privileges provisions again and compares.
func privileges(t *trial) {
	t.provisionAgain()
	rows, err := t.hostileDB(privilegesOf)
	t.must(err)
	var found strings.Builder
	for _, row := range rows {
		found.WriteString(strings.ReplaceAll(row[0], t.own.role, "TENANT") + "\n")
	}
	t.checks++
	if found.String() != goldenPrivileges {
		t.leak("not as in golden/privileges.txt: %s", firstDifference(goldenPrivileges, found.String()))
	}
}

func firstDifference(want, got string) string {
	wanted, found := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(wanted), len(found)) {
		if wanted[i] != found[i] {
			return fmt.Sprintf("%q, not %q", found[i], wanted[i])
		}
	}
	return fmt.Sprintf("%d lines, not %d", len(found), len(wanted))
}

// provisionAgain runs what an operator runs twice.
func (t *trial) provisionAgain() {
	_, err := t.docexctl(t.ctx, "init")
	t.must(err)
	_, err = t.docexctl(t.ctx, "tenant", "create", t.attacker.tenant, "--isolation", string(t.level), "--if-not-exists")
	t.must(err)
}

// hostileDB runs a statement as the superuser in the hostile tenant's database.
func (t *trial) hostileDB(sql string) ([][]string, error) {
	conn, err := pgconn.Connect(t.ctx, t.cluster.DSN(t.own.database))
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(t.ctx))
	return rowsOf(conn.Exec(t.ctx, t.named(sql)))
}

// docexctlAgain leaves traps where a superuser might step into them.
func docexctlAgain(t *trial) {
	s := t.hostile()
	defer s.close()
	t.atEnd(func() {
		_, err := t.hostileDB(`DROP FUNCTION {alpha}.evil_trap() CASCADE; DROP FUNCTION {alpha}.lower(text), {alpha}.now(), {alpha}.evil_equal(name, name) CASCADE`)
		t.must(err)
	})
	const powers = `EXECUTE 'ALTER ROLE "{alpha role}" SUPERUSER'; EXECUTE 'GRANT docex_owner TO "{alpha role}"'`
	t.must(firstError(s, `CREATE FUNCTION evil_trap() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN BEGIN EXECUTE 'RESET ROLE'; `+powers+`; EXCEPTION WHEN OTHERS THEN END; RETURN NEW; END$$`,
		`CREATE FUNCTION lower(text) RETURNS text LANGUAGE plpgsql AS $$BEGIN `+powers+`; RETURN $1; END$$`,
		`CREATE FUNCTION now() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN `+powers+`; RETURN NULL; END$$`,
		`CREATE FUNCTION evil_equal(name, name) RETURNS bool LANGUAGE plpgsql AS $$BEGIN `+powers+`; RETURN true; END$$`,
		`CREATE OPERATOR = (FUNCTION = evil_equal, LEFTARG = name, RIGHTARG = name)`,
		`DO $$DECLARE r record; BEGIN FOR r IN SELECT oid::regclass t FROM pg_class WHERE relnamespace = '{alpha}'::regnamespace AND relkind = 'r' LOOP
		 EXECUTE format('CREATE TRIGGER evil BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION evil_trap()', r.t); END LOOP; END$$`))
	t.provisionAgain()
	t.checks++
}

// firstError runs texts one after the other, up to the first that fails.
func firstError(s *session, texts ...string) error {
	for _, sql := range texts {
		if _, err := s.run(sql); err != nil {
			return fmt.Errorf("%s: %w", s.t.named(sql), err)
		}
	}
	return nil
}
