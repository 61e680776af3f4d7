package provision_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

var update = flag.Bool("update", false, "write the golden files anew")

// newPrivateSite is a site with a cluster of its own, where no other test's roles are.
func newPrivateSite(t *testing.T) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "docex-grants-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // whoever runs the server has to pass through
		t.Fatal(err)
	}
	cluster, err := localpg.Start(t.Context(), localpg.Options{DataDir: filepath.Join(dir, "data"), Settings: map[string]string{"fsync": "off"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	execute(t, connect(t, cluster.DSN("postgres")), "CREATE DATABASE docex TEMPLATE template0")
	s := &site{dsn: cluster.DSN("docex"), key: secret.New()}
	s.Provisioner = s.with(s.key)
	s.conn = connect(t, s.dsn)
	if _, err := s.Init(t.Context(), provision.InitRequest{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// The catalogs behind psql's \dp, \dn+, \l and \du, in a form that does not change with Postgres's version: an
// owner's own rights are left out, which a new kind of right is added to now and then.
const (
	aclText = `coalesce((SELECT string_agg(line, ', ' ORDER BY line COLLATE "C") FROM (
  SELECT CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee::regrole::text END || '=' ||
         string_agg(privilege_type || CASE WHEN is_grantable THEN '*' ELSE '' END, '+' ORDER BY privilege_type COLLATE "C") AS line
    FROM aclexplode($ACL) WHERE grantee <> $OWNER GROUP BY grantee) AS entries), '-')`
	relationsGrants = `
SELECT relnamespace::regnamespace || '.' || relname || '|' || relkind::text || '|' || relowner::regrole || '|' || $TEXT FROM pg_class
 WHERE relnamespace::regnamespace::text = ANY ($1) AND relkind IN ('r', 'v', 'm', 'S', 'f', 'p')`
	functionsGrants = `
SELECT oid::regprocedure || '|' || proowner::regrole || '|' || CASE WHEN prosecdef THEN 'definer' ELSE 'invoker' END || '|' || $TEXT
  FROM pg_proc WHERE pronamespace::regnamespace::text = ANY ($1)`
	schemasGrants = `
SELECT nspname || '|' || nspowner::regrole || '|' || $TEXT FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)'`
	databasesGrants = `
SELECT datname || '|' || datdba::regrole || '|' || datconnlimit || '|' || coalesce(shobj_description(oid, 'pg_database'), '') || '|' || $TEXT
  FROM pg_database WHERE datname !~ '^(postgres|template)'`
	settingsGrants = `
SELECT coalesce(datname, '*') || '|' || coalesce(rolname, '*') || '|' || array_to_string(setconfig, ' ') FROM pg_db_role_setting
  LEFT JOIN pg_database AS d ON d.oid = setdatabase LEFT JOIN pg_roles AS r ON r.oid = setrole`
	rolesAttributes = `
SELECT concat_ws('|', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit,
       coalesce((SELECT string_agg(roleid::regrole || CASE WHEN admin_option THEN '*' ELSE '' END ||
                                   CASE WHEN pg_has_role(member, roleid, 'USAGE') THEN '!' ELSE '' END, ',' ORDER BY roleid::regrole::text COLLATE "C")
                   FROM pg_auth_members WHERE member = r.oid), '-'))
  FROM pg_roles AS r WHERE rolname !~ '^(pg_|postgres)'`
)

// grants renders who may do what in a connection's database and its cluster.
func grants(t *testing.T, conn *pgx.Conn, schemas ...string) string {
	t.Helper()
	var text strings.Builder
	section := func(title, query, acl, owner string, args ...any) {
		full := strings.ReplaceAll(query, "$TEXT", strings.NewReplacer("$ACL", acl, "$OWNER", owner).Replace(aclText))
		found := lines(t, conn, full, args...)
		slices.Sort(found) // not by Postgres, whose order is the machine's locale's
		text.WriteString("# " + title + "\n" + strings.Join(found, "\n") + "\n\n")
	}
	section("relations: name, kind, owner, rights", relationsGrants, "coalesce(relacl, acldefault('r', relowner))", "relowner", schemas)
	section("functions: name, owner, runs as, rights", functionsGrants, "coalesce(proacl, acldefault('f', proowner))", "proowner", schemas)
	section("schemas: name, owner, rights", schemasGrants, "coalesce(nspacl, acldefault('n', nspowner))", "nspowner")
	section("databases: name, owner, limit, comment, rights", databasesGrants, "coalesce(datacl, acldefault('d', datdba))", "datdba")
	section("settings: database, role, setting", settingsGrants, "", "")
	section("roles: name, super, inherit, createrole, createdb, login, replication, bypassrls, limit, member of", rolesAttributes, "", "")
	return text.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs; -update writes it anew", path)
		equal(t, string(want), got)
	}
}

func TestTheGrantsAreTheGoldenOnes(t *testing.T) {
	s := newPrivateSite(t)
	s.create(t, "x")
	golden(t, "grants_role.golden", grants(t, s.conn, "tenant_x", "docex_system", "ext", "public"))

	s.createAt(t, "trusting", registry.IsolationTrusted)
	golden(t, "grants_trusted.golden", grants(t, s.conn, "tenant_trusting"))

	s.createAt(t, "apart", registry.IsolationDatabase)
	golden(t, "grants_database.golden", grants(t, connect(t, in(t, "tenant_apart", s.dsn)), "tenant_apart", "ext", "public"))

	s.slotted(t, 2)
	s.createAt(t, "slotted", registry.IsolationSlot)
	golden(t, "grants_slot.golden", grants(t, s.conn, "tenant_slotted", "docex_system"))
	byName := lines(t, s.conn, `SELECT relname || ' ' || privilege_type FROM pg_class, aclexplode(relacl)
	  WHERE grantee = 'docex_switcher'::regrole OR grantee::regrole::text ~ '^docex_slot_' ORDER BY 1`)
	if want := []string{"pg_auth_members SELECT", "pg_db_role_setting SELECT"}; !slices.Equal(byName, want) {
		t.Errorf("switcher and slots read %q", byName)
	}
	everyRoleIsAsIntended(t, s)
}

// everyRoleIsAsIntended says in one place what the roles of a site may be. "!" is a role whose rights are inherited,
// "*" one that can be handed on: there must be neither.
func everyRoleIsAsIntended(t *testing.T, s *site) {
	t.Helper()
	want := []string{
		// rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit, member of
		"docex_owner|f|f|f|f|f|f|f|-1|-",
		"docex_pool|f|f|f|f|t|f|f|-1|tenant_trusting",
		"docex_registry|f|f|f|f|t|f|f|-1|-",
		"docex_slot_1|f|f|f|f|t|f|f|1|-",
		"docex_slot_2|f|f|f|f|t|f|f|1|-",
		"docex_switcher|f|f|f|f|t|f|f|-1|-",
		"tenant_apart|f|f|f|f|t|f|f|-1|-",
		"tenant_slotted|f|f|f|f|t|f|f|-1|-",
		"tenant_trusting|f|f|f|f|t|f|f|-1|-",
		"tenant_x|f|f|f|f|t|f|f|-1|-",
	}
	got := lines(t, s.conn, rolesAttributes)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
