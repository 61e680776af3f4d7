package main

import "math/rand/v2"

// hostileSteps reach for what is another tenant's, or leave the tenant's own role.
func hostileSteps() []step {
	return []step{
		{"another tenant's table by its name", func(c *client, r *rand.Rand, s *site) error {
			c.spoken = s.other(c.tenant, r)
			c.query("SELECT tenant FROM tenant_" + c.spoken + ".mine")
			a, err := c.ready(1)
			if len(a.codes) == 1 && a.codes[0] == "42P01" && s.taken == dropSchema && s.hasLosers() { // it may have lost it
				return want(a, err, 0, "EZ", "42P01")
			}
			return want(a, err, 0, "EZ", "42501")
		}},
		{"another tenant's search_path", func(c *client, r *rand.Rand, s *site) error {
			if c.pinned { // a temporary table is found on any path
				return nil
			}
			c.query("BEGIN")
			c.query("SET LOCAL search_path = tenant_" + s.other(c.tenant, r))
			c.query(c.all())
			c.query("ROLLBACK")
			a, err := c.ready(4)
			return want(a, err, 0, "CZCZEZCZ", "42P01")
		}},
		{"leaving the role", func(c *client, r *rand.Rand, _ *site) error {
			if c.pinned { // a session that keeps its connection keeps what it does to its role
				return nil
			}
			how := choose(r, "RESET ROLE", "SET ROLE NONE", "DISCARD ALL", "RESET ALL")
			if how == "DISCARD ALL" {
				clear(c.prepared)
			}
			c.steps = append(c.steps, how)
			c.query(how)
			a, err := c.ready(1)
			if err := want(a, err, 0, "CZ"); err != nil {
				return err
			}
			c.query(c.all())
			a, err = c.ready(1)
			return want(a, err, rows, "TDCZ")
		}},
	}
}
