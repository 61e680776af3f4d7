package metrics

import (
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Endpoint is what Handler serves.
type Endpoint struct {
	Gatherer prometheus.Gatherer
	Ready    func() error // why the proxy is not
	Page     http.Handler // for people
	JSON     http.Handler // the page's figures
	Hosts    Hosts
}

// Handler serves what operators and orchestrators read: /metrics (Prometheus text, or OpenMetrics where asked for),
// /healthz (200 while the process lives), /readyz (200, or 503 with the reason), / (a page for people) and /status.json.
// Nothing can be changed through it, and it shows no secret. What names tenants is not answered to hosts that are none of
// the endpoint's.
func Handler(e Endpoint) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", e.Hosts.only(promhttp.HandlerFor(e.Gatherer, promhttp.HandlerOpts{EnableOpenMetrics: true})))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := e.Ready(); err != nil {
			writeText(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		writeText(w, http.StatusOK, "ready")
	})
	mux.Handle("GET /{$}", e.Hosts.only(e.Page))
	mux.Handle("GET /status.json", e.Hosts.only(e.JSON))
	return mux
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // the reader may be gone, which is its own affair
}
