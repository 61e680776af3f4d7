package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/configs"
	"github.com/docex-proxy/docex-proxy/pool"
)

// pair is a certificate and its key, in two files.
type pair struct{ cert, key string }

func newPair(t *testing.T) pair {
	dir := t.TempDir()
	return pair{cert: filepath.Join(dir, "proxy.crt"), key: filepath.Join(dir, "proxy.key")}
}

// issue writes a new certificate with the serial number. The files' time is set, so that no two writes share one.
func (p pair) issue(t *testing.T, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		p.cert: {Type: "CERTIFICATE", Bytes: signed}, p.key: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		stamp := time.Unix(1_700_000_000+serial, 0)
		if err := os.Chtimes(file, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
}

// presented makes the pool's end of a server that is shown the pair.
func (p pair) presented() (pool.Server, error) {
	return poolServer(configs.Server{Host: "db", Port: "5432", SSLMode: "require", SSLCert: p.cert, SSLKey: p.key, MaxConnections: 1})
}

func serialShown(t *testing.T, server pool.Server) int64 {
	t.Helper()
	shown, err := server.ClientCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return shown.Leaf.SerialNumber.Int64()
}

func TestARenewedCertificateIsShownAndABrokenOneIsNot(t *testing.T) {
	p := newPair(t)
	p.issue(t, 1)
	server, err := p.presented()
	if err != nil {
		t.Fatal(err)
	}
	if got := serialShown(t, server); got != 1 {
		t.Errorf("shows %d", got)
	}
	if err := os.WriteFile(p.cert, []byte("half a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(certificateLook)
	if got := serialShown(t, server); got != 1 {
		t.Errorf("while its file is broken it shows %d", got)
	}
	p.issue(t, 2)
	time.Sleep(certificateLook)
	if got := serialShown(t, server); got != 2 {
		t.Errorf("renewed, it shows %d", got)
	}
}

func TestAKeyThatOthersMayReadIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // where a mode says nothing
	}
	p := newPair(t)
	p.issue(t, 1)
	groupMayRead := os.Geteuid() == 0 // the file is root's then, and root may give it to a group
	for mode, want := range map[os.FileMode]bool{
		0o600: true, 0o400: true, 0o640: groupMayRead, 0o440: groupMayRead, 0o660: false, 0o604: false, 0o644: false, 0o666: false,
	} {
		if err := os.Chmod(p.key, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := p.presented(); (err == nil) != want {
			t.Errorf("%#o: %v", mode, err)
		}
	}
}
