// Package provision changes what Postgres holds for tenants: it initialises the registry, creates tenants and
// creates the logins that clients use. All DDL of the project runs here.
//
// It owns the roles docex_owner, docex_pool, docex_registry, docex_switcher and the slots, the template of a tenant's
// tables and the rights of a tenant's role, and while a tenant is moved the role that copies it, docex_move_ and a hash. It
// does not define the registry's tables (package registry does), store a password anywhere but the latter's in its
// subscription, or take any part in a session: the proxy works without it, and with rights that could not do what it does.
//
// The one invariant: whatever is asked for is there completely or not at all. A tenant's role has rights on its own
// schema and on nothing else of any tenant or of the registry. Everything happens in one transaction, but for a
// tenant's own database, which Postgres cannot create in one: that is made beside it, marked as unfinished and closed
// to everybody, and the transaction that registers the tenant opens it. What fails is dropped at once, what is
// killed by the next run for the same tenant. A tenant on another server is marked and closed as well until it is registered
// (abroad.go); the database that tenants share there stays (shared.go).
//
// A tenant moves to another server by steps that the registry has before they are acted on (move.go). While it does there is
// one copy that it can write to: the new one is opened after the old one has been closed, and never the other way round but
// with the new one closed first. Its own code runs with no more than its own rights meanwhile.
//
// Advisory locks order the work within a database. Init holds the gate exclusively and everything else holds it
// shared; the steps that change a shared row, the access lists of the database and of the schemas public and ext,
// take the second one last, so that tenants are created side by side until then. Each tenant has two of its own:
// the first is its creation's, taken before the second, which covers what is done beside the transaction. A move holds the
// first for as long as it runs. Where a server is chosen (place.go), the run takes one for its tenant before all others, and
// for the moment of the choice one that all who choose take.
//
// Privileges: https://www.postgresql.org/docs/current/ddl-priv.html, roles:
// https://www.postgresql.org/docs/current/user-manag.html
package provision
