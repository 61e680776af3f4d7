//go:build unix

package pool_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
)

func TestConnectionsOverTLSAreVerifiedCheckedAndCancelled(t *testing.T) {
	b := newBench(t, 2)
	server := b.options.Servers["main"]
	server.SSLMode, server.SSLRootCert = "verify-full", b.offerTLS()
	b.options.Servers = map[string]pool.Server{"main": server}
	set, target := b.set(), b.tenant("tls")
	c := acquire(t, set, target, 0)
	if got := mustAsk(t, c, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"); got != "t" {
		t.Errorf("the connection is encrypted: %s", got)
	}

	answer := make(chan error, 1)
	go func() { _, err := ask(c, "SELECT pg_sleep(60)"); answer <- err }()
	eventually(t, "it sleeps", func() bool { return b.sleeping() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Cancel(ctx); err != nil {
		t.Error(err)
	}
	if err := <-answer; err == nil {
		t.Error("the query was not cancelled")
	}

	c.Release()
	time.Sleep(110 * time.Millisecond) // so that the connection is checked
	again := acquire(t, set, target, 0)
	if again.PID() != c.PID() {
		t.Error("an idle connection over TLS was taken for dead")
	}
	again.Release()
	b.exec("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename <> session_user AND datname = current_database()")
	time.Sleep(110 * time.Millisecond)
	fresh := acquire(t, set, target, 0)
	mustAsk(t, fresh, "SELECT 1")
	fresh.Release()
}

func TestEveryHandshakeShowsTheCertificateOfTheMoment(t *testing.T) {
	b := newBench(t, 2)
	b.offerTLS()
	b.askForCertificates()
	data := b.show("data_directory")
	signed, err := tls.LoadX509KeyPair(filepath.Join(data, "server.crt"), filepath.Join(data, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	var shown atomic.Pointer[tls.Certificate]
	shown.Store(&tls.Certificate{}) // none
	server := b.options.Servers["main"]
	server.SSLMode = "prefer" // which has an attempt without TLS as well
	server.ClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown.Load(), nil }
	b.options.Servers = map[string]pool.Server{"main": server}
	set, target := b.set(), b.tenant("certified")

	const seen = "SELECT coalesce(client_serial::text, 'none') FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
	before := acquire(t, set, target, 0)
	shown.Store(&signed)
	after := acquire(t, set, target, 0)
	for conn, want := range map[*pool.Conn]string{before: "none", after: signed.Leaf.SerialNumber.String()} {
		if got := mustAsk(t, conn, seen); got != want {
			t.Errorf("the server sees certificate %s, want %s", got, want)
		}
		conn.Release()
	}
}

// askForCertificates makes the test cluster, which has to offer TLS, ask its clients for a certificate that its own has
// signed, for the duration of the test.
func (b *bench) askForCertificates() {
	b.tb.Helper()
	b.exec("ALTER SYSTEM SET ssl_ca_file = 'server.crt'")
	b.exec("SELECT pg_reload_conf()")
	b.tb.Cleanup(func() {
		b.exec("ALTER SYSTEM RESET ssl_ca_file")
		b.exec("SELECT pg_reload_conf()")
	})
	eventually(b.tb, "the server asks for certificates", func() bool { return b.show("ssl_ca_file") == "server.crt" })
}

// offerTLS gives the test cluster a certificate, for the duration of the test, and returns the file that verifies it.
func (b *bench) offerTLS() (rootCert string) {
	b.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		b.tb.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		b.tb.Fatal(err)
	}
	dir := b.show("data_directory")
	rootCert = filepath.Join(b.tb.TempDir(), "root.crt")
	b.writePEM(rootCert, "CERTIFICATE", certificate)
	b.writePEM(filepath.Join(dir, "server.crt"), "CERTIFICATE", certificate)
	b.writePEM(filepath.Join(dir, "server.key"), "PRIVATE KEY", private)
	b.giveToServer(dir, "server.crt", "server.key")
	b.exec("ALTER SYSTEM SET ssl = on")
	b.exec("SELECT pg_reload_conf()")
	b.tb.Cleanup(func() {
		b.exec("ALTER SYSTEM RESET ssl")
		b.exec("SELECT pg_reload_conf()")
	})
	eventually(b.tb, "the server offers TLS", func() bool { return b.show("ssl") == "on" })
	return rootCert
}

func (b *bench) writePEM(file, kind string, der []byte) {
	b.tb.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		b.tb.Fatal(err)
	}
}

// giveToServer makes files of the data directory belong to whoever owns the directory: the server refuses others'.
func (b *bench) giveToServer(dir string, files ...string) {
	b.tb.Helper()
	info, err := os.Stat(dir)
	if err != nil {
		b.tb.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	for _, file := range files {
		if err := os.Chown(filepath.Join(dir, file), int(owner.Uid), int(owner.Gid)); err != nil {
			b.tb.Fatal(err)
		}
	}
}
