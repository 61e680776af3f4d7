package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "churn:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	level       string
	tenants     int
	connections int
	workers     int
	answers     int64
	seed        uint64
	drop        string
	binDir      string
	io          string
	sabotage    bool
	keep        bool
}

func parse(arguments []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("churn", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.level, "level", "slot", "isolation `LEVEL`: role, slot or trusted")
	flags.IntVar(&o.tenants, "tenants", 200, "how many, 2 to 999")
	flags.IntVar(&o.connections, "connections", 8, "server connections of the proxy")
	flags.IntVar(&o.workers, "workers", 64, "clients at a time")
	flags.Int64Var(&o.answers, "answers", 1_000_000, "answers that name a tenant, to be checked")
	flags.Uint64Var(&o.seed, "seed", 1, "of the workers' choices")
	flags.StringVar(&o.drop, "drop", "", "have tenants lose their `THING` under load: role or schema")
	flags.StringVar(&o.binDir, "pgbin", "", "`DIR` with Postgres server programs (default: those that are found)")
	flags.StringVar(&o.io, "io", "auto", "the proxy's io: auto, epoll, iouring or goroutine")
	flags.BoolVar(&o.sabotage, "sabotage", false, "put a row of one tenant into another's table; a run without a failure is then worth nothing")
	flags.BoolVar(&o.keep, "keep", false, "keep the directory with the proxy's log and Postgres's data")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.level != "role" && o.level != "slot" && o.level != "trusted":
		return o, fmt.Errorf("-level %q is none of role, slot, trusted", o.level)
	case o.tenants < 2 || o.tenants > 999 || o.connections < 1 || o.workers < 1:
		return o, fmt.Errorf("tenants are 2 to 999, connections and workers at least 1")
	case o.drop != "" && o.drop != dropRole && o.drop != dropSchema:
		return o, fmt.Errorf("-drop %q is neither role nor schema", o.drop)
	}
	return o, nil
}

func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(arguments, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "docex-churn-")
	if err != nil {
		return err
	}
	if o.keep {
		fmt.Fprintln(stderr, "kept:", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	s, err := newSite(ctx, dir, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if o.sabotage {
		if err := s.sabotage(ctx); err != nil {
			return err
		}
	}
	t, began := newTally(o.answers), time.Now()
	err = churn(ctx, s, o, t)
	return errors.Join(err, report(stdout, s, o, t, time.Since(began)))
}

// report writes what was done, whether it went well or not.
func report(out io.Writer, s *site, o options, t *tally, took time.Duration) error {
	fmt.Fprintf(out, "level %s, Postgres %s, %d tenants, %d server connections, %d clients, seed %d: %s\n",
		o.level, s.version, o.tenants, o.connections, o.workers, o.seed, took.Round(time.Second))
	line := func(what string, n int64) { fmt.Fprintf(out, "  %-62s %9d\n", what, n) }
	line("sessions", t.sessions.Load())
	line("steps", t.steps.Load())
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(t.counts)) {
		line(what, int64(t.counts[what]))
	}
	seen, err := s.metrics()
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		line(name, int64(seen[name]))
	}
	if o.drop != "" {
		line("tenants that lost their "+o.drop, int64(s.lost()))
	}
	line("messages searched", t.messages.Load())
	line("answers that name a tenant", t.answers.Load())
	line("answers that name another tenant", t.foreign.Load())
	return err
}
