package provision_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// findings are those of some tenants, as "tenant check: problem".
func (s *site) findings(t *testing.T, ids ...registry.TenantID) []string {
	t.Helper()
	found, err := s.VerifyTenants(t.Context(), provision.VerifyRequest{IDs: ids, Key: &s.key})
	if err != nil {
		t.Fatal(err)
	}
	return said(t, found)
}

func said(t *testing.T, found []provision.Finding) []string {
	t.Helper()
	var texts []string
	for _, f := range found {
		if f.Remedy == "" {
			t.Errorf("no remedy for %+v", f)
		}
		texts = append(texts, string(f.Tenant)+" "+f.Check+": "+f.Problem)
	}
	return texts
}

func TestNothingIsFoundOfTenantsThatAreAsTheyShouldBe(t *testing.T) {
	s := newInitialisedSite(t)
	for _, level := range levels {
		tenant := s.createAt(t, registry.TenantID("t_"+string(level)), level)
		mine := connect(t, in(t, tenant.Route.Database, s.login(t, tenant.Route.Role, s.key.Password(tenant.Route.Role, 1))))
		execute(t, mine, "CREATE TABLE more (n int); CREATE INDEX ON document (size); ALTER TABLE document ADD own text")
		mine.Close(t.Context())
	}
	s.docexMakes(t, "wild", "tenant_wild")
	if _, err := s.AdoptTenant(t.Context(), provision.AdoptRequest{ID: "wild"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RotateTenant(t.Context(), provision.RotateRequest{ID: "wild"}); err != nil {
		t.Fatal(err)
	}
	if found := s.findings(t); len(found) > 0 {
		t.Errorf("%q", found)
	}
	found, err := s.Diagnose(t.Context(), provision.VerifyRequest{Key: &s.key})
	if err != nil || len(found) > 0 {
		t.Errorf("%v, %v", found, err)
	}
	if left := lines(t, s.conn, `SELECT nspname::text FROM pg_namespace WHERE nspname = 'docex_verify'`); len(left) > 0 {
		t.Error("the template's tables are left")
	}
}

func TestWhatIsNotAsItShouldBeIsFound(t *testing.T) {
	mends := map[string]string{
		`DROP SCHEMA tenant_acme CASCADE`:                                                                         `acme schema: has no schema "tenant_acme"`,
		`ALTER SCHEMA tenant_acme OWNER TO tenant_acme`:                                                           `acme schema: schema "tenant_acme" is tenant_acme's`,
		`GRANT USAGE ON SCHEMA tenant_acme TO PUBLIC`:                                                             `acme rights: everybody has rights on schema "tenant_acme"`,
		`ALTER ROLE tenant_acme NOLOGIN`:                                                                          `acme role: role "tenant_acme" may not log in`,
		`ALTER ROLE tenant_acme CREATEDB`:                                                                         `acme role: role "tenant_acme" has more rights than a tenant may have`,
		`GRANT tenant_globex TO tenant_acme`:                                                                      `acme role: role "tenant_acme" is a member of tenant_globex`,
		`GRANT tenant_acme TO docex_pool`:                                                                         `acme rights: docex_pool may become the tenant's role`,
		`UPDATE docex_system.tenant_route SET isolation = 'trusted' WHERE tenant_id = 'acme'`:                     `acme rights: docex_pool may not become the tenant's role`,
		`UPDATE docex_system.tenant_route SET isolation = 'slot' WHERE tenant_id = 'acme'`:                        `has no slots, which isolation slot needs`,
		`ALTER ROLE tenant_acme PASSWORD 'guessed'`:                                                               `acme role: the password of role "tenant_acme" is not the one of generation 1`,
		`DROP TABLE tenant_acme.doc_events`:                                                                       `acme tables: lacks, or has otherwise: constraint doc_events_basket_id_fkey`,
		`ALTER TABLE tenant_acme.document ALTER size TYPE bigint`:                                                 `acme tables: lacks, or has otherwise: column document.size integer`,
		`DROP INDEX tenant_acme.idx_document_basket_name`:                                                         `acme tables: lacks, or has otherwise: index CREATE INDEX idx_document_basket_name ON document USING btree (basket_id, name)`,
		`ALTER TABLE tenant_acme.document OWNER TO CURRENT_USER`:                                                  `acme tables: 1 objects in schema "tenant_acme" belong to postgres`,
		`REVOKE CREATE ON SCHEMA tenant_acme FROM tenant_acme`:                                                    `acme rights: role "tenant_acme" lacks rights`,
		`ALTER ROLE tenant_acme SET search_path = public; ALTER ROLE tenant_acme IN DATABASE %d RESET ALL`:        `acme rights: role "tenant_acme" has another search_path`,
		`GRANT CONNECT ON DATABASE %d TO PUBLIC`:                                                                  `acme rights: everybody may connect`,
		`UPDATE docex_system.tenant_route SET server = 'far', database_name = 'nowhere' WHERE tenant_id = 'acme'`: `acme server: database "nowhere" of server "far"`,
		`UPDATE docex_system.tenant_registry SET schema_name = 'tenant_globex' WHERE tenant_id = 'acme'`:          `has the same schema "tenant_globex"`,
		`DELETE FROM docex_system.tenant_route WHERE tenant_id = 'acme'`:                                          `acme route: has no route`,
		`INSERT INTO docex_system.tenant_registry VALUES ('my-tenant', 'x', false, 'schema', 'tenant_my_tenant', NULL, now(), 'docex', now(), NULL)`: `my-tenant registry: Tenant ID must contain only`,
		`CREATE SCHEMA tenant_stray; CREATE TABLE tenant_stray.docbasket (); CREATE TABLE tenant_stray.document (); CREATE TABLE tenant_stray.document_metadata ();
		 CREATE TABLE tenant_stray.doc_events (); CREATE TABLE tenant_stray.operations ()`: ` schema: schema "tenant_stray" has a tenant's tables`,
		`DELETE FROM docex_system.tenant_registry WHERE is_system`:                 ` registry: has no row of the system tenant`,
		`ALTER TABLE docex_system.tenant_route DISABLE TRIGGER docex_proxy_notify`: ` registry: changes of docex_system.tenant_route are not told`,
		`INSERT INTO docex_system.proxy_login VALUES ('idle', 'x')`:                ` login: login 'idle' has no tenant`,
		`ALTER ROLE docex_pool CREATEROLE`:                                         ` role: role "docex_pool" exists with more rights`,
		`ALTER ROLE docex_registry PASSWORD 'x'`:                                   ` role: the password of role "docex_registry"`,
	}
	s := newInitialisedSite(t)
	s.create(t, "globex")
	named := func(text string, id string) string {
		return strings.NewReplacer("acme", id, "%d", s.conn.Config().Database).Replace(text)
	}
	wanted := make(map[string]string)
	for sql, want := range mends {
		id := fmt.Sprintf("acme%d", len(wanted))
		s.create(t, registry.TenantID(id))
		wanted[named(want, id)] = named(sql, id)
	}
	for _, sql := range wanted {
		execute(t, s.conn, sql)
	}
	found, err := s.Diagnose(t.Context(), provision.VerifyRequest{Key: &s.key})
	if err != nil {
		t.Fatal(err)
	}
	texts := said(t, found)
	for want, sql := range wanted {
		if !slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(text, want) }) {
			t.Errorf("%s: no %q in %q", sql, want, texts)
		}
	}
}
