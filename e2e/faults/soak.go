//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docex-proxy/docex-proxy/e2e/program"
)

const (
	soakPause = 10 * time.Second // from fault to fault
	calm      = 5 * time.Second  // before what the proxy holds is looked at
)

// holdings are what a proxy holds.
type holdings struct{ residentKB, goroutines, descriptors, serverConnections int }

func (s *site) holdings(ctx context.Context) (h holdings, err error) {
	if h.residentKB, err = program.ResidentKB(s.proxy.PID()); err != nil {
		return h, err
	}
	if h.goroutines, err = s.metric("go_goroutines"); err != nil {
		return h, err
	}
	if h.descriptors, err = s.metric("process_open_fds"); err != nil {
		return h, err
	}
	h.serverConnections, err = s.number(ctx, "SELECT count(*) "+backendsOfTenants)
	return h, err
}

// metric reads a series without labels.
func (s *site) metric(name string) (int, error) {
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get("http://" + s.proxy.HTTP + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return int(value), err
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// soak draws faults by chance, and compares what the proxy holds after each quarter of the time, when it is calm. What it
// held after the first is what it may hold after the last, and a little more.
func soak(ctx context.Context, s *site, o options, all crowd, stdout io.Writer) error {
	random := rand.New(rand.NewPCG(o.seed, 0))
	var fit []fault
	for _, f := range faults() {
		if f.soak && strings.Contains(f.name, o.only) {
			fit = append(fit, f)
		}
	}
	fmt.Fprintf(stdout, "soak of %s: %d clients of %d tenants, seed %d\n", o.soak, len(all), len(tenantsOf(o)), o.seed)
	began := time.Now()
	var quarters []holdings
	errors, struck := make(map[string]int), make(map[string]int)
	var wrong []string
	var slowest time.Duration
	rows := 0
	for quarter := 1; quarter <= 4; quarter++ {
		for end := began.Add(o.soak * time.Duration(quarter) / 4); time.Now().Before(end) && ctx.Err() == nil; {
			next := time.Now().Add(soakPause)
			f := fit[random.IntN(len(fit))]
			struck[f.name]++
			seen, err := suffer(ctx, s, f, all)
			if err != nil {
				return s.explain(fmt.Errorf("%s: %w", f.name, err))
			}
			for kind, n := range seen.errors {
				errors[kind] += n
			}
			for _, w := range seen.wrong {
				wrong = append(wrong, f.name+": "+w)
			}
			slowest, rows = max(slowest, seen.recovered), seen.acknowledged
			pause(ctx, time.Until(next))
		}
		pause(ctx, calm)
		h, err := s.holdings(ctx)
		if err != nil {
			return s.explain(err)
		}
		quarters = append(quarters, h)
		fmt.Fprintf(stdout, "after %.0f s: %d kB, %d goroutines, %d descriptors, %d server connections; %d rows acknowledged\n",
			time.Since(began).Seconds(), h.residentKB, h.goroutines, h.descriptors, h.serverConnections, rows)
	}
	for _, name := range slices.Sorted(maps.Keys(struck)) {
		fmt.Fprintf(stdout, "%4d × %s\n", struck[name], name)
	}
	summary := observation{errors: errors}
	fmt.Fprintf(stdout, "the clients saw: %s\nall were served again within %.2f s\n", summary.seen(), slowest.Seconds())
	wrong = append(wrong, leaks(quarters[0], quarters[3])...)
	for _, w := range wrong {
		fmt.Fprintln(stdout, "WRONG:", w)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d things are wrong", len(wrong))
	}
	fmt.Fprintln(stdout, "nothing lost, nothing leaked, no answer of another tenant")
	return nil
}

// leaks says what has grown by more than comes and goes.
func leaks(first, last holdings) (found []string) {
	check := func(what string, first, last, slack int) {
		if last > first+slack {
			found = append(found, fmt.Sprintf("%s: %d after the first quarter, %d after the last", what, first, last))
		}
	}
	check("kB of memory", first.residentKB, last.residentKB, max(20_000, first.residentKB/4))
	check("goroutines", first.goroutines, last.goroutines, 20)
	check("descriptors", first.descriptors, last.descriptors, 30)
	check("server connections", first.serverConnections, last.serverConnections, 3)
	return found
}
