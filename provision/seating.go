package provision

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
)

// seating defines docex_system.seat(tenant, slot, take), with which the switcher lets a slot become a tenant's role, and
// takes that back. It is all that the switcher may do about roles: it has no membership itself. Were it a member of each
// tenant's role, with ADMIN, every change of a membership would have Postgres look all of them up anew, which takes about
// 5 µs for each tenant there is.
//
// It runs with the rights of its owner, so it takes nothing but the role of a tenant at level slot, by the registry or, on
// another server, by slot_tenant, that can log in and has no power and no membership, and the number of a slot. Whoever may
// write to the registry cannot have another role seated that is worth more than a tenant's; and a role that was made NOLOGIN
// is locked out at level slot too.
//
// Whom a slot was lent to last is said by a sequence of the slot's name: pg_stat_activity has the slot, not the tenant. A
// setval() leaves nothing dead behind, and stays when the transaction fails, which errs on the right side: the session that
// was somebody else's has given that role up before. The lock on slot_tenant comes first, alone: see seatBarrier.
const seating = `
CREATE OR REPLACE FUNCTION docex_system.seat(tenant text, slot integer, take boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $seating$
DECLARE
    id oid;
    record regclass := to_regclass('docex_system.` + SlotPrefix + `' || slot);
BEGIN
    IF slot IS NULL OR slot < 1 THEN
        RAISE EXCEPTION 'there is no slot %', slot USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT take THEN
        EXECUTE format('REVOKE %I FROM %I', tenant, '` + SlotPrefix + `' || slot);
        RETURN;
    END IF;
    LOCK TABLE docex_system.slot_tenant IN ROW EXCLUSIVE MODE;
    SELECT r.oid INTO id FROM pg_catalog.pg_roles AS r
     WHERE rolname = tenant AND r.oid >= 16384 AND rolcanlogin
       AND NOT (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members WHERE member = r.oid)
       AND LENDABLE;
    IF id IS NULL THEN
        RAISE EXCEPTION 'role "%" is not that of a tenant at isolation level slot, or has more rights than it may have', tenant
              USING ERRCODE = 'undefined_object';
    END IF;
    IF record IS NULL THEN
        RAISE EXCEPTION 'there is no slot % in this database', slot USING ERRCODE = 'undefined_object';
    END IF;
    PERFORM setval(record, id::bigint);
    IF current_setting('server_version_num')::integer >= 160000 THEN
        EXECUTE format('GRANT %I TO %I WITH INHERIT FALSE, SET TRUE, ADMIN FALSE', tenant, '` + SlotPrefix + `' || slot);
    ELSE
        EXECUTE format('GRANT %I TO %I', tenant, '` + SlotPrefix + `' || slot);
    END IF;
END
$seating$;
REVOKE ALL ON FUNCTION docex_system.seat(text, integer, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION docex_system.seat(text, integer, boolean) TO ` + SwitcherRole

const (
	lentByList     = `EXISTS (SELECT FROM docex_system.slot_tenant WHERE role_name = tenant)`
	lentByRegistry = `EXISTS (SELECT FROM docex_system.tenant_route WHERE role_name = tenant AND isolation = 'slot')`
)

// seatBarrier waits until no slot is being lent, and has all that would be wait for the end of the transaction. What has
// been lent is in the sequences then. It goes into one message with what it is for: nobody shall wait for docexctl. What only
// reads the table, as pg_dump does for as long as it runs, is in nobody's way, and a switch waits longer than this does.
const seatBarrier = "SET LOCAL lock_timeout = '1s'; LOCK TABLE docex_system.slot_tenant IN SHARE MODE"

// defineSeating is done anew by Init, which may have brought a registry to where there was none.
func (s *slotting) defineSeating(ctx context.Context) error {
	var registered bool
	if err := s.tx.QueryRow(ctx, `SELECT to_regclass('docex_system.tenant_route') IS NOT NULL`).Scan(&registered); err != nil {
		return err
	}
	lendable := lentByList
	if registered {
		lendable = "(" + lentByRegistry + " OR " + lentByList + ")"
	}
	return s.exec(ctx, strings.Replace(seating, "LENDABLE", lendable, 1))
}

// createRecords makes what says who may be lent to slots here though no registry is, and whom each slot was lent to last.
func (s *slotting) createRecords(ctx context.Context) error {
	rows, err := s.tx.Query(ctx, `SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass('docex_system.' || name) IS NULL`, s.existing)
	if err != nil {
		return err
	}
	missing, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	sql := []string{"CREATE TABLE IF NOT EXISTS docex_system.slot_tenant (role_name text PRIMARY KEY)",
		"GRANT SELECT, INSERT, DELETE ON docex_system.slot_tenant TO " + OwnerRole, "GRANT USAGE ON SCHEMA docex_system TO " + OwnerRole}
	for _, role := range missing { // what they say is worth as long as the sessions of slots, which a crash ends
		sql = append(sql, "CREATE UNLOGGED SEQUENCE docex_system."+quote(role))
	}
	return s.exec(ctx, strings.Join(sql, ";\n"))
}
