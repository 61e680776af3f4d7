package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"

	"golang.org/x/sync/errgroup"
)

// churn runs the workers until the goal is reached or one of them finds what must not be.
func churn(ctx context.Context, s *site, o options, t *tally) error {
	s.taken = o.drop
	group, running := errgroup.WithContext(ctx)
	t.held.Store(o.drop != "")
	for i := range o.workers {
		r := rand.New(rand.NewPCG(o.seed, uint64(i)))
		group.Go(func() error {
			for lives := 1; !t.done() && running.Err() == nil; lives++ {
				if err := live(s, s.tenants[r.IntN(len(s.tenants))], r, t); err != nil {
					return fmt.Errorf("seed %d, worker %d, session %d: %w", o.seed, i, lives, err)
				}
			}
			return running.Err()
		})
	}
	if o.drop != "" {
		group.Go(func() error {
			defer t.held.Store(false)
			return takeAway(running, s, o.drop, t)
		})
	}
	err := group.Wait()
	if ended, how := s.proxy.Ended(); ended {
		err = errors.Join(err, fmt.Errorf("the proxy has ended: %v", how))
	}
	if err == nil {
		err = s.audit(ctx)
	}
	return err
}

// live is one session from its login to its end.
func live(s *site, of *tenant, r *rand.Rand, t *tally) error {
	if r.IntN(40) == 0 {
		return knockAndRun(s, of, r, t)
	}
	gone := of.gone.Load()
	c, err := dial(s, of.name, t)
	if err != nil {
		if gone {
			t.count("sessions of tenants that are gone, refused")
		}
		return judge(of, err, "the login", nil)
	}
	defer c.conn.Close()
	defer s.over(cancelKey{c.process, c.key})
	t.sessions.Add(1)
	if gone {
		return judge(of, c.bereft(), "without its "+s.taken, c)
	}
	if err := inspect(c, r, s); err != nil {
		return judge(of, err, "the first look", c)
	}
	if ended, err := c.wander(of, r, s); ended || err != nil {
		return err
	}
	return judge(of, leave(c, r), "the end", c)
}

// wander takes some random steps. It reports whether the session came to its end with its tenant.
func (c *client) wander(of *tenant, r *rand.Rand, s *site) (ended bool, err error) {
	available := steps()
	for range r.IntN(16) {
		if of.gone.Load() {
			if c.pinned { // its temporary tables are its own still
				return true, nil
			}
			return true, judge(of, c.bereft(), "without its "+s.taken, c)
		}
		next := available[r.IntN(len(available))]
		c.steps = append(c.steps, next.name)
		c.tally.steps.Add(1)
		c.settle()
		if err := next.do(c, r, s); err != nil {
			return true, judge(of, err, next.name, c)
		}
	}
	return false, nil
}

// knockAndRun ends a session in its login.
func knockAndRun(s *site, of *tenant, r *rand.Rand, t *tally) error {
	c, err := knock(s, of.name, t)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	pause(r.IntN(5))
	t.count("ends: in the login")
	return c.conn.SetLinger(r.IntN(2) - 1) // RST, or not
}

// judge lets a tenant that is losing its role or schema have errors, but not another's answers nor, once they are gone,
// any row. No other tenant may have errors, and none may wait for an answer that does not come.
func judge(of *tenant, err error, when string, c *client) error {
	if err == nil {
		return nil
	}
	_, foreign := errors.AsType[*foreignError](err)
	_, served := errors.AsType[*servedError](err)
	timeout, ok := errors.AsType[net.Error](err)
	hangs := ok && timeout.Timeout()
	if of.losing.Load() && !foreign && !served && !hangs {
		return nil
	}
	var done []string
	if c != nil {
		done = c.steps
	}
	return fmt.Errorf("tenant %s, %s, after [%s]: %w", of.name, when, strings.Join(done, ", "), err)
}

// servedError is a tenant that has got rows without its role or schema.
type servedError struct{ shape string }

func (e *servedError) Error() string {
	return fmt.Sprintf("the tenant is gone and was answered %q", e.shape)
}

// bereft is a session of a tenant whose role or schema was gone before: it must not get a row, by whichever way.
func (c *client) bereft() error {
	for _, sql := range []string{c.all(), "SELECT tenant FROM tenant_" + c.tenant + ".mine", "COPY mine TO STDOUT"} {
		c.query(sql)
		a, err := c.ready(1)
		if strings.ContainsAny(string(a.shape), "Dd") || err == nil && len(a.codes) == 0 {
			return &servedError{string(a.shape)}
		}
		c.tally.count(refusals)
		if err != nil {
			return err
		}
	}
	return nil
}
