//go:build unix

package e2e_test

import (
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// secure gives a site's cluster a certificate of the authority, and has it ask clients for theirs.
func (s *site) secure(t *testing.T, ca *authority) {
	t.Helper()
	superuser := s.direct(t)
	data := query(t, superuser, "SHOW data_directory")
	cert, key, root := filepath.Join(data, "server.crt"), filepath.Join(data, "server.key"), filepath.Join(data, "root.crt")
	ca.sign(t, &x509.Certificate{SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, cert, key)
	if err := os.WriteFile(root, []byte(read(ca.root())), 0o600); err != nil {
		t.Fatal(err)
	}
	uid, gid := s.serverOwner(t)
	for _, file := range []string{cert, key, root} {
		if err := os.Chown(file, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
	execute(t, superuser, "ALTER SYSTEM SET ssl = on", "ALTER SYSTEM SET ssl_ca_file = 'root.crt'", "SELECT pg_reload_conf()")
	eventually(t, patience, "the server offers TLS", func() bool { return query(t, superuser, "SHOW ssl") == "on" })
}

// serial is the number of the certificate that the server connection of a session's transaction was opened with.
func (s *site) serial(t *testing.T, pid string) string {
	t.Helper()
	return query(t, s.direct(t), "SELECT client_serial FROM pg_stat_ssl WHERE pid = "+pid)
}

func TestTheProxyLogsInByItsCertificateAndHasNoKey(t *testing.T) {
	ca := newAuthority(t)
	s := newOutpost(t)
	s.secure(t, ca)
	acme, globex := s.tenant(t, "acme"), s.tenant(t, "globex")
	s.admit(t, "hostssl all all 127.0.0.1/32 cert map=docex", "docex docex-proxy docex_registry", "docex docex-proxy "+acme.schema)
	ca.issue(t, "proxy", 11, "docex-proxy")
	files := url.Values{
		"sslmode": {"verify-full"}, "sslrootcert": {ca.root()}, "sslcert": {ca.path("proxy.crt")}, "sslkey": {ca.path("proxy.key")},
	}
	s.configureProxies(t, fmt.Sprintf(`
registry: {dsn: "postgres://docex_registry@127.0.0.1:%d/%s?%s"}
servers:
  main: {host: 127.0.0.1, port: %[1]d, sslmode: verify-full, sslrootcert: %[4]s, sslcert: %[5]s, sslkey: %[6]s, max_connections: 5}
timeouts: {drain: 5s}
`, s.cluster.Port(), database, files.Encode(), ca.root(), ca.path("proxy.crt"), ca.path("proxy.key")))
	p := s.startProxy(t, nil)

	first := p.connect(t, acme)
	expect(t, first, "SELECT current_user || ' ' || current_schema()", acme.schema+" "+acme.schema)
	if got := s.serial(t, occupy(t, first)); got != "11" {
		t.Errorf("the server has seen certificate %s", got)
	}
	if code := loginAs(t, "127.0.0.1", s.cluster.Port(), acme.schema, s.secret(t, acme.schema, 1)); code != "28000" {
		t.Errorf("without the certificate the role is refused with %q", code)
	}

	refusal := p.refused(t, globex)
	if refusal.Code != "08006" || !strings.Contains(refusal.Message, `"main"`) {
		t.Errorf("a role that is not mapped: %s %s", refusal.Code, refusal.Message)
	}
	if line := logLine(p, "cannot connect to a server"); !strings.Contains(line, "tenant=globex") || !strings.Contains(line, "sqlstate=28000") {
		t.Errorf("logged %q", line)
	}

	ca.issue(t, "proxy", 12, "docex-proxy")
	time.Sleep(1100 * time.Millisecond) // the files are looked at once a second
	second := p.connect(t, acme)
	if got := s.serial(t, occupy(t, second)); got != "12" {
		t.Errorf("after the renewal the server has seen certificate %s", got)
	}
	for _, session := range []*pgx.Conn{first, second} { // neither was dropped
		execute(t, session, "CREATE TABLE IF NOT EXISTS kept (n int)", "COMMIT")
	}
}

// logLine is the last line of the proxy's log that holds a text.
func logLine(p *proxy, text string) (found string) {
	for line := range strings.Lines(p.logged()) {
		if strings.Contains(line, text) {
			found = line
		}
	}
	return found
}

func TestTheProxyLogsInOverTheSocketAsItsUserAndHasNoKey(t *testing.T) {
	s := newOutpost(t)
	acme, globex := s.tenant(t, "acme"), s.tenant(t, "globex")
	uid, gid := s.serverOwner(t)
	if os.Geteuid() == 0 {
		s.runAs = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	}
	owner, err := user.LookupId(strconv.Itoa(int(uid)))
	if err != nil {
		t.Fatal(err)
	}
	s.admit(t, "local all all peer map=docex",
		"docex "+owner.Username+" docex_registry", "docex "+owner.Username+" "+acme.schema, "docex somebody_else "+globex.schema)
	s.configureProxies(t, fmt.Sprintf(`
registry: {dsn: "postgres://docex_registry@/%s?host=%s&port=%d"}
servers:
  main: {host: %[2]s, port: %[3]d, max_connections: 5}
timeouts: {drain: 5s}
`, database, s.cluster.SocketDir(), s.cluster.Port()))
	p := s.startProxy(t, nil)

	session := p.connect(t, acme)
	expect(t, session, "SELECT current_user || ' ' || current_schema()", acme.schema+" "+acme.schema)
	expect(t, session, "SELECT coalesce(inet_server_addr()::text, 'the socket')", "the socket")
	if refusal := p.refused(t, globex); refusal.Code != "08006" {
		t.Errorf("a role that is mapped to another user: %s %s", refusal.Code, refusal.Message)
	}
	if line := logLine(p, "cannot connect to a server"); !strings.Contains(line, "tenant=globex") || !strings.Contains(line, "sqlstate=28000") {
		t.Errorf("logged %q", line)
	}
	if os.Geteuid() == 0 { // nobody else can be another user
		s.refusesOtherUsers(t, acme, uid)
	}
}

// refusesOtherUsers has root and the user next to the given one try to become a tenant over the socket.
func (s *site) refusesOtherUsers(t *testing.T, a account, uid uint32) {
	t.Helper()
	if code := loginAs(t, s.cluster.SocketDir(), s.cluster.Port(), a.schema, ""); code != "28000" {
		t.Errorf("root is refused with %q", code)
	}
	psql := exec.CommandContext(bounded(t), need(t, "psql", "apt-get install postgresql-client"),
		fmt.Sprintf("host=%s port=%d user=%s dbname=%s", s.cluster.SocketDir(), s.cluster.Port(), a.schema, database), "-c", "SELECT current_user")
	psql.Env, psql.Dir = cleanEnvironment(), "/"
	psql.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid + 1, Gid: 65534}}
	if output, err := psql.CombinedOutput(); err == nil || !strings.Contains(string(output), "Peer authentication failed") {
		t.Errorf("another user: %v: %s", err, output)
	}
}

// tenantsOf are the lines of pg_ident.conf by which an OS user may log in as any tenant, as docs/operations.md has them.
func (s *site) tenantsOf(t *testing.T, osUser string, tenants ...account) (lines []string) {
	t.Helper()
	if query(t, s.direct(t), "SELECT current_setting('server_version_num')::int >= 160000") == "t" {
		return []string{"docex " + osUser + " /^tenant_[A-Za-z0-9_]+$"}
	}
	for _, a := range tenants {
		lines = append(lines, "docex "+osUser+" "+a.schema)
	}
	return lines
}

func TestTheMapAdmitsEveryTenantAndNobodyElse(t *testing.T) {
	s := newOutpost(t)
	acme, globex := s.tenant(t, "acme"), s.tenant(t, "globex")
	us, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	execute(t, s.direct(t), "CREATE ROLE not_tenant_acme LOGIN")
	s.admit(t, "local all all peer map=docex", s.tenantsOf(t, us.Username, acme, globex)...)
	become := func(role string) string { return loginAs(t, s.cluster.SocketDir(), s.cluster.Port(), role, "") }
	eventually(t, patience, "the rules hold", func() bool { return become(acme.schema) == "" })
	if code := become(globex.schema); code != "" {
		t.Errorf("the other tenant is refused with %q", code)
	}
	for _, role := range []string{"postgres", "docex_pool", "docex_registry", "not_tenant_acme"} {
		if code := become(role); code != "28000" {
			t.Errorf("%s is refused with %q", role, code)
		}
	}
}

func TestAServerThatAsksAProxyWithoutAKeyForAPassword(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	registry := url.URL{Scheme: "postgres", User: url.UserPassword("docex_registry", s.secret(t, "docex_registry", 1)),
		Host: net.JoinHostPort(s.cluster.Host(), strconv.Itoa(s.cluster.Port())), Path: "/" + database, RawQuery: "sslmode=disable"}
	p := s.startProxy(t, settings{"master_key_file": "", "registry.dsn": registry.String()})
	if refusal := p.refused(t, a); refusal.Code != "08006" || !strings.Contains(refusal.Message, `"main"`) {
		t.Errorf("%s %s", refusal.Code, refusal.Message)
	}
	if line := logLine(p, "cannot connect to a server"); !strings.Contains(line, "master_key_file") || !strings.Contains(line, "tenant=acme") {
		t.Errorf("the log does not name the key to set: %q", line)
	}
}
