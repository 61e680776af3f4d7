package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/e2e/program"
)

// arena is one isolation level made ready: a hostile tenant and a victim behind a proxy.
type arena struct {
	*site
	level level
	proxy *program.Proxy

	attacker, accomplice account // both of the hostile tenant
	prey                 account
	own, others          place // where the hostile tenant and the victim live
	login                string

	rows, code, name canary
	largeObject      string

	victimDB   *pgconn.PgConn // the superuser's, past the proxy
	registryDB *pgconn.PgConn

	pristine cleanliness // of a session of the victim's
	reuse    reuse
}

// place is where Postgres says that a tenant is.
type place struct{ schema, role, database string }

// canary is a text that nobody but the victim should come to know.
type canary struct{ what, text string }

// reuse counts how often what an attack left behind could have been found, because the next session got the very
// server connection it was left on.
type reuse struct{ byVictim, byTenant, trials int }

// unavailableError is a level that this build does not have.
type unavailableError struct{ err error }

func (e *unavailableError) Error() string {
	return "level not available in this build: " + e.err.Error()
}

func (e *unavailableError) Unwrap() error { return e.err }

// newArena makes a level ready. *unavailableError: this build cannot provision or serve it.
func newArena(ctx context.Context, s *site, l level) (*arena, error) {
	a := &arena{site: s, level: l}
	for _, c := range []struct {
		into *canary
		what string
	}{{&a.rows, "row"}, {&a.code, "source code"}, {&a.name, "name"}} {
		*c.into = canary{what: c.what, text: "canary_" + strings.ReplaceAll(c.what, " ", "_") + "_" + random()}
	}
	var err error
	if a.attacker, err = s.createTenant(ctx, "alpha_"+string(l), l); err != nil {
		return nil, &unavailableError{err}
	}
	if a.prey, err = s.createTenant(ctx, "beta_"+string(l), l); err != nil {
		return nil, err
	}
	if a.accomplice, err = s.createLogin(ctx, a.attacker.login+"_two", a.attacker.tenant); err != nil {
		return nil, err
	}
	if a.proxy, err = s.serve(ctx, l, budget); err != nil {
		return nil, err
	}
	if err := a.settle(ctx); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func random() string {
	b := make([]byte, 8)
	rand.Read(b) //nolint:errcheck // it never fails
	return hex.EncodeToString(b)
}

// settle looks where both tenants live and puts the canaries there.
func (a *arena) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, tenant := range []struct {
		account account
		place   *place
		sql     string
	}{{a.attacker, &a.own, ownObjects}, {a.prey, &a.others, victimObjects}} {
		conn, err := pgconn.Connect(ctx, a.dsn(tenant.account))
		if err != nil {
			return &unavailableError{err}
		}
		defer conn.Close(ctx)
		where, err := rowsOf(conn.Exec(ctx, "SELECT current_schema(), current_user, current_database(), session_user"))
		if err != nil {
			return err
		}
		*tenant.place, a.login = place{schema: where[0][0], role: where[0][1], database: where[0][2]}, where[0][3]
		objects, err := rowsOf(conn.Exec(ctx, a.named(tenant.sql)))
		if err != nil {
			return fmt.Errorf("canaries: %w", err)
		}
		if len(objects) > 0 {
			a.largeObject = objects[0][0]
		}
	}
	var err error
	if a.victimDB, err = pgconn.Connect(ctx, a.cluster.DSN(a.others.database)); err != nil {
		return err
	}
	a.registryDB, err = pgconn.Connect(ctx, a.cluster.DSN(registryDatabase))
	return err
}

const ownObjects = `
CREATE TABLE own (id serial PRIMARY KEY, body text);
INSERT INTO own (body) VALUES ('own row');
CREATE TABLE shared_name (body text);
INSERT INTO shared_name VALUES ('own row')`

const victimObjects = `
CREATE TABLE canary (id serial PRIMARY KEY, body text);
INSERT INTO canary (body) VALUES ('{row secret}'), ('{row secret}');
CREATE TABLE shared_name (body text);
INSERT INTO shared_name VALUES ('{row secret}');
CREATE TABLE "{name secret}" (body text DEFAULT '{code secret}');
CREATE FUNCTION canary_code() RETURNS text LANGUAGE sql AS $$SELECT '{code secret}'::text$$;
CREATE VIEW canary_view AS SELECT '{code secret}'::text AS body;
SELECT lo_from_bytea(0, '{row secret}')`

// named puts the names of this level into an attack's text.
func (a *arena) named(sql string) string {
	return strings.NewReplacer(
		"{alpha}", a.own.schema, "{alpha role}", a.own.role,
		"{beta}", a.others.schema, "{beta role}", a.others.role, "{beta database}", a.others.database,
		"{login}", a.login, "{slots}", slotPattern, "{large object}", a.largeObject,
		"{row secret}", a.rows.text, "{code secret}", a.code.text, "{name secret}", a.name.text,
	).Replace(sql)
}

// dsn is how a client reaches its tenant through the proxy.
func (a *arena) dsn(who account) string {
	return fmt.Sprintf("postgres://%s.%s:%s@%s/?sslmode=disable", who.login, who.tenant, who.password, a.proxy.Address)
}

// superuser runs a statement past the proxy, in the victim's database.
func (a *arena) superuser(ctx context.Context, sql string) ([][]string, error) {
	return rowsOf(a.victimDB.Exec(ctx, a.named(sql)))
}

// registry runs a statement past the proxy, in the registry's database.
func (a *arena) registry(ctx context.Context, sql string) ([][]string, error) {
	return rowsOf(a.registryDB.Exec(ctx, a.named(sql)))
}

func (a *arena) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, conn := range []*pgconn.PgConn{a.victimDB, a.registryDB} {
		if conn != nil {
			conn.Close(ctx) //nolint:errcheck // the cluster is stopped anyway
		}
	}
	return a.proxy.Stop()
}

// rowsOf reads all rows of all results, as text.
func rowsOf(reader *pgconn.MultiResultReader) ([][]string, error) {
	results, err := reader.ReadAll()
	var rows [][]string
	for _, r := range results {
		rows = append(rows, textRows(r.Rows)...)
	}
	return rows, err
}

func textRows(rows [][][]byte) [][]string {
	var all [][]string
	for _, row := range rows {
		values := make([]string, len(row))
		for i, value := range row {
			values[i] = string(value)
		}
		all = append(all, values)
	}
	return all
}
