//go:build linux

package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/docex-proxy/docex-proxy/e2e/program"
)

var pgbenchFigures = map[string]*regexp.Regexp{
	"transactions": regexp.MustCompile(`number of transactions actually processed: (\d+)`),
	"latency":      regexp.MustCompile(`latency average = ([\d.]+) ms`),
	"rate":         regexp.MustCompile(`(?m)^tps = ([\d.]+)`),
	"failed":       regexp.MustCompile(`number of failed transactions: (\d+)`),
}

// pgbench runs its select-only script for one tenant. The mode is libpq's sslmode.
func pgbench(ctx context.Context, t *target, c cell, sslmode string, seconds time.Duration, extra ...string) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, seconds+loginPatience)
	defer cancel()
	before, err := processorTime(t.pid)
	if err != nil {
		return sample{}, err
	}
	arguments := append([]string{
		"-n", "-S", "-M", c.mode, "-c", strconv.Itoa(c.clients), "-j", strconv.Itoa(min(2, c.clients)), "-T", strconv.Itoa(int(seconds / time.Second)),
		"-h", t.host, "-p", t.port, "-U", t.user(firstTenant),
	}, append(extra, database)...)
	command := exec.CommandContext(ctx, "pgbench", arguments...)
	command.Env = append(program.Environment(), "PGPASSWORD="+t.password(firstTenant), "PGSSLMODE="+sslmode)
	output, err := command.CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("%s: pgbench: %w: %s", t.name, err, output)
	}
	after, err := processorTime(t.pid)
	if err != nil {
		return sample{}, err
	}
	figures := make(map[string]float64)
	for name, pattern := range pgbenchFigures {
		found := pattern.FindStringSubmatch(string(output))
		if found == nil {
			return sample{}, fmt.Errorf("%s: pgbench has not said its %s: %s", t.name, name, strings.TrimSpace(string(output)))
		}
		if figures[name], err = strconv.ParseFloat(found[1], 64); err != nil {
			return sample{}, err
		}
	}
	if figures["failed"] > 0 {
		return sample{}, fmt.Errorf("%s: %g transactions have failed: %s", t.name, figures["failed"], output)
	}
	return sample{
		rate: figures["rate"], latency: figures["latency"],
		processor: float64((after - before).Microseconds()) / max(1, figures["transactions"]),
	}, nil
}
