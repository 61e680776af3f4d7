package metrics_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/docex-proxy/docex-proxy/metrics"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newMetrics(maxTenants int) (*metrics.Metrics, *prometheus.Registry) {
	registry := prometheus.NewRegistry()
	return metrics.New(registry, metrics.Options{MaxTenants: maxTenants}), registry
}

func get(t *testing.T, g prometheus.Gatherer, ready error, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, path, nil)
	for _, accept := range header {
		request.Header.Set("Accept", accept)
	}
	recorder := httptest.NewRecorder()
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) })
	metrics.Handler(metrics.Endpoint{Gatherer: g, Ready: func() error { return ready }, Page: page, JSON: page}).ServeHTTP(recorder, request)
	return recorder
}

func scrape(t *testing.T, g prometheus.Gatherer) string {
	t.Helper()
	response := get(t, g, nil, "/metrics")
	if response.Code != http.StatusOK {
		t.Fatalf("scrape: %d %s", response.Code, response.Body)
	}
	return response.Body.String()
}

// series are the sample lines whose text contains the fragment.
func series(text, fragment string) []string {
	var found []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") && strings.Contains(line, fragment) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

func expect(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
}

func TestTheCatalogueIsTheGoldenOne(t *testing.T) {
	m, registry := newMetrics(10)
	m.ClientConnected()
	m.ClientConnected()
	m.ClientDisconnected()
	m.SessionOpened("acme")
	m.SessionOpened("acme")
	m.SessionClosed("acme", "client_terminated")
	m.SessionRefused(metrics.ReasonBadPassword)
	acme := m.Tenant("acme")
	acme.TransactionDone(time.Millisecond)
	acme.Received(100)
	acme.Sent(2000)
	m.AcquireWaited("acme", 250*time.Millisecond)
	m.ServerConnected("main", 20*time.Millisecond, nil)
	m.ServerConnected("main", 20*time.Millisecond, errors.New("refused"))
	m.TenantSwitched("main", 2*time.Millisecond, nil)
	m.TenantSwitched("main", 2*time.Millisecond, errors.New("refused"))
	m.LookupDone("tenant", "miss")
	m.RegistryListening(true)
	m.Pinned("listen")
	m.WatchPools(func() []metrics.PoolStat {
		return []metrics.PoolStat{{Tenant: "acme", Server: "main", Idle: 1, Active: 2, Connecting: 3, Waiting: 4}}
	})

	const golden = "testdata/metrics.golden"
	got := scrape(t, registry)
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the catalogue differs from %s (run with -update if it should):\n%s", golden, got)
	}
}

func TestEveryReasonForARefusalIsVisibleAsZero(t *testing.T) {
	_, registry := newMetrics(1)
	if got := series(scrape(t, registry), "docex_proxy_refusals_total{"); len(got) != 24 {
		t.Errorf("%d series: %v", len(got), got)
	}
}

func TestOpenMetricsFamiliesDoNotCollide(t *testing.T) {
	m, registry := newMetrics(1)
	m.AcquireWaited("acme", time.Second)
	text := get(t, registry, nil, "/metrics", "application/openmetrics-text").Body.String()
	if !strings.HasSuffix(text, "# EOF\n") {
		t.Fatal("this is not OpenMetrics")
	}
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "# TYPE ") {
			family := strings.Fields(line)[2]
			if seen[family] {
				t.Errorf("the family %s occurs twice", family)
			}
			seen[family] = true
		}
	}
}

func TestTenantsBeyondTheBoundAreSummedUnderOther(t *testing.T) {
	m, registry := newMetrics(2)
	for i := range 10 {
		name := fmt.Sprintf("t%d", i)
		m.SessionOpened(name)
		m.Tenant(name).TransactionDone(time.Millisecond)
	}
	text := scrape(t, registry)
	if got := series(text, "docex_proxy_sessions{"); len(got) != 3 {
		t.Errorf("%d series: %v", len(got), got)
	}
	expect(t, text, `docex_proxy_sessions{tenant="t0"} 1`, `docex_proxy_sessions{tenant="other"} 8`,
		`docex_proxy_transactions_total{tenant="t0"} 1`, `docex_proxy_transactions_total{tenant="other"} 8`)

	for i := range 10 {
		m.SessionClosed(fmt.Sprintf("t%d", i), "shutdown")
	}
	expect(t, scrape(t, registry), `docex_proxy_sessions{tenant="t0"} 0`, `docex_proxy_sessions{tenant="other"} 0`,
		`docex_proxy_transactions_total{tenant="other"} 8`)
}

func TestAnIdleTenantMakesRoomForALiveOne(t *testing.T) {
	m, registry := newMetrics(2)
	m.SessionOpened("idle")
	m.SessionOpened("live")
	m.SessionClosed("idle", "shutdown")
	expect(t, scrape(t, registry), `docex_proxy_sessions{tenant="idle"} 0`)

	m.SessionOpened("new")
	text := scrape(t, registry)
	expect(t, text, `docex_proxy_sessions{tenant="live"} 1`, `docex_proxy_sessions{tenant="new"} 1`, `docex_proxy_sessions{tenant="other"} 0`)
	if got := series(text, `tenant="idle"`); len(got) != 0 {
		t.Errorf("the evicted tenant still has %v", got)
	}
}

func TestATenantThatComesBackFromIdleIsNotEvicted(t *testing.T) {
	m, registry := newMetrics(1)
	m.SessionOpened("acme")
	m.SessionClosed("acme", "shutdown")
	m.SessionOpened("acme")
	m.SessionOpened("globex")
	expect(t, scrape(t, registry), `docex_proxy_sessions{tenant="acme"} 1`, `docex_proxy_sessions{tenant="other"} 1`)
}

func TestATenantThatIsCalledOtherSharesItsSeries(t *testing.T) {
	m, registry := newMetrics(5)
	m.SessionOpened("other")
	expect(t, scrape(t, registry), `docex_proxy_sessions{tenant="other"} 1`)
}

func TestPoolsAreAddedUpAndBoundedByTheLargest(t *testing.T) {
	m, registry := newMetrics(1)
	m.WatchPools(func() []metrics.PoolStat {
		return []metrics.PoolStat{
			{Tenant: "small", Server: "main", Idle: 1},
			{Tenant: "large", Server: "main", Active: 2},
			{Tenant: "large", Server: "main", Active: 3, Waiting: 1},
			{Tenant: "tiny", Server: "main", Idle: 1},
		}
	})
	text := scrape(t, registry)
	expect(t, text, `docex_proxy_server_connections{server="main",state="active",tenant="large"} 5`,
		`docex_proxy_waiting_clients{server="main",tenant="large"} 1`,
		`docex_proxy_server_connections{server="main",state="idle",tenant="other"} 2`)
	if got := series(text, "docex_proxy_server_connections{"); len(got) != 6 {
		t.Errorf("%d series: %v", len(got), got)
	}
}

func TestNilMetricsCountNothing(t *testing.T) {
	var m *metrics.Metrics
	m.ClientConnected()
	m.ClientDisconnected()
	m.SessionOpened("a")
	m.SessionClosed("a", "x")
	m.SessionRefused("x")
	m.Tenant("a").Sent(1)
	m.AcquireWaited("a", time.Second)
	m.ServerConnected("main", time.Second, nil)
	m.LookupDone("tenant", "hit")
	m.RegistryListening(true)
	m.Pinned("listen")
	m.WatchPools(nil)
}

func TestConcurrentSessionsLeaveNoTraceInTheGauges(t *testing.T) {
	m, registry := newMetrics(3)
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 500 {
				name := fmt.Sprintf("t%d", (worker+i)%6)
				m.SessionOpened(name)
				m.Tenant(name).TransactionDone(time.Millisecond)
				m.AcquireWaited(name, time.Microsecond)
				m.SessionClosed(name, "client_terminated")
			}
		})
	}
	group.Wait()
	text := scrape(t, registry)
	for _, line := range series(text, "docex_proxy_sessions{") {
		if !strings.HasSuffix(line, " 0") {
			t.Error(line)
		}
	}
	if got := series(text, "docex_proxy_sessions{"); len(got) > 4 {
		t.Errorf("%d series", len(got))
	}
}

func TestReadinessSaysWhyNot(t *testing.T) {
	_, registry := newMetrics(1)
	if got := get(t, registry, nil, "/readyz"); got.Code != http.StatusOK || got.Body.String() != "ready\n" {
		t.Errorf("%d %q", got.Code, got.Body)
	}
	if got := get(t, registry, errors.New("registry unreachable"), "/readyz"); got.Code != http.StatusServiceUnavailable || got.Body.String() != "registry unreachable\n" {
		t.Errorf("%d %q", got.Code, got.Body)
	}
	if got := get(t, registry, errors.New("registry unreachable"), "/healthz"); got.Code != http.StatusOK {
		t.Errorf("%d %q", got.Code, got.Body)
	}
}

func TestNothingElseIsServed(t *testing.T) {
	_, registry := newMetrics(1)
	for _, path := range []string{"/debug/pprof/", "/nothing"} {
		if got := get(t, registry, nil, path); got.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.Code)
		}
	}
}

func BenchmarkAcquireWaited(b *testing.B) {
	m, _ := newMetrics(500)
	m.SessionOpened("acme")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.AcquireWaited("acme", time.Microsecond)
		}
	})
}

func TestHistogramsAreNativeToo(t *testing.T) {
	m, registry := newMetrics(1)
	m.AcquireWaited("acme", 3*time.Millisecond)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "docex_proxy_acquire_wait_seconds" {
			continue
		}
		h := family.GetMetric()[0].GetHistogram()
		if len(h.GetBucket()) == 0 || len(h.GetPositiveSpan()) == 0 {
			t.Errorf("%d buckets, %d native spans", len(h.GetBucket()), len(h.GetPositiveSpan()))
		}
		return
	}
	t.Error("there is no such histogram")
}
