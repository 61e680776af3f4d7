// Package scram is the server side of SCRAM-SHA-256 (RFC 5802, RFC 7677; Postgres documentation, section 55.3)
// and the verifiers that Postgres stores for it. It does no I/O. The client side is pgconn's business.
package scram

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	keyLength         = sha256.Size
	saltLength        = 16
	defaultIterations = 4096 // scram_iterations' default
	maxIterations     = 1_000_000
)

// Verifier is what a server keeps of a password: enough to check a proof, not enough to make one.
type Verifier struct {
	Iterations int
	Salt       []byte
	StoredKey  [keyLength]byte
	ServerKey  [keyLength]byte
}

// ErrMalformed is wrapped by every error of ParseVerifier.
var ErrMalformed = errors.New("malformed SCRAM-SHA-256 verifier")

// NewVerifier makes a verifier of the password with a random salt. The password is used as it is: SASLprep leaves
// ASCII alone, and Postgres itself falls back to the raw bytes of anything it cannot prepare.
func NewVerifier(password string) Verifier {
	salt := make([]byte, saltLength)
	rand.Read(salt)
	return DeriveVerifier(password, salt, defaultIterations)
}

// DeriveVerifier makes the verifier of a password for a given salt and iteration count.
func DeriveVerifier(password string, salt []byte, iterations int) Verifier {
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, keyLength)
	if err != nil {
		panic("scram: " + err.Error()) // only for a key length that SHA-256 cannot give
	}
	clientKey := mac(salted, "Client Key")
	v := Verifier{Iterations: iterations, Salt: salt, StoredKey: sha256.Sum256(clientKey)}
	copy(v.ServerKey[:], mac(salted, "Server Key"))
	return v
}

// ParseVerifier reads SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, the form of pg_authid.rolpassword.
func ParseVerifier(text string) (Verifier, error) {
	rest, ok := strings.CutPrefix(text, "SCRAM-SHA-256$")
	if !ok {
		return Verifier{}, fmt.Errorf("%w: it does not start with SCRAM-SHA-256$", ErrMalformed)
	}
	head, tail, ok1 := strings.Cut(rest, "$")
	count, salt64, ok2 := strings.Cut(head, ":")
	stored64, server64, ok3 := strings.Cut(tail, ":")
	if !ok1 || !ok2 || !ok3 {
		return Verifier{}, fmt.Errorf("%w: it has not four parts", ErrMalformed)
	}
	iterations, err := strconv.Atoi(count)
	if err != nil || iterations < 1 || iterations > maxIterations {
		return Verifier{}, fmt.Errorf("%w: iteration count %q", ErrMalformed, count)
	}
	v := Verifier{Iterations: iterations}
	if v.Salt, err = base64.StdEncoding.DecodeString(salt64); err != nil || len(v.Salt) == 0 {
		return Verifier{}, fmt.Errorf("%w: salt", ErrMalformed)
	}
	for _, part := range []struct {
		text string
		into *[keyLength]byte
	}{{stored64, &v.StoredKey}, {server64, &v.ServerKey}} {
		key, err := base64.StdEncoding.DecodeString(part.text)
		if err != nil || len(key) != keyLength {
			return Verifier{}, fmt.Errorf("%w: keys", ErrMalformed)
		}
		copy(part.into[:], key)
	}
	return v, nil
}

// String is the inverse of ParseVerifier.
func (v Verifier) String() string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", v.Iterations, b64(v.Salt), b64(v.StoredKey[:]), b64(v.ServerKey[:]))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
