package provision

import "context"

// renewal defines docex_system.renew_slot(slot, verifier), with which the switcher makes a slot new. A tenant on a slot
// can leave its own role and then change the slot's password and settings, as every role may its own.
//
// It runs with the rights of its owner, so it takes nothing but the number of a slot that exists and is one, and a
// verifier in exactly the form that Postgres stores: of any other text Postgres would make a password. NULL is for
// servers that ask for none. Nothing in it is looked up where its caller could have put something, and pg_temp, which
// would be searched first, is named to come last. Settings go in all databases: a role may have its own in any, whether
// it can connect there or not, and the proxy uses no slot that has one.
const renewal = `
CREATE OR REPLACE FUNCTION docex_system.renew_slot(slot integer, verifier text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $renewal$
DECLARE
    role text;
    id oid;
    place text;
BEGIN
    SELECT rolname, oid INTO role, id FROM pg_catalog.pg_roles
     WHERE rolname = '` + SlotPrefix + `' || slot::text AND slot > 0 AND rolcanlogin
       AND NOT (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls);
    IF role IS NULL THEN
        RAISE EXCEPTION 'there is no slot %', slot USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF verifier !~ ('^SCRAM-SHA-256[$][1-9][0-9]{0,6}:([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})' ||
                    '[$][A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$') THEN
        RAISE EXCEPTION 'that is no SCRAM-SHA-256 verifier' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('ALTER ROLE %I CONNECTION LIMIT 1 PASSWORD %L', role, verifier);
    EXECUTE format('ALTER ROLE %I RESET ALL', role);
    FOR place IN SELECT datname FROM pg_catalog.pg_db_role_setting AS s JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
                  WHERE s.setrole = id LOOP
        EXECUTE format('ALTER ROLE %I IN DATABASE %I RESET ALL', role, place);
    END LOOP;
END
$renewal$;
REVOKE ALL ON FUNCTION docex_system.renew_slot(integer, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION docex_system.renew_slot(integer, text) TO ` + SwitcherRole

func (s *slotting) defineRenewal(ctx context.Context) error { return s.exec(ctx, renewal) }
