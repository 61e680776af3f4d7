package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// step is something that a session does, in order and to its end.
type step struct {
	name string
	do   func(c *client, r *rand.Rand, s *site) error
}

func steps() []step {
	return slices.Concat(querySteps(), extendedSteps(), stateSteps(), hostileSteps())
}

// want checks what came back: at least so many marks of the tenant, exactly these messages and errors, and no
// transaction open.
func want(a answers, err error, own int, shape string, codes ...string) error {
	switch {
	case err != nil:
		return err
	case string(a.shape) != shape:
		return fmt.Errorf("out of step: the messages are %q, want %q, errors %q", a.shape, shape, a.codes)
	case a.own < own:
		return fmt.Errorf("%d marks came where %d were due, messages %q", a.own, own, a.shape)
	case !slices.Equal(a.codes, codes):
		return fmt.Errorf("the errors are %q, want %q", a.codes, codes)
	case a.status != 'I':
		return fmt.Errorf("the status is %q", a.status)
	}
	return nil
}

func choose(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

// querySteps use the simple protocol, COPY and cancel requests.
func querySteps() []step {
	return []step{
		{"query", func(c *client, _ *rand.Rand, _ *site) error {
			c.query(c.all())
			a, err := c.ready(1)
			return want(a, err, rows, "TDCZ")
		}},
		{"two statements in a query", func(c *client, _ *rand.Rand, _ *site) error {
			c.query(c.all() + "; SELECT min(tenant) FROM mine")
			a, err := c.ready(1)
			return want(a, err, rows+1, "TDCTDCZ")
		}},
		{"three statements in a query, the second fails", func(c *client, _ *rand.Rand, _ *site) error {
			c.query(c.all() + "; SELECT 1/0; " + c.all())
			a, err := c.ready(1)
			return want(a, err, rows, "TDCEZ", "22012")
		}},
		{"pipelined queries, one of which fails", func(c *client, _ *rand.Rand, _ *site) error {
			c.query(c.all())
			c.query("SELECT 1/0")
			c.query(c.all())
			a, err := c.ready(3)
			return want(a, err, 2*rows, "TDCZEZTDCZ", "22012")
		}},
		{"numbers", func(c *client, _ *rand.Rand, _ *site) error {
			c.query("SELECT n, pad FROM mine")
			a, err := c.ready(1)
			if err := want(a, err, rows, "TDCZ"); err != nil {
				return err
			}
			return c.numbers(a, asText)
		}},
		{"failed transaction", func(c *client, _ *rand.Rand, _ *site) error {
			for _, sql := range []string{"BEGIN", c.all(), "SELECT 1/0", c.all(), "ROLLBACK"} {
				c.query(sql)
			}
			a, err := c.ready(5)
			return want(a, err, rows, "CZTDCZEZEZCZ", "22012", "25P02")
		}},
		{"transaction, question by question", func(c *client, r *rand.Rand, _ *site) error {
			for _, sql := range []string{"BEGIN", "SAVEPOINT a", "ROLLBACK TO a"} {
				c.query(sql)
				if _, err := c.ready(1); err != nil {
					return err
				}
			}
			c.query(c.all())
			c.query(choose(r, "COMMIT", "ROLLBACK"))
			a, err := c.ready(2)
			return want(a, err, rows, "TDCZCZ")
		}},
		{"COPY out", func(c *client, _ *rand.Rand, _ *site) error {
			c.query("COPY (" + c.all() + ") TO STDOUT")
			a, err := c.ready(1)
			return want(a, err, rows, "HdcCZ")
		}},
		{"COPY in", copyIn},
		{"an error", func(c *client, r *rand.Rand, _ *site) error {
			sql, sqlstate, own := "SELECT 1/0", "22012", 0
			switch r.IntN(4) {
			case 0:
				sql, sqlstate = "SELEC", "42601"
			case 1:
				sql, sqlstate = "SELECT * FROM nowhere", "42P01"
			case 2:
				sql, sqlstate, own = "SELECT '"+c.own()+"'::int", "22P02", 1
			}
			c.query(sql)
			a, err := c.ready(1)
			return want(a, err, own, "EZ", sqlstate)
		}},
		{"cancel request", canceled},
		{"cancel request with the key of a session that is over", func(c *client, _ *rand.Rand, s *site) error {
			key, ok := s.staleKey()
			if !ok {
				return nil
			}
			c.tally.count("cancel requests with a stale key")
			c.query("SELECT tenant, '" + c.ask() + "', pg_sleep(0.0005) FROM mine")
			if err := c.flush(); err != nil {
				return err
			}
			if err := cancel(s.proxy.Address, key); err != nil {
				return err
			}
			a, err := c.until('Z', 1)
			return want(a, err, rows, "TDCZ")
		}},
		{"large result, read slowly", slowly},
	}
}

// numbers checks first columns that are numbers of the tenant's rows.
func (c *client) numbers(a answers, format byte) error {
	for _, row := range a.rows {
		n, err := number(row, format)
		if err != nil {
			return err
		}
		if err := c.tally.checkNumber(c.tenant, n, rowUnit); err != nil {
			return err
		}
	}
	return nil
}

func copyIn(c *client, r *rand.Rand, _ *site) error {
	c.query("COPY sink FROM STDIN")
	for range 5 {
		c.message('d', []byte(c.own()+"\n"))
	}
	switch r.IntN(3) {
	case 0:
		c.message('f', text("changed my mind"))
		a, err := c.ready(1)
		return want(a, err, 0, "GEZ", "57014")
	case 1:
		c.message('d', []byte("one\ttoo many\n"))
		c.message('d', []byte(c.own()+"\n"))
		c.message('c')
		a, err := c.ready(1)
		return want(a, err, 0, "GEZ", "22P04")
	}
	c.message('c')
	c.query("DELETE FROM sink RETURNING tenant")
	a, err := c.ready(2)
	if string(a.shape) == "GCZTCZ" { // another session of the tenant has deleted them
		return want(a, err, 0, "GCZTCZ")
	}
	return want(a, err, 1, "GCZTDCZ")
}

// canceled races a cancel request with the end of its query: the query ends either way, and nothing else does.
func canceled(c *client, r *rand.Rand, s *site) error {
	c.query("SELECT tenant, '" + c.ask() + "', pg_sleep(0.001) FROM mine")
	if err := c.flush(); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func(delay int) {
		pause(delay)
		sent <- cancel(s.proxy.Address, cancelKey{c.process, c.key})
	}(r.IntN(40))
	a, err := c.until('Z', 1)
	if failed := <-sent; failed != nil {
		return failed
	}
	c.tally.count("cancel requests")
	if err == nil && slices.Equal(a.codes, []string{"57014"}) {
		c.tally.count("queries canceled")
		if shape := string(a.shape); shape == "TEZ" || shape == "TDEZ" {
			return want(a, err, 0, shape, "57014")
		}
		return want(a, err, 0, "EZ", "57014")
	}
	return want(a, err, rows, "TDCZ")
}

// slowly reads two megabytes, or some of them, with pauses, so that the proxy has to wait for the client.
func slowly(c *client, r *rand.Rand, _ *site) error {
	times := 1000
	if r.IntN(4) == 0 {
		times = 12000
	}
	c.query(fmt.Sprintf("SELECT repeat(tenant || ' ', %d), '%s' FROM mine", times, c.ask()))
	if err := c.flush(); err != nil {
		return err
	}
	var a answers
	for !strings.HasSuffix(string(a.shape), "Z") {
		kind, body, err := c.next()
		if err != nil {
			return fmt.Errorf("after %q: %w", a.shape, err)
		}
		if err := c.take(&a, kind, body); err != nil {
			return err
		}
		pause(r.IntN(3))
	}
	return want(a, nil, rows*times, "TDCZ")
}
