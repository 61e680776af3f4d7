//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// growing is the level of the tenants that become more: the one where they cost a server the least.
const growing = "trusted"

// moreTenants has the same load spread over more and more tenants.
func moreTenants(ctx context.Context, s *site, o options, r *report) error {
	if len(o.growth) == 0 {
		return nil
	}
	r.head(fmt.Sprintf("More tenants at %s, %d transactions under way, simple", growing, o.workers), "target", "tenants", "tps", "to the first", "p99 ms", "CPU µs/transaction")
	line, err := grow(ctx, o, r, s.drivers[0], o.growth, func(n int) (*crowd, error) { return gather(ctx, s.drivers[0], growing, n) })
	if err != nil {
		return err
	}
	return r.plot(filepath.Join(o.plots, "tenants.svg"), o.plots != "", "tenants", []curve{line})
}

// moreClients has the same load come from more and more clients of one tenant.
func moreClients(ctx context.Context, s *site, o options, r *report) error {
	if len(o.clients) == 0 {
		return nil
	}
	r.head(fmt.Sprintf("More clients of one tenant, %d transactions under way, simple", o.workers), "target", "clients", "tps", "to the first", "p99 ms", "CPU µs/transaction")
	var lines []curve
	for _, t := range []*target{s.pgbouncer, s.drivers[0]} {
		line, err := grow(ctx, o, r, t, o.clients, func(n int) (*crowd, error) { return gatherOf(ctx, t, firstTenant, n) })
		if err != nil {
			return err
		}
		lines = append(lines, line)
	}
	return r.plot(filepath.Join(o.plots, "clients.svg"), o.plots != "", "clients", lines)
}

// grow measures one target with crowds of each size, which all stay connected meanwhile.
func grow(ctx context.Context, o options, r *report, t *target, sizes []int, gather func(n int) (*crowd, error)) (curve, error) {
	line := curve{name: t.name}
	crowds := make(map[*target]*crowd)
	defer func() {
		for _, c := range crowds {
			c.close()
		}
	}()
	var order []*target
	for _, n := range sizes {
		fmt.Fprintf(r.progress, "growth, %s, %d\n", t.name, n)
		c, err := gather(n)
		if err != nil {
			return line, err
		}
		copied := *t // each size is a target of its own
		order, crowds[&copied] = append(order, &copied), c
	}
	all, err := rounds(o.rounds, order, func(t *target) (sample, error) { return crowds[t].hop(ctx, t, "simple", o.workers, o.seconds) })
	if err != nil {
		return line, err
	}
	for i, one := range order {
		tps := all.of(one, rate)
		r.row(t.name, fmt.Sprint(sizes[i]), figure(tps, 0), figure(all.ratio(one, order[0], rate), 2), figure(all.of(one, latency), 2), figure(all.of(one, processor), 1))
		line.points = append(line.points, point{float64(sizes[i]), tps})
	}
	return line, nil
}
