package pool

import (
	"crypto/tls"

	"github.com/jackc/pgx/v5/pgconn"
)

// present makes every TLS handshake of these settings show the certificate, if the server wants one. pgconn itself
// would read the files once, for good.
func present(settings *pgconn.Config, certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)) {
	encrypted := []*tls.Config{settings.TLSConfig}
	for _, fallback := range settings.Fallbacks {
		encrypted = append(encrypted, fallback.TLSConfig)
	}
	for _, config := range encrypted {
		if config != nil { // an attempt without TLS
			config.GetClientCertificate = certificate
		}
	}
}
