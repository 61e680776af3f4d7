//go:build unix

package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// What things cost. A login took Postgres 15 1.9 ms (trust, unix socket) to 2.8 ms (SCRAM, TCP), a switch of role and
// search_path 4 to 10 µs, GRANT and REVOKE for a slot 0.5 ms (docs/adr/0007). The rest is assumed.
const (
	loginTime     = 2 * time.Millisecond   // of a server's processor, for a new connection
	trustedSwitch = 10 * time.Microsecond  // to another tenant, on a connection that is shared
	slotSwitch    = 500 * time.Microsecond // the same at level slot
	roundTrip     = 500 * time.Microsecond // between a proxy and a server or the registry
	goodbye       = time.Millisecond       // from Terminate to the server's end of file
	queryTime     = 100 * time.Microsecond // of the registry's processor, for one row by its key
	welcomeTime   = 100 * time.Microsecond // of a server's processor, for the parameters that a session's login shows
)

// processors serve first come, first served.
type processors []time.Duration // when each is free

// work returns when so much work that comes now is done.
func (p processors) work(now, need time.Duration) time.Duration {
	first := 0
	for i := range p {
		if p[i] < p[first] {
			first = i
		}
	}
	p[first] = max(now, p[first]) + need
	return p[first]
}

// server is a Postgres server: processors, and connections to it.
type server struct {
	index   int
	name    string
	epoch   atomic.Int32 // odd while it cannot be reached
	sockets atomic.Int32
	cores   processors
	busy    time.Duration // of its processors, in all
}

func (s *server) up() bool { return s.epoch.Load()%2 == 0 }

func (s *server) work(now, need time.Duration) time.Duration {
	s.busy += need
	return s.cores.work(now, need)
}

// serverName is a server's in the proxies' configuration, and its host.
func serverName(index int) string { return fmt.Sprintf("s%03d", index) }

func serverIndex(name string) int {
	index, err := strconv.Atoi(strings.TrimPrefix(name, "s"))
	if err != nil {
		return math.MaxInt
	}
	return index
}

// dial is a connection that is being opened.
type dial struct {
	entry
	wire *wire
	err  error
	done chan struct{}
}

// connect is pool.Options.Connect.
func (p *proxy) connect(_ context.Context, config *pgconn.Config) (*pgconn.HijackedConn, error) {
	s := p.world.servers[serverIndex(config.Host)]
	if taken := p.sockets[s.index].Add(1); int(taken) > p.world.o.budget() {
		p.world.violated("proxy %d has %d sockets to %s, of %d allowed", p.number, taken, s.name, p.world.o.budget())
	}
	s.sockets.Add(1)
	c := &wire{world: p.world, proxy: p, server: s, role: config.User}
	d := &dial{wire: c, done: make(chan struct{})}
	d.what = d
	p.world.desk.hand(news{kind: ofDial, proxy: p.serial, server: s.index, name: config.User, tell: d.begin})
	<-d.done
	if d.err != nil {
		c.Close() //nolint:errcheck // it has none
		return nil, d.err
	}
	return &pgconn.HijackedConn{Conn: c, PID: uint32(c.id), Config: config}, nil
}

func (d *dial) begin() {
	w, s := d.wire.world, d.wire.server
	w.tally.dials++
	w.wires++
	d.wire.id, d.wire.epoch = w.wires, s.epoch.Load()
	if !s.up() {
		d.err = context.DeadlineExceeded // a tick before the pool would have said so
		w.after(connectTimeout-tick, &d.entry)
		return
	}
	w.at(momentAfter(s.work(w.elapsed(), loginTime)+roundTrip), &d.entry)
}

func (d *dial) happen() {
	if d.err == nil && d.wire.dead() {
		d.err = errReset
	}
	d.wire.world.wake(d.done)
}
