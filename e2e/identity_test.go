package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

func TestEachWayToNameTheTenantReachesItsSchemaInTheFirstQuery(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	for name, changes := range map[string][]change{
		"the parameter docex.tenant_id":            {as(a.login), with("docex.tenant_id", "acme")},
		"the parameter docex.tenant":               {as(a.login), with("docex.tenant", "acme")},
		"options=-c docex.tenant_id":               {as(a.login), with("options", "-c docex.tenant_id=acme")},
		"options=-cdocex.tenant_id":                {as(a.login), with("options", "-cdocex.tenant_id=acme")},
		"options=--docex.tenant_id":                {as(a.login), with("options", "--docex.tenant_id=acme")},
		"options=-c docex.tenant":                  {as(a.login), with("options", "-c docex.tenant=acme")},
		"the suffix of the user":                   {},
		"the schema in options, as DocEX sends it": {as(a.login), with("options", "-csearch_path=tenant_acme,public,pg_catalog")},
		"the schema in search_path":                {as(a.login), with("search_path", `"tenant_acme", public`)},
		"all of them":                              {with("docex.tenant_id", "acme"), with("options", "-c docex.tenant=acme -csearch_path=tenant_acme")},
		"no database named":                        {func(c *pgx.ConnConfig) { c.Database = "" }},
	} {
		t.Run(name, func(t *testing.T) {
			conn := s.proxy.connect(t, a, changes...)
			expect(t, conn, "SELECT current_schema()", "tenant_acme")
			expect(t, conn, "SELECT current_user", "tenant_acme")
		})
	}
}

func TestTheDatabaseNamesTheTenantOnlyWhereItIsConfigured(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	p := s.startProxy(t, settings{"identity.database": "true"})
	byDatabase := func(c *pgx.ConnConfig) { c.User, c.Database = a.login, "acme" }
	expect(t, p.connect(t, a, byDatabase), "SELECT current_schema()", "tenant_acme")
	if refusal := s.proxy.refused(t, a, byDatabase); refusal.Code != "28000" {
		t.Errorf("%s %s", refusal.Code, refusal.Message)
	}
}

func TestTheCaseOfATenantMatters(t *testing.T) {
	s := theSite(t)
	lower, upper := s.tenant(t, "mixed"), s.tenant(t, "Mixed")
	expect(t, s.proxy.connect(t, lower), "SELECT current_schema()", "tenant_mixed")
	expect(t, s.proxy.connect(t, upper), "SELECT current_schema()", "tenant_Mixed")
	bySchema := with("options", "-csearch_path=tenant_Mixed,public,pg_catalog") // unquoted, as DocEX sends it
	expect(t, s.proxy.connect(t, upper, as(upper.login), bySchema), "SELECT current_schema()", "tenant_Mixed")
}

func TestEveryRefusalHasItsSQLSTATE(t *testing.T) {
	s := theSite(t)
	acme, globex := s.tenant(t, "acme"), s.tenant(t, "globex")
	postgres := s.direct(t)
	before := schemas(t, postgres)
	strangers := s.strangers(t, postgres)
	before = append(before, strangers.schemas...)

	for _, c := range []struct {
		sentence string
		account  account
		changes  []change
		want     string
	}{
		{"no tenant is named", acme, []change{as(acme.login)}, "28000"},
		{"a search_path names no tenant's schema, and nothing else does", acme, []change{as(acme.login), with("search_path", "public")}, "28P01"},
		{"parameter and suffix disagree", acme, []change{with("docex.tenant_id", "globex")}, "28000"},
		{"suffix and schema disagree", acme, []change{with("options", "-csearch_path=tenant_globex")}, "28000"},
		{"options name two tenants", acme, []change{as(acme.login), with("options", "-cdocex.tenant_id=acme -cdocex.tenant_id=globex")}, "28000"},
		{"the id is no id", acme, []change{as(acme.login), with("docex.tenant_id", `acme"; DROP SCHEMA x`)}, "28000"},
		{"the tenant is unknown", acme, []change{as(acme.login), with("docex.tenant_id", "nobody")}, "28P01"},
		{"the login is unknown", acme, []change{as("nobody.acme")}, "28P01"},
		{"the password is wrong", acme, []change{wrongPassword}, "28P01"},
		{"the login is another tenant's", acme, []change{as(globex.login + ".acme"), password(globex.password)}, "28P01"},
		{"the login has expired", strangers.expired, nil, "28P01"},
		{"the system tenant by id", strangers.everywhere, []change{as("everywhere"), with("docex.tenant_id", "_docex_system_")}, "42501"},
		{"the system tenant by suffix", strangers.everywhere, []change{as("everywhere._docex_system_")}, "42501"},
		{"the system tenant by its schema", strangers.everywhere, []change{as("everywhere"), with("options", "-csearch_path=docex_system")}, "42501"},
		{"the system tenant by its schema, as DocEX sends it", strangers.everywhere, []change{as("everywhere"), with("options", "-csearch_path=docex_system,public,pg_catalog")}, "42501"},
		{"a reserved id", strangers.everywhere, []change{as("everywhere"), with("docex.tenant_id", "_docex_other_")}, "42501"},
		{"the tenant is suspended", strangers.everywhere, []change{as("everywhere.refused_suspended")}, "55000"},
		{"the tenant is deleted", strangers.everywhere, []change{as("everywhere.refused_deleted")}, "55000"},
		{"the tenant is not adopted", strangers.everywhere, []change{as("everywhere.refused_docex")}, "55000"},
		{"another database", acme, []change{func(c *pgx.ConnConfig) { c.Database = "postgres" }}, "3D000"},
		{"replication", acme, []change{with("replication", "database")}, "0A000"},
		{"malformed options", acme, []change{with("options", "-x")}, "08P01"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if refusal := s.proxy.refused(t, c.account, c.changes...); refusal.Code != c.want || refusal.Severity != "FATAL" {
				t.Errorf("%s %s %q, want %s", refusal.Severity, refusal.Code, refusal.Message, c.want)
			}
		})
	}
	if after := schemas(t, postgres); !slices.Equal(sorted(before), after) {
		t.Errorf("schemas have appeared: %q, before %q", after, before)
	}
	if !s.proxy.alive() {
		t.Error("the proxy is gone")
	}
}

// strangers are those that are refused because of what the registry says of them.
type strangers struct {
	everywhere, expired account
	schemas             []string
}

func (s *site) strangers(t *testing.T, postgres *pgx.Conn) strangers {
	t.Helper()
	var made strangers
	for _, status := range []string{"suspended", "deleted"} {
		made.schemas = append(made.schemas, s.tenant(t, "refused_"+status).schema)
		execute(t, postgres, fmt.Sprintf("UPDATE docex_system.tenant_route SET status = '%s' WHERE tenant_id = 'refused_%[1]s'", status))
	}
	execute(t, postgres, `INSERT INTO docex_system.tenant_registry (tenant_id, display_name, schema_name, created_by)
		VALUES ('refused_docex', 'made by DocEX', 'tenant_refused_docex', 'docex')`)
	made.everywhere = account{tenant: "acme", login: "everywhere", password: s.login(t, "everywhere", "--all-tenants")}
	made.expired = account{tenant: "acme", login: "former", password: s.login(t, "former", "--tenant", "acme")}
	execute(t, postgres, "UPDATE docex_system.proxy_login SET valid_until = now() - interval '1 second' WHERE login = 'former'")
	return made
}

func wrongPassword(c *pgx.ConnConfig) { c.Password += "x" }

func password(text string) change { return func(c *pgx.ConnConfig) { c.Password = text } }

func schemas(t *testing.T, postgres *pgx.Conn) []string {
	t.Helper()
	return strings.Split(query(t, postgres, `SELECT string_agg(nspname, ',' ORDER BY nspname COLLATE "C") FROM pg_namespace
		WHERE nspname NOT LIKE 'pg\_%'`), ",")
}

func sorted(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return slices.Compact(names)
}

func TestBothNamesAreSaidWhenSourcesDisagree(t *testing.T) {
	s := theSite(t)
	refusal := s.proxy.refused(t, s.tenant(t, "acme"), with("docex.tenant_id", "globex"))
	for _, want := range []string{`"acme"`, `"globex"`, "docex.tenant_id", "user"} {
		if !strings.Contains(refusal.Message+refusal.Detail+refusal.Hint, want) {
			t.Errorf("%s is not named: %q, %q, %q", want, refusal.Message, refusal.Detail, refusal.Hint)
		}
	}
}

// TestAStrangerLearnsNothing compares what clients are told that fail for different reasons: whoever does not hold a
// tenant's password cannot find out which tenants or logins exist.
func TestAStrangerLearnsNothing(t *testing.T) {
	s := theSite(t)
	acme, globex := s.tenant(t, "acme"), s.tenant(t, "globex")
	type told struct{ refusal, messages string }
	attempt := func(user string, changes ...change) told {
		var seen bytes.Buffer
		refusal := s.proxy.refused(t, acme, append(changes, as(user), traced(&seen))...)
		return told{strings.ReplaceAll(fmt.Sprintf("%+v", *refusal), user, "USER"), types(seen.String())}
	}
	inTenant := func(id string) change { return with("docex.tenant_id", id) }

	wrong := attempt(acme.login, inTenant("acme"), wrongPassword)
	for sentence, got := range map[string]told{
		"an unknown tenant, with a wrong password":       attempt(acme.login, inTenant("nobody"), wrongPassword),
		"an unknown login":                               attempt("nobody", inTenant("acme"), wrongPassword),
		"an unknown login of an unknown tenant":          attempt("nobody", inTenant("nobody"), wrongPassword),
		"another tenant's login, with a wrong password":  attempt(globex.login, inTenant("acme"), wrongPassword),
		"an unknown schema, with a wrong password":       attempt(acme.login, with("options", "-csearch_path=tenant_nobody"), wrongPassword),
		"another tenant's schema, with a wrong password": attempt(acme.login, with("options", "-csearch_path=tenant_globex"), wrongPassword),
	} {
		if got != wrong {
			t.Errorf("%s is told\n%+v\nand a wrong password\n%+v", sentence, got, wrong)
		}
	}
	foreign := attempt(acme.login, inTenant("globex"))
	if unknown := attempt(acme.login, inTenant("nobody")); unknown != foreign {
		t.Errorf("with its own password, an unknown tenant is told\n%+v\nand another's\n%+v", unknown, foreign)
	}
	if foreign.refusal != wrong.refusal {
		t.Errorf("another's tenant is told\n%s\nand a wrong password\n%s", foreign.refusal, wrong.refusal)
	}
}

// traced notes every message of a connection, as libpq's PQtrace does.
func traced(log io.Writer) change {
	return func(c *pgx.ConnConfig) {
		c.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
			frontend := pgproto3.NewFrontend(r, w)
			frontend.Trace(log, pgproto3.TracerOptions{SuppressTimestamps: true})
			return frontend
		}
	}
}

// types lists the types of the messages in a trace.
func types(trace string) string {
	var seen []string
	for line := range strings.Lines(trace) {
		if fields := strings.Fields(line); len(fields) > 1 && (fields[0] == "F" || fields[0] == "B") {
			seen = append(seen, fields[0]+" "+fields[1])
		}
	}
	return strings.Join(seen, ", ")
}

func TestExposedErrorsNameTheTenantAndWhatToDo(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	p := s.startProxy(t, settings{"auth.expose_tenant_errors": "true"})
	refusal := p.refused(t, a, as(a.login), with("docex.tenant_id", "nobody"))
	if refusal.Code != "3D000" || refusal.Message != `tenant "nobody" is not provisioned` || !strings.Contains(refusal.Hint, "docexctl tenant create nobody") {
		t.Errorf("%s %q hint %q", refusal.Code, refusal.Message, refusal.Hint)
	}
}

func TestARequiredUserContext(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	p := s.startProxy(t, settings{"auth.require_user_context": "true"})
	if refusal := p.refused(t, a); refusal.Code != "28000" || !strings.Contains(refusal.Hint, "docex.user_id") {
		t.Errorf("%s %q hint %q", refusal.Code, refusal.Message, refusal.Hint)
	}
	conn := p.connect(t, a, with("docex.user_id", "alice"), with("options", "-c docex.roles=editor,reader"))
	expect(t, conn, "SELECT current_setting('docex.user_id')", "alice")
	expect(t, conn, "SELECT current_setting('docex.roles')", "editor,reader")
}

func TestATrustedLoginNeedsNoPasswordFromLoopback(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	p := s.startProxy(t, settings{"auth.trust": a.login})
	expect(t, p.connect(t, a, password("")), "SELECT current_schema()", a.schema)
	if refusal := p.refused(t, s.tenant(t, "globex"), wrongPassword); refusal.Code != "28P01" {
		t.Errorf("%s %s", refusal.Code, refusal.Message)
	}
}
