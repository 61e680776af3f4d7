package proxy

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgproto3/v2"

	"github.com/docex-proxy/docex-proxy/proxy/peers"
	"github.com/docex-proxy/docex-proxy/router"
)

// Codes of the packets that open a connection (section 55.7).
const (
	protocol30        = 3 << 16
	protocol32        = 3<<16 | 2
	sslRequestCode    = 80877103
	gssEncRequestCode = 80877104
	cancelRequestCode = 80877102
)

// maxStartupPacket is Postgres's own bound (MAX_STARTUP_PACKET_LENGTH), in bytes, the length word included.
const maxStartupPacket = 10000

// opening is what a client said before it was anybody: a startup message, or a request to cancel.
type opening struct {
	router.Startup
	cancel   cancelKey
	fromPeer bool // another proxy has passed it on
}

// open reads the packets that open a connection: SSLRequest and GSSENCRequest, each at most once, and then a
// StartupMessage or a CancelRequest. A client that asks for TLS and gets it goes on in TLS.
func (s *session) open(ctx context.Context) (opening, error) {
	if err := s.client.SetDeadline(time.Now().Add(s.o.StartupTimeout)); err != nil {
		return opening{}, &clientGoneError{err}
	}
	direct, err := s.startsTLS()
	if err != nil {
		return opening{}, timedOut(err, errStartupTimeout)
	}
	if direct {
		if err := s.secure(ctx); err != nil {
			return opening{}, err
		}
		if s.tls.ConnectionState().NegotiatedProtocol != alpnProtocol {
			return opening{}, &protocolError{reason: "direct TLS connections have to name the protocol " + alpnProtocol + " (ALPN)"}
		}
	}
	askedTLS, askedGSS := false, false
	for {
		code, body, err := readStartupPacket(s.client)
		if err != nil {
			return opening{}, timedOut(err, errStartupTimeout)
		}
		switch {
		case code == sslRequestCode && !askedTLS && s.tls == nil:
			askedTLS = true
			if err := s.answerTLS(ctx); err != nil {
				return opening{}, err
			}
		case code == gssEncRequestCode && !askedGSS && s.tls == nil:
			askedGSS = true
			if err := s.send([]byte{'N'}); err != nil {
				return opening{}, err
			}
		case code == cancelRequestCode || code == peers.CancelCode:
			key, ok := parseCancelKey(body)
			if !ok {
				return opening{}, &protocolError{reason: "invalid length of cancel request"}
			}
			return opening{cancel: key, fromPeer: code == peers.CancelCode}, nil
		case code>>16 == 3:
			if s.o.TLSRequired && s.tls == nil {
				return opening{}, errTLSRequired
			}
			return s.readStartup(code, body)
		case code == sslRequestCode || code == gssEncRequestCode:
			return opening{}, &protocolError{reason: "encryption was asked for twice"}
		default:
			return opening{}, &protocolError{reason: fmt.Sprintf("unsupported frontend protocol %d.%d: server supports 3.2", code>>16, code&0xffff)}
		}
	}
}

// earlyTerminate is how the beginning of a Terminate reads that a client sends before anything else.
const earlyTerminate = 'X' << 24

// readStartupPacket reads exactly one packet, not a byte more: what follows an SSLRequest belongs to TLS. The body is
// what follows the code.
func readStartupPacket(r io.Reader) (code uint32, body []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, &clientGoneError{err}
	}
	length := binary.BigEndian.Uint32(head[:4])
	if length == earlyTerminate {
		return 0, nil, &clientGoneError{io.EOF}
	}
	if length < 8 || length > maxStartupPacket {
		return 0, nil, &protocolError{reason: "invalid length of startup packet"}
	}
	body = make([]byte, length-8)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, &clientGoneError{err}
	}
	return binary.BigEndian.Uint32(head[4:]), body, nil
}

// alpnProtocol is what a client that begins with TLS at once has to name (section 55.2.11).
const alpnProtocol = "postgresql"

// tlsHandshakeByte begins a TLS connection. A Postgres packet that began with it would be larger than any is.
const tlsHandshakeByte = 0x16

// startsTLS reads the first byte, and leaves it to be read again. Without a certificate nothing is TLS.
func (s *session) startsTLS() (bool, error) {
	if s.o.TLS == nil {
		return false, nil
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(s.client, first); err != nil {
		return false, &clientGoneError{err}
	}
	s.client = &unreadConn{Conn: s.client, unread: first}
	return first[0] == tlsHandshakeByte, nil
}

// unreadConn gives back a byte that was read too early.
type unreadConn struct {
	net.Conn
	unread []byte
}

func (c *unreadConn) Read(b []byte) (int, error) {
	if len(c.unread) == 0 || len(b) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

// answerTLS answers an SSLRequest. Bytes that a client has sent behind its request before it knows the answer are
// no TLS handshake, or came from somebody else: the handshake fails on them.
func (s *session) answerTLS(ctx context.Context) error {
	if s.o.TLS == nil {
		return s.send([]byte{'N'})
	}
	if err := s.send([]byte{'S'}); err != nil {
		return err
	}
	return s.secure(ctx)
}

// secure makes the client connection a TLS connection, and remembers the certificate that was shown.
func (s *session) secure(ctx context.Context) error {
	config := s.o.TLS.Clone()
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		certificate, err := s.o.TLS.GetCertificate(hello)
		if err == nil {
			s.certificate = certificate.Leaf
		}
		return certificate, err
	}
	secured := tls.Server(s.client, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return &clientGoneError{timedOut(err, errStartupTimeout)}
	}
	s.tls, s.client = secured, secured
	return nil
}

// readStartup decodes a StartupMessage. A client that asks for a newer minor version than 3.2, or for protocol options, is
// told that it gets 3.2 at most, and none (NegotiateProtocolVersion), and goes on. To the proxy 3.2 differs from 3.0 by the
// length of its cancel keys; of 3.1 there is nothing (section 55.1).
func (s *session) readStartup(version uint32, body []byte) (opening, error) {
	parameters, err := decodeStartup(body)
	if err != nil {
		return opening{}, err
	}
	var options []string
	for name := range parameters {
		if strings.HasPrefix(name, "_pq_.") {
			options = append(options, name)
		}
	}
	s.protocol = min(version, protocol32)
	if version > protocol32 || len(options) > 0 {
		if err := s.send(negotiateProtocolVersion(s.protocol, options)); err != nil {
			return opening{}, err
		}
	}
	start := router.Startup{Parameters: parameters}
	if s.tls != nil {
		start.ServerName = s.tls.ConnectionState().ServerName
	}
	return opening{Startup: start}, nil
}

// decodeStartup reads the parameters. pgproto3/v2 knows version 3.0 only, so that is what it is shown.
func decodeStartup(body []byte) (map[string]string, error) {
	var message pgproto3.StartupMessage
	framed := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), protocol30)
	if len(body) == 1 && body[0] == 0 {
		return map[string]string{}, nil // no parameters at all, which pgproto3 takes for malformed
	}
	if err := message.Decode(append(framed, body...)); err != nil {
		return nil, &protocolError{reason: "invalid startup packet layout: expected terminator as last byte"}
	}
	return message.Parameters, nil
}

// negotiateProtocolVersion is a message that pgproto3/v2 does not have: the version that is spoken, and the protocol options
// that we do not know.
func negotiateProtocolVersion(version uint32, options []string) []byte {
	b := []byte{'v', 0, 0, 0, 0}
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint32(b, uint32(len(options)))
	for _, name := range options {
		b = append(append(b, name...), 0)
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-1))
	return b
}

// loopback reports whether an address is this machine's own.
func loopback(addr net.Addr) bool {
	switch addr := addr.(type) {
	case *net.TCPAddr:
		return addr.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}
