// Package slots opens and switches the server connections that tenants at isolation level slot share.
//
// Each connection logs in as a role of its own, a slot, which has no right but to connect. To put it at a tenant's
// disposal:
//
//	on the connection     DISCARD ALL, its tag checked; setseed      nothing of the tenant before is left
//	on the switcher       docex_system.seat(): GRANT tenant TO slot   committed
//	on the connection     SET ROLE tenant
//	on the switcher       docex_system.seat(): REVOKE tenant FROM slot   committed before anybody may use the connection
//
// So whatever the tenant's SQL does on it, the way back leads to a role without rights, and from there no way leads to
// any tenant. A Board is the slots of one database: it owns which slot is taken, and the switcher, the one connection
// that may grant. It does not own a slot's connection, except while it opens or switches it.
//
// Invariants:
//   - A slot has one session at most, which Postgres itself sees to (CONNECTION LIMIT 1): nobody else could use a
//     membership in the moment that it exists.
//   - A slot is looked at before a session is opened on it for use: no membership, no setting, no right that it should
//     not have. What a proxy that was killed has left behind ends there, and at the first connection of any Board.
//   - A GRANT that may have happened is followed by its REVOKE, in the order in which they were given, or the connection
//     is not used any more.
//
// Protocol: Postgres documentation, sections 55.2.2 (simple query) and 55.7 (message formats).
package slots
