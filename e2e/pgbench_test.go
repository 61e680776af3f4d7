package e2e_test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	benchTenants = 10
	benchClients = 100 // of each tenant, so that there are fifty for each server connection
	// benchTransactions are a client's own. A duration would not do: pgbench counts the time of its logins in.
	benchTransactions = 30
)

// pgbench runs pgbench as a tenant, through the proxy.
func (p *proxy) pgbench(t testing.TB, a account, arguments ...string) (string, error) {
	t.Helper()
	program := need(t, "pgbench", "apt-get install postgresql-contrib")
	environment := []string{
		"PGHOST=" + p.host, fmt.Sprintf("PGPORT=%d", p.port), "PGUSER=" + a.login + "." + a.tenant, "PGPASSWORD=" + a.password,
		"PGDATABASE=" + database, "PGSSLMODE=disable",
	}
	return client(t, environment, program, arguments...)
}

// everybody runs one pgbench for each tenant, all at once.
func (p *proxy) everybody(t *testing.T, accounts []account, arguments func(i int) []string) []string {
	t.Helper()
	outputs := make([]string, len(accounts))
	var group sync.WaitGroup
	for i, a := range accounts {
		group.Go(func() {
			output, err := p.pgbench(t, a, arguments(i)...)
			if err != nil {
				t.Errorf("%s: pgbench %s: %v\n%s", a.tenant, strings.Join(arguments(i), " "), err, lastLines(output, 20))
			}
			outputs[i] = output
		})
	}
	group.Wait()
	return outputs
}

func TestAThousandClientsShareTwentyServerConnections(t *testing.T) {
	s := theSite(t)
	var accounts []account
	for i := range benchTenants {
		accounts = append(accounts, s.tenant(t, fmt.Sprintf("bench%d", i)))
	}
	s.proxy.everybody(t, accounts, func(int) []string { return []string{"-q", "-i", "-s", "1"} })
	most := s.watchBackends(t)
	modes := []string{"simple", "extended", "prepared"} // side by side, so that they meet on the server connections
	outputs := s.proxy.everybody(t, accounts, func(i int) []string {
		return []string{"-S", "-n", "-M", modes[i%len(modes)], "-c", strconv.Itoa(benchClients), "-j", "1", "-t", strconv.Itoa(benchTransactions)}
	})
	for i, output := range outputs {
		if done := processed(output); done != benchClients*benchTransactions {
			t.Errorf("%s: %d transactions\n%s", accounts[i].tenant, done, lastLines(output, 20))
		}
	}
	if seen := most(); seen > budget {
		t.Errorf("%d server connections of tenants at one time, the budget is %d", seen, budget)
	} else if seen < budget {
		t.Errorf("%d server connections of tenants at most, although %d were wanted", seen, budget)
	}
}

var processedPattern = regexp.MustCompile(`number of transactions actually processed: (\d+)/`)

// processed is the number of transactions that pgbench says it has run.
func processed(output string) int {
	found := processedPattern.FindStringSubmatch(output)
	if found == nil {
		return 0
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		return 0
	}
	return n
}

// watchBackends counts the backends of tenants from now on; most stops it and says how many there were at one time.
func (s *site) watchBackends(t *testing.T) (most func() int) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	conn := s.direct(t)
	highest := make(chan int, 1)
	go func() {
		seen := 0
		defer func() { highest <- seen }()
		for ctx.Err() == nil {
			n, err := tenantBackends(ctx, conn)
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
			seen = max(seen, n)
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	return func() int {
		stop()
		return <-highest
	}
}

func tenantBackends(ctx context.Context, conn *pgx.Conn) (n int, err error) {
	err = conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND usename LIKE 'tenant\_%'`, database).Scan(&n)
	return n, err
}
