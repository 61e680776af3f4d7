package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// look is a question of a session that has done nothing yet, and what is wrong with the answer.
type look struct {
	sql   string
	judge func(c *client, s *site, a answers, err error) error
}

// looks find what another session has left. Texts and names bear marks, which every answer is searched for.
func looks() []look {
	return []look{
		{`SELECT concat_ws(' ', current_user, current_schema, coalesce(current_setting('docex.x', true), ''),
coalesce(current_setting('docex.local', true), ''), current_setting('application_name'),
(SELECT count(*) FROM pg_prepared_statements WHERE from_sql), (SELECT count(*) FROM pg_cursors),
(SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), (SELECT count(*) FROM pg_listening_channels()),
(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()))`, pristine},
		// Statements may be those of other sessions of the tenant.
		{"SELECT replace(statement, 'ask-', '') FROM pg_prepared_statements", func(_ *client, _ *site, a answers, err error) error {
			return want(a, err, 0, rowsOrNone(a))
		}},
		{"SELECT random()", func(c *client, s *site, a answers, err error) error {
			if err := want(a, err, 0, "TDCZ"); err != nil {
				return err
			}
			if seeded := s.randoms[a.rows[0]]; seeded != "" && seeded != c.tenant {
				c.tally.foreign.Add(1)
				return &foreignError{c.tenant, "random() of the seed of " + seeded}
			}
			return nil
		}},
		{"SELECT lastval()", func(c *client, _ *site, a answers, err error) error {
			if slices.Equal(a.codes, []string{"55000"}) {
				return want(a, err, 0, string(a.shape), "55000")
			}
			if err := want(a, err, 0, "TDCZ"); err != nil {
				return err
			}
			n, err := number(a.rows[0], asText)
			if err != nil {
				return err
			}
			return c.tally.checkNumber(c.tenant, n, ticketUnit)
		}},
		{"SHOW search_path", func(_ *client, _ *site, a answers, err error) error { return want(a, err, 1, "TDCZ") }},
	}
}

func rowsOrNone(a answers) string {
	if len(a.rows) == 0 {
		return "TCZ"
	}
	return "TDCZ"
}

func pristine(c *client, _ *site, a answers, err error) error {
	if err := want(a, err, 2, "TDCZ"); err != nil {
		return err
	}
	if clean := "tenant_" + c.tenant + " tenant_" + c.tenant + "    0 0 0 0 0"; a.rows[0] != clean {
		return fmt.Errorf("a fresh session finds %q, want %q", a.rows[0], clean)
	}
	return nil
}

// reachable are the schemas of tenants that a session may use: its own.
const reachable = `SELECT nspname FROM pg_namespace WHERE nspname LIKE 'tenant\_t%' AND has_schema_privilege(oid, 'USAGE')`

// inspect looks whether a session finds anything that another has left, and whether it is who it should be.
func inspect(c *client, r *rand.Rand, s *site) error {
	for _, l := range looks() {
		c.query(l.sql)
		a, err := c.ready(1)
		if err := l.judge(c, s, a, err); err != nil {
			return err
		}
	}
	if r.IntN(8) > 0 {
		return nil
	}
	c.query(reachable)
	a, err := c.ready(1)
	if err := want(a, err, 1, "TDCZ"); err != nil {
		return err
	}
	if len(a.rows) != 1 {
		return fmt.Errorf("it may use the schemas %q", a.rows)
	}
	return nil
}
