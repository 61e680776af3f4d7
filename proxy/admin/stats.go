package admin

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// statsPeriod is what averages are of, at least, once so much time has gone by.
const statsPeriod = time.Minute

// sample is the tenants at one moment.
type sample struct {
	at      time.Time
	tenants map[string]Tenant
}

// sample returns the tenants now, by name, and where the averages begin.
func (c *Console) sample() (tenants []Tenant, since sample, over time.Duration) {
	tenants = c.o.Tenants()
	slices.SortFunc(tenants, func(a, b Tenant) int { return strings.Compare(a.Name, b.Name) })
	now := c.o.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.latest.at) >= statsPeriod {
		taken := make(map[string]Tenant, len(tenants))
		for _, t := range tenants {
			taken[t.Name] = t
		}
		c.earlier, c.latest = c.latest, sample{now, taken}
	}
	return tenants, c.earlier, max(now.Sub(c.earlier.at), time.Millisecond)
}

// totals are counts since the proxy started. The times of transactions and queries are not measured by tenant: 0. A
// transaction counts as one query.
func (t Tenant) totals() []any {
	return []any{t.Transactions, t.Transactions, t.Received, t.Sent, int64(0), int64(0), t.Waited.Microseconds()}
}

// averages are by second, but for the wait, which is by transaction.
func (t Tenant) averages(before Tenant, over time.Duration) []any {
	transactions := t.Transactions - before.Transactions
	second := func(n int64) int64 { return int64(float64(n) / over.Seconds()) }
	wait := int64(0)
	if transactions > 0 {
		wait = (t.Waited - before.Waited).Microseconds() / transactions
	}
	return []any{second(transactions), second(transactions), second(t.Received - before.Received), second(t.Sent - before.Sent), int64(0), int64(0), wait}
}

// stats has, at its end, what PgBouncer called queries before version 1.8: the exporter that Debian has looks for it.
func (c *Console) stats() *table {
	t := &table{columns: columnsOf("database #total_xact_count #total_query_count #total_received #total_sent #total_xact_time #total_query_time #total_wait_time " +
		"#avg_xact_count #avg_query_count #avg_recv #avg_sent #avg_xact_time #avg_query_time #avg_wait_time #total_requests")}
	tenants, since, over := c.sample()
	for _, tenant := range tenants {
		t.rows = append(t.rows, append(append(append([]any{tenant.Name}, tenant.totals()...), tenant.averages(since.tenants[tenant.Name], over)...), tenant.Transactions))
	}
	return t
}

const statsColumns = "database #xact_count #query_count #bytes_received #bytes_sent #xact_time #query_time #wait_time"

func (c *Console) totals() *table {
	t := &table{columns: columnsOf(statsColumns)}
	tenants, _, _ := c.sample()
	for _, tenant := range tenants {
		t.rows = append(t.rows, append([]any{tenant.Name}, tenant.totals()...))
	}
	return t
}

func (c *Console) averageTable() *table {
	t := &table{columns: columnsOf(statsColumns)}
	tenants, since, over := c.sample()
	for _, tenant := range tenants {
		t.rows = append(t.rows, append([]any{tenant.Name}, tenant.averages(since.tenants[tenant.Name], over)...))
	}
	return t
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }
