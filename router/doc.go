// Package router decides where a startup message goes: which tenant it names, whether that tenant and that login may
// be served, and on which server connections (pool.Target) its session runs. It is pure policy: it opens no socket
// and runs no SQL; what it knows of tenants it asks the registry.
//
// The invariant: a tenant id is read in one place (identify), from the client's own startup parameters, and every
// source that names a tenant names the same one. There is no default tenant, and the system tenant is refused.
//
// Startup parameters: Postgres documentation, sections 55.2.1 and 55.7 (StartupMessage).
package router
