package router

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/registry"
)

// Registry is what the router asks about tenants and logins; registry.Cache has it. A tenant or login that is not
// there is registry.ErrNotFound.
type Registry interface {
	Tenant(ctx context.Context, id registry.TenantID) (*registry.Tenant, error)
	TenantBySchema(ctx context.Context, schema string) (*registry.Tenant, error)
	Login(ctx context.Context, name string) (*registry.Login, error)
}

// Options is what a Router is made with.
type Options struct {
	Registry Registry
	// UserSuffix reads the tenant from user=login.tenant; SNIDomain from the TLS server name tenant.<SNIDomain>, off
	// when empty; Database from the database name.
	UserSuffix bool
	SNIDomain  string
	Database   bool
	// RequireUserContext refuses sessions without docex.user_id.
	RequireUserContext bool
	// TenantConnections bounds the server connections of a tenant that has no limit of its own; 0 is no bound.
	TenantConnections int
	// AllowTrusted serves tenants at isolation level trusted. It stops mistakes, not attacks.
	AllowTrusted bool
	// Replicas are the servers that replicate others, for reading, by the names of those.
	Replicas map[string]string
	// PoolRole is the rightless login of the connections that trusted tenants share.
	PoolRole string
	Now      func() time.Time // nil: time.Now
}

// Router turns startup messages into routes.
type Router struct{ o Options }

// New makes a Router.
func New(o Options) *Router {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Router{o: o}
}

// Startup is what the router reads of a client: the parameters of its StartupMessage, and the server name of its TLS
// handshake, "" without one.
type Startup struct {
	Parameters map[string]string
	ServerName string
}

// Route is the decision for one session.
type Route struct {
	Tenant *registry.Tenant
	Login  *registry.Login   // nil: unknown; authenticate against a mock verifier and let it fail
	User   string            // the login's name as the client gave it, without the tenant
	Named  registry.TenantID // the tenant as the client named it, whether or not it exists
	Source string            // where
	Target pool.Target
	// Settings are the client's startup parameters that are run-time parameters, names in lower case.
	Settings map[string]string
	// Role is what the session has to become on connections that tenants share; "" on the tenant's own.
	Role string
	// MaxConnections bounds the tenant's server connections, 0 for no bound of its own.
	MaxConnections int
	// OwnConnection has the session keep its server connection from its first statement to its end.
	OwnConnection bool
	// Replica says that the session has asked for one, and Target is there.
	Replica bool
	// Held says that the tenant is moving to another server: transactions that have begun go on, others wait for the end of
	// the move.
	Held bool
	// Denied refuses the session after authentication has been gone through: what a stranger must not learn.
	Denied *Refusal
}

// Route decides. The error is a *Refusal that may be told at once, because it says nothing that the registry knows.
func (r *Router) Route(ctx context.Context, start Startup) (Route, error) {
	who, err := r.identify(ctx, start)
	if err != nil {
		return Route{}, err
	}
	refuse := func(reason error, detail string) (Route, error) {
		return Route{}, &Refusal{Err: reason, Tenant: who.tenant, Source: who.source, Detail: detail}
	}
	if who.tenant.IsSystem() || who.known != nil && who.known.IsSystem {
		return refuse(ErrSystemTenant, "")
	}
	if replication := start.Parameters["replication"]; replicating(replication) {
		return refuse(ErrUnsupported, "replication connections")
	}
	if r.o.RequireUserContext && !has(who.settings, parameterUser) {
		return refuse(ErrUserContext, "")
	}
	tenant := who.known
	if tenant == nil {
		if tenant, err = r.lookup(ctx, who); err != nil {
			return Route{}, err
		}
	}
	login, err := r.o.Registry.Login(ctx, who.login)
	if err != nil && !errors.Is(err, registry.ErrNotFound) {
		return Route{}, &Refusal{Err: ErrRegistryOffline, Tenant: who.tenant, Source: who.source, Cause: err}
	}
	if tenant != nil && tenant.IsSystem {
		return refuse(ErrSystemTenant, "")
	}
	route := Route{Tenant: tenant, Login: login, User: who.login, Named: who.tenant, Source: who.source}
	reason, detail := r.judge(tenant, login, start.Parameters["database"], start.Parameters["user"])
	if reason == nil && who.replica {
		reason, detail = r.judgeReplica(tenant.Route)
	}
	if reason != nil {
		route.Denied = &Refusal{Err: reason, Tenant: who.tenant, Source: who.source, Detail: detail}
		return route, nil
	}
	if who.mode == "" {
		who.mode = tenant.Route.Limits.PoolMode
	}
	route.OwnConnection = who.mode == registry.PoolSession
	route.Held = tenant.Route.Status == registry.StatusMoving
	route.Settings = settingsOf(who.settings, tenant.SchemaName)
	route.Target = targetOf(tenant)
	if who.replica {
		route.Replica, route.Target.Server = true, r.o.Replicas[tenant.Route.Server]
	}
	switch tenant.Route.Isolation {
	case registry.IsolationTrusted:
		r.share(&route)
	case registry.IsolationSlot:
		seat(&route)
	}
	if route.MaxConnections = tenant.Route.Limits.MaxServerConnections; route.MaxConnections == 0 {
		route.MaxConnections = r.o.TenantConnections
	}
	return route, nil
}

// lookup finds the named tenant; nil without an error when there is none.
func (r *Router) lookup(ctx context.Context, who identity) (*registry.Tenant, error) {
	if who.bySchema {
		return nil, nil // it was looked for by its schema already
	}
	id, err := registry.ParseTenantID(string(who.tenant))
	if err != nil {
		return nil, &Refusal{Err: ErrInvalidTenant, Tenant: who.tenant, Source: who.source, Detail: err.Error()}
	}
	tenant, err := r.o.Registry.Tenant(ctx, id)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, &Refusal{Err: ErrRegistryOffline, Tenant: who.tenant, Source: who.source, Cause: err}
	}
	return tenant, nil
}

// judge says why a session is refused after its authentication; nil when it is served.
func (r *Router) judge(tenant *registry.Tenant, login *registry.Login, database, user string) (reason error, detail string) {
	switch {
	case tenant == nil:
		return ErrUnknownTenant, ""
	case login == nil:
		return ErrUnknownLogin, ""
	case !login.Permits(tenant.ID):
		return ErrNotPermitted, ""
	case login.Expired(r.o.Now()):
		return ErrLoginExpired, ""
	case tenant.DatabasePath != "" && tenant.SchemaName == "":
		return ErrUnsupported, "the tenant lives in a SQLite file"
	case tenant.Route == nil:
		return ErrNotAdopted, ""
	}
	route := tenant.Route
	switch route.Status {
	case registry.StatusActive, registry.StatusMoving: // a moving one's transactions wait
	case registry.StatusSuspended:
		return ErrSuspended, ""
	case registry.StatusDeleted:
		return ErrDeleted, ""
	default:
		return ErrProvisioning, ""
	}
	switch route.Isolation {
	case registry.IsolationRole, registry.IsolationSlot, registry.IsolationDatabase:
	case registry.IsolationTrusted:
		if !r.o.AllowTrusted {
			return ErrNotAllowed, string(route.Isolation)
		}
	default:
		return ErrUnknownIsolate, string(route.Isolation)
	}
	// libpq sends the user name as the database when none is given.
	if database != "" && database != route.Database && database != user && database != string(tenant.ID) {
		return ErrWrongDatabase, fmt.Sprintf("%q", database)
	}
	return nil, ""
}

// judgeReplica says why a session that asks for a replica does not get it; nil when it does.
func (r *Router) judgeReplica(route *registry.Route) (reason error, detail string) {
	switch {
	case r.o.Replicas[route.Server] == "":
		return ErrNoReplica, fmt.Sprintf("%q", route.Server)
	case route.Isolation == registry.IsolationSlot:
		return ErrUnsupported, "isolation level slot on a replica, where no rights can be granted, as each change of tenants needs"
	}
	return nil, ""
}

// share puts a route on connections that log in as nobody in particular: role and search_path come with the session.
func (r *Router) share(route *Route) {
	t := &route.Target
	route.Role = t.Role
	carrySearchPath(route)
	t.Role, t.Generation, t.Shared = r.o.PoolRole, 1, true
}

// seat puts a route on connections that log in as a slot: the pool makes them the role's, search_path comes with the
// session.
func seat(route *Route) {
	carrySearchPath(route)
	route.Target.Generation, route.Target.Slot = 0, true // the role's password is not used
}

// carrySearchPath makes the search_path one of the session's settings, on connections whose login does not set it.
func carrySearchPath(route *Route) {
	if _, named := route.Settings["search_path"]; !named {
		route.Settings["search_path"] = route.Target.SearchPath
	}
	route.Target.SearchPath = ""
}

// targetOf names the server connections of a tenant that has its own: its login, its schema first.
func targetOf(tenant *registry.Tenant) pool.Target {
	return pool.Target{
		Server: tenant.Route.Server, Database: tenant.Route.Database, Role: tenant.Route.Role,
		Generation: tenant.Route.SecretGeneration, Tenant: string(tenant.ID),
		SearchPath: quoteIdentifier(tenant.SchemaName) + ", ext, public",
	}
}

func has(settings []setting, name string) bool {
	for _, s := range settings {
		if s.name == name && s.value != "" {
			return true
		}
	}
	return false
}

// replicating reports whether the startup parameter "replication" asks for a walsender; Postgres reads it as a
// boolean or the word database (section 55.4).
func replicating(value string) bool {
	switch strings.ToLower(value) {
	case "", "false", "off", "no", "0", "f", "n":
		return false
	}
	return true
}
