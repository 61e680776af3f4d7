//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	bulkClients = 8
	// largest is from where one client alone fetches a result, in bytes: Postgres makes each in its memory.
	largest = 100_000_000
)

// bulk has clients of one tenant fetch results of one row with so many bytes, and returns the rate in MB each second.
func bulk(ctx context.Context, t *target, size int, seconds time.Duration) (sample, error) {
	clients := bulkClients
	if size >= largest {
		clients = 1
	}
	var all []*client
	defer func() {
		for _, c := range all {
			c.conn.Close()
		}
	}()
	for range clients {
		conn, err := t.dial(ctx, firstTenant)
		if err != nil {
			return sample{}, err
		}
		all = append(all, &client{conn: conn, tenant: firstTenant})
	}
	before, err := processorTime(t.pid)
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	totals, counts := make([]int, clients), make([]int, clients)
	group, ctx := errgroup.WithContext(ctx)
	for i, c := range all {
		group.Go(func() error {
			buffer := make([]byte, 256<<10)
			for time.Since(began) < seconds && ctx.Err() == nil {
				c.out = c.out[:0]
				c.say('Q', fmt.Sprintf("SELECT repeat('x', %d)\x00", size))
				if err := c.conn.SetDeadline(time.Now().Add(loginPatience)); err != nil {
					return err
				}
				if _, err := c.conn.Write(c.out); err != nil {
					return err
				}
				n, err := c.drainTo(buffer)
				if err != nil {
					return fmt.Errorf("%s: %w", t.name, err)
				}
				totals[i] += n
				counts[i]++
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return sample{}, err
	}
	took := time.Since(began)
	after, err := processorTime(t.pid)
	if err != nil {
		return sample{}, err
	}
	total, count := 0, 0
	for i := range totals {
		total, count = total+totals[i], count+counts[i]
	}
	return sample{
		rate: float64(total) / 1e6 / took.Seconds(), latency: took.Seconds() * 1000 * float64(clients) / float64(max(1, count)),
		processor: float64((after - before).Microseconds()) / (float64(total) / 1e6),
	}, nil
}
