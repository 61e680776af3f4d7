package provision_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

func pointer[T any](value T) *T { return &value }

func TestATenantIsSuspendedAndResumed(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	listener := connect(t, s.dsn)
	execute(t, listener, "LISTEN docex_registry")
	for _, transition := range []provision.Transition{provision.Suspend, provision.Suspend, provision.Resume, provision.Resume} { // what is so already is no error
		tenant, err := s.ChangeTenant(t.Context(), provision.ChangeRequest{ID: "acme", Actor: "admin", Transition: transition})
		if err != nil {
			t.Fatal(err)
		}
		want := registry.StatusActive
		if transition == provision.Suspend {
			want = registry.StatusSuspended
		}
		if tenant.Route.Status != want || tenant.LastUpdatedBy != "admin" || !tenant.LastUpdatedAt.After(tenant.CreatedAt) {
			t.Errorf("%+v, %+v", tenant, tenant.Route)
		}
	}
	if notice, err := listener.WaitForNotification(t.Context()); err != nil || notice.Payload != "acme" {
		t.Errorf("notified of %+v, %v", notice, err)
	}
	if got := lines(t, s.conn, `SELECT verb || ' ' || actor FROM docex_system.tenant_event WHERE verb <> 'init' AND tenant_id = 'acme' ORDER BY id`); !slices.Equal(got,
		[]string{"create cli_user", "suspend admin", "resume admin"}) {
		t.Errorf("events %q", got)
	}
}

func TestOnlyWhatIsNamedIsChanged(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	execute(t, s.conn, `UPDATE docex_system.tenant_route SET limits = '{"of_another_version": 1, "max_clients": 3}'`)
	tenant, err := s.ChangeTenant(t.Context(), provision.ChangeRequest{ID: "acme", Limits: func(l *registry.Limits) {
		l.MaxServerConnections, l.PoolMode = 7, registry.PoolSession
	}})
	if err != nil {
		t.Fatal(err)
	}
	if want := (registry.Limits{MaxServerConnections: 7, MaxClients: 3, PoolMode: registry.PoolSession}); tenant.Route.Limits != want || tenant.DisplayName != "acme" {
		t.Errorf("%+v, %+v", tenant, tenant.Route)
	}
	tenant, err = s.ChangeTenant(t.Context(), provision.ChangeRequest{ID: "acme", DisplayName: pointer("Acme"), Limits: func(l *registry.Limits) { *l = registry.Limits{} }})
	if err != nil || tenant.DisplayName != "Acme" || tenant.Route.Limits != (registry.Limits{}) || tenant.LastUpdatedBy != "cli_user" {
		t.Errorf("%+v, %v", tenant, err)
	}
	if got := lines(t, s.conn, `SELECT limits::text FROM docex_system.tenant_route`); got[0] != `{"of_another_version": 1}` {
		t.Errorf("limits %s", got)
	}
	version := tenant.Route.Version
	tenant, err = s.ChangeTenant(t.Context(), provision.ChangeRequest{ID: "acme", DisplayName: pointer("Acme")})
	if err != nil || tenant.Route.Version != version {
		t.Errorf("a change to what is so already has written: %+v, %v", tenant.Route, err)
	}
}

func TestChangesThatCannotBeAreRefusedAndChangeNothing(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	s.create(t, "gone")
	execute(t, s.conn, `UPDATE docex_system.tenant_route SET status = 'deleted' WHERE tenant_id = 'gone'`)
	execute(t, s.conn, `INSERT INTO docex_system.tenant_registry VALUES ('wild', 'Wild', false, 'schema', 'tenant_wild', NULL, now(), 'docex', now(), NULL)`)
	before := s.snapshot(t)
	for id, want := range map[registry.TenantID]func(error) bool{
		"nobody":                func(err error) bool { return errors.Is(err, provision.ErrNotFound) },
		registry.SystemTenantID: isConflict, "wild": isConflict, "gone": isConflict,
	} {
		request := provision.ChangeRequest{ID: id, Transition: provision.Suspend, DisplayName: pointer("new")}
		if _, err := s.ChangeTenant(t.Context(), request); !want(err) {
			t.Errorf("%s: %v", id, err)
		}
	}
	_, err := s.ChangeTenant(t.Context(), provision.ChangeRequest{ID: "acme", DisplayName: pointer(strings.Repeat("x", 256))})
	if _, ok := errors.AsType[*provision.InvalidRequestError](err); !ok {
		t.Errorf("a name that is too long: %v", err)
	}
	boom := errors.New("boom")
	if _, err := s.failAfter("change the registry", func() error { return boom }).ChangeTenant(t.Context(), provision.ChangeRequest{ID: "acme", Transition: provision.Suspend}); !errors.Is(err, boom) {
		t.Errorf("%v", err)
	}
	equal(t, before, s.snapshot(t))
}

func isConflict(err error) bool {
	_, ok := errors.AsType[*provision.ConflictError](err)
	return ok
}
