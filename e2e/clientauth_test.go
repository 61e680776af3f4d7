package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// certifier signs certificates of a test.
type certifier struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string // its certificate
}

func newCertifier(t *testing.T) *certifier {
	t.Helper()
	a := &certifier{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = newKey(t)
	a.cert = template
	signed := a.sign(template, &a.key.PublicKey)
	a.cert, _ = x509.ParseCertificate(signed)
	a.file = filepath.Join(a.dir, "ca.pem")
	writePEM(t, a.file, "CERTIFICATE", signed)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *certifier) sign(template *x509.Certificate, key *ecdsa.PublicKey) []byte {
	a.t.Helper()
	signed, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return signed
}

// issue writes a certificate and its key, in the place of the ones before under this name.
func (a *certifier) issue(name string, serial int64, common string, hosts ...string) (cert, key string) {
	a.t.Helper()
	private := newKey(a.t)
	signed := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: common}, DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, &private.PublicKey)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, key = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	writePEM(a.t, key, "PRIVATE KEY", encoded)
	writePEM(a.t, cert, "CERTIFICATE", signed)
	return cert, key
}

// writePEM replaces a file at once, as those do who renew certificates.
func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// verified is the account's URL with the certificate and the host's name checked.
func (p *proxy) verified(a account, root string, more string) string {
	dsn := strings.Replace(p.dsn(a), "127.0.0.1", "localhost", 1)
	return strings.Replace(dsn, "sslmode=disable", "sslmode=verify-full&sslrootcert="+root+more, 1)
}

func TestEveryWayToAskForTLSThatIsVerified(t *testing.T) {
	s := theSite(t)
	a, ca := s.tenant(t, "acme"), newCertifier(t)
	cert, key := ca.issue("server", 2, "proxy", "localhost")
	p := s.startProxy(t, settings{"tls.cert_file": cert, "tls.key_file": key})
	for _, more := range []string{"", "&sslnegotiation=direct", "&channel_binding=require", "&sslnegotiation=direct&channel_binding=require"} {
		conn := dial(t, configure(t, p.verified(a, ca.file, more)))
		expect(t, conn, "SELECT current_schema()", a.schema)
	}
	stranger := newCertifier(t)
	if conn, err := pgx.ConnectConfig(bounded(t), configure(t, p.verified(a, stranger.file, ""))); err == nil {
		hangUp(conn)
		t.Error("a certificate of another authority was taken for verified")
	}
}

func TestDirectTLSHasToNameTheProtocol(t *testing.T) {
	s := theSite(t)
	ca := newCertifier(t)
	cert, key := ca.issue("server", 2, "proxy", "localhost")
	p := s.startProxy(t, settings{"tls.cert_file": cert, "tls.key_file": key})
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
	a, ca := s.tenant(t, "acme"), newCertifier(t)
	cert, key := ca.issue("server", 2, "proxy", "localhost")
	p := s.startProxy(t, settings{"tls.cert_file": cert, "tls.key_file": key})
	shown := func(conn *pgx.Conn) int64 {
		return conn.PgConn().Conn().(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	before := dial(t, configure(t, p.verified(a, ca.file, "")))
	execute(t, before, "SET my.own = 'kept'")
	ca.issue("server", 3, "proxy", "localhost")
	eventually(t, 10*time.Second, "the new certificate is shown", func() bool {
		conn, err := pgx.ConnectConfig(context.Background(), configure(t, p.verified(a, ca.file, "&channel_binding=require")))
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
	a, other, ca := s.tenant(t, "acme"), s.tenant(t, "globex"), newCertifier(t)
	cert, key := ca.issue("server", 2, "proxy", "localhost")
	p := s.startProxy(t, settings{"tls.cert_file": cert, "tls.key_file": key, "tls.client_ca_file": ca.file})
	without := a
	without.password = ""
	show := func(certifier *certifier, common string) string {
		cert, key := certifier.issue("client_of_"+common, 7, common)
		return "&sslcert=" + cert + "&sslkey=" + key
	}
	expect(t, dial(t, configure(t, p.verified(without, ca.file, show(ca, a.login)))), "SELECT current_schema()", a.schema)
	for name, dsn := range map[string]string{
		"another login's certificate":       p.verified(without, ca.file, show(ca, other.login)),
		"no certificate and no password":    p.verified(without, ca.file, ""),
		"a certificate and another tenant":  p.verified(account{tenant: other.tenant, login: a.login}, ca.file, show(ca, a.login)),
		"a certificate of another's making": p.verified(without, ca.file, show(newCertifier(t), a.login)),
	} {
		if conn, err := pgx.ConnectConfig(bounded(t), configure(t, dsn)); err == nil {
			hangUp(conn)
			t.Errorf("%s was let in", name)
		}
	}
	expect(t, dial(t, configure(t, p.verified(a, ca.file, ""))), "SELECT current_schema()", a.schema) // the password is as good
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
