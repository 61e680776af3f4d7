package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// proxy is a running docex-proxy serve.
type proxy struct {
	*process
	host string
	port int
	http string // URL
}

// settings override the site's configuration, key by key: "timeouts.startup": "1s". {address} is the proxy's own.
type settings map[string]string

// startProxy runs another proxy for this test, with a configuration of its own.
func (s *site) startProxy(t *testing.T, changed settings) *proxy {
	t.Helper()
	return s.startProxyWith(t, s.config, changed)
}

// startProxyWith runs one with another file.
func (s *site) startProxyWith(t *testing.T, config string, changed settings) *proxy {
	t.Helper()
	s.mutex.Lock()
	s.proxies++
	name := fmt.Sprintf("proxy%d", s.proxies)
	s.mutex.Unlock()
	p, err := s.launchProxy(name, config, changed)
	if p != nil {
		p.guard(t)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (s *site) launchProxy(name, config string, changed settings) (*proxy, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	httpPort, err := freePort()
	if err != nil {
		return nil, err
	}
	environment := []string{
		fmt.Sprintf("DOCEX_PROXY_LISTEN=127.0.0.1:%d", port), fmt.Sprintf("DOCEX_PROXY_HTTP=127.0.0.1:%d", httpPort),
	}
	for key, value := range changed {
		environment = append(environment, "DOCEX_PROXY_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_"))+"="+strings.ReplaceAll(value, "{address}", fmt.Sprintf("127.0.0.1:%d", port)))
	}
	started, err := launchAs(s.runAs, s.dir, name, s.program("docex-proxy"), environment, "serve", "--config", config)
	if err != nil {
		return nil, err
	}
	p := &proxy{process: started, host: "127.0.0.1", port: port, http: fmt.Sprintf("http://127.0.0.1:%d", httpPort)}
	return p, p.awaitReady()
}

func (p *proxy) awaitReady() error {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		status, answer, err := p.get("/readyz")
		if status == http.StatusOK {
			return nil
		}
		if !p.alive() || time.Now().After(end) {
			return fmt.Errorf("%s is not ready: %d %s %w\n%s", p.name, status, answer, err, p.logged())
		}
	}
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}

func (p *proxy) address() string { return net.JoinHostPort(p.host, strconv.Itoa(p.port)) }

// get fetches a page of the proxy's HTTP side.
func (p *proxy) get(path string) (status int, body string, err error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(p.http + path)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// metric is the value of one series as a scrape shows it, 0 when it is not there.
func (p *proxy) metric(t testing.TB, series string) float64 {
	t.Helper()
	status, page, err := p.get("/metrics")
	if err != nil || status != http.StatusOK {
		t.Fatalf("/metrics: %d, %v", status, err)
	}
	for line := range strings.Lines(page) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return number
		}
	}
	return 0
}
