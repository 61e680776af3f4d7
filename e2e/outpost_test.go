//go:build unix

package e2e_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

// startCluster runs another cluster for this test. Its socket is where every user of the machine can reach it.
func startCluster(t *testing.T, dir string) *localpg.Cluster {
	t.Helper()
	socket := filepath.Join(dir, "socket")
	if err := os.MkdirAll(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(socket, 0o777); err != nil { // past the umask: the server's user has to write there
		t.Fatal(err)
	}
	return runCluster(t, localpg.Options{DataDir: filepath.Join(dir, "data"), SocketDir: socket})
}

// runCluster runs a cluster that may have run before; it ends with the test.
func runCluster(t *testing.T, o localpg.Options) *localpg.Cluster {
	t.Helper()
	cluster, err := localpg.Start(bounded(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

// openDir is a fresh directory that other users may enter.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "docex-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// newOutpost is a site with a cluster of its own, initialised, whose rules about logins a test may change. Its proxies
// need a configuration yet.
func newOutpost(t *testing.T) *site {
	t.Helper()
	dir := openDir(t)
	for _, program := range []string{"docex-proxy", "docexctl"} {
		if err := os.Symlink(shared.program(program), filepath.Join(dir, program)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(shared.dir, 0o711); err != nil { // so that others may run the programs
		t.Fatal(err)
	}
	cluster := startCluster(t, dir)
	s := &site{dir: dir, cluster: cluster, dsn: cluster.DSN(database), key: filepath.Join(dir, "master.key"), accounts: make(map[string]account)}
	execute(t, dial(t, configure(t, cluster.DSN("postgres"))), "CREATE DATABASE "+database+" TEMPLATE template0")
	if output, code := s.docexctl("init"); code != 0 {
		t.Fatalf("docexctl init: exit code %d: %s", code, output)
	}
	return s
}

// admit replaces the cluster's rules: who may log in how (pg_hba.conf), and the map "docex" (pg_ident.conf). The
// superuser is trusted over TCP. The rules hold a moment later.
func (s *site) admit(t *testing.T, rule string, identities ...string) {
	t.Helper()
	superuser := s.direct(t)
	for setting, lines := range map[string][]string{
		"hba_file":   {"host all postgres 127.0.0.1/32 trust", rule},
		"ident_file": identities,
	} {
		file := query(t, superuser, "SHOW "+setting)
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil { // the owner stays
			t.Fatal(err)
		}
	}
	execute(t, superuser, "SELECT pg_reload_conf()")
}

// serverOwner is who runs the site's cluster.
func (s *site) serverOwner(t *testing.T) (uid, gid uint32) {
	t.Helper()
	info, err := os.Stat(query(t, s.direct(t), "SHOW data_directory"))
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	return owner.Uid, owner.Gid
}

// configureProxies writes the configuration of the site's proxies. Others may read it: it holds no secret.
func (s *site) configureProxies(t *testing.T, text string) {
	t.Helper()
	s.config = filepath.Join(s.dir, "docex-proxy.yaml")
	if err := os.WriteFile(s.config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// secret is the password of a role, derived from the site's master key as both programs do.
func (s *site) secret(t *testing.T, role string, generation int) string {
	t.Helper()
	key, err := hex.DecodeString(strings.TrimSpace(read(s.key)))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "role\x00%s\x00%d\x00", role, generation)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// loginAs tries to log in to a cluster as a role, past any proxy, and returns the SQLSTATE of the refusal, "" for none.
func loginAs(t *testing.T, host string, port int, role, password string) string {
	t.Helper()
	config := configure(t, fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=prefer", host, port, role, database),
		func(c *pgx.ConnConfig) { c.Password = password })
	conn, err := pgx.ConnectConfig(bounded(t), config)
	if err == nil {
		conn.Close(context.Background())
		return ""
	}
	if sqlstate(err) == "" {
		t.Fatalf("%s: %v", role, err)
	}
	return sqlstate(err)
}
