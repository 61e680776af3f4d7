package e2e_test

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// verified is the account's URL with the certificate and the host's name checked.
func (p *proxy) verified(a account, root string, more string) string {
	dsn := strings.Replace(p.dsn(a), "127.0.0.1", "localhost", 1)
	return strings.Replace(dsn, "sslmode=disable", "sslmode=verify-full&sslrootcert="+root+more, 1)
}

func TestEveryWayToAskForTLSThatIsVerified(t *testing.T) {
	s := theSite(t)
	a, ca := s.tenant(t, "acme"), newAuthority(t)
	cert, key := ca.issue(t, "server", 2, "proxy", "localhost")
	p := s.startProxy(t, settings{"tls.cert_file": cert, "tls.key_file": key})
	for _, more := range []string{"", "&sslnegotiation=direct", "&channel_binding=require", "&sslnegotiation=direct&channel_binding=require"} {
		conn := dial(t, configure(t, p.verified(a, ca.root(), more)))
		expect(t, conn, "SELECT current_schema()", a.schema)
	}
	stranger := newAuthority(t)
	if conn, err := pgx.ConnectConfig(bounded(t), configure(t, p.verified(a, stranger.root(), ""))); err == nil {
		hangUp(conn)
		t.Error("a certificate of another authority was taken for verified")
	}
}

func TestDirectTLSHasToNameTheProtocol(t *testing.T) {
	s := theSite(t)
	p := s.startProxy(t, certificate(t, "localhost"))
	conn, err := tls.Dial("tcp", p.address(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // what it shows does not matter
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w := wireOf(t, conn)
	if refusal := w.refusal(); refusal.Code != "08P01" || !strings.Contains(refusal.Message, "ALPN") {
		t.Errorf("%s %s", refusal.Code, refusal.Message)
	}
}

func TestARenewedCertificateDropsNobody(t *testing.T) {
	s := theSite(t)
	a, ca := s.tenant(t, "acme"), newAuthority(t)
	cert, key := ca.issue(t, "server", 2, "proxy", "localhost")
	p := s.startProxy(t, settings{"tls.cert_file": cert, "tls.key_file": key})
	shown := func(conn *pgx.Conn) int64 {
		return conn.PgConn().Conn().(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	before := dial(t, configure(t, p.verified(a, ca.root(), "")))
	execute(t, before, "SET my.own = 'kept'")
	ca.issue(t, "server", 3, "proxy", "localhost")
	eventually(t, 10*time.Second, "the new certificate is shown", func() bool {
		conn, err := pgx.ConnectConfig(context.Background(), configure(t, p.verified(a, ca.root(), "&channel_binding=require")))
		if err != nil {
			t.Fatal(err)
		}
		defer hangUp(conn)
		return shown(conn) == 3
	})
	if shown(before) != 2 {
		t.Errorf("the session of before has certificate %d", shown(before))
	}
	expect(t, before, "SHOW my.own", "kept")
}

func TestAClientCertificateLogsInWithoutAPassword(t *testing.T) {
	s := theSite(t)
	a, other, ca := s.tenant(t, "acme"), s.tenant(t, "globex"), newAuthority(t)
	cert, key := ca.issue(t, "server", 2, "proxy", "localhost")
	p := s.startProxy(t, settings{"tls.cert_file": cert, "tls.key_file": key, "tls.client_ca_file": ca.root()})
	without := a
	without.password = ""
	show := func(ca *authority, common string) string {
		cert, key := ca.issue(t, "client_of_"+common, 7, common)
		return "&sslcert=" + cert + "&sslkey=" + key
	}
	expect(t, dial(t, configure(t, p.verified(without, ca.root(), show(ca, a.login)))), "SELECT current_schema()", a.schema)
	for name, dsn := range map[string]string{
		"another login's certificate":       p.verified(without, ca.root(), show(ca, other.login)),
		"no certificate and no password":    p.verified(without, ca.root(), ""),
		"a certificate and another tenant":  p.verified(account{tenant: other.tenant, login: a.login}, ca.root(), show(ca, a.login)),
		"a certificate of another's making": p.verified(without, ca.root(), show(newAuthority(t), a.login)),
	} {
		if conn, err := pgx.ConnectConfig(bounded(t), configure(t, dsn)); err == nil {
			hangUp(conn)
			t.Errorf("%s was let in", name)
		}
	}
	expect(t, dial(t, configure(t, p.verified(a, ca.root(), ""))), "SELECT current_schema()", a.schema) // the password is as good
}

func TestALoginWorksForTheTenantsItWasMadeFor(t *testing.T) {
	s := theSite(t)
	one, two, third := s.tenant(t, "acme"), s.tenant(t, "globex"), s.tenant(t, "initech")
	list := s.login(t, "of_a_list", "--tenant", one.tenant, "--tenant", two.tenant)
	for _, a := range []account{one, two} {
		expect(t, s.proxy.connect(t, account{tenant: a.tenant, login: "of_a_list", password: list}), "SELECT current_schema()", a.schema)
	}
	if refusal := s.proxy.refused(t, account{tenant: third.tenant, login: "of_a_list", password: list}); refusal.Code != "28P01" {
		t.Errorf("another tenant: %s %s", refusal.Code, refusal.Message)
	}
	all := s.login(t, "of_all", "--all-tenants")
	for _, a := range []account{one, two, third} {
		expect(t, s.proxy.connect(t, account{tenant: a.tenant, login: "of_all", password: all}), "SELECT current_schema()", a.schema)
	}
}

func TestAfterManyWrongPasswordsTheAddressWaitsForThatTenantOnly(t *testing.T) {
	s := theSite(t)
	a, other := s.tenant(t, "acme"), s.tenant(t, "globex")
	p := s.startProxy(t, settings{"limits.login_failures": "3"})
	wrong := a
	wrong.password = "wrong"
	for range 3 {
		p.refused(t, wrong)
	}
	eventually(t, 10*time.Second, "the proxy says that it throttles", func() bool {
		refusal := p.refused(t, wrong)
		return refusal.Code == "53300" || strings.Contains(refusal.Message+refusal.Detail+refusal.Hint, "too many")
	})
	expect(t, p.connect(t, other), "SELECT current_schema()", other.schema)
}
