// Package sqlite keeps the tenants of a DocEX installation on SQLite: a registry in the system tenant's file, and a file for
// each tenant. The proxy does not serve them; provision.ImportTenant brings them to Postgres.
//
// It owns what DocEX does not have: a status and an audit trail, in tables of their own beside DocEX's registry. DocEX itself
// looks at neither.
//
// The one invariant: a tenant whose status is active has a file with all its tables. A tenant that is being provisioned is
// finished by creating it again.
package sqlite
