// Package registry knows the tenants: the rows of tenant_registry, which DocEX reads and writes too, and beside
// them the proxy's own tables for routes, logins and the audit trail.
//
// It owns the tables' definition ([Migrations]), reading and writing them ([Store], [InsertTenant] and its
// siblings), the view of them that sessions use ([Cache]) and the news of changes ([Listen]). It does not run
// the migrations, create schemas or roles (package provision does), decide whether a tenant may be served
// (package router does) or open a connection to a tenant's data (package pool does).
//
// The invariant: what a Cache returns was read from the registry after the last Forget that concerned it, or
// there is an error. Values are immutable and shared by all sessions.
//
// Changes travel by LISTEN and NOTIFY on [Channel]:
// https://www.postgresql.org/docs/current/sql-notify.html
package registry
