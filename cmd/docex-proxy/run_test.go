package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func execute(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, &out, &err)
	return code, out.String(), err.String()
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWrongUsageExitsWithTwoAndSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "a verb is missing"},
		{[]string{"sevre"}, `unknown verb "sevre"`},
		{[]string{"serve", "now"}, `unexpected argument "now"`},
		{[]string{"serve", "--confg", "x"}, "unknown flag: --confg"},
		{[]string{"dev", "--tenants", "acme-corp"}, "Tenant ID must contain only"},
		{[]string{"dev", "--tenants", "_docex_system_"}, "reserved"},
		{[]string{"check-config", "file.yaml"}, `unexpected argument "file.yaml"`},
	} {
		code, stdout, stderr := execute(t, c.args...)
		if code != exitUsage || stdout != "" || !strings.HasPrefix(stderr, "docex-proxy: ") || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: code %d, stdout %q, stderr %q", c.args, code, stdout, stderr)
		}
	}
}

func TestEachVerbHasAManualPage(t *testing.T) {
	dir := t.TempDir()
	if code, _, stderr := execute(t, "man", dir); code != exitDone {
		t.Fatal(stderr)
	}
	for _, page := range []string{"docex-proxy", "docex-proxy-serve", "docex-proxy-dev", "docex-proxy-check-config", "docex-proxy-version"} {
		text, err := os.ReadFile(filepath.Join(dir, page+".1"))
		if err != nil || !strings.Contains(string(text), ".SH SYNOPSIS") {
			t.Errorf("%v in %q", err, text)
		}
	}
}

func TestHelpIsNoError(t *testing.T) {
	code, stdout, _ := execute(t, "--help")
	for _, command := range []string{"serve", "dev", "check-config", "version"} {
		if code != exitDone || !strings.Contains(stdout, "\n  "+command+" ") {
			t.Errorf("code %d, no %s in %s", code, command, stdout)
		}
	}
}

func TestVersionNamesVersionCommitAndGo(t *testing.T) {
	code, stdout, _ := execute(t, "version")
	if code != exitDone || !strings.HasPrefix(stdout, "docex-proxy ") || !strings.Contains(stdout, "(commit ") || !strings.Contains(stdout, runtime.Version()) {
		t.Errorf("code %d, %q", code, stdout)
	}
}

func TestCheckConfigSaysOk(t *testing.T) {
	key := writeFile(t, "master.key", strings.Repeat("ab", 32)+"\n")
	config := writeFile(t, "config.yaml", "registry: {dsn: postgres://docex_registry@127.0.0.1:5/docex}\nmaster_key_file: "+key+"\n")
	if code, stdout, stderr := execute(t, "check-config", "--config", config); code != exitDone || stdout != "ok\n" || stderr != "" {
		t.Errorf("code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestCheckConfigFindsEveryProblem(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		want   []string
	}{
		"in the values": {"listen: here\nlog: {level: loud}\n", []string{
			"docex-proxy: listen: ", "\n  log.level: ", "\n  registry.dsn: "}},
		"in the files it names": {"registry: {dsn: postgres:///docex}\nmaster_key_file: /nowhere/key\ntls: {cert_file: /nowhere/cert, key_file: /nowhere/key}\n", []string{
			"docex-proxy: master_key_file: ", "\n  servers: there are none", "\n  tls: open /nowhere/cert"}},
		"in a server's certificates": {"registry: {dsn: postgres://db/docex}\nservers: {main: {host: db, sslmode: verify-full, sslrootcert: /nowhere/ca}}\n", []string{
			"/nowhere/ca"}},
		"in the proxy's certificates": {"registry: {dsn: postgres://db/docex}\nservers:\n  main: {host: db, sslcert: /nowhere/a.crt, sslkey: /nowhere/a.key}\n" +
			"  eu: {host: db, sslcert: /nowhere/b.crt, sslkey: /nowhere/b.key}\n", []string{
			"servers.eu.sslcert: ", "/nowhere/b.key", "servers.main.sslcert: ", "/nowhere/a.key"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := execute(t, "check-config", "--config", writeFile(t, "config.yaml", c.config))
			if code != exitFailed || stdout != "" {
				t.Errorf("code %d, stdout %q", code, stdout)
			}
			for _, want := range c.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("no %q in %q", want, stderr)
				}
			}
		})
	}
}

func TestATakenPortIsFoundOutBeforeAnythingIsStarted(t *testing.T) {
	clients, _, err := listen(testConfig(), listenTCP)
	if err != nil {
		t.Fatal(err)
	}
	defer clients.Close()
	code, stdout, stderr := execute(t, "dev", "--listen", clients.Addr().String(), "--http", "")
	if code != exitFailed || stdout != "" || !strings.Contains(stderr, "address already in use") {
		t.Errorf("code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}
