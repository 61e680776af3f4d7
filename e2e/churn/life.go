package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// churn runs the workers until the goal is reached or one of them finds what must not be.
func churn(ctx context.Context, s *site, o options, t *tally) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range o.workers {
		r := rand.New(rand.NewPCG(o.seed, uint64(i)))
		group.Go(func() error {
			for !t.done() && ctx.Err() == nil {
				if err := live(s, s.tenants[r.IntN(len(s.tenants))], r, t); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	if o.drop != "" {
		group.Go(func() error { return takeAway(ctx, s, o.drop, t) })
	}
	err := group.Wait()
	if err != nil && s.proxy.ProcessState != nil {
		err = fmt.Errorf("%w; the proxy has ended: %s", err, s.said())
	}
	return err
}

// live is one session from its login to its end.
func live(s *site, of *tenant, r *rand.Rand, t *tally) error {
	doomed := of.losing.Load()
	c, err := dial(s, of.name, t)
	if err != nil {
		return judge(of, err, "the login", nil)
	}
	defer c.conn.Close()
	t.sessions.Add(1)
	if doomed = doomed && of.gone.Load(); doomed {
		return c.bereft()
	}
	if err := inspect(c); err != nil {
		return judge(of, err, "the first look", c)
	}
	available := steps()
	for range r.IntN(12) {
		next := available[r.IntN(len(available))]
		c.steps = append(c.steps, next.name)
		if err := next.do(c, r, s); err != nil {
			return judge(of, err, next.name, c)
		}
	}
	return judge(of, leave(c, r, t), "the end", c)
}

// judge lets a tenant that is losing its role or schema have errors, but not another's answers. No other tenant may.
func judge(of *tenant, err error, when string, c *client) error {
	var foreign *foreignError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &foreign), !of.losing.Load():
	default:
		return nil
	}
	var done []string
	if c != nil {
		done = c.steps
	}
	return fmt.Errorf("tenant %s, %s, after [%s]: %w", of.name, when, strings.Join(done, ", "), err)
}

// bereft is a session of a tenant whose role or schema was gone before it began: it must not get a row.
func (c *client) bereft() error {
	c.query(all)
	a, err := c.ask(1)
	var foreign *foreignError
	switch {
	case errors.As(err, &foreign):
		return err
	case err == nil && len(a.codes) == 0:
		return fmt.Errorf("tenant %s is gone and was answered %q", c.tenant, a.kinds)
	}
	c.tally.count("queries of tenants that are gone, refused")
	return nil
}

// leave ends a session in one of many ways.
func leave(c *client, r *rand.Rand, t *tally) error {
	ways := []struct {
		name  string
		leave func() error
	}{
		{"goodbye", func() error {
			c.message('X')
			if err := c.flush(); err != nil {
				return err
			}
			if _, err := c.in.ReadByte(); !errors.Is(err, io.EOF) {
				return fmt.Errorf("after Terminate came %v", err)
			}
			return nil
		}},
		{"RST", func() error { return c.conn.SetLinger(0) }},
		{"half a message", func() error {
			c.query(all)
			c.out = c.out[:1+r.IntN(len(c.out)-1)]
			return c.flush()
		}},
		{"in a pipeline", func() error {
			for range 1 + r.IntN(10) {
				c.query(all)
			}
			return c.flush()
		}},
		{"in an extended pipeline without Sync", func() error {
			for range 1 + r.IntN(10) {
				c.parse("", all)
				c.bind("", "", false)
				c.execute("", uint32(r.IntN(3)))
			}
			return c.flush()
		}},
		{"in COPY", func() error {
			c.query("COPY sink FROM STDIN")
			c.message('d', []byte("own-"+c.tenant+"\nhalf a li"))
			return c.flush()
		}},
		{"in a transaction", func() error {
			c.query("BEGIN")
			c.query("SET LOCAL docex.x = 'own-" + c.tenant + "'; INSERT INTO sink VALUES ('own-" + c.tenant + "')")
			_, err := c.ask(2)
			return err
		}},
		{"in a failed transaction", func() error {
			c.query("BEGIN")
			c.query("SELECT 1/0")
			_, err := c.ask(2)
			return err
		}},
		{"in a result", func() error {
			c.query("SELECT repeat(tenant, 10000) FROM mine, generate_series(1, 20)")
			if err := c.flush(); err != nil {
				return err
			}
			_, _, err := c.next()
			return err
		}},
		{"after an error without Sync", func() error {
			c.parse("", "SELEC")
			c.bind("", "", false)
			return c.flush()
		}},
	}
	way := ways[r.IntN(len(ways))]
	t.count("ends: " + way.name)
	err := way.leave()
	var timeout net.Error
	if err != nil && !(errors.As(err, &timeout) && timeout.Timeout()) && way.name != "goodbye" && errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// takeAway takes the role or the schema of half of the tenants, one after the other, under load.
func takeAway(ctx context.Context, s *site, what string, t *tally) error {
	for _, of := range s.tenants[len(s.tenants)/2:] {
		if t.done() || ctx.Err() != nil {
			return ctx.Err()
		}
		of.losing.Store(true)
		sql := "DROP SCHEMA tenant_" + of.name + " CASCADE"
		if what == "role" {
			sql = "DROP OWNED BY tenant_" + of.name + " CASCADE; DROP ROLE tenant_" + of.name
		}
		err := s.admin(ctx, "SET lock_timeout = '20s'; "+sql)
		for end := time.Now().Add(30 * time.Second); err != nil && ctx.Err() == nil && time.Now().Before(end); {
			time.Sleep(50 * time.Millisecond) // a session has a temporary table of the role's, for example
			err = s.admin(ctx, "SET lock_timeout = '20s'; "+sql)
		}
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("dropping the %s of %s: %w", what, of.name, err)
		}
		of.gone.Store(true)
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}
