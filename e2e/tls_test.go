package e2e_test

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// certificate makes one and returns the settings that make a proxy use it.
func certificate(t *testing.T, names ...string) settings {
	t.Helper()
	cert, key := newAuthority(t).issue(t, "server", 1, "e2e", names...)
	return settings{"tls.cert_file": cert, "tls.key_file": key}
}

// secured is the account's URL, in TLS whatever the certificate says.
func (p *proxy) secured(a account) string {
	return strings.Replace(p.dsn(a), "sslmode=disable", "sslmode=require", 1)
}

func TestASessionInTLS(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	p := s.startProxy(t, certificate(t, "localhost"))

	w := p.dialRaw(t)
	w.raw(packet(sslRequestCode))
	if answer := w.answer(); answer != 'S' {
		t.Errorf("SSLRequest is answered %q", answer)
	}

	conn := dial(t, configure(t, p.secured(a)))
	if _, ok := conn.PgConn().Conn().(*tls.Conn); !ok {
		t.Error("the session is not in TLS")
	}
	expect(t, conn, "SELECT current_schema()", a.schema)
	expect(t, conn, "SELECT length(repeat('x', 1000000))", "1000000")
	expect(t, p.connect(t, a), "SELECT current_schema()", a.schema) // TLS is not required
}

func TestTheServerNameOfTLSNamesTheTenant(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	changed := certificate(t, "*.pg.example.com")
	changed["identity.sni_domain"] = "pg.example.com"
	p := s.startProxy(t, changed)
	named := func(c *pgx.ConnConfig) { c.TLSConfig.ServerName = a.tenant + ".pg.example.com" }
	expect(t, dial(t, configure(t, p.secured(a), as(a.login), named)), "SELECT current_schema()", a.schema)
}

func TestRequiredTLSRefusesOthers(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	changed := certificate(t, "localhost")
	changed["tls.required"] = "true"
	p := s.startProxy(t, changed)
	if refusal := p.refused(t, a); refusal.Code != "28000" || !strings.Contains(refusal.Message, "TLS") {
		t.Errorf("%s %s", refusal.Code, refusal.Message)
	}
	expect(t, dial(t, configure(t, p.secured(a))), "SELECT current_schema()", a.schema)
}

func TestBytesSentBehindAnSSLRequestAreNotTakenForTLS(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	p := s.startProxy(t, certificate(t, "localhost"))
	w := p.dialRaw(t)
	w.raw(append(packet(sslRequestCode), startupOf(a)...))
	if answer := w.answer(); answer != 'S' {
		t.Fatalf("answered %q", answer)
	}
	for { // an alert may come, a request for authentication may not
		var b [1]byte
		if _, err := w.Read(b[:]); err != nil {
			break
		}
		if b[0] == 'R' {
			t.Fatal("the startup message was read in the clear")
		}
	}
}
