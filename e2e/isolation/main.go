package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
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
		fmt.Fprintln(os.Stderr, "isolation:", err)
		os.Exit(1)
	}
}

// errNotKept makes the exit status 1.
var errNotKept = errors.New("not all promises were shown to be kept")

// options are the command line.
type options struct {
	levels []level
	asked  bool  // for these levels, by name
	cases  []int // nil: all
	binDir string
	out    string
}

func parseOptions(arguments []string, stderr io.Writer) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("isolation", flag.ContinueOnError)
	flags.SetOutput(stderr)
	names := flags.String("levels", "", "isolation `LEVELS` to try, by commas: role, slot, database, trusted (default: those that this build has)")
	numbers := flags.String("cases", "", "`NUMBERS` of cases to try, by commas (default: all)")
	flags.StringVar(&o.binDir, "pgbin", "", "`DIR` of the Postgres server programs (default: found on this machine)")
	flags.StringVar(&o.out, "out", "", "write the report to `FILE` as well")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var err error
	if o.cases, err = parseCases(*numbers); err != nil {
		return o, err
	}
	o.asked = *names != ""
	if !o.asked {
		o.levels = allLevels()
		return o, nil
	}
	for name := range strings.SplitSeq(*names, ",") {
		l := level(strings.TrimSpace(name))
		if !slices.Contains(allLevels(), l) {
			return o, fmt.Errorf("unknown level %q", name)
		}
		o.levels = append(o.levels, l)
	}
	return o, nil
}

func parseCases(text string) (numbers []int, err error) {
	if text == "" {
		return nil, nil
	}
	for word := range strings.SplitSeq(text, ",") {
		number, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil {
			return nil, fmt.Errorf("%q is no number of a case", word)
		}
		numbers = append(numbers, number)
	}
	return numbers, nil
}

func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) (err error) {
	o, err := parseOptions(arguments, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "docex-isolation-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := report{started: time.Now(), command: strings.TrimSpace("go run ./e2e/isolation " + strings.Join(arguments, " "))}
	s, err := newSite(ctx, dir, o.binDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	r.version = s.version
	for _, l := range o.levels {
		c, err := tryLevel(ctx, s, l, o.cases, stderr)
		if err != nil {
			return fmt.Errorf("level %s: %w", l, err)
		}
		c.asked = o.asked
		r.columns = append(r.columns, c)
	}
	r.took = time.Since(r.started)
	return publish(r, o, stdout)
}

func publish(r report, o options, stdout io.Writer) error {
	var text bytes.Buffer
	r.write(&text)
	if o.out != "" {
		if err := os.WriteFile(o.out, text.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if _, err := stdout.Write(text.Bytes()); err != nil {
		return err
	}
	if r.failed() {
		return errNotKept
	}
	return nil
}

// slow is how long a case may take without being named: a level should take two minutes, and slot one more.
const slow = 3 * time.Second

// tryLevel runs the cases at one level, one after the other.
func tryLevel(ctx context.Context, s *site, l level, cases []int, progress io.Writer) (c column, err error) {
	c = column{level: l, results: make(map[int]result)}
	start := time.Now()
	a, err := newArena(ctx, s, l)
	if missing, ok := errors.AsType[*unavailableError](err); ok {
		c.absent = missing.Error()
		return c, nil
	}
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	if r := a.try(ctx, attack{run: (*trial).learnPristine}); r.err != nil {
		return c, r.err
	}
	for _, attack := range table() {
		if !attack.at(l) || cases != nil && !slices.Contains(cases, attack.number) {
			continue
		}
		began := time.Now()
		r := a.try(ctx, attack)
		if took := time.Since(began); took > slow {
			fmt.Fprintf(progress, "%s %d: took %s\n", l, attack.number, took.Round(100*time.Millisecond))
		}
		if ctx.Err() != nil {
			return c, context.Cause(ctx)
		}
		c.results[attack.number] = r
		if !r.kept(attack.promise.at(l)) {
			fmt.Fprintf(progress, "%s %d: %s, promised %s: %s %v\n", l, attack.number, r.outcome, attack.promise.at(l), r.detail, r.err)
		}
		if r.err != nil {
			fmt.Fprintln(progress, "the proxy said:", a.proxy.Said())
		}
	}
	c.reuse, c.took = a.reuse, time.Since(start)
	return c, nil
}
