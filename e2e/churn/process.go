package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// serve starts the proxy. The login needs no password: thousands of logins are not about SCRAM here.
func (s *site) serve(ctx context.Context, o options) error {
	var initialised struct {
		RegistryDSN string `json:"registry_dsn"`
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "init.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &initialised); err != nil {
		return err
	}
	if s.address, err = freeAddress(); err != nil {
		return err
	}
	if s.page, err = freeAddress(); err != nil {
		return err
	}
	config := filepath.Join(s.dir, "proxy.yaml")
	err = os.WriteFile(config, fmt.Appendf(nil, `
listen: %s
http: %s
registry: {dsn: %q}
master_key_file: %q
servers: {main: {host: %s, port: %d, sslmode: disable, max_connections: %d}}
auth: {allow_trusted: true, trust: [%s]}
timeouts: {queue_wait: 60s}
limits: {login_failures: 0}
`, s.address, s.page, initialised.RegistryDSN, filepath.Join(s.dir, "master.key"), s.cluster.Host(), s.cluster.Port(), o.connections, appLogin), 0o600)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(s.dir, "proxy.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.proxy = exec.Command(filepath.Join(s.dir, "docex-proxy"), "serve", "--config", config)
	s.proxy.Stdout, s.proxy.Stderr = log, log
	s.proxy.Env = append(os.Environ(), "DOCEX_PROXY_IO="+o.io)
	if err := s.proxy.Start(); err != nil {
		return err
	}
	go func() { s.exited <- s.proxy.Wait() }()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if response, err := http.Get("http://" + s.page + "/readyz"); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
	return fmt.Errorf("the proxy is not ready: %s", s.said())
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// said is the end of the proxy's log.
func (s *site) said() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "proxy.log"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-3000):]))
}

var telling = regexp.MustCompile(`(?m)^docex_proxy_((?:tenant_switch_seconds_count|session_pins_total|server_connect_seconds_count)\{[^}]*\}) ([0-9]+)`)

// metrics are those of the proxy that say how much was tried.
func (s *site) metrics() (map[string]int, error) {
	response, err := http.Get("http://" + s.page + "/metrics")
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
	if s.proxy != nil && s.proxy.Process != nil {
		_ = s.proxy.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case exit := <-s.exited:
			if exit != nil {
				err = fmt.Errorf("the proxy ended with %w: %s", exit, s.said())
			}
		case <-time.After(30 * time.Second):
			err = errors.Join(errors.New("the proxy does not end"), s.proxy.Process.Kill())
		}
	}
	return errors.Join(err, s.cluster.Stop())
}
