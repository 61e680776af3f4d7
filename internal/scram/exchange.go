package scram

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The SASL mechanisms' names. The second binds the exchange to the TLS connection beneath it (RFC 5929,
// tls-server-end-point), so that nobody in the middle can pass it on.
const (
	Mechanism     = "SCRAM-SHA-256"
	MechanismPlus = "SCRAM-SHA-256-PLUS"
)

const bindingFlag = "p=tls-server-end-point"

const nonceLength = 18 // bytes, as Postgres draws

// ErrWrongPassword says that the client's proof does not fit the verifier.
var ErrWrongPassword = errors.New("wrong password")

// ErrProtocol is wrapped by the errors of messages that are no SCRAM-SHA-256.
var ErrProtocol = errors.New("malformed SCRAM message")

// Exchange is one authentication. Use it once: First, then Final.
type Exchange struct {
	verifier    Verifier
	mock        bool
	binding     []byte // of the TLS connection; nil where MechanismPlus was not offered
	bound       bool   // the client has chosen it
	gs2Header   string
	clientBare  string
	serverFirst string
	nonce       string
}

// NewExchange starts an authentication against a verifier.
func NewExchange(v Verifier) *Exchange { return &Exchange{verifier: v} }

// NewMockExchange starts an authentication that cannot succeed, of a login that does not exist: its challenge depends
// on the secret and the login only, so that asking twice gives nothing away.
func NewMockExchange(secret []byte, login string) *Exchange {
	salt := mac(secret, "salt\x00"+login)[:saltLength]
	return &Exchange{verifier: Verifier{Iterations: defaultIterations, Salt: salt}, mock: true}
}

// Bind offers MechanismPlus, with the data of the TLS connection, and says whether the client has chosen it.
func (e *Exchange) Bind(data []byte, chosen bool) { e.binding, e.bound = data, chosen }

// First reads the client-first-message and returns the server-first-message.
func (e *Exchange) First(clientFirst []byte) ([]byte, error) {
	text := string(clientFirst)
	flag, rest, ok := strings.Cut(text, ",")
	authzid, bare, ok2 := strings.Cut(rest, ",")
	switch {
	case !ok || !ok2:
		return nil, fmt.Errorf("%w: no GS2 header", ErrProtocol)
	case e.bound && flag != bindingFlag:
		return nil, fmt.Errorf("%w: channel binding was chosen and is not used", ErrProtocol)
	case !e.bound && flag == "y" && e.binding != nil:
		// The client could bind and believes that we cannot: somebody has changed what we offered.
		return nil, fmt.Errorf("%w: channel binding was offered and the client has not seen it", ErrProtocol)
	case !e.bound && flag != "n" && flag != "y":
		return nil, fmt.Errorf("%w: channel binding flag", ErrProtocol)
	case authzid != "":
		return nil, fmt.Errorf("%w: authorization identity", ErrProtocol)
	}
	// The user name in n= is ignored, as Postgres does: the startup message has named the user.
	user, rest, ok := strings.Cut(bare, ",")
	clientNonce, _, _ := strings.Cut(rest, ",")
	clientNonce, ok2 = strings.CutPrefix(clientNonce, "r=")
	if !ok || !ok2 || !strings.HasPrefix(user, "n=") || clientNonce == "" || !printable(clientNonce) {
		return nil, fmt.Errorf("%w: client-first-message", ErrProtocol)
	}
	random := make([]byte, nonceLength)
	rand.Read(random)
	e.gs2Header, e.clientBare = text[:len(text)-len(bare)], bare
	e.nonce = clientNonce + base64.StdEncoding.EncodeToString(random)
	e.serverFirst = "r=" + e.nonce + ",s=" + base64.StdEncoding.EncodeToString(e.verifier.Salt) +
		",i=" + strconv.Itoa(e.verifier.Iterations)
	return []byte(e.serverFirst), nil
}

// Final reads the client-final-message and returns the server-final-message, or ErrWrongPassword.
func (e *Exchange) Final(clientFinal []byte) ([]byte, error) {
	withoutProof, proof64, ok := cutLast(string(clientFinal), ",p=")
	binding, nonce, ok2 := strings.Cut(withoutProof, ",")
	nonce, _, _ = strings.Cut(nonce, ",")
	if !ok || !ok2 {
		return nil, fmt.Errorf("%w: client-final-message", ErrProtocol)
	}
	want := []byte(e.gs2Header)
	if e.bound {
		want = append(want, e.binding...)
	}
	if binding != "c="+base64.StdEncoding.EncodeToString(want) {
		return nil, fmt.Errorf("%w: channel binding", ErrProtocol)
	}
	if nonce != "r="+e.nonce {
		return nil, fmt.Errorf("%w: nonce", ErrProtocol)
	}
	proof, err := base64.StdEncoding.DecodeString(proof64)
	if err != nil || len(proof) != keyLength {
		return nil, fmt.Errorf("%w: proof", ErrProtocol)
	}
	message := e.clientBare + "," + e.serverFirst + "," + withoutProof
	signature := mac(e.verifier.StoredKey[:], message)
	clientKey := make([]byte, keyLength)
	subtle.XORBytes(clientKey, proof, signature)
	stored := sha256.Sum256(clientKey)
	if !hmac.Equal(stored[:], e.verifier.StoredKey[:]) || e.mock {
		return nil, ErrWrongPassword
	}
	return append([]byte("v="), base64.StdEncoding.EncodeToString(mac(e.verifier.ServerKey[:], message))...), nil
}

// printable reports whether a text is made of what RFC 5802 allows in a nonce.
func printable(text string) bool {
	return !bytes.ContainsFunc([]byte(text), func(r rune) bool { return r < 0x21 || r > 0x7e || r == ',' })
}

func cutLast(text, separator string) (before, after string, found bool) {
	i := strings.LastIndex(text, separator)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(separator):], true
}
