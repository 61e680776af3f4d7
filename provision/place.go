package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// Policy says how the server of a new tenant is chosen among those that the Provisioner knows: its own, which is "main", and
// Options.Servers.
type Policy string

// The policies.
const (
	PlaceNamed        Policy = "" // the request names it
	PlaceLeastTenants Policy = "least-tenants"
	PlaceLeastBytes   Policy = "least-bytes"
)

// Placement says which server has been chosen for a tenant, and why. The audit trail has it as JSON.
type Placement struct {
	Policy  Policy      `json:"policy"`
	Server  string      `json:"server"`
	Reason  string      `json:"reason"`
	Servers []Candidate `json:"servers,omitempty"` // by name; none where an earlier run had chosen
}

// Candidate is a server that was looked at.
type Candidate struct {
	Server  string `json:"server"`
	Tenants int    `json:"tenants"`          // that are not deleted, with those on their way there and those being created
	Bytes   *int64 `json:"bytes,omitempty"`  // of the server's databases; nil where nobody has asked
	Barred  string `json:"barred,omitempty"` // why the tenant could not go there; "": it could
	Silent  bool   `json:"-"`                // Barred is what went wrong when it was asked

	begun bool // a run that was ended has left something of the tenant there
}

const (
	// surveyPatience is how long a server may take to answer, the sizes of its databases included.
	surveyPatience = 10 * time.Second
	// silencePatience is for how long a server that has not answered is not asked again: creating many tenants would take
	// surveyPatience for each of them.
	silencePatience = 30 * time.Second
)

// silence is what has become of a server that did not answer.
type silence struct {
	until  time.Time
	reason string
}

// place chooses a server, and keeps a connection that holds two locks until the tenant is in the registry: one has other runs
// for the same tenant wait, the other says to those that choose meanwhile that there will be one tenant more.
func (c *creation) place(ctx context.Context, r TenantRequest) error {
	seeing := *c.Provisioner // a dry run looks at what is there, and shows nothing of that
	seeing.dryRun = nil
	var err error
	if c.placing, err = seeing.openStarted(ctx, "", ""); err != nil {
		return err
	}
	return c.runStep(ctx, step{"choose the server", func(ctx context.Context) error {
		if err := c.placing.lock(ctx, placingLockClass, string(c.tenant.ID)); err != nil {
			return err
		}
		begun, registered, err := c.placedBefore(ctx)
		switch {
		case err != nil:
			return err
		case begun != "":
			return c.settleAs(&Placement{Policy: r.Place, Server: begun, Reason: "an earlier run has registered it there"})
		case registered: // which is for the creation to say
			return nil
		}
		candidates, err := seeing.survey(ctx, c, r)
		if err != nil {
			return err
		}
		return c.choose(ctx, r.Place, candidates)
	}})
}

// unplace gives the locks back.
func (c *creation) unplace(ctx context.Context) {
	if c.placing != nil {
		c.placing.close(ctx)
		c.placing = nil
	}
}

// placedBefore says whether the registry has the tenant, and on which server where a run was ended before it was opened.
func (c *creation) placedBefore(ctx context.Context) (begun string, registered bool, err error) {
	err = c.placing.transact(ctx, func(w *work) error {
		if err := w.enter(ctx); err != nil {
			return err
		}
		return w.as(ctx, OwnerRole, func(ctx context.Context) error {
			err := w.tx.QueryRow(ctx, `
SELECT coalesce(server, '') FROM docex_system.tenant_registry AS r LEFT JOIN docex_system.tenant_route AS t ON t.tenant_id = r.tenant_id AND status = $2
 WHERE r.tenant_id = $1`, string(c.tenant.ID), registry.StatusProvisioning).Scan(&begun)
			registered = err == nil
			if errors.Is(err, pgx.ErrNoRows) {
				err = nil
			}
			return err
		})
	})
	return begun, registered, err
}

// survey looks at all servers at once.
func (p *Provisioner) survey(ctx context.Context, c *creation, r TenantRequest) ([]Candidate, error) {
	names := slices.Collect(maps.Keys(p.servers))
	if _, abroad := p.at(defaultServer); !abroad {
		names = append(names, defaultServer)
	}
	slices.Sort(names)
	for _, name := range r.Exclude {
		if !slices.Contains(names, name) {
			return nil, invalid("server %q, which is excluded, is none of %s", name, strings.Join(names, ", "))
		}
	}
	candidates := make([]Candidate, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		if slices.Contains(r.Exclude, name) {
			candidates[i] = Candidate{Server: name, Barred: "is excluded"}
			continue
		}
		all.Go(func() { candidates[i] = p.ask(ctx, c, r.Place, name) })
	}
	all.Wait()
	return candidates, ctx.Err()
}

// ask looks at one server, unless it is known not to do.
func (p *Provisioner) ask(ctx context.Context, c *creation, policy Policy, name string) Candidate {
	found := Candidate{Server: name}
	there, abroad := p.at(name)
	if err := c.checkLevel(name); err != nil {
		found.Barred = err.Error()
		return found
	}
	if last, ok := p.silent.Load(name); ok && p.now().Before(last.(silence).until) {
		found.Barred, found.Silent = last.(silence).reason, true
		return found
	}
	ctx, cancel := context.WithTimeout(ctx, surveyPatience)
	defer cancel()
	err := there.answer(ctx, c, policy, &found)
	if err != nil {
		found.Barred, found.Silent = strings.Join(strings.Fields(err.Error()), " "), true // in one line
		if abroad {
			p.silent.Store(name, silence{p.now().Add(silencePatience), found.Barred})
		}
	}
	return found
}

// answer reads what a server holds.
func (p *Provisioner) answer(ctx context.Context, c *creation, policy Policy, found *Candidate) error {
	s, err := p.openStarted(ctx, "", c.placing.registry)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	if s.work.version < oldestServer && found.Server != defaultServer {
		return fmt.Errorf("is too old: it has to be Postgres %d at least", oldestServer/10000)
	}
	return s.transact(ctx, func(w *work) error {
		var owner bool
		err := w.tx.QueryRow(ctx, `SELECT coalesce(pg_has_role(session_user, to_regrole($1)::oid, 'MEMBER'), false)`, OwnerRole).Scan(&owner)
		if err != nil {
			return err
		}
		if w.superuser || !owner {
			if err := w.measure(ctx, policy, found); err != nil {
				return err
			}
		}
		if !owner {
			return nil
		}
		return w.as(ctx, OwnerRole, func(ctx context.Context) error {
			left, err := w.findLeftovers(ctx, c.tenant.ID, c.placing.registry)
			if found.begun = !left.none(); err != nil || w.superuser {
				return err
			}
			return w.measure(ctx, policy, found)
		})
	})
}

// measure sums up the databases that the role may connect to: a superuser all, docex_owner those of tenants at the least.
func (w *work) measure(ctx context.Context, policy Policy, found *Candidate) error {
	if policy != PlaceLeastBytes {
		return nil
	}
	return w.tx.QueryRow(ctx, `SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint FROM pg_database WHERE has_database_privilege(oid, 'CONNECT')`).Scan(&found.Bytes)
}

// choose counts tenants and takes the server with the least. For that moment no other run chooses.
func (c *creation) choose(ctx context.Context, policy Policy, candidates []Candidate) error {
	s := c.placing
	if _, err := s.conn.Exec(ctx, "SELECT pg_advisory_lock($1)", placementLock); err != nil {
		return err
	}
	if err := s.transact(ctx, func(w *work) error {
		return w.as(ctx, OwnerRole, func(ctx context.Context) error { return c.count(ctx, w, candidates) })
	}); err != nil {
		return err // the connection is closed, and the locks are given back with it
	}
	chosen, err := least(policy, candidates)
	if err != nil {
		return fmt.Errorf("tenant '%s': %w", c.tenant.ID, err)
	}
	if _, err := s.conn.Exec(ctx, "SELECT pg_advisory_lock_shared($1, hashtext($2))", placedLockClass, chosen.Server); err != nil {
		return err
	}
	if _, err := s.conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", placementLock); err != nil {
		return err
	}
	return c.settleAs(chosen)
}

// newTenantBytes is roughly what a tenant takes that is being created and need not be on the disk yet.
func (c *creation) newTenantBytes() int64 {
	if c.tenant.Route.Isolation == registry.IsolationDatabase {
		return 8 << 20
	}
	return 1 << 20
}

// count fills in how many tenants there are on each server. Those that are being created are counted first: one that is
// registered in between is counted twice, which does less harm than not at all.
func (c *creation) count(ctx context.Context, w *work, candidates []Candidate) error {
	names := make([]string, len(candidates))
	for i, candidate := range candidates {
		names[i] = candidate.Server
	}
	coming, err := w.countBy(ctx, `
SELECT name, count(*) FROM unnest($1::text[]) AS name JOIN pg_locks ON objid = (hashtext(name)::bigint & 4294967295)::oid
 WHERE locktype = 'advisory' AND classid = $2::bigint::oid AND objsubid = 2 AND mode = 'ShareLock' AND granted
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) GROUP BY name`, names, int64(placedLockClass))
	if err != nil {
		return err
	}
	there, err := w.countBy(ctx, `SELECT server, count(*) FROM docex_system.tenant_route WHERE status <> $1 GROUP BY server`, registry.StatusDeleted)
	if err != nil {
		return err
	}
	moving := map[string]int{} // it is on the old server by its route, and on the new one by its move
	if known, err := w.knowsMoves(ctx); err != nil {
		return err
	} else if known {
		moving, err = w.countBy(ctx, `SELECT to_server, count(*) FROM docex_system.tenant_move WHERE step = ANY ($1) GROUP BY to_server`,
			[]registry.MoveStep{registry.MovePreparing, registry.MoveCopying, registry.MoveHolding, registry.MoveOpening})
		if err != nil {
			return err
		}
	}
	for i, name := range names {
		candidates[i].Tenants = there[name] + moving[name] + coming[name]
		if candidates[i].Bytes != nil {
			*candidates[i].Bytes += int64(coming[name]) * c.newTenantBytes()
		}
	}
	return nil
}

// countBy reads rows of a name and a number.
func (w *work) countBy(ctx context.Context, sql string, args ...any) (map[string]int, error) {
	rows, err := w.tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int)
	var name string
	var count int
	_, err = pgx.ForEachRow(rows, []any{&name, &count}, func() error {
		counts[name] = count
		return nil
	})
	return counts, err
}

// least chooses among the candidates, which are in order by name: of several that are alike, the first. One where an earlier
// run has begun is better than all others, or what that has left would stay there.
func least(policy Policy, candidates []Candidate) (*Placement, error) {
	var open, barred []string
	var best *Candidate
	for i := range candidates {
		one := &candidates[i]
		if one.Barred != "" {
			barred = append(barred, fmt.Sprintf("%s: %s", one.Server, one.Barred))
			continue
		}
		if best == nil || one.compare(policy, best) < 0 {
			best = one
		}
		if policy == PlaceLeastBytes {
			open = append(open, fmt.Sprintf("%s %d MB", one.Server, *one.Bytes>>20))
		} else {
			open = append(open, fmt.Sprintf("%s %d", one.Server, one.Tenants))
		}
	}
	if best == nil {
		return nil, fmt.Errorf("there is no server to place it on: %s", strings.Join(barred, "; "))
	}
	chosen := &Placement{Policy: policy, Server: best.Server, Servers: candidates}
	switch {
	case best.begun:
		chosen.Reason = "an earlier run has begun there"
	case policy == PlaceLeastBytes:
		chosen.Reason = "fewest bytes: " + strings.Join(open, ", ")
	default:
		chosen.Reason = "fewest tenants: " + strings.Join(open, ", ")
	}
	return chosen, nil
}

// compare is below 0 for the better one.
func (c *Candidate) compare(policy Policy, other *Candidate) int {
	switch {
	case c.begun != other.begun && c.begun:
		return -1
	case c.begun != other.begun:
		return 1
	case policy == PlaceLeastBytes:
		return cmp.Compare(*c.Bytes, *other.Bytes)
	default:
		return cmp.Compare(c.Tenants, other.Tenants)
	}
}

// settleAs makes the chosen server the tenant's.
func (c *creation) settleAs(chosen *Placement) error {
	c.placement = chosen
	if c.dryRun != nil {
		c.dryRun(fmt.Sprintf("-- placed on server %q, %s", chosen.Server, chosen.Reason))
	}
	return c.settle(chosen.Server)
}
