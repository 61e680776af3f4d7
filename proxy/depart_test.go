//go:build unix

package proxy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
)

func TestASessionFollowsItsServerIntoTLS(t *testing.T) {
	onBoth(t, 2, nil, func(t *testing.T, b *bed) {
		b.stop()
		server := b.servers["main"]
		server.SSLMode = "prefer"
		b.servers = map[string]pool.Server{"main": server}
		b.serve()
		const encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
		holder, conn, early := b.connect(), b.connect(), b.dial()
		b.mustExec(holder, "BEGIN")
		if got := b.mustExec(holder, encrypted); got != "f" {
			t.Fatalf("encrypted before the server offers it: %s", got)
		}
		b.offerTLS()
		early.send(append(query("DEALLOCATE ALL"), query("SELECT 'begun before'")...))
		for range 2 {
			early.until('Z')
		}
		for range 3 {
			if got := b.mustExec(conn, encrypted); got != "t" {
				t.Errorf("encrypted: %s", got)
			}
		}
		b.mustExec(holder, "COMMIT")

		go func() {
			eventually(t, "it sleeps", func() bool { return b.active() == 1 })
			conn.CancelRequest(t.Context())
		}()
		b.fails(conn, "SELECT pg_sleep(60)", "57014")
		b.mustExec(b.connect(), "SELECT 1")
		if b.stop(); early.ended() != "57P01" {
			t.Error("a session that came back to goroutines was not told of the shutdown")
		}
	})
}

// offerTLS gives the test cluster a certificate, for the duration of the test.
func (b *bed) offerTLS() {
	b.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		b.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		b.t.Fatal(err)
	}
	dir := b.show("data_directory")
	b.give(dir, "server.crt", &pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	b.give(dir, "server.key", &pem.Block{Type: "PRIVATE KEY", Bytes: private})
	b.alter("ALTER SYSTEM SET ssl = on")
	b.t.Cleanup(func() { b.alter("ALTER SYSTEM RESET ssl") })
	eventually(b.t, "the server offers TLS", func() bool { return b.show("ssl") == "on" })
}

// give writes a file that belongs to whoever owns the directory: the server refuses others'.
func (b *bed) give(dir, name string, block *pem.Block) {
	b.t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		b.t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		b.t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if err := os.Chown(file, int(owner.Uid), int(owner.Gid)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) alter(sql string) {
	b.t.Helper()
	for _, statement := range []string{sql, "SELECT pg_reload_conf()"} {
		if _, err := b.admin.Exec(context.Background(), statement); err != nil { // at the end of the test too
			b.t.Error(err)
		}
	}
}

func (b *bed) show(setting string) (value string) {
	b.t.Helper()
	if err := b.admin.QueryRow(b.t.Context(), "SHOW "+setting).Scan(&value); err != nil {
		b.t.Fatal(err)
	}
	return value
}
