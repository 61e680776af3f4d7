package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

const all = "SELECT tenant FROM mine"

// step is something that a session does, in order and to its end.
type step struct {
	name string
	do   func(c *client, r *rand.Rand, s *site) error
}

// want checks what came back: so many rows with the tenant's mark at least, these errors and no others, and no
// transaction open.
func want(a answers, err error, own int, codes ...string) error {
	switch {
	case err != nil:
		return err
	case a.own < own:
		return fmt.Errorf("%d marks came where %d were due, errors %q, messages %q", a.own, own, a.codes, a.kinds)
	case !slices.Equal(a.codes, codes):
		return fmt.Errorf("the errors are %q, want %q", a.codes, codes)
	case a.status != 'I':
		return fmt.Errorf("the status is %q", a.status)
	}
	return nil
}

func steps() []step {
	return []step{
		{"query", func(c *client, _ *rand.Rand, _ *site) error {
			c.query(all)
			a, err := c.ask(1)
			return want(a, err, rows)
		}},
		{"two statements in a query", func(c *client, _ *rand.Rand, _ *site) error {
			c.query(all + "; SELECT count(*), min(tenant) FROM mine")
			a, err := c.ask(1)
			return want(a, err, rows+1)
		}},
		{"pipelined queries, one of which fails", func(c *client, _ *rand.Rand, _ *site) error {
			c.query(all)
			c.query("SELECT 1/0")
			c.query(all)
			a, err := c.ask(3)
			return want(a, err, 2*rows, "22012")
		}},
		{"extended", extended},
		{"pipeline with an error that skips", func(c *client, _ *rand.Rand, _ *site) error {
			c.parse("", all)
			c.bind("", "", false)
			c.execute("", 0)
			c.parse("", "SELECT nothing FROM nowhere")
			c.bind("", "", false)
			c.execute("", 0)
			c.sync()
			c.parse("", all)
			c.bind("", "", false)
			c.execute("", 0)
			c.sync()
			a, err := c.ask(2)
			return want(a, err, 2*rows, "42P01")
		}},
		{"settings", func(c *client, r *rand.Rand, _ *site) error {
			own := "own-" + c.tenant
			c.query(choose(r, "SET docex.x = '"+own+"'", "SELECT set_config('docex.x', '"+own+"', false)", "SET application_name = '"+own+"'; SET docex.x = '"+own+"'"))
			if a, err := c.ask(1); want(a, err, 0) != nil {
				return want(a, err, 0)
			}
			c.query("SHOW docex.x")
			a, err := c.ask(1)
			return want(a, err, 1)
		}},
		{"transaction with SET LOCAL", func(c *client, r *rand.Rand, _ *site) error {
			c.query("BEGIN")
			c.query("SET LOCAL docex.local = 'own-" + c.tenant + "'")
			c.query(all)
			c.query(choose(r, "COMMIT", "ROLLBACK"))
			a, err := c.ask(4)
			return want(a, err, rows)
		}},
		{"failed transaction", func(c *client, _ *rand.Rand, _ *site) error {
			for _, sql := range []string{"BEGIN", all, "SELECT 1/0", all, "ROLLBACK"} {
				c.query(sql)
			}
			a, err := c.ask(5)
			return want(a, err, rows, "22012", "25P02")
		}},
		{"temporary table", func(c *client, r *rand.Rand, _ *site) error {
			c.query("DROP TABLE IF EXISTS pg_temp.mine; CREATE TEMPORARY TABLE mine AS SELECT 'own-" + c.tenant + "'::text AS tenant, n FROM generate_series(1, 20) AS n")
			c.query(all)
			if r.IntN(4) > 0 {
				c.query("DROP TABLE pg_temp.mine")
				a, err := c.ask(3)
				return want(a, err, rows)
			}
			c.pinned = true
			a, err := c.ask(2)
			return want(a, err, rows)
		}},
		{"cursor", func(c *client, r *rand.Rand, _ *site) error {
			c.query("BEGIN; DECLARE held CURSOR WITH HOLD FOR " + all + "; COMMIT")
			c.query("FETCH 5 FROM held")
			c.query(choose(r, "CLOSE held", "CLOSE ALL"))
			a, err := c.ask(3)
			return want(a, err, 5)
		}},
		{"PREPARE", func(c *client, _ *rand.Rand, _ *site) error {
			c.query("PREPARE p AS " + all)
			c.query("EXECUTE p")
			c.query("DEALLOCATE p")
			a, err := c.ask(3)
			return want(a, err, rows)
		}},
		{"LISTEN and NOTIFY", func(c *client, r *rand.Rand, _ *site) error {
			c.query("LISTEN common")
			c.query("NOTIFY common, 'own-" + c.tenant + "'")
			c.query("SELECT 1")
			if r.IntN(4) > 0 {
				c.query("UNLISTEN *")
				a, err := c.ask(4)
				return want(a, err, 1)
			}
			c.pinned = true
			a, err := c.ask(3)
			return want(a, err, 1)
		}},
		{"NOTIFY", func(c *client, _ *rand.Rand, _ *site) error {
			c.query("NOTIFY common, 'own-" + c.tenant + "'")
			a, err := c.ask(1)
			return want(a, err, 0)
		}},
		{"advisory lock", func(c *client, r *rand.Rand, _ *site) error {
			c.query("SELECT pg_try_advisory_lock(" + fmt.Sprint(r.IntN(1000)) + ")")
			c.query("SELECT pg_advisory_unlock_all()")
			a, err := c.ask(2)
			return want(a, err, 0)
		}},
		{"COPY out", func(c *client, _ *rand.Rand, _ *site) error {
			c.query("COPY mine (tenant) TO STDOUT")
			a, err := c.ask(1)
			return want(a, err, rows)
		}},
		{"COPY in", func(c *client, r *rand.Rand, _ *site) error {
			c.query("COPY sink FROM STDIN")
			for range 5 {
				c.message('d', []byte("own-"+c.tenant+"\n"))
			}
			if r.IntN(2) == 0 {
				c.message('f', text("changed my mind"))
				a, err := c.ask(1)
				return want(a, err, 0, "57014")
			}
			c.message('c')
			c.query("DELETE FROM sink RETURNING tenant")
			a, err := c.ask(2)
			return want(a, err, 0)
		}},
		{"errors", func(c *client, r *rand.Rand, _ *site) error {
			sql, sqlstate := "SELECT 1/0", "22012"
			switch r.IntN(3) {
			case 0:
				sql, sqlstate = "SELEC", "42601"
			case 1:
				sql, sqlstate = "SELECT * FROM nowhere", "42P01"
			}
			c.query(sql)
			a, err := c.ask(1)
			return want(a, err, 0, sqlstate)
		}},
		{"cancel request", canceled},
		{"large result", func(c *client, _ *rand.Rand, _ *site) error {
			c.query("SELECT repeat(tenant, 1000) FROM mine LIMIT 6")
			a, err := c.ask(1)
			return want(a, err, 6000)
		}},
		{"setseed", func(c *client, _ *rand.Rand, _ *site) error {
			c.query("SELECT setseed(0.5)")
			a, err := c.ask(1)
			return want(a, err, 0)
		}},
		{"leaving the role", func(c *client, r *rand.Rand, _ *site) error {
			how := choose(r, "RESET ROLE", "SET ROLE NONE", "DISCARD ALL", "RESET ALL")
			if c.pinned { // a session that keeps its connection keeps what it does to its role
				how = "RESET ALL"
			}
			c.query(how)
			if a, err := c.ask(1); want(a, err, 0) != nil {
				return want(a, err, 0)
			}
			c.query(all)
			a, err := c.ask(1)
			return want(a, err, rows)
		}},
	}
}

func choose(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

// extended takes the long way through the extended protocol.
func extended(c *client, r *rand.Rand, _ *site) error {
	name := choose(r, "", "s1", "s2")
	if name != "" {
		c.message('C', []byte{'S'}, text(name))
	}
	c.parse(name, all)
	c.describe('S', name)
	c.bind("p", name, r.IntN(2) == 0)
	c.describe('P', "p")
	c.execute("p", 3)
	if r.IntN(2) == 0 {
		c.message('H')
	}
	c.execute("p", 0)
	c.message('C', []byte{'P'}, text("p"))
	c.sync()
	a, err := c.ask(1)
	return want(a, err, rows)
}

// canceled races a cancel request with the end of its query: the query ends either way, and nothing else does.
func canceled(c *client, r *rand.Rand, s *site) error {
	c.query("SELECT tenant, pg_sleep(0.001) FROM mine")
	if err := c.flush(); err != nil {
		return err
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
		c.cancel(s.address)
	}()
	a, err := c.until(1)
	<-sent
	if err == nil && len(a.codes) == 1 && a.codes[0] == "57014" && a.status == 'I' {
		c.tally.count("queries canceled")
		return nil
	}
	return want(a, err, rows)
}

// inspect looks whether a session finds anything that another has left.
func inspect(c *client) error {
	c.query(`SELECT concat_ws(' ', current_user, current_schema, coalesce(current_setting('docex.x', true), ''), current_setting('application_name'),
(SELECT count(*) FROM pg_prepared_statements WHERE from_sql), (SELECT count(*) FROM pg_cursors WHERE is_holdable),
(SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), (SELECT count(*) FROM pg_listening_channels()),
(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()))`)
	a, err := c.ask(1)
	if err := want(a, err, 2); err != nil {
		return err
	}
	if clean := "tenant_" + c.tenant + " tenant_" + c.tenant + "   0 0 0 0 0"; a.rows[0] != clean {
		return fmt.Errorf("a fresh session finds %q, want %q", a.rows[0], clean)
	}
	return nil
}
