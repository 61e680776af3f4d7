//go:build linux

package main

import (
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
	case errors.Is(err, errForeign):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(3)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// errForeign is an answer of another tenant.
var errForeign = errors.New("an answer came from another tenant")

// options are the flags.
type options struct {
	rounds, connections, workers, idle int
	seen                               int // pool.tenants_seen
	noise                              int
	seconds                            time.Duration
	single, encrypted                  []cell
	tenants, growth, clients           []int
	levels, drivers, modes             []string
	sizes                              []int
	bouncer, binDir, out, plots        string
	logins                             bool
}

const singleCells = "simple:1,simple:8,simple:64,simple:256,extended:1,extended:8,extended:64,extended:256,prepared:1,prepared:8,prepared:64,prepared:256"

// cell is one way that pgbench is run.
type cell struct {
	mode    string // of pgbench -M
	clients int
}

func parse(arguments []string, stderr io.Writer) (options, error) {
	var o options
	var seconds int
	var single, encrypted, tenants, growth, clients, levels, drivers, modes, sizes string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.rounds, "rounds", 5, "how often each target is measured in each cell")
	flags.IntVar(&seconds, "seconds", 4, "how long each measurement takes")
	flags.IntVar(&o.connections, "connections", 20, "server connections of each pooler")
	flags.IntVar(&o.seen, "seen", 1000, "the proxy's pool.tenants_seen: after so many tenants it closes a connection that they share; 0 for never")
	flags.StringVar(&single, "single", singleCells, "cells with one tenant, MODE:CLIENTS; MODE is simple, extended or prepared")
	flags.StringVar(&encrypted, "tls", "simple:8,prepared:8,prepared:64", "the same, of clients that speak TLS")
	flags.BoolVar(&o.logins, "logins", true, "a cell where each transaction is a login of its own")
	flags.StringVar(&tenants, "tenants", "10,100,1000", "cells with so many tenants, each with one client")
	flags.StringVar(&growth, "growth", "10,100,1000,10000", "so many tenants at trusted, with one client each, to see what more of them cost")
	flags.StringVar(&clients, "clients", "100,1000,10000", "so many clients of one tenant, to see what more of them cost")
	flags.StringVar(&levels, "levels", "role,slot,trusted", "of these tenants, for the proxy; PgBouncer's log in as roles of their own")
	flags.StringVar(&modes, "modes", "simple,prepared", "of the cells with many tenants")
	flags.IntVar(&o.workers, "workers", 32, "transactions under way in the cells with many tenants")
	flags.StringVar(&drivers, "io", "epoll,goroutine", "the proxy's drivers; the first one serves the cells with many tenants")
	flags.StringVar(&sizes, "sizes", "1000,1000000,100000000", "cells with results of so many bytes, 8 clients; 1 from 100 MB on")
	flags.IntVar(&o.idle, "idle", 2000, "clients whose memory is measured while they are idle; 0 for none")
	flags.IntVar(&o.noise, "noise", 100, "clients of a noisy tenant beside a quiet one; 0 for no such cell")
	flags.StringVar(&o.bouncer, "pgbouncer", "pgbouncer", "the `PROGRAM`")
	flags.StringVar(&o.binDir, "pgbin", "", "`DIR` with Postgres server programs (default: those that are found)")
	flags.StringVar(&o.out, "out", "", "`FILE` for the tables, in Markdown (default: standard output)")
	flags.StringVar(&o.plots, "plots", "", "`DIR` for plots of the growth, as SVG (default: none)")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if flags.NArg() > 0 || o.rounds < 1 || seconds < 1 || o.connections < 1 || o.workers < 1 {
		return o, fmt.Errorf("wrong usage: see -help")
	}
	o.seconds = time.Duration(seconds) * time.Second
	o.levels, o.drivers, o.modes = words(levels), words(drivers), words(modes)
	if len(o.drivers) == 0 {
		return o, errors.New("-io names no driver")
	}
	var errs [6]error
	o.single, errs[0] = cells(single)
	o.encrypted, errs[1] = cells(encrypted)
	o.tenants, errs[2] = numbers(tenants)
	o.growth, errs[3] = numbers(growth)
	o.clients, errs[4] = numbers(clients)
	o.sizes, errs[5] = numbers(sizes)
	return o, errors.Join(errs[:]...)
}

func cells(list string) (all []cell, err error) {
	for _, word := range words(list) {
		mode, clients, _ := strings.Cut(word, ":")
		n, err := strconv.Atoi(clients)
		if err != nil || n < 1 || !slices.Contains([]string{"simple", "extended", "prepared"}, mode) {
			return nil, fmt.Errorf("%q is not MODE:CLIENTS", word)
		}
		all = append(all, cell{mode, n})
	}
	return all, nil
}

func words(list string) []string {
	return slices.DeleteFunc(strings.Split(list, ","), func(word string) bool { return word == "" })
}

func numbers(list string) (all []int, err error) {
	for _, word := range words(list) {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a number from 1", word)
		}
		all = append(all, n)
	}
	return all, nil
}

func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(arguments, stderr)
	if err != nil {
		return err
	}
	out := stdout
	if o.out != "" {
		file, err := os.Create(o.out)
		if err != nil {
			return err
		}
		defer file.Close()
		out = file
	}
	s, err := newSite(ctx, o, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := measure(ctx, s, o, &report{out: out, progress: stderr}); err != nil {
		return s.explain(err)
	}
	return nil
}
