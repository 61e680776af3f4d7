package provision_test

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/internal/scram"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

func TestALoginIsStoredAsAVerifierOfThePasswordThatIsReturned(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	s.create(t, "globex")
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	result, err := s.CreateLogin(t.Context(), provision.LoginRequest{
		Name: "app", Tenants: []registry.TenantID{"globex", "acme", "globex"}, ValidUntil: until, Actor: "admin",
	})
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[A-Za-z0-9_-]{32}$`).MatchString(result.Password) || result.Warning != "" {
		t.Errorf("got %+v", result)
	}
	login, err := s.store(t).Login(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	if !login.Permits("acme") || !login.Permits("globex") || login.AllTenants || !login.ValidUntil.Equal(until) {
		t.Errorf("got %+v", login)
	}
	stored, err := scram.ParseVerifier(login.Verifier)
	if err != nil {
		t.Fatal(err)
	}
	if scram.DeriveVerifier(result.Password, stored.Salt, stored.Iterations).String() != login.Verifier {
		t.Error("the verifier is not the password's")
	}
	events := lines(t, s.conn, `SELECT concat_ws(' ', tenant_id, verb, actor, detail) FROM docex_system.tenant_event WHERE verb = 'login_create' ORDER BY 1`)
	if want := []string{`acme login_create admin {"login": "app"}`, `globex login_create admin {"login": "app"}`}; !slices.Equal(events, want) {
		t.Errorf("events %q", events)
	}
}

func TestALoginForAllTenantsNeedsNone(t *testing.T) {
	s := newInitialisedSite(t)
	result, err := s.CreateLogin(t.Context(), provision.LoginRequest{Name: "app", AllTenants: true, Password: "given"})
	if err != nil || result.Password != "given" {
		t.Fatalf("got %+v, %v", result, err)
	}
	login, err := s.store(t).Login(t.Context(), "app")
	if err != nil || !login.Permits("acme") || !login.ValidUntil.IsZero() {
		t.Errorf("got %+v, %v", login, err)
	}
}

func TestALoginsTenantsMustExist(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	before := s.snapshot(t)
	_, err := s.CreateLogin(t.Context(), provision.LoginRequest{Name: "app", Tenants: []registry.TenantID{"acme", "umbrella", "initech"}})
	if !errors.Is(err, provision.ErrNotFound) || !strings.Contains(err.Error(), "'initech', 'umbrella'") {
		t.Errorf("got %v", err)
	}
	equal(t, before, s.snapshot(t))
}

func TestALoginThatExistsStaysAsItIs(t *testing.T) {
	s := newInitialisedSite(t)
	request := provision.LoginRequest{Name: "app", AllTenants: true}
	if _, err := s.CreateLogin(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	before := s.snapshot(t)
	if _, err := s.CreateLogin(t.Context(), request); !errors.Is(err, provision.ErrExists) {
		t.Errorf("got %v", err)
	}
	equal(t, before, s.snapshot(t))
}

func TestADotInALoginsNameIsWarnedAbout(t *testing.T) {
	s := newInitialisedSite(t)
	result, err := s.CreateLogin(t.Context(), provision.LoginRequest{Name: "first.last", AllTenants: true})
	if err != nil || !strings.Contains(result.Warning, `"last"`) {
		t.Errorf("got %+v, %v", result, err)
	}
}

func TestLoginsThatMakeNoSenseAreRefused(t *testing.T) {
	nowhere := provision.New(provision.Options{DSN: "postgres://postgres@127.0.0.1:1/none"})
	for name, r := range map[string]provision.LoginRequest{
		"no name":       {AllTenants: true},
		"long name":     {Name: strings.Repeat("x", 64), AllTenants: true},
		"NUL":           {Name: "a\x00", AllTenants: true},
		"control":       {Name: "a\n", AllTenants: true},
		"not UTF-8":     {Name: "\xff", AllTenants: true},
		"no tenants":    {Name: "app"},
		"both":          {Name: "app", AllTenants: true, Tenants: []registry.TenantID{"acme"}},
		"system tenant": {Name: "app", Tenants: []registry.TenantID{registry.SystemTenantID}},
		"expired":       {Name: "app", AllTenants: true, ValidUntil: time.Unix(1, 0)},
		"NUL password":  {Name: "app", AllTenants: true, Password: "a\x00"},
	} {
		_, err := nowhere.CreateLogin(t.Context(), r)
		if _, ok := errors.AsType[*provision.InvalidRequestError](err); !ok {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
