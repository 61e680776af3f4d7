//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/docex-proxy/docex-proxy/e2e/program"
)

// report writes the tables, in Markdown, as they come.
type report struct {
	out, progress io.Writer
}

func (r *report) line(format string, args ...any) { fmt.Fprintf(r.out, format+"\n", args...) }

func (r *report) head(title string, columns ...string) {
	r.line("\n## %s\n", title)
	r.line("| %s |", strings.Join(columns, " | "))
	r.line("|%s", strings.Repeat("---|", len(columns)))
}

func (r *report) row(cells ...string) { r.line("| %s |", strings.Join(cells, " | ")) }

func figure(f float64, digits int) string {
	if math.IsNaN(f) {
		return "–"
	}
	return fmt.Sprintf("%.*f", digits, f)
}

// measure fills the report.
func measure(ctx context.Context, s *site, o options, r *report) error {
	r.line("%s, %s. Postgres %s, %s, %d processors, %s. Each pooler has %d server connections. %d rounds of %s; medians.",
		"docex-proxy", time.Now().UTC().Format("2006-01-02 15:04 UTC"), s.version, s.bouncerVersion, runtime.NumCPU(), runtime.Version(),
		o.connections, o.rounds, o.seconds)
	if !s.bouncer.prepares {
		r.line("%s has no prepared statements in transaction mode: those rows are without it.", s.bouncerVersion)
	}
	for _, part := range []func(context.Context, *site, options, *report) error{idleClients, oneTenant, encryptedClients, manyTenants, moreTenants, moreClients, noisyNeighbour, largeResults} {
		if err := part(ctx, s, o, r); err != nil {
			return err
		}
	}
	return nil
}

// oneTenant is pgbench's select-only script.
func oneTenant(ctx context.Context, s *site, o options, r *report) error {
	if len(o.single) == 0 && !o.logins {
		return nil
	}
	r.head("One tenant, `pgbench -S`", "mode", "clients", "target", "tps", "to PgBouncer", "to direct", "latency ms", "CPU µs/transaction", "to PgBouncer")
	targets := append([]*target{s.direct, s.pgbouncer}, s.drivers...)
	for _, c := range o.single {
		if err := benched(ctx, s, o, r, c.mode, c, "disable", targets); err != nil {
			return err
		}
	}
	if !o.logins {
		return nil
	}
	return benched(ctx, s, o, r, "simple, a login each (`-C`)", cell{"simple", 8}, "disable", targets, "-C")
}

// encryptedClients is the same script, of clients that speak TLS. The proxy has goroutines for them, whatever its driver.
func encryptedClients(ctx context.Context, s *site, o options, r *report) error {
	if len(o.encrypted) == 0 {
		return nil
	}
	r.head("One tenant, `pgbench -S` over TLS", "mode", "clients", "target", "tps", "to PgBouncer", "to direct", "latency ms", "CPU µs/transaction", "to PgBouncer")
	for _, c := range o.encrypted {
		if err := benched(ctx, s, o, r, c.mode, c, "require", []*target{s.pgbouncer, s.drivers[0]}); err != nil {
			return err
		}
	}
	return nil
}

// mostDirect is from how many clients on Postgres itself is left out: its server processes take longer to start than the
// measurement takes.
const mostDirect = 100

// benched adds a row for each target that can do what the cell asks for.
func benched(ctx context.Context, s *site, o options, r *report, name string, c cell, sslmode string, targets []*target, extra ...string) error {
	fmt.Fprintf(r.progress, "one tenant, %s, %d clients, sslmode %s\n", name, c.clients, sslmode)
	if c.clients > mostDirect {
		targets = slices.DeleteFunc(slices.Clone(targets), func(t *target) bool { return t == s.direct })
	}
	if c.mode == "prepared" && !s.bouncer.prepares {
		targets = slices.DeleteFunc(slices.Clone(targets), func(t *target) bool { return t == s.pgbouncer })
	}
	all, err := rounds(o.rounds, targets, func(t *target) (sample, error) { return pgbench(ctx, t, c, sslmode, o.seconds, extra...) })
	if err != nil {
		return err
	}
	for _, t := range targets {
		r.row(name, fmt.Sprint(c.clients), t.name, figure(all.of(t, rate), 0), figure(all.ratio(t, s.pgbouncer, rate), 2),
			figure(all.ratio(t, s.direct, rate), 2), figure(all.of(t, latency), 3), figure(all.of(t, processor), 1),
			figure(all.ratio(t, s.pgbouncer, processor), 2))
	}
	return nil
}

// manyTenants has one client of each tenant, and workers that take one after the other by chance. Each answer is
// checked.
func manyTenants(ctx context.Context, s *site, o options, r *report) error {
	if len(o.tenants) == 0 || len(o.levels) == 0 {
		return nil
	}
	r.head(fmt.Sprintf("Many tenants, %d transactions under way (%s)", o.workers, s.drivers[0].name),
		"mode", "tenants", "target", "tps", "to PgBouncer", "p99 ms", "to PgBouncer", "CPU µs/transaction")
	for _, n := range o.tenants {
		for _, mode := range o.modes {
			if err := hopping(ctx, s, o, r, n, mode); err != nil {
				return err
			}
		}
	}
	return nil
}

func hopping(ctx context.Context, s *site, o options, r *report, tenants int, mode string) (err error) {
	fmt.Fprintf(r.progress, "%d tenants, %s\n", tenants, mode)
	type side struct {
		crowd *crowd
		name  string
	}
	sides := make(map[*target]side)
	var order []*target
	var bouncer *target // nil where it cannot do this
	defer func() {
		for _, one := range sides {
			one.crowd.close()
		}
	}()
	add := func(t *target, level, name string) error {
		crowd, err := gather(ctx, t, level, tenants)
		if err != nil {
			return err
		}
		copied := *t // each level is a target of its own
		order = append(order, &copied)
		sides[&copied] = side{crowd, name}
		return nil
	}
	if mode == "simple" || s.bouncer.prepares {
		if err := add(s.pgbouncer, "role", s.pgbouncer.name); err != nil {
			return err
		}
		bouncer = order[0]
	}
	for _, level := range o.levels {
		if err := add(s.drivers[0], level, "proxy, "+level); err != nil {
			return err
		}
	}
	all, err := rounds(o.rounds, order, func(t *target) (sample, error) {
		return sides[t].crowd.hop(ctx, t, mode, o.workers, o.seconds)
	})
	if err != nil {
		return err
	}
	for _, t := range order {
		r.row(mode, fmt.Sprint(tenants), sides[t].name, figure(all.of(t, rate), 0), figure(all.ratio(t, bouncer, rate), 2),
			figure(all.of(t, latency), 2), figure(all.ratio(t, bouncer, latency), 3), figure(all.of(t, processor), 1))
	}
	return nil
}

func largeResults(ctx context.Context, s *site, o options, r *report) error {
	if len(o.sizes) == 0 {
		return nil
	}
	r.head("Large results", "bytes", "target", "MB/s", "to PgBouncer", "to direct", "CPU µs/MB")
	targets := append([]*target{s.direct, s.pgbouncer}, s.drivers...)
	for _, size := range o.sizes {
		fmt.Fprintf(r.progress, "results of %d bytes\n", size)
		all, err := rounds(o.rounds, targets, func(t *target) (sample, error) { return bulk(ctx, t, size, o.seconds) })
		if err != nil {
			return err
		}
		for _, t := range targets {
			r.row(fmt.Sprint(size), t.name, figure(all.of(t, rate), 1), figure(all.ratio(t, s.pgbouncer, rate), 2),
				figure(all.ratio(t, s.direct, rate), 2), figure(all.of(t, processor), 1))
		}
	}
	return nil
}

// idleClients says what a client costs that does nothing.
func idleClients(ctx context.Context, s *site, o options, r *report) error {
	if o.idle == 0 {
		return nil
	}
	r.head(fmt.Sprintf("%d idle clients of one tenant", o.idle), "target", "memory before, MB", "with them, MB", "kB by client")
	for _, t := range append([]*target{s.pgbouncer}, s.drivers...) {
		fmt.Fprintf(r.progress, "idle clients, %s\n", t.name)
		before, err := program.ResidentKB(t.pid)
		if err != nil {
			return err
		}
		crowd, err := gatherOf(ctx, t, firstTenant, o.idle)
		if err != nil {
			return err
		}
		pause(ctx, 3*time.Second)
		after, err := program.ResidentKB(t.pid)
		crowd.close()
		if err != nil {
			return err
		}
		r.row(t.name, figure(float64(before)/1000, 1), figure(float64(after)/1000, 1), figure(float64(after-before)/float64(o.idle), 2))
	}
	return errors.Join(ctx.Err())
}
