package router_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/registry"
	"github.com/docex-proxy/docex-proxy/router"
)

// directory is a registry of a few tenants and logins.
type directory struct {
	tenants map[registry.TenantID]*registry.Tenant
	logins  map[string]*registry.Login
	err     error
}

func (d *directory) Tenant(_ context.Context, id registry.TenantID) (*registry.Tenant, error) {
	if d.err != nil {
		return nil, d.err
	}
	if t, ok := d.tenants[id]; ok {
		return t, nil
	}
	return nil, registry.ErrNotFound
}

func (d *directory) TenantBySchema(_ context.Context, schema string) (*registry.Tenant, error) {
	for _, t := range d.tenants {
		if t.SchemaName == schema {
			return t, d.err
		}
	}
	return nil, errors.Join(d.err, registry.ErrNotFound)
}

func (d *directory) Login(_ context.Context, name string) (*registry.Login, error) {
	if l, ok := d.logins[name]; ok {
		return l, d.err
	}
	return nil, errors.Join(d.err, registry.ErrNotFound)
}

func active(id registry.TenantID) *registry.Tenant {
	schema := "tenant_" + string(id)
	return &registry.Tenant{ID: id, SchemaName: schema, IsolationStrategy: "schema", Route: &registry.Route{
		Status: registry.StatusActive, Isolation: registry.IsolationRole, Server: "main", Database: "docex", Role: schema, SecretGeneration: 1,
	}}
}

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func town() *directory {
	d := &directory{tenants: map[registry.TenantID]*registry.Tenant{}, logins: map[string]*registry.Login{
		"app":    {Name: "app", AllTenants: true},
		"alice":  {Name: "alice", Tenants: []registry.TenantID{"acme"}},
		"former": {Name: "former", AllTenants: true, ValidUntil: now.Add(-time.Second)},
	}}
	for _, id := range []registry.TenantID{"acme", "globex", "ACME", "frozen", "gone", "unborn", "leaving"} {
		d.tenants[id] = active(id)
	}
	d.tenants["frozen"].Route.Status = registry.StatusSuspended
	d.tenants["gone"].Route.Status = registry.StatusDeleted
	d.tenants["unborn"].Route.Status = registry.StatusProvisioning
	d.tenants["leaving"].Route.Status = registry.StatusMoving
	d.tenants["wild"] = &registry.Tenant{ID: "wild", SchemaName: "tenant_wild"}
	d.tenants["lite"] = &registry.Tenant{ID: "lite", DatabasePath: "storage/tenant_lite/docex.db"}
	d.tenants[registry.SystemTenantID] = &registry.Tenant{ID: registry.SystemTenantID, SchemaName: "docex_system", IsSystem: true}
	return d
}

func routerOf(d *directory) *router.Router {
	return router.New(router.Options{Registry: d, UserSuffix: true, SNIDomain: "pg.example.com", Now: func() time.Time { return now }})
}

type parameters = map[string]string

func TestEverySourceNamesItsTenant(t *testing.T) {
	for name, start := range map[string]router.Startup{
		"startup parameter":         {Parameters: parameters{"user": "app", "docex.tenant_id": "acme"}},
		"alias":                     {Parameters: parameters{"user": "app", "docex.tenant": "acme"}},
		"options -c":                {Parameters: parameters{"user": "app", "options": "-c docex.tenant_id=acme"}},
		"options -c without space":  {Parameters: parameters{"user": "app", "options": "-cdocex.tenant_id=acme"}},
		"options --":                {Parameters: parameters{"user": "app", "options": "--docex.tenant-id=acme"}},
		"options alias":             {Parameters: parameters{"user": "app", "options": "-c docex.tenant=acme"}},
		"user suffix":               {Parameters: parameters{"user": "app.acme"}},
		"stock DocEX":               {Parameters: parameters{"user": "app", "options": "-csearch_path=tenant_acme,public,pg_catalog"}},
		"search_path, quoted":       {Parameters: parameters{"user": "app", "options": `-c search_path="tenant_acme"`}},
		"search_path as parameter":  {Parameters: parameters{"user": "app", "search_path": "tenant_acme, public"}},
		"TLS server name":           {Parameters: parameters{"user": "app"}, ServerName: "acme.pg.example.com"},
		"all of them":               {Parameters: parameters{"user": "app.acme", "docex.tenant_id": "acme", "options": "-csearch_path=tenant_acme"}, ServerName: "acme.pg.example.com"},
		"a path that names nobody":  {Parameters: parameters{"user": "app.acme", "search_path": "public"}},
		"the database it lives in":  {Parameters: parameters{"user": "app.acme", "database": "docex"}},
		"the database libpq adds":   {Parameters: parameters{"user": "app.acme", "database": "app.acme"}},
		"the tenant as database":    {Parameters: parameters{"user": "app.acme", "database": "acme"}},
		"its own login":             {Parameters: parameters{"user": "alice.acme"}},
		"replication asked and off": {Parameters: parameters{"user": "app.acme", "replication": "off"}},
	} {
		t.Run(name, func(t *testing.T) {
			route, err := routerOf(town()).Route(t.Context(), start)
			if err != nil || route.Denied != nil {
				t.Fatalf("refused: %v, denied: %v", err, route.Denied)
			}
			if route.Tenant.ID != "acme" || route.Target.Tenant != "acme" || route.Target.Role != "tenant_acme" || route.Target.Database != "docex" {
				t.Errorf("route of %q to %+v", route.Tenant.ID, route.Target)
			}
			if route.Target.SearchPath != `tenant_acme, ext, public` {
				t.Errorf("search_path %s", route.Target.SearchPath)
			}
		})
	}
}

func TestTheSchemaIsMatchedCaseAndAll(t *testing.T) {
	start := router.Startup{Parameters: parameters{"user": "app", "options": "-csearch_path=tenant_ACME,public,pg_catalog"}}
	route, err := routerOf(town()).Route(t.Context(), start)
	if err != nil || route.Tenant.ID != "ACME" {
		t.Fatalf("route %+v, %v", route, err)
	}
	// Sent bare, as DocEX does, Postgres would fold it to another tenant's schema.
	if got, want := route.Settings["search_path"], `"tenant_ACME",public,pg_catalog`; got != want {
		t.Errorf("search_path %s, want %s", got, want)
	}
}

func TestRefusalsThatAreToldAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		parameters parameters
		want       error
	}{
		"no tenant":                   {parameters{"user": "app"}, router.ErrNoTenant},
		"no user":                     {parameters{"docex.tenant_id": "acme"}, router.ErrNoUser},
		"parameter and suffix":        {parameters{"user": "app.globex", "docex.tenant_id": "acme"}, router.ErrTenantConflict},
		"parameter and alias":         {parameters{"user": "app", "docex.tenant_id": "acme", "docex.tenant": "globex"}, router.ErrTenantConflict},
		"parameter and options":       {parameters{"user": "app", "docex.tenant_id": "acme", "options": "-cdocex.tenant_id=globex"}, router.ErrTenantConflict},
		"options twice":               {parameters{"user": "app", "options": "-cdocex.tenant_id=acme -cdocex.tenant_id=globex"}, router.ErrTenantConflict},
		"suffix and schema":           {parameters{"user": "app.acme", "options": "-csearch_path=tenant_globex"}, router.ErrTenantConflict},
		"case matters":                {parameters{"user": "app.acme", "docex.tenant_id": "ACME"}, router.ErrTenantConflict},
		"the system tenant":           {parameters{"user": "app", "docex.tenant_id": "_docex_system_"}, router.ErrSystemTenant},
		"the system tenant by suffix": {parameters{"user": "app._docex_system_"}, router.ErrSystemTenant},
		"the system tenant's schema":  {parameters{"user": "app", "options": "-csearch_path=docex_system,public"}, router.ErrSystemTenant},
		"a reserved id":               {parameters{"user": "app", "docex.tenant_id": "_docex_x_"}, router.ErrSystemTenant},
		"an id with a hyphen":         {parameters{"user": "app", "docex.tenant_id": "acme-corp"}, router.ErrInvalidTenant},
		"an empty id":                 {parameters{"user": "app", "docex.tenant_id": ""}, router.ErrInvalidTenant},
		"an id with SQL":              {parameters{"user": "app", "docex.tenant_id": `a"; DROP SCHEMA x`}, router.ErrInvalidTenant},
		"31 characters":               {parameters{"user": "app", "docex.tenant_id": "a123456789012345678901234567890"}, router.ErrInvalidTenant},
		"a role":                      {parameters{"user": "app.acme", "role": "postgres"}, router.ErrSettingRefused},
		"a role in options":           {parameters{"user": "app.acme", "options": "-c ROLE=postgres"}, router.ErrSettingRefused},
		"session_authorization":       {parameters{"user": "app.acme", "options": "--session-authorization=postgres"}, router.ErrSettingRefused},
		"a pool mode of PgBouncer's":  {parameters{"user": "app.acme", "docex.pool_mode": "statement"}, router.ErrPoolMode},
		"no pool mode":                {parameters{"user": "app.nobody", "options": "-c docex.pool_mode="}, router.ErrPoolMode},
		"a route that there is not":   {parameters{"user": "app.acme", "docex.route": "standby"}, router.ErrRoute},
		"a setting with a quote":      {parameters{"user": "app.acme", "a'b": "x"}, router.ErrSettingRefused},
		"replication":                 {parameters{"user": "app.acme", "replication": "database"}, router.ErrUnsupported},
		"an option that is none":      {parameters{"user": "app.acme", "options": "-d 5"}, router.ErrBadOptions},
		"-c and nothing":              {parameters{"user": "app.acme", "options": "-c"}, router.ErrBadOptions},
		"-c without a value":          {parameters{"user": "app.acme", "options": "-c work_mem"}, router.ErrBadOptions},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := routerOf(town()).Route(t.Context(), router.Startup{Parameters: c.parameters})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestRefusalsThatOnlyAnAuthenticatedClientIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		parameters parameters
		want       error
	}{
		"unknown tenant":           {parameters{"user": "app.nobody"}, router.ErrUnknownTenant},
		"unknown schema":           {parameters{"user": "app", "options": "-csearch_path=tenant_nobody"}, router.ErrUnknownTenant},
		"schema in another case":   {parameters{"user": "app", "options": "-csearch_path=TENANT_acme"}, router.ErrUnknownTenant},
		"unknown login":            {parameters{"user": "nobody.acme"}, router.ErrUnknownLogin},
		"another tenant's login":   {parameters{"user": "alice.globex"}, router.ErrNotPermitted},
		"an expired login":         {parameters{"user": "former.acme"}, router.ErrLoginExpired},
		"suspended":                {parameters{"user": "app.frozen"}, router.ErrSuspended},
		"deleted":                  {parameters{"user": "app.gone"}, router.ErrDeleted},
		"still being provisioned":  {parameters{"user": "app.unborn"}, router.ErrProvisioning},
		"made by DocEX alone":      {parameters{"user": "app.wild"}, router.ErrNotAdopted},
		"in SQLite":                {parameters{"user": "app.lite"}, router.ErrUnsupported},
		"another database":         {parameters{"user": "app.acme", "database": "postgres"}, router.ErrWrongDatabase},
		"another tenant's as name": {parameters{"user": "app.acme", "database": "globex"}, router.ErrWrongDatabase},
	} {
		t.Run(name, func(t *testing.T) {
			route, err := routerOf(town()).Route(t.Context(), router.Startup{Parameters: c.parameters})
			if err != nil {
				t.Fatalf("told at once: %v", err)
			}
			if route.Denied == nil || !errors.Is(route.Denied, c.want) {
				t.Errorf("denied for %v, want %v", route.Denied, c.want)
			}
		})
	}
}

func TestARegistryThatIsDownIsNotAnUnknownTenant(t *testing.T) {
	d := town()
	d.err = errors.New("connection refused")
	for _, p := range []parameters{{"user": "app.acme"}, {"user": "app.nobody"}} {
		_, err := routerOf(d).Route(t.Context(), router.Startup{Parameters: p})
		if !errors.Is(err, router.ErrRegistryOffline) {
			t.Errorf("%v: got %v", p, err)
		}
	}
}

func TestStartupParametersBecomeSettings(t *testing.T) {
	route, err := routerOf(town()).Route(t.Context(), router.Startup{Parameters: parameters{
		"user": "app.acme", "database": "docex", "application_name": "x", "DateStyle": "ISO", "_pq_.x": "1",
		"options": `-c TimeZone=Europe/Berlin --statement-timeout=5s -c docex.user_id=alice\ b -capplication_name=lost`,
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"application_name": "x", "datestyle": "ISO", "timezone": "Europe/Berlin", "statement_timeout": "5s", "docex.user_id": "alice b",
	}
	for name, value := range want {
		if route.Settings[name] != value {
			t.Errorf("%s = %q, want %q", name, route.Settings[name], value)
		}
	}
	if len(route.Settings) != len(want) {
		t.Errorf("settings %v", route.Settings)
	}
}

func TestATrustedTenantSharesItsConnections(t *testing.T) {
	d := town()
	d.tenants["acme"].Route.Isolation = registry.IsolationTrusted
	start := router.Startup{Parameters: parameters{"user": "app.acme"}}
	route, err := routerOf(d).Route(t.Context(), start)
	if err != nil || !errors.Is(route.Denied, router.ErrNotAllowed) {
		t.Errorf("not allowed: %v, %v", err, route.Denied)
	}
	route, err = router.New(router.Options{Registry: d, UserSuffix: true, AllowTrusted: true, PoolRole: "docex_pool"}).Route(t.Context(), start)
	if err != nil || route.Denied != nil {
		t.Fatal(err, route.Denied)
	}
	target := route.Target
	if route.Role != "tenant_acme" || !target.Shared || target.Role != "docex_pool" || target.SearchPath != "" || target.Tenant != "acme" {
		t.Errorf("role %q on %+v", route.Role, target)
	}
	if got := route.Settings["search_path"]; got != `tenant_acme, ext, public` {
		t.Errorf("search_path %s", got)
	}
}

func TestThePoolModeIsTheClientsElseTheTenants(t *testing.T) {
	d := town()
	d.tenants["globex"].Route.Limits.PoolMode = registry.PoolSession
	for _, c := range []struct {
		start parameters
		own   bool
	}{
		{parameters{"user": "app.acme"}, false},
		{parameters{"user": "app.acme", "docex.pool_mode": "session"}, true},
		{parameters{"user": "app.acme", "options": "-c docex.pool_mode=session -c work_mem=1MB"}, true},
		{parameters{"user": "app.globex"}, true},
		{parameters{"user": "app.globex", "docex.pool_mode": "transaction"}, false},
	} {
		route, err := routerOf(d).Route(t.Context(), router.Startup{Parameters: c.start})
		if err != nil || route.Denied != nil || route.OwnConnection != c.own {
			t.Errorf("%v: own connection %t, %v, %v", c.start, route.OwnConnection, err, route.Denied)
		}
		if _, ok := route.Settings["docex.pool_mode"]; ok {
			t.Errorf("%v: Postgres is told of it", c.start)
		}
	}
}

func TestAReplicaIsGivenToWhoAsksForIt(t *testing.T) {
	d := town()
	d.tenants["globex"].Route.Server = "eu" // which has none
	d.tenants["gone"].Route.Status, d.tenants["gone"].Route.Isolation = registry.StatusActive, registry.IsolationSlot
	d.tenants["frozen"].Route.Status, d.tenants["frozen"].Route.Isolation = registry.StatusActive, registry.IsolationTrusted
	r := router.New(router.Options{Registry: d, UserSuffix: true, AllowTrusted: true, PoolRole: "docex_pool", Replicas: map[string]string{"main": "main-read"}})
	for _, c := range []struct {
		start  parameters
		server string
		denied error
	}{
		{parameters{"user": "app.acme"}, "main", nil},
		{parameters{"user": "app.acme", "docex.route": "primary"}, "main", nil},
		{parameters{"user": "app.acme", "docex.route": "replica"}, "main-read", nil},
		{parameters{"user": "app.acme", "options": "-c docex.route=replica -c work_mem=1MB"}, "main-read", nil},
		{parameters{"user": "app.frozen", "docex.route": "replica"}, "main-read", nil},
		{parameters{"user": "app.globex", "docex.route": "replica"}, "", router.ErrNoReplica},
		{parameters{"user": "app.gone", "docex.route": "replica"}, "", router.ErrUnsupported},
	} {
		route, err := r.Route(t.Context(), router.Startup{Parameters: c.start})
		if err != nil || route.Target.Server != c.server || route.Replica != (c.server == "main-read") {
			t.Errorf("%v: server %q, a replica: %t, %v", c.start, route.Target.Server, route.Replica, err)
		}
		if c.denied == nil && route.Denied != nil || c.denied != nil && !errors.Is(route.Denied, c.denied) {
			t.Errorf("%v: %v", c.start, route.Denied)
		}
		if _, ok := route.Settings["docex.route"]; ok {
			t.Errorf("%v: Postgres is told of it", c.start)
		}
	}
}

func TestARequiredUserContext(t *testing.T) {
	r := router.New(router.Options{Registry: town(), UserSuffix: true, RequireUserContext: true})
	if _, err := r.Route(t.Context(), router.Startup{Parameters: parameters{"user": "app.acme"}}); !errors.Is(err, router.ErrUserContext) {
		t.Errorf("got %v", err)
	}
	if _, err := r.Route(t.Context(), router.Startup{Parameters: parameters{"user": "app.acme", "docex.user_id": "alice"}}); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestTheUserSuffixCanBeOff(t *testing.T) {
	r := router.New(router.Options{Registry: town()})
	if _, err := r.Route(t.Context(), router.Startup{Parameters: parameters{"user": "app.acme"}}); !errors.Is(err, router.ErrNoTenant) {
		t.Errorf("got %v", err)
	}
}

// FuzzOptions: whatever a client puts into options, the router does not panic, and a session is only ever routed to a
// tenant that the options name.
func FuzzOptions(f *testing.F) {
	for _, text := range []string{
		"", "-c docex.tenant_id=acme", "-cdocex.tenant=acme --work-mem=1MB", `-c search_path=tenant_acme\,public`, `\`, "-c", "--", "--=", "-c=",
		`-csearch_path="tenant_acme""`, "-c docex.tenant_id=globex -csearch_path=tenant_acme", "-c\tx=1\n-cy=2", "-c search_path=",
	} {
		f.Add(text)
	}
	r := routerOf(town())
	unescaped := strings.NewReplacer(`\`, "", `"`, "")
	f.Fuzz(func(t *testing.T, text string) {
		route, err := r.Route(t.Context(), router.Startup{Parameters: parameters{"user": "app", "options": text}})
		if err != nil || route.Denied != nil {
			return
		}
		if !strings.Contains(unescaped.Replace(text), string(route.Tenant.ID)) {
			t.Errorf("options %q led to tenant %q", text, route.Tenant.ID)
		}
	})
}

func TestASessionOfATenantThatIsMovingIsLetInAndHeld(t *testing.T) {
	for name, held := range map[string]bool{"leaving": true, "acme": false} {
		route, err := routerOf(town()).Route(t.Context(), router.Startup{Parameters: parameters{"user": "app." + name}})
		if err != nil || route.Denied != nil || route.Held != held {
			t.Errorf("%s: held %t, denied %v, %v", name, route.Held, route.Denied, err)
		}
	}
}
