package provision

import "context"

// seating defines docex_system.seat(tenant, slot, take), with which the switcher lets a slot become a tenant's role, and
// takes that back. It is all that the switcher may do about roles: it has no membership itself. Were it a member of each
// tenant's role, with ADMIN, every change of a membership would have Postgres look all of them up anew, which takes about
// 5 µs for each tenant there is.
//
// It runs with the rights of its owner, so it takes nothing but the role of a tenant at level slot, by the registry, that
// can log in and has no power and no membership, and the number of a slot. Whoever may write to the registry cannot have
// another role seated that is worth more than a tenant's; and a role that was made NOLOGIN is locked out at level slot too.
const seating = `
CREATE OR REPLACE FUNCTION docex_system.seat(tenant text, slot integer, take boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $seating$
BEGIN
    IF slot IS NULL OR slot < 1 THEN
        RAISE EXCEPTION 'there is no slot %', slot USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT take THEN
        EXECUTE format('REVOKE %I FROM %I', tenant, '` + SlotPrefix + `' || slot);
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM docex_system.tenant_route WHERE role_name = tenant AND isolation = 'slot') OR
       EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE rolname = tenant AND (r.oid < 16384 OR NOT rolcanlogin OR
               rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls OR
               EXISTS (SELECT FROM pg_catalog.pg_auth_members WHERE member = r.oid))) THEN
        RAISE EXCEPTION 'role "%" is not that of a tenant at isolation level slot, or has more rights than it may have', tenant
              USING ERRCODE = 'undefined_object';
    END IF;
    IF current_setting('server_version_num')::integer >= 160000 THEN
        EXECUTE format('GRANT %I TO %I WITH INHERIT FALSE, SET TRUE, ADMIN FALSE', tenant, '` + SlotPrefix + `' || slot);
    ELSE
        EXECUTE format('GRANT %I TO %I', tenant, '` + SlotPrefix + `' || slot);
    END IF;
END
$seating$;
REVOKE ALL ON FUNCTION docex_system.seat(text, integer, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION docex_system.seat(text, integer, boolean) TO ` + SwitcherRole

func (s *slotting) defineSeating(ctx context.Context) error { return s.exec(ctx, seating) }
