package scram_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/internal/scram"
)

// The example of RFC 7677, section 3: user "user", password "pencil".
const (
	rfcSalt       = "W22ZaJ0SNY7soEsUEjb6gQ=="
	rfcIterations = 4096
)

func rfcVerifier(t *testing.T) scram.Verifier {
	salt, err := base64.StdEncoding.DecodeString(rfcSalt)
	if err != nil {
		t.Fatal(err)
	}
	return scram.DeriveVerifier("pencil", salt, rfcIterations)
}

func TestAVerifierSurvivesItsTextForm(t *testing.T) {
	v := rfcVerifier(t)
	parsed, err := scram.ParseVerifier(v.String())
	if err != nil || parsed.String() != v.String() {
		t.Errorf("%s became %s, %v", v, parsed, err)
	}
	if !strings.HasPrefix(v.String(), "SCRAM-SHA-256$4096:"+rfcSalt+"$") {
		t.Errorf("verifier %s", v)
	}
}

func TestMalformedVerifiersAreRefused(t *testing.T) {
	whole := rfcVerifier(t).String()
	for _, text := range []string{"", "md5abc", "SCRAM-SHA-256$", "SCRAM-SHA-256$x:eA==$eA==:eA==", whole[:len(whole)-4], strings.Replace(whole, "4096", "0", 1),
		strings.Replace(whole, "4096", "99999999999", 1)} {
		if _, err := scram.ParseVerifier(text); !errors.Is(err, scram.ErrMalformed) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestTheMockExchangeAlwaysFailsAndLooksTheSameTwice(t *testing.T) {
	secret := []byte("secret")
	challenge := func() string {
		first, err := scram.NewMockExchange(secret, "alice").First([]byte("n,,n=,r=abc"))
		if err != nil {
			t.Fatal(err)
		}
		_, salt, _ := strings.Cut(string(first), ",s=")
		return salt
	}
	if a, b := challenge(), challenge(); a != b {
		t.Errorf("salts %s and %s", a, b)
	}
	e := scram.NewMockExchange(secret, "alice")
	first, _ := e.First([]byte("n,,n=,r=abc"))
	nonce, _, _ := strings.Cut(strings.TrimPrefix(string(first), "r="), ",")
	_, err := e.Final([]byte("c=biws,r=" + nonce + ",p=" + base64.StdEncoding.EncodeToString(make([]byte, 32))))
	if !errors.Is(err, scram.ErrWrongPassword) {
		t.Errorf("got %v", err)
	}
}

func TestMessagesThatAreNoSCRAMAreRefused(t *testing.T) {
	for _, text := range []string{"", "n", "n,,", "n,,n=a", "n,,r=abc", "n,,n=,r=", "n,,n=,r=a b", "p=tls-unique,,n=,r=abc", "x,,n=,r=abc", "n,a=admin,n=,r=abc", "n,,m=ext,n=,r=abc"} {
		if _, err := scram.NewExchange(rfcVerifier(t)).First([]byte(text)); !errors.Is(err, scram.ErrProtocol) {
			t.Errorf("client-first %q: %v", text, err)
		}
	}
	for _, change := range []func(string) string{
		func(string) string { return "" },
		func(s string) string { return strings.Replace(s, "c=biws", "c=eSws", 1) },
		func(s string) string { return strings.Replace(s, "r=abc", "r=abd", 1) },
		func(s string) string { return s[:len(s)-4] },
		func(s string) string { return strings.Replace(s, ",p=", ",q=", 1) },
	} {
		e := scram.NewExchange(rfcVerifier(t))
		first, err := e.First([]byte("n,,n=,r=abc"))
		if err != nil {
			t.Fatal(err)
		}
		nonce, _, _ := strings.Cut(strings.TrimPrefix(string(first), "r="), ",")
		final := "c=biws,r=" + nonce + ",p=" + base64.StdEncoding.EncodeToString(make([]byte, 32))
		if _, err := e.Final([]byte(change(final))); !errors.Is(err, scram.ErrProtocol) {
			t.Errorf("client-final %q: %v", change(final), err)
		}
	}
}

// FuzzExchange: whatever a client sends, nothing panics and nothing but a right proof is accepted.
func FuzzExchange(f *testing.F) {
	f.Add("n,,n=,r=abc", "c=biws,r=abc,p=AAAA")
	f.Add("y,,n=user,r=abc,x=1", "c=eSws,r=abc,ext=1,p=")
	f.Add("p=tls-server-end-point,,n=,r=x", ",p=")
	v := scram.DeriveVerifier("pencil", []byte("0123456789abcdef"), 1)
	f.Fuzz(func(t *testing.T, first, final string) {
		e := scram.NewExchange(v)
		if _, err := e.First([]byte(first)); err != nil {
			return
		}
		if _, err := e.Final([]byte(final)); err == nil {
			t.Errorf("accepted %q, %q", first, final)
		}
	})
}

func FuzzParseVerifier(f *testing.F) {
	f.Add("SCRAM-SHA-256$4096:" + rfcSalt + "$AAAA:BBBB")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := scram.ParseVerifier(text)
		if err != nil {
			return
		}
		if again, err := scram.ParseVerifier(v.String()); err != nil || again.String() != v.String() {
			t.Errorf("%q became %q, %v", text, v, err)
		}
	})
}
