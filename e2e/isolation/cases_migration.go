package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// migrationCases lie in wait for whoever runs SQL on the tenant's tables on the operator's behalf.
func migrationCases() []attack {
	return []attack{
		{number: 61, sentence: "A trigger of the tenant's gains nothing when its tables are migrated", promise: always(contained), run: migrated},
	}
}

// trapTable is a table whose trigger and default leave whatever role they are run under and ask for powers. A row that
// the trigger has seen has 100 more.
const trapTable = `
CREATE TABLE evil_migrated (id int);
CREATE FUNCTION evil_gain() RETURNS int LANGUAGE plpgsql AS $evil$
DECLARE power text;
BEGIN
	FOREACH power IN ARRAY ARRAY['SUPERUSER', 'CREATEROLE', 'CREATEDB', 'BYPASSRLS', 'REPLICATION'] LOOP
		BEGIN
			EXECUTE 'RESET ROLE';
			EXECUTE 'ALTER ROLE "{who}" ' || power;
		EXCEPTION WHEN OTHERS THEN
		END;
	END LOOP;
	RETURN 100;
END$evil$;
CREATE FUNCTION evil_trigger() RETURNS trigger LANGUAGE plpgsql AS
	$evil$BEGIN NEW.id := NEW.id + {where}.evil_gain(); RETURN NEW; END$evil$;
CREATE TRIGGER evil BEFORE INSERT OR UPDATE ON evil_migrated FOR EACH ROW EXECUTE FUNCTION evil_trigger()`

// migration is what the operator wants done.
const migration = `
INSERT INTO {where}.evil_migrated VALUES (1);
UPDATE {where}.evil_migrated SET id = id + 1;
ALTER TABLE {where}.evil_migrated ADD COLUMN gained int DEFAULT {where}.evil_gain()`

func trap(sql, who, where string) string {
	return strings.NewReplacer("{who}", who, "{where}", where).Replace(sql)
}

const powersOf = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication FROM pg_roles WHERE rolname = "

// migrated runs a migration as docexctl does, logged in as the tenant's role, and another way for contrast.
func migrated(t *trial) {
	t.contrast()
	s := t.hostile()
	defer s.close()
	s.must(trap(trapTable, t.own.role, t.own.schema))
	t.atEnd(func() {
		_, err := t.hostileDB("DROP TABLE {alpha}.evil_migrated; DROP FUNCTION {alpha}.evil_trigger(), {alpha}.evil_gain()")
		t.must(err)
	})
	conn := t.loginAsTenant()
	defer conn.Close(context.WithoutCancel(t.ctx))
	_, err := rowsOf(conn.Exec(t.ctx, trap(migration, t.own.role, t.own.schema)))
	t.must(err)
	rows, err := t.hostileDB("SELECT id, gained FROM {alpha}.evil_migrated")
	t.must(err)
	if len(rows) != 1 || rows[0][0] != "202" || rows[0][1] != "100" {
		t.abandon(errors.New("the trap did not go off"))
	}
	t.checks++
	if rows, err = t.hostileDB(powersOf + "'{alpha role}'"); err != nil || rows[0][0] != "f" {
		t.leak("its role has a power that it had not, %v", err)
	}
}

// contrast shows that the trap works: under a superuser who has but SET ROLE it gains everything. All of it is rolled
// back.
func (t *trial) contrast() {
	const who = "evil_contrast"
	rows, err := t.hostileDB("BEGIN; CREATE ROLE " + who + "; CREATE SCHEMA " + who + " AUTHORIZATION " + who + "; " +
		"SET ROLE " + who + "; SET search_path = " + who + "; " + trap(trapTable+";"+migration, who, who) + "; " +
		powersOf + "'" + who + "'; ROLLBACK")
	t.must(err)
	if len(rows) != 1 || rows[0][0] != "t" {
		t.abandon(errors.New("the trap gains nothing under a superuser either: it would prove nothing"))
	}
	t.note("under a superuser's SET ROLE the same trap gains all powers")
}

// loginAsTenant logs in to Postgres as the hostile tenant's own role, with the password that docexctl and the proxy derive.
func (t *trial) loginAsTenant() *pgconn.PgConn {
	rows, err := t.registry(t.ctx, "SELECT secret_generation FROM docex_system.tenant_route WHERE tenant_id = '"+t.attacker.tenant+"'")
	t.must(err)
	password, err := derivedPassword(t.key, t.own.role, rows[0][0])
	t.must(err)
	config, err := pgconn.ParseConfig(t.cluster.DSN(t.own.database))
	t.must(err)
	config.User, config.Password = t.own.role, password
	config.RuntimeParams["search_path"] = t.own.schema
	conn, err := pgconn.ConnectConfig(t.ctx, config)
	t.must(err)
	return conn
}

// derivedPassword is the password of a role, of the generation that the registry says, by the master key in a file: 64
// hexadecimal digits.
func derivedPassword(keyFile, role, generation string) (string, error) {
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return "", err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("role\x00" + role + "\x00" + generation + "\x00"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), nil
}
