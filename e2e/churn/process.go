package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/docex-proxy/docex-proxy/e2e/program"
)

// serve starts the proxy. The login needs no password: thousands of logins are not about SCRAM here.
func (s *site) serve(ctx context.Context, registryDSN string, o options) (err error) {
	config := filepath.Join(s.dir, "proxy.yaml")
	err = os.WriteFile(config, fmt.Appendf(nil, `
registry: {dsn: %q}
master_key_file: %q
servers: {main: {host: %s, port: %d, sslmode: disable, max_connections: %d}}
auth: {allow_trusted: true, trust: [%s]}
timeouts: {queue_wait: 60s, drain: 10s}
limits: {login_failures: 0}
`, registryDSN, s.key(), s.cluster.Host(), s.cluster.Port(), o.connections, appLogin), 0o600)
	if err != nil {
		return err
	}
	s.proxy, err = program.Serve(ctx, filepath.Join(s.dir, "docex-proxy"), config, filepath.Join(s.dir, "proxy.log"), "DOCEX_PROXY_IO="+o.io)
	return err
}

var telling = regexp.MustCompile(`(?m)^docex_proxy_((?:tenant_switch_seconds_count|session_pins_total|server_connect_seconds_count)\{[^}]*\}) ([0-9]+)`)

// metrics are those of the proxy that say how much was tried.
func (s *site) metrics() (map[string]int, error) {
	response, err := http.Get("http://" + s.proxy.HTTP + "/metrics")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	values := make(map[string]int)
	for _, found := range telling.FindAllSubmatch(page, -1) {
		if values[string(found[1])], err = strconv.Atoi(string(found[2])); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// close ends the proxy, which has to end as it should, and Postgres.
func (s *site) close() error {
	var err error
	if s.proxy != nil {
		err = s.proxy.Stop()
	}
	return errors.Join(err, s.cluster.Stop())
}
