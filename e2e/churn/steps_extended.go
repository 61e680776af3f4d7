package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

func pause(milliseconds int) { time.Sleep(time.Duration(milliseconds) * time.Millisecond) }

// number is a column in one of the formats.
func number(column string, format byte) (int64, error) {
	if format == asBinary {
		if len(column) != 4 {
			return 0, fmt.Errorf("out of step: a binary int4 of %d bytes", len(column))
		}
		return int64(binary.BigEndian.Uint32([]byte(column))), nil
	}
	n, err := strconv.ParseInt(column, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("out of step: %w", err)
	}
	return n, nil
}

// everybodys is a text that the sessions of all tenants send, so that nothing but whose they are tells their statements
// apart. The question's mark is its parameter.
const everybodys = "SELECT tenant, $1::text FROM mine"

// extendedSteps use the extended protocol.
func extendedSteps() []step {
	return []step{
		{"extended", extended},
		{"named statement, again", again},
		{"parameter", func(c *client, _ *rand.Rand, _ *site) error {
			c.unnamed("SELECT tenant FROM mine WHERE tenant = $1", c.own())
			c.unnamed("SELECT $1::text", c.own())
			c.sync()
			a, err := c.ready(1)
			return want(a, err, rows+1, "12DC12DCZ")
		}},
		{"binary numbers", func(c *client, r *rand.Rand, _ *site) error {
			c.parse("", "SELECT n FROM mine")
			c.bind("", "", asBinary)
			c.execute("", 0)
			c.sync()
			a, err := c.ready(1)
			if err := want(a, err, 0, "12DCZ"); err != nil {
				return err
			}
			return c.numbers(a, asBinary)
		}},
		{"pipeline with an error that skips", func(c *client, _ *rand.Rand, _ *site) error {
			c.unnamed(everybodys, c.ask())
			c.unnamed("SELECT nothing FROM nowhere")
			c.unnamed(everybodys, c.ask())
			c.sync()
			c.unnamed(everybodys, c.ask())
			c.sync()
			a, err := c.ready(2)
			return want(a, err, 2*rows, "12DCEZ12DCZ", "42P01")
		}},
		{"long pipeline", longPipeline},
		{"Flush before Sync", func(c *client, _ *rand.Rand, _ *site) error {
			c.unnamed(everybodys, c.ask())
			c.message('H')
			if err := c.flush(); err != nil {
				return err
			}
			a, err := c.until('C', 1)
			if err != nil {
				return fmt.Errorf("a Flush was answered %q: %w", a.shape, err)
			}
			c.sync()
			b, err := c.ready(1)
			b.own += a.own
			return want(b, err, rows, "Z")
		}},
		{"extended and simple in one write", func(c *client, _ *rand.Rand, _ *site) error {
			c.unnamed(everybodys, c.ask())
			c.sync()
			c.query(c.all())
			c.unnamed("SELECT '" + c.own() + "'::int")
			c.sync()
			c.query(c.all())
			a, err := c.ready(4)
			return want(a, err, 3*rows, "12DCZTDCZEZTDCZ", "22P02")
		}},
		{"transaction of extended messages", func(c *client, r *rand.Rand, _ *site) error {
			for _, sql := range []string{"BEGIN", c.all(), choose(r, "COMMIT", "ROLLBACK")} {
				c.unnamed(sql)
				c.sync()
			}
			a, err := c.ready(3)
			return want(a, err, rows, "12CZ12DCZ12CZ")
		}},
	}
}

// extended takes the long way through the extended protocol.
func extended(c *client, r *rand.Rand, _ *site) error {
	name := choose(r, "", "s1", "s2")
	shape := "1tT2TDsDC3Z"
	if name != "" {
		c.close('S', name)
		c.prepared[name] = true
		shape = "3" + shape
	}
	c.parse(name, everybodys)
	c.describe('S', name)
	c.bind("p", name, byte(r.IntN(2)), c.ask())
	c.describe('P', "p")
	c.execute("p", 3)
	if r.IntN(2) == 0 {
		c.message('H')
	}
	c.execute("p", 0)
	c.close('P', "p")
	c.sync()
	a, err := c.ready(1)
	return want(a, err, rows, shape)
}

// again uses a statement that the session has prepared, maybe on another server connection, or one that it has not.
func again(c *client, r *rand.Rand, _ *site) error {
	name := choose(r, "s1", "s2")
	c.bind("", name, asText, c.ask())
	c.execute("", 0)
	c.sync()
	a, err := c.ready(1)
	if !c.prepared[name] {
		return want(a, err, 0, "EZ", "26000")
	}
	return want(a, err, rows, "2DCZ")
}

// longPipeline is many segments in one write, some of which fail.
func longPipeline(c *client, r *rand.Rand, _ *site) error {
	var shape string
	var codes []string
	own, segments := 0, 2+r.IntN(20)
	for range segments {
		switch r.IntN(7) {
		case 0:
			c.unnamed("SELECT 1/(n - n) FROM mine")
			c.unnamed(c.all())
			shape, codes = shape+"12EZ", append(codes, "22012")
		case 1:
			c.parse("", "SELEC")
			shape, codes = shape+"EZ", append(codes, "42601")
		case 2:
			c.unnamed("SELECT 1/0") // found by the planner, in Bind
			shape, codes = shape+"1EZ", append(codes, "22012")
		case 3:
			shape += "Z"
		case 4:
			c.unnamed(c.all())
			shape, own = shape+"12DCZ", own+rows
		default:
			c.unnamed(everybodys, c.ask())
			shape, own = shape+"12DCZ", own+rows
		}
		c.sync()
	}
	a, err := c.ready(segments)
	return want(a, err, own, shape, codes...)
}
