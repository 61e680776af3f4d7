package proxy

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/jackc/pgproto3/v2"

	"github.com/docex-proxy/docex-proxy/internal/scram"
	"github.com/docex-proxy/docex-proxy/router"
)

// maxAuthMessage bounds one message of a client that is not yet authenticated, in bytes.
const maxAuthMessage = 4 << 10

// authenticate lets the client prove its login by SCRAM-SHA-256 (section 55.3.1), then refuses what the route denies.
// An unknown tenant or login goes through the same messages, against a verifier that nothing fits.
func (s *session) authenticate(route router.Route) error {
	if err := s.client.SetDeadline(time.Now().Add(s.o.AuthenticationTimeout)); err != nil {
		return &clientGoneError{err}
	}
	if route.Denied != nil && s.server.policy.Load().ExposeTenantErrors && route.Denied.Err == router.ErrUnknownTenant {
		return route.Denied
	}
	if !s.trusted(route) {
		if err := s.prove(route); err != nil {
			return timedOut(err, errAuthTimeout)
		}
	}
	if route.Denied != nil {
		return route.Denied
	}
	return s.say(&pgproto3.AuthenticationOk{})
}

// trusted reports whether the login needs no password here: it is trusted on this machine, or the client has shown a
// certificate, signed by the CA for clients, whose common name is the login.
func (s *session) trusted(route router.Route) bool {
	if route.Login == nil {
		return false
	}
	if s.tls != nil {
		if chains := s.tls.ConnectionState().VerifiedChains; len(chains) > 0 && chains[0][0].Subject.CommonName == route.Login.Name {
			return true
		}
	}
	return slices.Contains(s.server.policy.Load().TrustLogins, route.Login.Name) && loopback(s.client.RemoteAddr())
}

// channelBinding is what ties an authentication to the TLS connection: the hash of our certificate, by the hash of its
// signature, or SHA-256 for those that are no longer safe (RFC 5929, section 4.1). Nil without TLS.
func (s *session) channelBinding() []byte {
	if s.tls == nil || s.certificate == nil {
		return nil
	}
	switch s.certificate.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		sum := sha512.Sum384(s.certificate.Raw)
		return sum[:]
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		sum := sha512.Sum512(s.certificate.Raw)
		return sum[:]
	case x509.PureEd25519: // has no hash of its own, and clients do not agree on one
		return nil
	}
	sum := sha256.Sum256(s.certificate.Raw)
	return sum[:]
}

// prove has the client prove its password, unless its address has failed to too often. Whether tenant and login exist
// makes no difference to that.
func (s *session) prove(route router.Route) error {
	key := keyOf(s.client.RemoteAddr(), route.Named)
	if wait := s.server.throttle.allow(key); wait > 0 {
		return &throttledError{wait: wait}
	}
	err := s.sasl(route)
	switch v := judge(err, "", false); {
	case err == nil:
		s.server.throttle.succeeded(key)
	case v.code == "28P01":
		s.server.throttle.failedOnce(key)
	}
	return err
}

func (s *session) sasl(route router.Route) error {
	exchange, err := s.exchange(route)
	if err != nil {
		return err
	}
	mechanisms, binding := []string{scram.Mechanism}, s.channelBinding()
	if binding != nil {
		mechanisms = []string{scram.MechanismPlus, scram.Mechanism}
	}
	if err := s.say(&pgproto3.AuthenticationSASL{AuthMechanisms: mechanisms}); err != nil {
		return err
	}
	body, err := s.readAuthMessage()
	if err != nil {
		return err
	}
	initial, err := decodeSASLInitial(body)
	if err != nil {
		return err
	}
	if !slices.Contains(mechanisms, initial.AuthMechanism) {
		return &protocolError{reason: "client selected an invalid SASL authentication mechanism"}
	}
	exchange.Bind(binding, initial.AuthMechanism == scram.MechanismPlus)
	challenge, err := exchange.First(initial.Data)
	if err != nil {
		return err
	}
	if err := s.say(&pgproto3.AuthenticationSASLContinue{Data: challenge}); err != nil {
		return err
	}
	if body, err = s.readAuthMessage(); err != nil {
		return err
	}
	var response pgproto3.SASLResponse
	if err := response.Decode(body); err != nil {
		return &protocolError{reason: "malformed SASLResponse"}
	}
	proof, err := exchange.Final(response.Data)
	if errors.Is(err, scram.ErrWrongPassword) && route.Denied != nil && route.Login == nil {
		return route.Denied // the true reason, for the log; the client is told the same
	}
	if err != nil {
		return err
	}
	return s.say(&pgproto3.AuthenticationSASLFinal{Data: proof})
}

// decodeSASLInitial reads a SASLInitialResponse: a mechanism, and a response with its length. pgproto3/v2 takes the
// length on trust, and panics where it is cut off, so it is checked first.
func decodeSASLInitial(body []byte) (pgproto3.SASLInitialResponse, error) {
	var initial pgproto3.SASLInitialResponse
	_, data, ok := bytes.Cut(body, []byte{0})
	if !ok || len(data) < 4 || int64(int32(binary.BigEndian.Uint32(data))) != int64(len(data)-4) {
		return initial, &protocolError{reason: "malformed SASLInitialResponse"}
	}
	if err := initial.Decode(body); err != nil {
		return initial, &protocolError{reason: "malformed SASLInitialResponse"}
	}
	return initial, nil
}

// exchange picks what the client has to match. A login that exists is challenged with its own salt whatever tenant was
// named, so that the challenge does not tell which tenants there are.
func (s *session) exchange(route router.Route) (*scram.Exchange, error) {
	if route.Login == nil {
		return scram.NewMockExchange(s.server.mockSecret, route.User), nil
	}
	verifier, err := scram.ParseVerifier(route.Login.Verifier)
	if err != nil {
		return nil, err
	}
	return scram.NewExchange(verifier), nil
}

// readAuthMessage reads one message of type p, framed and capped by us, and returns its body.
func (s *session) readAuthMessage() ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(s.client, head[:]); err != nil {
		return nil, &clientGoneError{err}
	}
	length := binary.BigEndian.Uint32(head[1:])
	if head[0] != 'p' || length < 4 || length > maxAuthMessage {
		return nil, &protocolError{reason: "expected SASL response"}
	}
	body := make([]byte, length-4)
	if _, err := io.ReadFull(s.client, body); err != nil {
		return nil, &clientGoneError{err}
	}
	return body, nil
}
