//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/e2e/program"
)

const (
	killPause    = 10 * time.Second // from one proxy's death to the next
	absence      = 3 * time.Second  // of a proxy that was killed
	balancerWait = 10 * time.Second
)

// fleet is several proxies of one registry behind a balancer.
type fleet struct {
	site      *site
	addresses []string

	mu      sync.Mutex // guards proxies and kills
	proxies []*program.Proxy
	kills   []time.Time

	balancer *exec.Cmd
	front    string // the balancer's address
}

func newFleet(ctx context.Context, s *site, size int) (*fleet, error) {
	f := &fleet{site: s, addresses: make([]string, size), proxies: make([]*program.Proxy, size)}
	for i := range size {
		address, err := program.FreeAddress()
		if err != nil {
			return nil, err
		}
		f.addresses[i] = address
		if err := f.start(ctx, i); err != nil {
			return nil, errors.Join(err, f.close())
		}
	}
	if err := f.balance(ctx); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// start starts a proxy, again at the address that it had before.
func (f *fleet) start(ctx context.Context, i int) error {
	f.site.proxies++
	log := f.site.path(fmt.Sprintf("proxy%d.log", f.site.proxies))
	p, err := program.ServeAt(ctx, f.addresses[i], f.site.program, f.site.path("proxy.yaml"), log,
		"DOCEX_PROXY_PEERS_ADDRESS="+f.addresses[i], "DOCEX_PROXY_PEERS_SHARE_LIMITS=true")
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.proxies[i] = p
	return nil
}

// balance starts HAProxy in front of all.
func (f *fleet) balance(ctx context.Context) (err error) {
	if f.front, err = program.FreeAddress(); err != nil {
		return err
	}
	var servers strings.Builder
	for i, address := range f.addresses {
		fmt.Fprintf(&servers, "  server proxy%d %s check inter 100ms fall 1 rise 1\n", i+1, address)
	}
	config := fmt.Sprintf("global\n  maxconn 9000\ndefaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n  retries 3\n  option redispatch\n"+
		"listen docex\n  bind %s\n  balance roundrobin\n%s", f.front, servers.String())
	if err := os.WriteFile(f.site.path("haproxy.cfg"), []byte(config), 0o644); err != nil {
		return err
	}
	f.balancer = exec.Command("haproxy", "-db", "-f", f.site.path("haproxy.cfg"))
	if err := f.balancer.Start(); err != nil {
		return fmt.Errorf("haproxy, of the distribution's package of that name: %w", err)
	}
	for end := time.Now().Add(balancerWait); ; pause(ctx, 50*time.Millisecond) {
		conn, err := net.Dial("tcp", f.front)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(end) {
			return err
		}
	}
}

func (f *fleet) proxy(i int) *program.Proxy {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.proxies[i]
}

func (f *fleet) close() error {
	var errs []error
	for i := range f.proxies {
		if p := f.proxy(i); p != nil {
			errs = append(errs, p.Stop())
		}
	}
	if f.balancer != nil && f.balancer.Process != nil {
		f.balancer.Process.Kill()
		f.balancer.Wait() //nolint:errcheck // it was killed
	}
	return errors.Join(errs...)
}

// rehearse kills a proxy every ten seconds, and looks meanwhile whether cancel requests arrive, and how long a change of the
// registry takes to reach every proxy.
func (f *fleet) rehearse(ctx context.Context, o options, all crowd, stdout io.Writer) error {
	random := rand.New(rand.NewPCG(o.seed, 0))
	fmt.Fprintf(stdout, "fleet of %d for %s: %d clients of %d tenants\n", len(f.proxies), o.soak, len(all), len(tenantsOf(o)))
	probing, stop := context.WithCancel(ctx)
	var probes sync.WaitGroup
	cancels, news := &cancelProbe{fleet: f, tenant: tenantsOf(o)[1].name}, &newsProbe{fleet: f}
	probes.Go(func() { cancels.run(probing) })
	probes.Go(func() { news.run(probing) })
	var seen observation
	seen.errors = make(map[string]int)
	var slowest time.Duration
	kills := 0
	for end := time.Now().Add(o.soak); time.Now().Before(end) && ctx.Err() == nil; kills++ {
		next, victim := time.Now().Add(killPause), random.IntN(len(f.proxies))
		one := observation{}
		for _, w := range all {
			w.mark(time.Now())
		}
		f.killing(time.Now())
		if err := f.proxy(victim).Kill(); err != nil {
			stop()
			return err
		}
		killed := time.Now()
		for _, w := range all {
			w.resumeAt(killed)
		}
		recovered, late := all.awaitService(ctx, killed, 30*time.Second)
		if late != nil {
			seen.wrong = append(seen.wrong, late.Error())
		}
		slowest = max(slowest, recovered)
		pause(ctx, absence-time.Since(killed))
		if err := f.start(ctx, victim); err != nil {
			stop()
			return err
		}
		pause(ctx, time.Until(next))
		all.collect(&one)
		for kind, n := range one.errors {
			seen.errors[kind] += n
		}
		seen.wrong = append(seen.wrong, one.wrong...)
	}
	stop()
	probes.Wait()
	if err := all.audit(ctx, f.site, &seen); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d proxies killed; the clients saw: %s; all were served again within %.2f s; %d rows acknowledged\n",
		kills, seen.seen(), slowest.Seconds(), seen.acknowledged)
	fmt.Fprintln(stdout, cancels)
	fmt.Fprintln(stdout, news)
	seen.wrong = append(append(seen.wrong, cancels.wrong...), news.wrong...)
	for _, w := range seen.wrong {
		fmt.Fprintln(stdout, "WRONG:", w)
	}
	if len(seen.wrong) > 0 {
		return fmt.Errorf("%d things are wrong", len(seen.wrong))
	}
	return nil
}

// cancelProbe starts queries through the balancer and cancels them through the balancer: at another proxy, mostly.
type cancelProbe struct {
	fleet                 *fleet
	tenant                string
	arrived, lost, broken int
	slowest               time.Duration
	wrong                 []string
}

func (c *cancelProbe) String() string {
	return fmt.Sprintf("cancel requests: %d arrived, the slowest after %.2f s, %d did not, %d were to or from a proxy that was being killed",
		c.arrived, c.slowest.Seconds(), c.lost, c.broken)
}

func (c *cancelProbe) run(ctx context.Context) {
	for ctx.Err() == nil {
		c.try()
		pause(ctx, 50*time.Millisecond)
	}
}

const cancelPatience = 3 * time.Second

// killMargin is how near a kill has to be for a request to have been with the proxy that was killed: it had taken it, and the
// client, whose connection ends either way (section 55.2.8), could not know.
const killMargin = 100 * time.Millisecond

// killing notes the time of a kill.
func (f *fleet) killing(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kills = append(f.kills, at)
}

// nearestKill is how far from a moment a proxy was killed.
func (f *fleet) nearestKill(to time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	nearest := time.Duration(math.MaxInt64)
	for _, at := range f.kills {
		nearest = min(nearest, at.Sub(to).Abs())
	}
	return nearest
}

func (c *cancelProbe) try() {
	ctx, stop := context.WithTimeout(context.Background(), answerPatience)
	defer stop()
	conn, err := pgconn.Connect(ctx, c.fleet.site.dsn(c.fleet.front, appLogin, c.tenant))
	if err != nil {
		c.broken++
		return
	}
	defer shut(conn)
	answer := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, "SELECT pg_sleep(5)").ReadAll()
		answer <- err
	}()
	pause(ctx, 100*time.Millisecond)
	sent := time.Now()
	unsent := conn.CancelRequest(ctx)
	err = <-answer
	took := time.Since(sent)
	var refusal *pgconn.PgError
	switch {
	case errors.As(err, &refusal) && refusal.Code == "57014" && refusal.Severity == "ERROR" && took < cancelPatience:
		c.arrived++
		c.slowest = max(c.slowest, took)
	case unsent != nil || err != nil:
		c.broken++
	case c.fleet.nearestKill(sent) < killMargin:
		c.broken++
	default:
		c.lost++
		c.wrong = append(c.wrong, fmt.Sprintf("a cancel request did not arrive: the query ended after %s; the nearest kill was %s from it",
			took.Round(time.Millisecond), c.fleet.nearestKill(sent).Round(time.Millisecond)))
	}
}

// newsProbe changes the registry, and looks when each proxy acts on it.
type newsProbe struct {
	fleet *fleet
	took  []time.Duration // from the commit to the last proxy
	wrong []string
}

func (n *newsProbe) String() string {
	if len(n.took) == 0 {
		return "changes of the registry: none"
	}
	slices.Sort(n.took)
	at := func(part float64) float64 { return 1000 * n.took[int(part*float64(len(n.took)-1))].Seconds() }
	return fmt.Sprintf("changes of the registry: %d, from the commit to the last proxy's session: median %.1f ms, p99 %.1f ms, most %.1f ms",
		len(n.took), at(.5), at(.99), at(1))
}

// newsTenant is suspended and resumed all the time.
const newsTenant = "moody"

func (n *newsProbe) run(ctx context.Context) {
	if err := n.fleet.site.docexctl(ctx, nil, "tenant", "create", newsTenant, "--isolation", "role"); err != nil {
		n.wrong = append(n.wrong, err.Error())
		return
	}
	for ctx.Err() == nil {
		if err := n.try(ctx); err != nil && ctx.Err() == nil {
			n.wrong = append(n.wrong, err.Error())
		}
		pause(ctx, 300*time.Millisecond)
	}
}

// newsPatience is how long a proxy may serve a tenant on that was suspended. A second is what the design promises.
const newsPatience = time.Second

func (n *newsProbe) try(ctx context.Context) error {
	var sessions []*pgconn.PgConn
	defer func() {
		for _, conn := range sessions {
			shut(conn)
		}
	}()
	for i, address := range n.fleet.addresses {
		conn, err := pgconn.Connect(ctx, n.fleet.site.dsn(address, appLogin, newsTenant))
		if err != nil {
			continue // it was killed, or is being
		}
		if _, err := conn.Exec(ctx, "SELECT 1").ReadAll(); err == nil && n.fleet.proxy(i) != nil {
			sessions = append(sessions, conn)
		}
	}
	const change = "UPDATE docex_system.tenant_route SET status = '%s' WHERE tenant_id = '" + newsTenant + "'"
	if err := n.fleet.site.sql(ctx, database, fmt.Sprintf(change, "suspended")); err != nil {
		return err
	}
	committed := time.Now()
	var last time.Duration
	for _, conn := range sessions {
		conn.Conn().SetReadDeadline(committed.Add(newsPatience)) //nolint:errcheck // the read fails too
		_, err := conn.ReceiveMessage(ctx)
		if took := time.Since(committed); took >= newsPatience {
			return fmt.Errorf("a suspended tenant's session was there %s after the commit: %v", took, err)
		}
		last = max(last, time.Since(committed))
	}
	if len(sessions) > 0 {
		n.took = append(n.took, last)
	}
	return n.fleet.site.sql(ctx, database, fmt.Sprintf(change, "active"))
}
