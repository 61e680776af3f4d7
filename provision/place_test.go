package provision_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// placed creates a tenant whose server is chosen.
func (s *twoServers) placed(t *testing.T, id registry.TenantID, policy provision.Policy, exclude ...string) (*registry.Tenant, provision.Placement) {
	t.Helper()
	var placement provision.Placement
	tenant, err := s.CreateTenant(t.Context(), provision.TenantRequest{
		ID: id, Template: smallTemplate(t), Place: policy, Exclude: exclude, Placed: func(p provision.Placement) { placement = p },
	})
	if err != nil {
		t.Fatal(err)
	}
	if tenant.Route.Server != placement.Server || tenant.Route.Status != registry.StatusActive {
		t.Errorf("%+v is not at %+v", tenant.Route, placement)
	}
	return tenant, placement
}

func (s *twoServers) expect(t *testing.T, server, reason string, p provision.Placement) {
	t.Helper()
	if p.Server != server || p.Reason != reason {
		t.Errorf("server %q by %q, want %q by %q", p.Server, p.Reason, server, reason)
	}
}

func TestTheServerWithTheFewestTenantsIsChosen(t *testing.T) {
	s := newTwoServers(t)
	for _, want := range []struct {
		id             registry.TenantID
		server, reason string
	}{
		{"a", "eu", "fewest tenants: eu 0, main 0"}, // the first by name
		{"b", "main", "fewest tenants: eu 1, main 0"},
		{"c", "eu", "fewest tenants: eu 1, main 1"},
	} {
		_, placement := s.placed(t, want.id, provision.PlaceLeastTenants)
		s.expect(t, want.server, want.reason, placement)
	}
	var detail struct {
		Server    string
		Placement provision.Placement
	}
	event := lines(t, s.conn, "SELECT detail::text FROM docex_system.tenant_event WHERE tenant_id = 'c' AND verb = 'create'")
	if err := json.Unmarshal([]byte(event[0]), &detail); err != nil {
		t.Fatal(err)
	}
	if s.expect(t, "eu", "fewest tenants: eu 1, main 1", detail.Placement); detail.Server != "eu" || detail.Placement.Policy != provision.PlaceLeastTenants || len(detail.Placement.Servers) != 2 {
		t.Errorf("the audit trail has %s", event)
	}

	// A deleted tenant is none, one that is moving is two.
	if _, err := s.ChangeTenant(t.Context(), provision.ChangeRequest{ID: "c", Transition: provision.Delete}); err != nil {
		t.Fatal(err)
	}
	execute(t, s.conn, "INSERT INTO docex_system.tenant_move (tenant_id, from_server, to_server, step) VALUES ('b', 'main', 'eu', 'copy')")
	_, placement := s.placed(t, "d", provision.PlaceLeastTenants)
	s.expect(t, "main", "fewest tenants: eu 2, main 1", placement)
	execute(t, s.conn, "UPDATE docex_system.tenant_move SET step = 'kept'")
	_, placement = s.placed(t, "e", provision.PlaceLeastTenants, "eu")
	s.expect(t, "main", "fewest tenants: main 2", placement)

	// A level that only the registry's server can have is there.
	if _, err := s.CreateTenant(t.Context(), provision.TenantRequest{
		ID: "f", Isolation: registry.IsolationTrusted, Template: smallTemplate(t), Place: provision.PlaceLeastTenants, Placed: func(p provision.Placement) { placement = p },
	}); err != nil {
		t.Fatal(err)
	}
	s.expect(t, "main", "fewest tenants: main 3", placement)
	if one := placement.Servers[0]; !strings.Contains(one.Barred, "isolation trusted") || one.Silent {
		t.Errorf("%+v", one)
	}
}

func TestTheServerWithTheFewestBytesIsChosen(t *testing.T) {
	s := newTwoServers(t)
	big, maintenance := s.conn, connect(t, s.eu.DSN("postgres"))
	execute(t, big, "CREATE TABLE docex_system.ballast AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 10000) AS n")
	if _, placement := s.placed(t, "a", provision.PlaceLeastBytes); placement.Server != "eu" || *placement.Servers[0].Bytes >= *placement.Servers[1].Bytes ||
		!strings.HasPrefix(placement.Reason, "fewest bytes: eu ") {
		t.Errorf("%+v", placement)
	}
	execute(t, maintenance, "CREATE TABLE public.ballast AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 30000) AS n")
	t.Cleanup(func() { _, _ = maintenance.Exec(context.Background(), "DROP TABLE public.ballast") })
	if _, placement := s.placed(t, "b", provision.PlaceLeastBytes); placement.Server != "main" {
		t.Errorf("%+v", placement)
	}
}

func TestAServerThatDoesNotAnswerIsNotChosenAndSaid(t *testing.T) {
	s := newTwoServers(t)
	p := provision.New(provision.Options{DSN: s.dsn, Key: s.key, Servers: map[string]string{"eu": s.eu.DSN("postgres"), "down": "postgres://postgres@127.0.0.1:1/postgres"}})
	request := provision.TenantRequest{ID: "a", Template: smallTemplate(t), Place: provision.PlaceLeastTenants}
	for _, id := range []registry.TenantID{"a", "b"} { // the second time it is not asked
		request.ID, request.Placed = id, func(placed provision.Placement) {
			if one := placed.Servers[0]; one.Server != "down" || !one.Silent || !strings.Contains(one.Barred, "127.0.0.1") || placed.Server == "down" {
				t.Errorf("%+v", placed)
			}
		}
		if _, err := p.CreateTenant(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	request.ID, request.Exclude = "c", []string{"eu", "main"}
	if _, err := p.CreateTenant(t.Context(), request); err == nil || !strings.Contains(err.Error(), "there is no server to place it on: down: ") || !strings.Contains(err.Error(), "eu: is excluded") {
		t.Errorf("got %v", err)
	}
	for _, wrong := range []provision.TenantRequest{
		{ID: "c", Place: "darts"}, {ID: "c", Place: provision.PlaceLeastBytes, Server: "eu"}, {ID: "c", Exclude: []string{"eu"}},
		{ID: "c", Place: provision.PlaceLeastBytes, Exclude: []string{"us"}},
	} {
		if _, err := p.CreateTenant(t.Context(), wrong); !isInvalid(err) {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
	if got := s.status(t, "c"); got != "" {
		t.Errorf("it is %s", got)
	}
	var placed provision.Placement
	_, err := s.provisioner(t, "").CreateTenant(t.Context(), provision.TenantRequest{ // by one who is no superuser
		ID: "c", Template: smallTemplate(t), Place: provision.PlaceLeastBytes, Placed: func(p provision.Placement) { placed = p },
	})
	if err != nil || placed.Server != "main" || *placed.Servers[0].Bytes < 1<<20 {
		t.Errorf("%+v, %v", placed, err)
	}
}

func TestThoseThatChooseAtOnceDoNotChooseAlike(t *testing.T) {
	s := newTwoServers(t)
	const tenants = 6
	errs := make(chan error, tenants)
	for i := range tenants {
		request := provision.TenantRequest{ID: registry.TenantID(fmt.Sprintf("a%d", i)), Template: smallTemplate(t), Place: provision.PlaceLeastTenants}
		go func() {
			_, err := s.CreateTenant(context.WithoutCancel(t.Context()), request)
			errs <- err
		}()
	}
	for range tenants {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	// Each that chooses knows of all that have chosen, and may know of one twice.
	if got := lines(t, s.conn, "SELECT server || ' ' || count(*) FROM docex_system.tenant_route GROUP BY server HAVING count(*) BETWEEN 2 AND 4"); len(got) != 2 {
		t.Errorf("they are %q", lines(t, s.conn, "SELECT server FROM docex_system.tenant_route"))
	}
	if got := lines(t, s.conn, "SELECT mode FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"); len(got) > 0 {
		t.Errorf("locks are left: %q", got)
	}
}

// Wherever a run was ended, the same request finishes it on the server that it had chosen, whatever would be chosen now.
func TestWhatHasBegunOnAChosenServerIsFinishedThere(t *testing.T) {
	s := newTwoServers(t)
	for i, name := range []string{"see to the shared database", "create role, schema and tables", "open the database"} {
		request := provision.TenantRequest{ID: registry.TenantID(fmt.Sprintf("a%d", i)), Template: smallTemplate(t), Place: provision.PlaceLeastTenants, Exclude: []string{"main"}}
		s.kill(t, name, request)
		request.Exclude = nil
		execute(t, s.conn, "INSERT INTO docex_system.tenant_registry (tenant_id, display_name, created_by) VALUES ('other"+fmt.Sprint(i)+"', '', '')")
		execute(t, s.conn, "INSERT INTO docex_system.tenant_route (tenant_id, status, server, database_name, role_name) VALUES ('other"+fmt.Sprint(i)+"', 'active', 'eu', '', 'other"+fmt.Sprint(i)+"')")
		request.Placed = func(p provision.Placement) {
			if want := i > 0; (p.Server == "eu") != want || strings.HasPrefix(p.Reason, "an earlier run has") != want {
				t.Errorf("%s: %+v", name, p)
			}
		}
		if _, err := s.CreateTenant(t.Context(), request); err != nil {
			t.Fatal(name, err)
		}
		if got := s.status(t, request.ID); got != registry.StatusActive {
			t.Errorf("%s: it is %q", name, got)
		}
	}
	before := len(lines(t, s.conn, "SELECT tenant_id FROM docex_system.tenant_event"))
	var shown strings.Builder
	dry := provision.New(provision.Options{DSN: s.dsn, Key: s.key, Servers: map[string]string{"eu": s.eu.DSN("postgres")}, DryRun: func(sql string) { shown.WriteString(sql + "\n") }})
	if _, err := dry.CreateTenant(t.Context(), provision.TenantRequest{ID: "dry", Place: provision.PlaceLeastTenants}); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(shown.String(), `-- placed on server "main", fewest tenants: `) || len(lines(t, s.conn, "SELECT tenant_id FROM docex_system.tenant_event")) != before {
		t.Errorf("a dry run shows\n%s", shown.String())
	}
}

func isInvalid(err error) bool {
	_, ok := errors.AsType[*provision.InvalidRequestError](err)
	return ok
}
