package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/docex-proxy/docex-proxy/e2e/program"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "compat:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	suites  []suite
	sources string
	bin     string
	hold    bool
}

func allSuites() []suite {
	return []suite{pgxSuite(), pqSuite(), psycopg2Suite(), psycopgSuite(), nodePostgresSuite(), postgresJSSuite(), pgjdbcSuite()}
}

func parseOptions(arguments []string, stderr io.Writer) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("compat", flag.ContinueOnError)
	flags.SetOutput(stderr)
	names := flags.String("suite", "", "`NAMES` of the suites to run, by commas (default: all)")
	flags.StringVar(&o.sources, "sources", "", "`DIR` with checkouts of drivers whose packages come without tests, by name of the suite")
	flags.StringVar(&o.bin, "bin", "", "`DIR` with docex-proxy and docexctl (default: they are built)")
	flags.BoolVar(&o.hold, "hold", false, "run nothing: keep Postgres and the proxy up for the one suite named, until interrupted")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *names == "" {
		o.suites = allSuites()
		return o, nil
	}
	for name := range strings.SplitSeq(*names, ",") {
		at := slices.IndexFunc(allSuites(), func(s suite) bool { return s.name == strings.TrimSpace(name) })
		if at < 0 {
			return o, fmt.Errorf("unknown suite %q", name)
		}
		o.suites = append(o.suites, allSuites()[at])
	}
	return o, nil
}

func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(arguments, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "docex-compat-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	fmt.Fprintln(stderr, "raw output:", dir)
	if o.bin == "" {
		if o.bin, err = dir, program.Build(ctx, dir); err != nil {
			return err
		}
	}
	var columns []column
	for _, s := range o.suites {
		if o.hold {
			return hold(ctx, o, dir, stderr)
		}
		began := time.Now()
		c := try(ctx, o, dir, s)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		fmt.Fprintf(stderr, "%s: %s %v\n", c, time.Since(began).Round(time.Second), c.err)
		columns = append(columns, c)
	}
	if faults := report(stdout, columns); faults > 0 {
		return fmt.Errorf("%d tests pass directly only, for no known reason", faults)
	}
	return nil
}

// connections are more than any suite has open at a time.
const connections = 150

// arrange starts a site on which a suite finds what it takes for granted.
func arrange(ctx context.Context, programs, dir string, s suite) (*site, error) {
	there, err := newSite(ctx, programs, dir, s.tenant, connections)
	if err != nil {
		return nil, err
	}
	if s.rights != "" {
		if _, err := there.superuser(ctx, s.tenant, fmt.Sprintf(s.rights, quoted(there.role))); err != nil {
			return nil, errors.Join(err, there.close())
		}
	}
	return there, nil
}

// try runs one suite directly and through the proxy, each on a site of its own.
func try(ctx context.Context, o options, dir string, s suite) column {
	c := column{suite: s}
	name := strings.ReplaceAll(s.name, "/", "_")
	w := &workshop{dir: filepath.Join(dir, name), programs: o.bin, sources: o.sources}
	if c.err = os.MkdirAll(w.dir, 0o711); c.err != nil {
		return c
	}
	if c.version, c.err = s.prepare(ctx, w); c.err != nil {
		return c
	}
	for i, into := range []*results{&c.direct, &c.through} {
		*into, c.err = visit(ctx, fmt.Sprintf("%s_%d", w.dir, i+1), s, w, i)
		c.postgres = w.postgres
		if c.err != nil {
			return c
		}
	}
	return c
}

// visit runs a suite at one endpoint of a fresh site.
func visit(ctx context.Context, dir string, s suite, w *workshop, endpoint int) (found results, err error) {
	there, err := arrange(ctx, w.programs, dir, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, there.close(), os.RemoveAll(filepath.Join(dir, "pg"))) }()
	w.postgres = there.version
	return s.run(ctx, w, there.endpoints()[endpoint])
}

// hold keeps a site up, to look into what a suite found.
func hold(ctx context.Context, o options, dir string, stderr io.Writer) error {
	s := o.suites[0]
	there, err := arrange(ctx, o.bin, filepath.Join(dir, "held"), s)
	if err != nil {
		return err
	}
	for _, e := range there.endpoints() {
		fmt.Fprintf(stderr, "%s: %s\n", e.name, e.dsn())
	}
	fmt.Fprintf(stderr, "superuser: %s\nlog: %s\n", there.cluster.DSN(s.tenant), there.proxy.Log)
	<-ctx.Done()
	return there.close()
}
