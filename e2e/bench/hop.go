//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// dialers is how many clients log in at a time.
const dialers = 16

// client is a logged in connection that speaks the protocol in raw messages: what the load costs must not hide what the
// poolers cost.
type client struct {
	conn     net.Conn
	tenant   string
	prepared bool
	in, out  []byte
}

// crowd is one client of each tenant at a target.
type crowd struct {
	mu   sync.Mutex
	free []*client
}

func gather(ctx context.Context, t *target, level string, tenants int) (*crowd, error) {
	return gatherAs(ctx, t, tenants, func(number int) string { return nameOf(level, number) })
}

// gatherOf is so many clients of one tenant.
func gatherOf(ctx context.Context, t *target, tenant string, clients int) (*crowd, error) {
	return gatherAs(ctx, t, clients, func(int) string { return tenant })
}

func gatherAs(ctx context.Context, t *target, clients int, tenantOf func(number int) string) (*crowd, error) {
	c := &crowd{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(dialers)
	for number := 1; number <= clients; number++ {
		group.Go(func() error {
			tenant := tenantOf(number)
			conn, err := t.dial(ctx, tenant)
			if err != nil {
				return err
			}
			c.give(&client{conn: conn, tenant: tenant, in: make([]byte, 1024)})
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// take takes a random client that nobody uses, nil when there is none.
func (c *crowd) take() *client {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.free)
	if n == 0 {
		return nil
	}
	at := rand.IntN(n)
	taken := c.free[at]
	c.free[at] = c.free[n-1]
	c.free = c.free[:n-1]
	return taken
}

func (c *crowd) give(one *client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free = append(c.free, one)
}

func (c *crowd) close() {
	for one := c.take(); one != nil; one = c.take() {
		one.conn.Write([]byte{'X', 0, 0, 0, 4}) //nolint:errcheck // it is closed next
		one.conn.Close()
	}
}

// warmUp is how long the workers run before the measurement begins.
const warmUp = 500 * time.Millisecond

// hop has workers take random clients of the crowd, a transaction each time, and returns the rate and the 99th percentile
// of the latency.
func (c *crowd) hop(ctx context.Context, t *target, mode string, workers int, seconds time.Duration) (sample, error) {
	var measured, stopped atomic.Bool
	group, ctx := errgroup.WithContext(ctx)
	latencies := make([][]float64, workers)
	for w := range workers {
		group.Go(func() error {
			for !stopped.Load() && ctx.Err() == nil {
				one := c.take()
				if one == nil { // more workers than tenants
					time.Sleep(100 * time.Microsecond)
					continue
				}
				began := time.Now()
				err := one.transaction(mode)
				if err != nil {
					one.conn.Close()
					return fmt.Errorf("%s, tenant %s: %w", t.name, one.tenant, err)
				}
				if measured.Load() {
					latencies[w] = append(latencies[w], float64(time.Since(began).Microseconds())/1000)
				}
				c.give(one)
			}
			return nil
		})
	}
	pause(ctx, warmUp)
	before, err := processorTime(t.pid)
	measured.Store(true)
	began := time.Now()
	pause(ctx, seconds)
	measured.Store(false)
	took := time.Since(began)
	after, afterErr := processorTime(t.pid)
	stopped.Store(true)
	if err := errors.Join(group.Wait(), err, afterErr); err != nil {
		return sample{}, err
	}
	all := slices.Concat(latencies...)
	if len(all) == 0 {
		return sample{}, fmt.Errorf("%s: no transaction within %s", t.name, seconds)
	}
	return sample{
		rate: float64(len(all)) / took.Seconds(), latency: percentile(all, 99),
		processor: float64((after - before).Microseconds()) / float64(len(all)),
	}, nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// statementName is the same for all tenants, as a driver's counter makes it.
const statementName = "P0_1"

// transaction asks for a row by its key. The answer has to be the tenant's own.
func (c *client) transaction(mode string) error {
	const sql = "SELECT tenant, abalance FROM accounts WHERE aid = "
	key := strconv.Itoa(1 + rand.IntN(accounts))
	c.out = c.out[:0]
	if mode == "simple" {
		c.say('Q', sql+key+"\x00")
	} else {
		if !c.prepared {
			c.say('P', statementName+"\x00"+sql+"$1\x00\x00\x00")
			c.prepared = true
		}
		c.say('B', "\x00"+statementName+"\x00\x00\x00\x00\x01\x00\x00\x00"+string(rune(len(key)))+key+"\x00\x00")
		c.say('D', "P\x00")
		c.say('E', "\x00\x00\x00\x00\x00")
		c.say('S', "")
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return err
	}
	return c.answer()
}

func (c *client) say(kind byte, body string) {
	c.out = append(c.out, kind)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(4+len(body)))
	c.out = append(c.out, body...)
}

// answer reads up to ReadyForQuery.
func (c *client) answer() error {
	c.conn.SetReadDeadline(time.Now().Add(loginPatience)) //nolint:errcheck // the read will tell
	rows, from, to := 0, 0, 0
	for {
		for to-from >= 5 {
			length := 1 + int(binary.BigEndian.Uint32(c.in[from+1:]))
			if length > len(c.in) {
				return fmt.Errorf("a message of %d bytes", length)
			}
			if to-from < length {
				break
			}
			message := c.in[from : from+length]
			from += length
			switch message[0] {
			case 'D':
				if rows++; !c.owns(message) {
					return fmt.Errorf("%w: %q", errForeign, message)
				}
			case 'E':
				return fmt.Errorf("refused: %q", message[5:])
			case 'Z':
				if rows != 1 {
					return fmt.Errorf("%d rows", rows)
				}
				return nil
			}
		}
		copy(c.in, c.in[from:to])
		from, to = 0, to-from
		n, err := c.conn.Read(c.in[to:])
		if err != nil {
			return err
		}
		to += n
	}
}

// owns reports whether a DataRow's first column is the tenant.
func (c *client) owns(row []byte) bool {
	if len(row) < 11 {
		return false
	}
	length := int(binary.BigEndian.Uint32(row[7:]))
	return length == len(c.tenant) && 11+length <= len(row) && string(row[11:11+length]) == c.tenant
}

// drainTo reads one answer of any size up to ReadyForQuery, into a buffer, and returns how many bytes it was.
func (c *client) drainTo(buffer []byte) (total int, err error) {
	var head [5]byte
	for {
		if _, err := io.ReadFull(c.conn, head[:]); err != nil {
			return total, err
		}
		rest := int(binary.BigEndian.Uint32(head[1:])) - 4
		total += len(head) + rest
		var first [64]byte
		kept := min(rest, len(first))
		if _, err := io.ReadFull(c.conn, first[:kept]); err != nil {
			return total, err
		}
		for rest -= kept; rest > 0; {
			n, err := c.conn.Read(buffer[:min(rest, len(buffer))])
			if err != nil {
				return total, err
			}
			rest -= n
		}
		switch head[0] {
		case 'E':
			return total, fmt.Errorf("refused: %q", first[:kept])
		case 'Z':
			return total, nil
		}
	}
}
