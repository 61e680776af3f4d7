package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/docex-proxy/docex-proxy/configs"
	"github.com/docex-proxy/docex-proxy/internal/secret"
)

// clientTLS is what clients are offered; nil without a certificate.
func clientTLS(config configs.TLS) (*tls.Config, error) {
	if config.CertFile == "" {
		return nil, nil
	}
	shown := &certificateFile{certFile: config.CertFile, keyFile: config.KeyFile}
	if err := shown.load(); err != nil {
		return nil, err
	}
	// No tickets: a resumed connection shows no certificate to which an authentication could be bound.
	offered := &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown.get(), nil },
		MinVersion:     tls.VersionTLS12, NextProtos: []string{"postgresql"}, SessionTicketsDisabled: true,
	}
	if config.ClientCAFile == "" {
		return offered, nil
	}
	authorities, err := readAuthorities(config.ClientCAFile)
	offered.ClientCAs, offered.ClientAuth = authorities, tls.VerifyClientCertIfGiven
	return offered, err
}

// tracesTLS is how the collector of traces is spoken to; nil in the clear.
func tracesTLS(config configs.Traces) (*tls.Config, error) {
	if config.Insecure {
		return nil, nil
	}
	spoken := &tls.Config{MinVersion: tls.VersionTLS12}
	if config.CAFile == "" {
		return spoken, nil
	}
	authorities, err := readAuthorities(config.CAFile)
	spoken.RootCAs = authorities
	return spoken, err
}

// readAuthorities reads a file of PEM certificates.
func readAuthorities(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no PEM certificate", file)
	}
	return authorities, nil
}

// certificateLook is how often the files are looked at, at most.
const certificateLook = time.Second

// certificateFile is a certificate that follows its files: a renewed one is shown in the next handshake, and nobody is
// dropped. While the new files are not readable, or do not fit each other, the old certificate stays.
type certificateFile struct {
	certFile, keyFile string
	private           bool // a key that others may read is refused, as by libpq

	mu       sync.Mutex
	current  *tls.Certificate
	modified [2]time.Time // of the files that current was read from
	looked   time.Time
}

// get may be called at the same time, after one load that succeeded.
func (f *certificateFile) get() *tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.looked) >= certificateLook {
		f.looked = now
		if modified, err := f.stamps(); err == nil && modified != f.modified {
			_ = f.load() // the old one stays, as said above
		}
	}
	return f.current
}

func (f *certificateFile) load() error {
	if f.private {
		if err := secret.CheckPrivate(f.keyFile); err != nil {
			return err
		}
	}
	modified, stampErr := f.stamps()                               // before the files are read: what changes in between is read at the next look
	certificate, err := tls.LoadX509KeyPair(f.certFile, f.keyFile) // fills in Leaf
	if err = cmp.Or(err, stampErr); err != nil {
		return err
	}
	f.current, f.modified = &certificate, modified
	return nil
}

func (f *certificateFile) stamps() (modified [2]time.Time, err error) {
	for i, name := range []string{f.certFile, f.keyFile} {
		info, serr := os.Stat(name)
		if serr != nil {
			err = errors.Join(err, serr)
			continue
		}
		modified[i] = info.ModTime()
	}
	return modified, err
}
