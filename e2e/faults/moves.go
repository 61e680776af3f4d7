//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

// secondServer is its name in the proxy's configuration.
const secondServer = "second"

// startSecond starts the server that tenants move to.
func (s *site) startSecond(ctx context.Context) (err error) {
	s.second, err = localpg.Start(ctx, localpg.Options{
		BinDir: s.options.BinDir, DataDir: s.path("pg2"), Logger: slog.New(slog.DiscardHandler), Settings: s.options.Settings,
	})
	return err
}

// secondEntry is its entry in the proxy's configuration, "" where there is none.
func (s *site) secondEntry() string {
	if s.second == nil {
		return ""
	}
	return fmt.Sprintf(", %s: {host: %q, port: %d, max_connections: %d}", secondServer, s.second.Host(), s.second.Port(), connections)
}

// place is where a tenant is.
type place struct {
	Route struct{ Server, Database, Status string }
}

func (s *site) placeOf(ctx context.Context, tenant string) (p place, err error) {
	return p, s.docexctl(ctx, &p, "tenant", "show", tenant)
}

func (s *site) dsnOf(p place) string {
	if p.Route.Server == secondServer {
		return s.second.DSN(p.Route.Database)
	}
	return s.cluster.DSN(p.Route.Database)
}

// ledgersOfMoved is ledgers for tenants each of which is somewhere.
func (s *site) ledgersOfMoved(ctx context.Context, tenants []tenant) (map[ledgerKey]map[int]int, error) {
	all := make(map[ledgerKey]map[int]int)
	for _, t := range tenants {
		p, err := s.placeOf(ctx, t.name)
		if err != nil {
			return nil, err
		}
		if err := readLedger(ctx, s.dsnOf(p), t.name, all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func readLedger(ctx context.Context, dsn, tenant string, all map[ledgerKey]map[int]int) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return readLedgerOf(ctx, conn, "tenant_"+tenant, all)
}

// move moves three tenants to and fro while everybody writes, and looks after each move whether all rows are there.
func move(ctx context.Context, s *site, o options, all crowd, stdout io.Writer) error {
	movers := tenantsOf(o)[:3]
	fmt.Fprintf(stdout, "%d moves of tenants at levels %s, %s and %s, %d clients of %d tenants\n",
		o.moves, movers[0].level, movers[1].level, movers[2].level, len(all), len(tenantsOf(o)))
	var held []float64
	var longest, took time.Duration
	var wrong []string
	k := killer{random: rand.New(rand.NewPCG(o.seed, 0))}
	errorsSeen := make(map[string]int)
	for n := range o.moves {
		mover := movers[n%3].name
		p, err := s.placeOf(ctx, mover)
		if err != nil {
			return err
		}
		to := secondServer
		if p.Route.Server == secondServer {
			to = "main"
		}
		began := time.Now()
		for _, w := range all {
			w.mark(began)
		}
		if o.kill {
			if err := k.kill(ctx, s, mover, to, n%5 == 4); err != nil {
				return s.explain(err)
			}
		}
		var report moveReport
		if err := s.moveTenant(ctx, &report, mover, to); err != nil {
			return s.explain(err)
		}
		took = max(took, time.Since(began))
		held = append(held, report.HeldSeconds)
		moved := time.Now()
		for _, w := range all {
			w.resumeAt(moved)
		}
		if _, err := all.awaitService(ctx, moved, answerPatience); err != nil {
			wrong = append(wrong, err.Error())
		}
		var seen observation
		all.collect(&seen)
		if o.kill && n%5 == 4 { // their connections ended with the proxy
			delete(seen.errors, "disconnected")
			delete(seen.errors, "login: disconnected")
		}
		if len(seen.errors) > 0 {
			fmt.Fprintf(stdout, "move %d: the clients saw: %s\n", n+1, seen.seen())
		}
		for kind, count := range seen.errors {
			errorsSeen[kind] += count
		}
		longest = max(longest, seen.longest)
		if err := all.audit(ctx, s, &seen); err != nil {
			return err
		}
		wrong = append(wrong, seen.wrong...)
		if n%10 == 9 || n == o.moves-1 {
			fmt.Fprintf(stdout, "%d moves: %d rows acknowledged; the clients saw: %s; %d things are wrong\n", n+1, seen.acknowledged,
				(&observation{errors: errorsSeen}).seen(), len(wrong))
		}
	}
	slices.Sort(held)
	fmt.Fprintf(stdout, "held: median %.2f s, longest %.2f s; longest answer to a client %.2f s; longest move %.0f s\n",
		held[len(held)/2], held[len(held)-1], longest.Seconds(), took.Seconds())
	if o.kill {
		fmt.Fprintf(stdout, "docexctl was killed %d times, when the registry said: %s; the proxy %d times\n", k.killed, k.said(), k.proxies)
	}
	for _, w := range append(wrong, k.wrong...) {
		fmt.Fprintln(stdout, "WRONG:", w)
	}
	if len(wrong)+len(k.wrong)+len(errorsSeen) > 0 {
		return errors.New("a move is not what it has to be")
	}
	return nil
}

// moveReport is what docexctl says of a move.
type moveReport struct {
	HeldSeconds float64 `json:"held_seconds"`
}

func (s *site) moveTenant(ctx context.Context, report *moveReport, tenant, to string) error {
	return s.docexctl(ctx, report, "tenant", "move", tenant, "--to", to, "--server-dsn", secondServer+"="+s.second.DSN("postgres"))
}
