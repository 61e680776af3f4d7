//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	quietPause = 10 * time.Millisecond // between an answer of the quiet tenant and its next question
	noisyLimit = 2                     // server connections, where the noisy tenant has a limit of its own
)

// noisyNeighbour has a quiet tenant ask now and then while another one does as much as it can, and says what that does
// to the quiet one's 99th percentile: without the noise, with it, and with a limit of the noisy tenant's own.
func noisyNeighbour(ctx context.Context, s *site, o options, r *report) error {
	if o.noise == 0 {
		return nil
	}
	r.head(fmt.Sprintf("A quiet tenant beside one with %d clients that never pause (%s)", o.noise, s.drivers[0].name),
		"target", "noise", "quiet p99 ms", "to that without noise", "noisy tps")
	targets := []*target{s.pgbouncer, s.drivers[0]}
	kinds := []string{"none", "no limit", fmt.Sprintf("%d server connections", noisyLimit)}
	type key struct {
		t    *target
		kind int
	}
	quiet, noisy := make(map[key][]float64), make(map[key][]float64)
	for range o.rounds {
		for _, t := range targets {
			for kind := range kinds {
				if kind == 2 && t == s.pgbouncer { // max_user_connections would be it, and takes a reload
					continue
				}
				fmt.Fprintf(r.progress, "noise, %s, %s\n", t.name, kinds[kind])
				if err := s.limit(ctx, nameOf("role", 2), kind == 2); err != nil {
					return err
				}
				q, n, err := besides(ctx, t, o, kind > 0)
				if err != nil {
					return err
				}
				quiet[key{t, kind}], noisy[key{t, kind}] = append(quiet[key{t, kind}], q), append(noisy[key{t, kind}], n)
			}
		}
	}
	for _, t := range targets {
		for kind, name := range kinds {
			if all := quiet[key{t, kind}]; len(all) > 0 {
				var ratios []float64
				for i, one := range all {
					ratios = append(ratios, one/quiet[key{t, 0}][i])
				}
				r.row(t.name, name, figure(median(all), 2), figure(median(ratios), 2), figure(median(noisy[key{t, kind}]), 0))
			}
		}
	}
	return nil
}

// limit gives a tenant a limit of server connections of its own, or takes it away. Proxies learn of it at once.
func (s *site) limit(ctx context.Context, tenant string, on bool) error {
	n := 0
	if on {
		n = noisyLimit
	}
	return s.docexctl(ctx, nil, "tenant", "update", tenant, "--max-server-connections", strconv.Itoa(n))
}

// besides measures the quiet tenant's 99th percentile in ms, and the noisy one's rate.
func besides(ctx context.Context, t *target, o options, noise bool) (p99, rate float64, err error) {
	one, err := gatherOf(ctx, t, nameOf("role", 1), 1)
	if err != nil {
		return 0, 0, err
	}
	defer one.close()
	var group errgroup.Group
	if noise {
		crowd, err := gatherOf(ctx, t, nameOf("role", 2), o.noise)
		if err != nil {
			return 0, 0, err
		}
		defer crowd.close()
		group.Go(func() error {
			loud, err := crowd.hop(ctx, t, "simple", o.noise, o.seconds)
			rate = loud.rate
			return err
		})
	}
	s, err := one.murmur(ctx, t, o.seconds)
	return s, rate, errors.Join(err, group.Wait())
}

// murmur asks now and then for as long as a hop takes, and returns the 99th percentile of the latency, in ms.
func (c *crowd) murmur(ctx context.Context, t *target, seconds time.Duration) (float64, error) {
	one := c.take()
	defer c.give(one)
	var latencies []float64
	began := time.Now()
	for time.Since(began) < warmUp+seconds && ctx.Err() == nil {
		asked := time.Now()
		if err := one.transaction("simple"); err != nil {
			return 0, fmt.Errorf("%s, tenant %s: %w", t.name, one.tenant, err)
		}
		if asked.Sub(began) > warmUp {
			latencies = append(latencies, float64(time.Since(asked).Microseconds())/1000)
		}
		pause(ctx, quietPause)
	}
	return percentile(latencies, 99), ctx.Err()
}
