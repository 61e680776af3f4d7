package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
)

// ending is a way to end a session. What it has sent and not read stays unread.
type ending struct {
	name  string
	leave func(c *client, r *rand.Rand) error
}

func endings() []ending {
	return []ending{
		{"Terminate", goodbye},
		{"nothing said", func(*client, *rand.Rand) error { return nil }},
		{"half a message", func(c *client, r *rand.Rand) error {
			c.query(c.all())
			c.out = c.out[:1+r.IntN(len(c.out)-1)]
			return c.flush()
		}},
		{"a query and half a message", func(c *client, r *rand.Rand) error {
			c.query(c.all())
			whole := len(c.out)
			c.query(c.all())
			c.out = c.out[:whole+1+r.IntN(len(c.out)-whole-1)]
			return c.flush()
		}},
		{"in a pipeline of queries", func(c *client, r *rand.Rand) error {
			for range 1 + r.IntN(10) {
				c.query(c.all())
			}
			return c.flush()
		}},
		{"Terminate behind a pipeline", func(c *client, r *rand.Rand) error {
			for range 1 + r.IntN(10) {
				c.query(c.all())
			}
			c.message('X')
			return c.flush()
		}},
		{"Terminate in a transaction", func(c *client, _ *rand.Rand) error {
			c.query("BEGIN; INSERT INTO sink VALUES ('" + c.never() + "')")
			c.message('X')
			return c.flush()
		}},
		{"in a pipeline without Sync", func(c *client, r *rand.Rand) error {
			for range 1 + r.IntN(10) {
				c.parse("", everybodys)
				c.bind("", "", asText, c.ask())
				c.execute("", uint32(r.IntN(3)))
			}
			return c.flush()
		}},
		{"after Parse", func(c *client, _ *rand.Rand) error {
			c.parse("s3", everybodys)
			return c.flush()
		}},
		{"after Parse and Flush", func(c *client, _ *rand.Rand) error {
			c.parse("s3", everybodys)
			c.message('H')
			if err := c.flush(); err != nil {
				return err
			}
			_, err := c.until('1', 1)
			return err
		}},
		{"after an error without Sync", func(c *client, _ *rand.Rand) error {
			c.parse("", "SELEC")
			c.bind("", "", asText)
			return c.flush()
		}},
		{"in COPY in", func(c *client, _ *rand.Rand) error {
			c.query("COPY sink FROM STDIN")
			c.message('d', []byte(c.never()+"\nhalf a li"))
			if err := c.flush(); err != nil {
				return err
			}
			_, err := c.until('G', 1)
			return err
		}},
		{"in COPY out", func(c *client, _ *rand.Rand) error {
			c.query("COPY (SELECT repeat(tenant, 1000) FROM mine, generate_series(1, 20)) TO STDOUT")
			return c.sendAndReadOne()
		}},
		{"in a transaction", func(c *client, _ *rand.Rand) error {
			c.query("BEGIN")
			c.query("SET LOCAL docex.x = '" + c.own() + "'; INSERT INTO sink VALUES ('" + c.never() + "')")
			_, err := c.ready(2)
			return err
		}},
		{"in a failed transaction", func(c *client, _ *rand.Rand) error {
			c.query("BEGIN")
			c.query("SELECT 1/0")
			_, err := c.ready(2)
			return err
		}},
		{"in a result", func(c *client, _ *rand.Rand) error {
			c.query("SELECT repeat(tenant, 10000) FROM mine, generate_series(1, 20)")
			return c.sendAndReadOne()
		}},
		{"in a query that takes its time", func(c *client, _ *rand.Rand) error {
			c.query("SELECT tenant, pg_sleep(0.002) FROM mine")
			return c.flush()
		}},
		{"with a cancel request on its way", func(c *client, _ *rand.Rand) error {
			c.query("SELECT tenant, pg_sleep(0.002) FROM mine")
			if err := c.flush(); err != nil {
				return err
			}
			go cancel(c.conn.RemoteAddr().String(), cancelKey{c.process, c.key}) //nolint:errcheck // it may come too late
			return nil
		}},
		{"with everything left behind", func(c *client, r *rand.Rand) error { return litter(c, r, nil) }},
	}
}

func (c *client) sendAndReadOne() error {
	if err := c.flush(); err != nil {
		return err
	}
	kind, body, err := c.next()
	if err != nil {
		return err
	}
	return c.take(&answers{}, kind, body)
}

// goodbye has to be answered by the end of the connection.
func goodbye(c *client, _ *rand.Rand) error {
	c.message('X')
	if err := c.flush(); err != nil {
		return err
	}
	for {
		kind, body, err := c.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("after Terminate: %w", err)
		case kind != 'A' && kind != 'S':
			return fmt.Errorf("out of step: after Terminate came %q", kind)
		}
		if err := c.take(&answers{}, kind, body); err != nil {
			return err
		}
	}
}

// leave ends a session in one of many ways, by FIN or RST where it does not matter.
func leave(c *client, r *rand.Rand) error {
	available := endings()
	way := available[r.IntN(len(available))]
	c.steps = append(c.steps, "ending: "+way.name)
	reset := way.name != "Terminate" && r.IntN(2) == 0
	if err := way.leave(c, r); err != nil {
		return err
	}
	if !reset {
		c.tally.count("ends: " + way.name)
		return nil
	}
	c.tally.count("ends: " + way.name + ", RST")
	return c.conn.SetLinger(0)
}
