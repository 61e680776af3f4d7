package provision_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

func TestThePoolRoleIsNothingBeforeItBecomesATrustedTenant(t *testing.T) {
	s := newInitialisedSite(t)
	tenant := s.createAt(t, "acme", registry.IsolationTrusted)
	if tenant.Route.Isolation != registry.IsolationTrusted || tenant.Route.Role != "tenant_acme" {
		t.Errorf("got %+v", tenant.Route)
	}
	if stored, err := s.store(t).Tenant(t.Context(), "acme"); err != nil || stored.Route.Isolation != registry.IsolationTrusted {
		t.Errorf("stored %+v, %v", stored, err)
	}
	s.create(t, "walled")
	conn := s.as(t, provision.PoolRole)
	for _, sql := range []string{
		"SELECT * FROM tenant_acme.docbasket",
		"SELECT * FROM docex_system.tenant_registry",
		"CREATE TABLE tenant_acme.mine ()",
		"CREATE TABLE public.mine ()",
		"CREATE TEMPORARY TABLE mine ()",
		"SET ROLE tenant_walled",
		"SET ROLE docex_owner",
		"GRANT tenant_acme TO docex_registry",
	} {
		refused(t, conn, "42501", sql)
	}
	execute(t, conn, "SET ROLE tenant_acme")
	execute(t, conn, "SELECT * FROM tenant_acme.docbasket")
	execute(t, conn, "CREATE TABLE tenant_acme.mine (); CREATE TEMPORARY TABLE mine ()")
	refused(t, conn, "42501", "SELECT * FROM tenant_walled.docbasket")
	execute(t, conn, "SET ROLE NONE")
	refused(t, conn, "42501", "SELECT * FROM tenant_acme.docbasket")
}

func TestATrustedTenantsOwnRoleWorksAsAtLevelRole(t *testing.T) {
	s := newInitialisedSite(t)
	s.createAt(t, "acme", registry.IsolationTrusted)
	s.createAt(t, "globex", registry.IsolationTrusted)
	compareCatalog(t, s.conn, "tenant_acme", all)
	conn := s.as(t, "tenant_acme")
	execute(t, conn, "SELECT FROM docbasket")
	refused(t, conn, "42501", "SELECT FROM tenant_globex.docbasket")
	refused(t, conn, "42501", "SET ROLE docex_pool")
}

// Before Postgres 16 the attribute of docex_pool decides; since then the grant itself says that nothing is inherited.
func TestAPoolRoleThatInheritsGainsNothing(t *testing.T) {
	s := newInitialisedSite(t)
	execute(t, s.conn, "ALTER ROLE docex_pool INHERIT")
	_, err := s.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", Isolation: registry.IsolationTrusted})
	if conflict, ok := errors.AsType[*provision.ConflictError](err); ok && conflict.Name == provision.PoolRole {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	refused(t, s.as(t, provision.PoolRole), "42501", "SELECT FROM tenant_acme.docbasket")
}

func TestAProvisionerCanLendATenantToThePool(t *testing.T) {
	s := newInitialisedSite(t)
	p := s.provisioner(t, "NOINHERIT")
	if _, err := p.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", Isolation: registry.IsolationTrusted}); err != nil {
		t.Fatal(err)
	}
	members := lines(t, s.conn, `SELECT member::regrole::text FROM pg_auth_members WHERE roleid = 'tenant_acme'::regrole AND NOT admin_option`)
	if !slices.Equal(members, []string{provision.PoolRole}) {
		t.Errorf("members %q", members)
	}
	execute(t, s.as(t, provision.PoolRole), "SET ROLE tenant_acme")
}

func TestThePoolRoleConnectsOnlyWhereATenantIsTrusted(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	conn, err := pgx.Connect(t.Context(), s.login(t, provision.PoolRole, s.key.Password(provision.PoolRole, 1)))
	if err == nil {
		_ = conn.Close(t.Context())
		t.Error("docex_pool may connect although nobody is trusted")
	}
}

func TestNothingIsLeftWhenATrustedTenantFails(t *testing.T) {
	s := newInitialisedSite(t)
	before := s.snapshot(t)
	boom := errors.New("boom")
	for _, name := range provision.StepNames(registry.IsolationTrusted) {
		failing := s.failAfter(name, func() error { return boom })
		if _, err := failing.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", Isolation: registry.IsolationTrusted}); !errors.Is(err, boom) {
			t.Errorf("%s: got %v", name, err)
		}
		equal(t, before, s.snapshot(t))
	}
}
