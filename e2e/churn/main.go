package main

import (
	"context"
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
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
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
}

func parse(arguments []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("churn", flag.ContinueOnError)
	flags.StringVar(&o.level, "level", "slot", "isolation `LEVEL`: role, slot or trusted")
	flags.IntVar(&o.tenants, "tenants", 200, "how many, 1 to 999")
	flags.IntVar(&o.connections, "connections", 8, "server connections of the proxy")
	flags.IntVar(&o.workers, "workers", 48, "clients at a time")
	flags.Int64Var(&o.answers, "answers", 1_000_000, "rows and other answers to check")
	flags.Uint64Var(&o.seed, "seed", 1, "of the workers' choices")
	flags.StringVar(&o.drop, "drop", "", "have tenants lose their `THING` under load: role or schema")
	flags.StringVar(&o.binDir, "pgbin", "", "`DIR` with Postgres server programs (default: those that are found)")
	flags.StringVar(&o.io, "io", "auto", "the proxy's io: auto, epoll or goroutine")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	switch {
	case o.tenants < 1 || o.tenants > 999 || o.connections < 1 || o.workers < 1:
		return o, fmt.Errorf("tenants are 1 to 999, connections and workers at least 1")
	case o.drop != "" && o.drop != "role" && o.drop != "schema":
		return o, fmt.Errorf("-drop %q is neither role nor schema", o.drop)
	}
	return o, nil
}

func run(ctx context.Context, arguments []string, out io.Writer) error {
	o, err := parse(arguments)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "docex-churn-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := newSite(ctx, dir, o)
	if err != nil {
		return err
	}
	defer s.close()
	began := time.Now()
	t := newTally(o.answers)
	err = churn(ctx, s, o, t)
	report(out, s, o, t, time.Since(began))
	return err
}

func report(out io.Writer, s *site, o options, t *tally, took time.Duration) {
	fmt.Fprintf(out, "level %s, Postgres %s, %d tenants, %d server connections, %d clients, seed %d: %d answers of %d sessions in %s\n",
		o.level, s.version, o.tenants, o.connections, o.workers, o.seed, t.answers.Load(), t.sessions.Load(), took.Round(time.Second))
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(t.counts)) {
		fmt.Fprintf(out, "  %-40s %d\n", what, t.counts[what])
	}
	seen := s.metrics()
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		fmt.Fprintf(out, "  %-40s %d\n", name, seen[name])
	}
	if o.drop != "" {
		fmt.Fprintf(out, "  %-40s %d\n", "tenants that lost their "+o.drop, s.lost())
	}
	fmt.Fprintf(out, "  %-40s %d\n", "answers of another tenant", t.foreign.Load())
}
