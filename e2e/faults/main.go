//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(2)
		}
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	only, binDir string
	soak         time.Duration
	pace         time.Duration
	seed         uint64
	tenants      int
	clients      int // of each tenant
	keep         bool
	fleet        int // proxies; 0: one, and the faults
	moves        int // of tenants; 0: the faults
	kill         bool
}

func parse(arguments []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("faults", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.only, "only", "", "those faults whose name contains the `TEXT`")
	flags.StringVar(&o.binDir, "pgbin", "", "`DIR` with Postgres server programs (default: those that are found)")
	flags.DurationVar(&o.soak, "soak", 0, "draw faults by chance for so `LONG` instead, one every 10 s")
	flags.Uint64Var(&o.seed, "seed", 1, "of a soak's choices")
	flags.IntVar(&o.tenants, "tenants", 4, "how many, at least 4")
	flags.IntVar(&o.clients, "clients", 5, "of each tenant")
	flags.DurationVar(&o.pace, "pace", time.Millisecond, "between an answer and a client's next row")
	flags.IntVar(&o.fleet, "fleet", 0, "so many proxies behind HAProxy instead, one of which is killed every 10 s for as long as -soak says")
	flags.IntVar(&o.moves, "moves", 0, "move three tenants, one at each level that can be moved, to another server and back instead, so many times together")
	flags.BoolVar(&o.kill, "kill", false, "kill docexctl in each of the -moves, twice, and the proxy in every fifth, at moments drawn by chance, and start them again")
	flags.BoolVar(&o.keep, "keep", false, "keep the directory with the proxies' logs and Postgres's data")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if flags.NArg() > 0 || o.tenants < 4 || o.clients < 1 || o.fleet < 0 || o.fleet > 0 && o.soak == 0 {
		return o, errors.New("wrong usage: see -help")
	}
	return o, nil
}

// tenant is one with its isolation level.
type tenant struct{ name, level string }

// tenantsOf are all. The first four are always there; those after them share connections, as so many do with so few.
func tenantsOf(o options) []tenant {
	all := []tenant{{"ledger0", "role"}, {"ledger1", "slot"}, {"ledger2", "trusted"}, {"ledger3", "role"}}
	if o.moves > 0 {
		all[0].level, all[1].level, all[2].level = "database", "role", "slot"
	}
	for i := len(all); i < o.tenants; i++ {
		all = append(all, tenant{fmt.Sprintf("ledger%d", i), all[1+i%2].level})
	}
	return all
}

func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(arguments, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "docex-faults-")
	if err != nil {
		return err
	}
	if o.keep {
		fmt.Fprintln(stderr, "everything is in", dir)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	s, err := newSite(ctx, dir, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()

	var all crowd
	var group sync.WaitGroup
	working, stop := context.WithCancel(ctx)
	defer func() { stop(); group.Wait() }()
	for i, t := range tenantsOf(o) {
		for n := range o.clients {
			w := &witness{site: s, tenant: t.name, id: i*o.clients + n, pace: o.pace}
			w.mark(time.Now())
			all = append(all, w)
			group.Go(func() { w.run(working) })
		}
	}
	if _, err := all.awaitService(ctx, time.Now(), time.Minute); err != nil {
		return s.explain(err)
	}
	switch {
	case o.fleet > 0:
		return s.fleet.rehearse(ctx, o, all, stdout)
	case o.moves > 0:
		return move(ctx, s, o, all, stdout)
	case o.soak > 0:
		return soak(ctx, s, o, all, stdout)
	}
	return catalogue(ctx, s, o, all, stdout)
}

// catalogue does one fault after the other.
func catalogue(ctx context.Context, s *site, o options, all crowd, stdout io.Writer) error {
	fmt.Fprintf(stdout, "| | fault | what is done | what the clients saw | longest answer | all served again after | rows acknowledged so far | wrong |\n|%s\n", strings.Repeat("---|", 8))
	wrong, done := 0, 0
	for number, f := range faults() {
		if !strings.Contains(f.name, o.only) {
			continue
		}
		seen, err := suffer(ctx, s, f, all)
		switch {
		case errors.Is(err, errNotHere):
			fmt.Fprintf(stdout, "| %d | %s | %s | not run: %v | | | | |\n", number+1, f.name, f.what, err)
			continue
		case err != nil:
			return s.explain(fmt.Errorf("%s: %w", f.name, err))
		}
		verdict := "nothing"
		if len(seen.wrong) > 0 {
			verdict = strings.Join(seen.wrong[:min(3, len(seen.wrong))], "; ")
			wrong++
		}
		done++
		fmt.Fprintf(stdout, "| %d | %s | %s | %s | %.2f s | %.2f s | %d | %s |\n", number+1, f.name, f.what, seen.seen(), seen.longest.Seconds(), seen.recovered.Seconds(), seen.acknowledged, verdict)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	fmt.Fprintf(stdout, "\n%d faults, %d with something wrong\n", done, wrong)
	if wrong > 0 {
		return fmt.Errorf("%d faults had consequences that they must not have", wrong)
	}
	return nil
}

// suffer does one fault and says what came of it.
func suffer(ctx context.Context, s *site, f fault, all crowd) (observation, error) {
	var o observation
	if f.prepare != nil {
		if err := f.prepare(ctx, s); err != nil {
			return o, fmt.Errorf("prepare: %w", err)
		}
		prepared := time.Now()
		for _, w := range all {
			w.resumeAt(prepared)
		}
		if _, err := all.awaitService(ctx, prepared, time.Minute); err != nil {
			return o, fmt.Errorf("prepare: %w", err)
		}
	}
	began := time.Now()
	for _, w := range all {
		w.mark(began)
	}
	if err := f.strike(ctx, s); err != nil {
		return o, fmt.Errorf("strike: %w", err)
	}
	pause(ctx, f.lasting)
	healed := time.Now()
	if f.heal != nil {
		if err := f.heal(ctx, s); err != nil {
			return o, fmt.Errorf("heal: %w", err)
		}
		healed = time.Now()
	}
	for _, w := range all {
		w.resumeAt(healed)
	}
	var late error
	if o.recovered, late = all.awaitService(ctx, healed, 30*time.Second); late != nil {
		o.wrong = append(o.wrong, late.Error())
	}
	if within := all[0].pace + cmp.Or(f.within, usual); o.recovered > within {
		o.wrong = append(o.wrong, fmt.Sprintf("all were served again after %.2f s, and not within %s", o.recovered.Seconds(), within))
	}
	all.collect(&o)
	if f.unseen && len(o.errors) > 0 {
		o.wrong = append(o.wrong, "clients have seen it")
	}
	if err := all.audit(ctx, s, &o); err != nil {
		return o, fmt.Errorf("audit: %w", err)
	}
	used, err := s.number(ctx, "SELECT count(*) "+backendsOfTenants+" AND usename NOT LIKE '%registry%' AND usename NOT LIKE '%switch%'")
	if err == nil && used > connections {
		o.wrong = append(o.wrong, fmt.Sprintf("%d server connections, of %d allowed", used, connections))
	}
	return o, err
}
