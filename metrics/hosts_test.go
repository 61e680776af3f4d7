package metrics_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/docex-proxy/docex-proxy/metrics"
)

// ask sends a request to an endpoint that is open to some hosts.
func ask(hosts metrics.Hosts, method, host, path string) *httptest.ResponseRecorder {
	_, registry := newMetrics(1)
	page := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	request := httptest.NewRequest(method, path, nil)
	request.Host = host
	recorder := httptest.NewRecorder()
	metrics.Handler(metrics.Endpoint{Gatherer: registry, Ready: func() error { return nil }, Page: page, JSON: page, Hosts: hosts}).ServeHTTP(recorder, request)
	return recorder
}

func TestOnLoopbackOnlyItsOwnNamesAreAnswered(t *testing.T) {
	hosts := metrics.Hosts{Loopback: true, Names: []string{"proxy.internal"}}
	for host, want := range map[string]int{
		"localhost": 200, "localhost:9127": 200, "LocalHost.:9127": 200, "127.0.0.1:9127": 200, "127.1.2.3": 200,
		"[::1]:9127": 200, "[::1]": 200, "proxy.internal": 200, "PROXY.internal:9127": 200,
		"": 421, "evil.example": 421, "evil.example:9127": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example:9127": 421,
		"10.0.0.1:9127": 421, "[2001:db8::1]:9127": 421, "0.0.0.0:9127": 421, "a.proxy.internal": 421, "127.0.0.1@evil.example": 421,
	} {
		for _, path := range []string{"/", "/status.json", "/metrics"} {
			if got := ask(hosts, http.MethodGet, host, path).Code; got != want {
				t.Errorf("%s for %q: %d, want %d", path, host, got, want)
			}
		}
		for _, path := range []string{"/healthz", "/readyz"} {
			if got := ask(hosts, http.MethodGet, host, path).Code; got != 200 {
				t.Errorf("%s for %q: %d", path, host, got)
			}
		}
	}
}

func TestElsewhereAnyNameIsAnswered(t *testing.T) {
	if got := ask(metrics.Hosts{}, http.MethodGet, "proxy.example:9127", "/"); got.Code != 200 {
		t.Errorf("%d", got.Code)
	}
}

func TestNothingCanBeSentToTheEndpoint(t *testing.T) {
	for _, path := range []string{"/", "/status.json", "/metrics", "/healthz", "/readyz"} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} {
			if got := ask(metrics.Hosts{}, method, "localhost", path); got.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, got.Code)
			}
		}
		if got := ask(metrics.Hosts{}, http.MethodHead, "localhost", path); got.Code != 200 {
			t.Errorf("HEAD %s: %d", path, got.Code)
		}
	}
}
