package metrics

import (
	"html/template"
	"io"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler serves what operators and orchestrators read: /metrics (Prometheus text, or OpenMetrics where asked for),
// /healthz (200 while the process lives), /readyz (200, or 503 with the reason that ready returns) and / (a page for
// people). Nothing can be changed through it, and it shows no secret.
func Handler(g prometheus.Gatherer, ready func() error, version string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(g, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			writeText(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		writeText(w, http.StatusOK, "ready")
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { writeStatus(w, g, ready, version) })
	return mux
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // the reader may be gone, which is its own affair
}

// statusFamilies are the gauges of the status page, in its order.
var statusFamilies = [...]string{"client_connections", "registry_listening", "sessions", "server_connections", "waiting_clients"}

type statusPage struct {
	Version  string
	NotReady error
	Rows     []statusRow
}

type statusRow struct {
	Name, Labels string
	Value        float64
}

var statusTemplate = template.Must(template.New("status").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>docex-proxy</title>
<style>body{font:15px system-ui,sans-serif;margin:2em}td,th{text-align:left;padding:.1em 1em .1em 0}td:last-child{text-align:right}</style></head>
<body><h1>docex-proxy {{.Version}}</h1>
<p>{{with .NotReady}}Not ready: {{.}}{{else}}Ready{{end}} · <a href="metrics">metrics</a> · <a href="healthz">healthz</a> · <a href="readyz">readyz</a></p>
<table><tr><th>what</th><th>of</th><th>now</th></tr>
{{range .Rows}}<tr><td>{{.Name}}</td><td>{{.Labels}}</td><td>{{.Value}}</td></tr>
{{end}}</table></body></html>
`))

func writeStatus(w http.ResponseWriter, g prometheus.Gatherer, ready func() error, version string) {
	rows, err := statusRows(g)
	if err != nil {
		writeText(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = statusTemplate.Execute(w, statusPage{Version: version, NotReady: ready(), Rows: rows}) // as in writeText
}

// statusRows reads the gauges back from the gatherer: the page shows what a scrape would, no second truth.
func statusRows(g prometheus.Gatherer) ([]statusRow, error) {
	families, err := g.Gather()
	if err != nil {
		return nil, err
	}
	var rows []statusRow
	for _, name := range statusFamilies {
		for _, family := range families {
			if family.GetName() != namespace+"_"+name {
				continue
			}
			for _, metric := range family.GetMetric() {
				var labels []string
				for _, pair := range metric.GetLabel() {
					labels = append(labels, pair.GetName()+"="+pair.GetValue())
				}
				rows = append(rows, statusRow{Name: name, Labels: strings.Join(labels, " "), Value: metric.GetGauge().GetValue()})
			}
		}
	}
	return rows, nil
}
