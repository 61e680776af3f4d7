package main

import (
	"fmt"
	"math/rand/v2"
)

// stateSteps make what belongs to a session: some take it back, some leave it behind.
func stateSteps() []step {
	return []step{
		{"settings", func(c *client, r *rand.Rand, _ *site) error {
			c.query(choose(r, "SET docex.x = '"+c.own()+"'", "SET docex.x = '"+c.own()+"'; SET application_name = '"+c.own()+"'"))
			if _, err := c.ready(1); err != nil {
				return err
			}
			c.query("SHOW docex.x")
			a, err := c.ready(1)
			return want(a, err, 1, "TDCZ")
		}},
		{"set_config", func(c *client, _ *rand.Rand, _ *site) error {
			c.unnamed("SELECT set_config('docex.x', $1, false)", c.own())
			c.sync()
			c.query("SHOW docex.x")
			a, err := c.ready(2)
			return want(a, err, 2, "12DCZTDCZ")
		}},
		{"settings and RESET", func(c *client, _ *rand.Rand, _ *site) error {
			c.query("SET application_name = '" + c.own() + "'")
			c.query("RESET application_name")
			c.query("SHOW work_mem")
			a, err := c.ready(3)
			return want(a, err, 0, "CZCZTDCZ")
		}},
		{"search_path", func(c *client, _ *rand.Rand, _ *site) error {
			c.query("SET search_path = tenant_" + c.tenant + ", public")
			c.query(c.all())
			c.query("SHOW search_path")
			a, err := c.ready(3)
			return want(a, err, rows+1, "CZTDCZTDCZ")
		}},
		{"transaction with SET LOCAL", func(c *client, r *rand.Rand, _ *site) error {
			c.query("BEGIN")
			c.query("SET LOCAL docex.local = '" + c.own() + "'")
			c.query("SHOW docex.local")
			c.query(c.all())
			c.query(choose(r, "COMMIT", "ROLLBACK"))
			a, err := c.ready(5)
			return want(a, err, rows+1, "CZCZTDCZTDCZCZ")
		}},
		{"temporary table", func(c *client, _ *rand.Rand, _ *site) error {
			c.query(c.temporary())
			c.query(c.all())
			c.query("DROP TABLE pg_temp.mine")
			a, err := c.ready(3)
			return want(a, err, rows, "CCZTDCZCZ")
		}},
		{"cursor", func(c *client, r *rand.Rand, _ *site) error {
			c.query("BEGIN; DECLARE held CURSOR WITH HOLD FOR " + c.all() + "; COMMIT")
			c.query("FETCH 5 FROM held")
			c.query("CLOSE held")
			a, err := c.ready(3)
			return want(a, err, 5, "CCCZTDCZCZ")
		}},
		{"PREPARE", func(c *client, _ *rand.Rand, _ *site) error {
			c.query("PREPARE p AS " + c.all())
			c.query("EXECUTE p")
			c.query("DEALLOCATE p")
			a, err := c.ready(3)
			return want(a, err, rows, "CZTDCZCZ")
		}},
		{"LISTEN and NOTIFY", func(c *client, _ *rand.Rand, _ *site) error {
			c.query("LISTEN common")
			c.query("NOTIFY common, '" + c.own() + "'")
			c.query("SELECT 1")
			c.query("UNLISTEN *")
			a, err := c.ready(4)
			return want(a, err, 1, "CZCZTDCZCZ")
		}},
		{"NOTIFY", func(c *client, _ *rand.Rand, _ *site) error {
			c.query("NOTIFY common, '" + c.own() + "'")
			a, err := c.ready(1)
			return want(a, err, 0, "CZ")
		}},
		{"advisory lock", func(c *client, r *rand.Rand, _ *site) error {
			c.query(fmt.Sprintf("SELECT pg_try_advisory_lock(%d)", r.IntN(1000)))
			c.query("SELECT pg_advisory_unlock_all()")
			a, err := c.ready(2)
			return want(a, err, 0, "TDCZTDCZ")
		}},
		{"setseed", func(c *client, _ *rand.Rand, _ *site) error {
			c.query(fmt.Sprintf("SELECT setseed(%s)", seedOf(numberOf(c.tenant))))
			a, err := c.ready(1)
			return want(a, err, 0, "TDCZ")
		}},
		{"nextval", func(c *client, _ *rand.Rand, _ *site) error {
			c.query("SELECT nextval('ticket')")
			a, err := c.ready(1)
			if err := want(a, err, 0, "TDCZ"); err != nil {
				return err
			}
			n, err := number(a.rows[0], asText)
			if err != nil {
				return err
			}
			return c.tally.checkNumber(c.tenant, n, ticketUnit)
		}},
		{"everything a session can leave behind", litter},
	}
}

// temporary makes a table that hides the tenant's own.
func (c *client) temporary() string {
	return "DROP TABLE IF EXISTS pg_temp.mine; CREATE TEMPORARY TABLE mine AS SELECT * FROM tenant_" + c.tenant + ".mine"
}

// litter leaves something of every kind, once. The session keeps its server connection from there on.
func litter(c *client, r *rand.Rand, _ *site) error {
	if c.pinned {
		return nil
	}
	c.pinned = true
	shape, ready := "", 0
	add := func(shapeOfOne, sql string) {
		if r.IntN(2) == 0 {
			c.query(sql)
			shape, ready = shape+shapeOfOne, ready+1
		}
	}
	add("CCZ", c.temporary())
	add("CZ", "LISTEN common")
	add("CZ", "PREPARE p_left AS "+c.all())
	add("CCCZ", "BEGIN; DECLARE c_left CURSOR WITH HOLD FOR "+c.all()+"; COMMIT")
	add("TDCZ", fmt.Sprintf("SELECT pg_try_advisory_lock(%d)", 1000+r.IntN(1000)))
	add("CZ", "SET docex.x = '"+c.own()+"'")
	add("CZ", "SET application_name = '"+c.own()+"'")
	if ready == 0 {
		return nil
	}
	a, err := c.ready(ready)
	return want(a, err, 0, shape)
}
