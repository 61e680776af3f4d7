package traces_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/metrics/traces"
)

// open makes a tracer for a collector of this test, and closes it with the test.
func open(t *testing.T, o traces.Options) *traces.Tracer {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	tracer, err := traces.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tracer.Close(context.Background()) })
	return tracer
}

func hostOf(server *httptest.Server) string {
	_, host, _ := strings.Cut(server.URL, "://")
	return host
}

func TestTheShareThatIsAskedForIsSampled(t *testing.T) {
	for share, want := range map[float64][2]int{0: {0, 0}, 1: {1000, 1000}, 0.5: {400, 600}} {
		tracer, sampled := open(t, traces.Options{Endpoint: "127.0.0.1:1", Sample: share}), 0
		for range 1000 {
			if tracer.Sampled() {
				sampled++
			}
		}
		if sampled < want[0] || sampled > want[1] {
			t.Errorf("%d of 1000 at %v", sampled, share)
		}
	}
}

func TestNoTracerTracesNothing(t *testing.T) {
	var tracer *traces.Tracer
	if allocations := testing.AllocsPerRun(1000, func() {
		span := tracer.Session(1, time.Time{})
		inner := span.Within(traces.Route)
		inner.Refused("28P01")
		inner.End()
		span.Of("acme", "role")
		span.On("main", 1)
		span.Pinned(nil)
		span.Transactions(1)
		span.End()
	}); allocations > 0 {
		t.Errorf("%v allocations", allocations)
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSpansGoByTLSToACollectorThatIsTrusted(t *testing.T) {
	var requests atomic.Int64
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer server.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	for pool, want := range map[*x509.CertPool]int64{trusted: 1, x509.NewCertPool(): 0} {
		requests.Store(0)
		tracer := open(t, traces.Options{Endpoint: hostOf(server), Sample: 1, TLS: &tls.Config{RootCAs: pool}})
		tracer.Session(1, time.Now()).End()
		patience, stop := context.WithTimeout(t.Context(), 3*time.Second)
		tracer.Close(patience)
		stop()
		if got := requests.Load(); got != want {
			t.Errorf("%d requests, want %d", got, want)
		}
	}
}

func TestTheLogHearsOnceOfSpansThatAreNotTaken(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "full", http.StatusBadRequest) }))
	defer server.Close()
	var log bytes.Buffer
	tracer := open(t, traces.Options{Endpoint: hostOf(server), Sample: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 3000 { // several batches
		tracer.Transaction(1).End()
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "cannot send traces"); n != 1 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}
