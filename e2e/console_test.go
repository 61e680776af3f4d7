package e2e_test

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// consoleDSN is where an administrator connects. It speaks the simple protocol.
func consoleDSN(t *testing.T, s *site, database, password string) string {
	t.Helper()
	dsn := url.URL{Scheme: "postgres", User: url.UserPassword("boss", password), Host: s.proxy.address(), Path: "/" + database}
	dsn.RawQuery = "sslmode=disable&default_query_exec_mode=simple_protocol"
	return dsn.String()
}

func TestTheConsoleShowsAndKills(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "console_a")
	session := s.proxy.connect(t, a)
	query(t, session, "SELECT 1")
	victim := takeOver(t, session)
	bystander := s.proxy.connect(t, s.tenant(t, "life_a"))
	for _, database := range []string{"docex_admin", "pgbouncer"} {
		console, err := pgx.Connect(bounded(t), consoleDSN(t, s, database, s.bossPassword))
		if err != nil {
			t.Fatal(database, err)
		}
		for command, want := range map[string]string{
			"SHOW TENANTS": "console_a", "SHOW POOLS": "console_a", "SHOW CLIENTS": "console_a", "SHOW STATS": "console_a", "SHOW DATABASES": "main",
			"SHOW CONFIG": "auth.admins", "EXPLAIN ROUTE user=" + a.login + ".console_a": "tenant_console_a",
		} {
			rows, err := console.Query(bounded(t), command)
			if err != nil {
				t.Fatal(command, err)
			}
			found := false
			for rows.Next() {
				values, err := rows.Values()
				if err != nil {
					t.Fatal(command, err)
				}
				for _, value := range values {
					if text, ok := value.(string); ok && strings.Contains(text, want) {
						found = true
					}
				}
			}
			if rows.Err() != nil || !found {
				t.Errorf("%s: %v, %q is not there", command, rows.Err(), want)
			}
		}
		if _, err := console.Exec(bounded(t), "SELECT 1"); err == nil || !strings.Contains(err.Error(), "42601") {
			t.Errorf("SQL on the console: %v", err)
		}
		if database == "pgbouncer" {
			if _, err := console.Exec(bounded(t), "KILL console_a"); err != nil {
				t.Error(err)
			}
		}
		console.Close(context.Background())
	}
	if code := endedWith(t, victim, time.Second); code != "57P01" {
		t.Errorf("ended with %s", code)
	}
	expect(t, bystander, "SELECT 'alive'", "alive")
}

func TestOnlyAdministratorsReachTheConsole(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "console_a")
	for name, want := range map[string]string{
		strings.Replace(consoleDSN(t, s, "docex_admin", s.bossPassword), "boss:"+s.bossPassword, a.login+":"+a.password, 1): "28000", // names no tenant
		consoleDSN(t, s, "docex_admin", "wrong"):                                                      "28P01",
		strings.Replace(consoleDSN(t, s, "pgbouncer", s.bossPassword), "boss:", "boss.console_a:", 1): "3D000", // the tenant is in another database
	} {
		_, err := pgx.Connect(bounded(t), name)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", strings.ReplaceAll(name, s.bossPassword, "..."), err, want)
		}
	}
}

func TestSIGHUPTakesWhatItCanAndKeepsTheOldWhereTheNewIsWrong(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "console_a")
	written, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(s.dir, "reloaded.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Replace(string(written), "admins: [boss]", "admins: []", 1))
	p := s.startProxyWith(t, config, nil)
	session := p.connect(t, a)
	administrator := strings.Replace(consoleDSN(t, s, "docex_admin", s.bossPassword), s.proxy.address(), p.address(), 1)
	if conn, err := pgx.Connect(bounded(t), administrator); err == nil {
		conn.Close(context.Background())
		t.Fatal("an administrator who is none")
	}
	reload := func(text string) {
		t.Helper()
		write(text)
		if err := p.command.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	said := func(what string) {
		t.Helper()
		eventually(t, patience, what, func() bool { return strings.Contains(p.logged(), what) })
	}
	reload(string(written) + "\nnonsense: true\n")
	said("the configuration is not reloaded, the old one stays")
	reload(string(written))
	said("configuration reloaded")
	console, err := pgx.Connect(bounded(t), administrator)
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close(context.Background())
	expect(t, session, "SELECT 'kept'", "kept") // what was open stays
}
