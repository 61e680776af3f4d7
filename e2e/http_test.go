package e2e_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestMetricsMoveAsSessionsDo(t *testing.T) {
	s := theSite(t)
	p := s.startProxy(t, nil)
	a := s.tenant(t, "watched")
	conn := p.connect(t, a)
	expect(t, conn, "SELECT 1", "1")
	for series, want := range map[string]float64{
		`docex_proxy_client_connections`:                                                1,
		`docex_proxy_sessions{tenant="watched"}`:                                        1,
		`docex_proxy_server_connections{server="main",state="idle",tenant="watched"}`:   1,
		`docex_proxy_server_connections{server="main",state="active",tenant="watched"}`: 0,
		`docex_proxy_transactions_total{tenant="watched"}`:                              1,
		`docex_proxy_registry_listening`:                                                1,
	} {
		if got := p.metric(t, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	if got := p.metric(t, "docex_proxy_acquire_wait_seconds_count"); got < 1 {
		t.Errorf("%v acquisitions", got)
	}
	occupy(t, conn)
	if got := p.metric(t, `docex_proxy_server_connections{server="main",state="active",tenant="watched"}`); got != 1 {
		t.Errorf("%v active connections in a transaction", got)
	}
	if got := p.metric(t, `docex_proxy_registry_lookups_total{kind="tenant",outcome="miss"}`); got < 1 {
		t.Errorf("%v lookups missed", got)
	}
	p.refused(t, account{tenant: "watched", login: a.login, password: "wrong"})
	eventually(t, patience, "the refusal is counted", func() bool {
		return p.metric(t, `docex_proxy_refusals_total{reason="bad_password"}`) == 1
	})
	hangUp(conn)
	eventually(t, patience, "the session is gone", func() bool { return p.metric(t, `docex_proxy_client_connections`) == 0 })
}

func TestHealthPages(t *testing.T) {
	s := theSite(t)
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/": "docex-proxy"} {
		status, page, err := s.proxy.get(path)
		if err != nil || status != http.StatusOK || !strings.Contains(page, want) {
			t.Errorf("%s: %d %q, %v", path, status, page, err)
		}
	}
	if status, figures, err := s.proxy.get("/status.json"); err != nil || status != http.StatusOK || !strings.Contains(figures, `"ready":true`) {
		t.Errorf("/status.json: %d %q, %v", status, figures, err)
	}
	if status, _, _ := s.proxy.get("/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("/debug/pprof/ answers %d", status)
	}
}

// docexProxy runs docex-proxy to its end.
func (s *site) docexProxy(arguments ...string) (output string, code int) {
	command := exec.Command(s.program("docex-proxy"), arguments...)
	command.Env = cleanEnvironment()
	text, err := command.CombinedOutput()
	if err != nil && command.ProcessState == nil {
		return err.Error(), -1
	}
	return string(text), command.ProcessState.ExitCode()
}

func TestCheckConfigAndUsage(t *testing.T) {
	s := theSite(t)
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("listen: nowhere\nlimits: {clients: -1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		arguments []string
		code      int
		says      string
	}{
		{[]string{"check-config", "--config", s.config}, 0, "ok"},
		{[]string{"check-config", "--config", bad}, 1, "limits.clients"},
		{[]string{"check-config", "--config", bad + ".none"}, 1, "no such file"},
		{[]string{"serve", "--config", bad}, 1, "listen"},
		{[]string{"check-config", "--no-such-flag"}, 2, "no-such-flag"},
		{[]string{"frobnicate"}, 2, "frobnicate"},
		{nil, 2, "--help"},
		{[]string{"version"}, 0, "docex-proxy "},
	} {
		output, code := s.docexProxy(c.arguments...)
		if code != c.code || !strings.Contains(output, c.says) {
			t.Errorf("%q: exit code %d, %s", c.arguments, code, output)
		}
	}
}
