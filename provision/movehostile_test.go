package provision_test

import (
	"testing"
)

// hostile is code of a tenant's that runs wherever rows arrive or are read, and fails the move where it has more rights than
// the tenant's.
const hostile = `
CREATE FUNCTION probe() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE attempt text;
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname IN (current_user, session_user) AND (rolsuper OR rolcreaterole OR rolcreatedb)) THEN
        RAISE EXCEPTION 'runs as %, for %', current_user, session_user;
    END IF;
    FOR attempt IN SELECT 'ALTER ROLE tenant_acme SUPERUSER' UNION ALL SELECT 'SET ROLE docex_owner'
        UNION ALL SELECT 'CREATE TABLE public.mine ()' UNION ALL SELECT 'ALTER ROLE tenant_acme CREATEROLE'
        UNION ALL SELECT format('ALTER SUBSCRIPTION %I CONNECTION ''host=127.0.0.1''', subname) FROM pg_subscription
        UNION ALL SELECT format('ALTER SUBSCRIPTION %I DISABLE', subname) FROM pg_subscription
        UNION ALL SELECT format('ALTER ROLE %I SUPERUSER', rolname) FROM pg_roles WHERE rolname ~ '^docex_move'
    LOOP
        BEGIN
            EXECUTE attempt;
        EXCEPTION WHEN insufficient_privilege OR invalid_parameter_value THEN
            CONTINUE;
        END;
        RAISE EXCEPTION 'can %', attempt;
    END LOOP;
    RETURN true;
END $$;
CREATE TABLE traps (id integer PRIMARY KEY, v text CHECK (probe()));
CREATE FUNCTION trapped() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM tenant_acme.probe(); RETURN NEW; END';
CREATE TRIGGER trapped BEFORE INSERT ON traps FOR EACH ROW EXECUTE FUNCTION trapped();
ALTER TABLE traps ENABLE ALWAYS TRIGGER trapped;
CREATE FUNCTION key(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM tenant_acme.probe(); RETURN $1; END';
CREATE INDEX ON traps (key(v));
CREATE MATERIALIZED VIEW bait AS SELECT probe() AS caught;
ALTER TABLE traps ENABLE ROW LEVEL SECURITY;
ALTER TABLE traps FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON traps USING (probe());
INSERT INTO traps SELECT n, 'v' FROM generate_series(1, 10) AS n;`

func TestCodeOfATenantGainsNothingByItsMove(t *testing.T) {
	for _, level := range movedLevels {
		t.Run(string(level), func(t *testing.T) {
			s := newMovingSite(t)
			s.createSmall(t, "acme", level)
			conn := s.on(t, "acme")
			execute(t, conn, hostile)
			s.AfterStep(func(done string) error {
				if done == "wait for the copy" {
					execute(t, conn, "INSERT INTO traps VALUES (99, 'late'); UPDATE traps SET v = 'changed' WHERE id = 1")
				}
				return nil
			})
			s.move(t, "acme", "eu")
			s.AfterStep(nil)
			if got := lines(t, s.on(t, "acme"), "SELECT count(*) || ' ' || count(*) FILTER (WHERE v = 'changed') FROM traps"); got[0] != "11 1" {
				t.Errorf("there are %s", got)
			}
			there := connect(t, s.eu.DSN("postgres"))
			if got := lines(t, there, "SELECT rolname::text FROM pg_roles WHERE rolsuper AND rolname <> current_user OR rolcreaterole AND rolname ~ '^(tenant|docex)'"); len(got) > 0 {
				t.Errorf("have got powers: %q", got)
			}
		})
	}
}
