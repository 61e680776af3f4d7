package e2e_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// answer reads one byte, the answer to a request for encryption.
func (w *wire) answer() byte {
	w.t.Helper()
	var b [1]byte
	if _, err := io.ReadFull(w.Conn, b[:]); err != nil {
		w.t.Fatal(err)
	}
	return b[0]
}

// asks waits for AuthenticationSASL.
func (w *wire) asks() {
	w.t.Helper()
	w.answersTo(func(m pgproto3.BackendMessage) bool { _, ok := m.(*pgproto3.AuthenticationSASL); return ok })
}

func startupOf(a account) []byte {
	return startup(protocol30, "user", a.login+"."+a.tenant, "database", database)
}

func TestRequestsForEncryptionAreAnsweredNoWithoutACertificate(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	for name, requests := range map[string][]uint32{
		"TLS": {sslRequestCode}, "GSS": {gssEncRequestCode}, "GSS, then TLS": {gssEncRequestCode, sslRequestCode}, "TLS, then GSS": {sslRequestCode, gssEncRequestCode},
	} {
		t.Run(name, func(t *testing.T) {
			w := s.proxy.dialRaw(t)
			for _, request := range requests {
				w.raw(packet(request))
				if answer := w.answer(); answer != 'N' {
					t.Fatalf("answered %q", answer)
				}
			}
			w.raw(startupOf(a))
			w.asks()
		})
	}
}

func TestASecondRequestForTheSameEncryptionIsAProtocolViolation(t *testing.T) {
	s := theSite(t)
	for _, request := range []uint32{sslRequestCode, gssEncRequestCode} {
		w := s.proxy.dialRaw(t)
		w.raw(packet(request))
		w.answer()
		w.raw(packet(request))
		if refusal := w.refusal(); refusal.Code != "08P01" {
			t.Errorf("%d: %s %s", request, refusal.Code, refusal.Message)
		}
	}
}

func newestProtocol(c *pgx.ConnConfig) { c.MaxProtocolVersion = "3.2" }

func TestANewerMinorProtocolIsNegotiatedDown(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	for name, change := range map[string]change{
		"protocol 3.2":      newestProtocol,
		"a protocol option": with("_pq_.x", "1"),
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, s.proxy.connect(t, a, change), "SELECT current_schema()", a.schema)
		})
	}
	for asked, spoken := range map[uint32]uint32{0: 0, 2: 2, 9999: 2} {
		w := s.proxy.dialRaw(t)
		w.raw(startup(protocol30+asked, "user", a.login+"."+a.tenant, "_pq_.x", "1"))
		message, err := w.Receive()
		if err != nil {
			t.Fatal(err)
		}
		negotiation, ok := message.(*pgproto3.NegotiateProtocolVersion)
		if !ok || negotiation.NewestMinorProtocol&0xffff != spoken || fmt.Sprint(negotiation.UnrecognizedOptions) != "[_pq_.x]" {
			t.Errorf("asked for 3.%d, got %s", asked, written(t, message))
		}
	}
}

func TestStartupPacketsThatAreNoneAreRefused(t *testing.T) {
	s := theSite(t)
	sized := func(length int32) []byte {
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(length)), protocol30)
	}
	for name, c := range map[string]struct {
		packet []byte
		want   string
	}{
		"length 0":             {sized(0), "08P01"},
		"length 4":             {sized(4), "08P01"},
		"length 7":             {sized(7), "08P01"},
		"length 8":             {sized(8), "08P01"},
		"length 10001":         {sized(10001), "08P01"},
		"length 2^31-1":        {sized(1<<31 - 1), "08P01"},
		"length -1":            {sized(-1), "08P01"},
		"no terminator":        {packet(protocol30, []byte("user\x00x")...), "08P01"},
		"a name without value": {packet(protocol30, []byte("user\x00x\x00y\x00")...), "08P01"},
		"protocol 2.0":         {startup(2<<16, "user", "x"), "08P01"},
		"protocol 4.0":         {startup(4<<16, "user", "x"), "08P01"},
		"no parameters":        {startup(protocol30), "28000"},
		"a short cancel":       {packet(cancelRequestCode, 1, 2, 3), "08P01"},
	} {
		t.Run(name, func(t *testing.T) {
			w := s.proxy.dialRaw(t)
			w.raw(c.packet)
			if refusal := w.refusal(); refusal.Code != c.want || refusal.Severity != "FATAL" {
				t.Errorf("%s %s %s, want %s", refusal.Severity, refusal.Code, refusal.Message, c.want)
			}
		})
	}
}

func TestACancelRequestWithAnUnknownKeyIsClosedWithoutAWord(t *testing.T) {
	w := theSite(t).proxy.dialRaw(t)
	w.raw(packet(cancelRequestCode, 1, 2, 3, 4, 5, 6, 7, 8))
	w.closedSilently()
}

// slack is what a machine with other work may add to a deadline of one second.
const slack = 4 * time.Second

func TestSilenceEndsInEveryPhase(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	p := s.startProxy(t, settings{"timeouts.startup": "1s", "timeouts.authentication": "1s", "timeouts.frame": "1s", "timeouts.idle_transaction": "1s", "timeouts.client_idle": "2s"})
	inSession := func(statements string, rest []byte) func(*testing.T) *wire {
		return func(t *testing.T) *wire {
			w := takeOver(t, p.connect(t, a))
			if statements != "" {
				w.say(&pgproto3.Query{String: statements})
				w.answers(1)
			}
			w.raw(rest)
			return w
		}
	}
	begun := func(length int) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(length)), "SELECT"...)
	}
	t.Run("phase", func(t *testing.T) {
		for name, enter := range map[string]func(t *testing.T) *wire{
			"before anything":           func(t *testing.T) *wire { return p.dialRaw(t) },
			"after SSLRequest":          func(t *testing.T) *wire { w := p.dialRaw(t); w.raw(packet(sslRequestCode)); w.answer(); return w },
			"within the startup packet": func(t *testing.T) *wire { w := p.dialRaw(t); w.raw(startupOf(a)[:20]); return w },
			"before the SASL answer":    func(t *testing.T) *wire { w := p.dialRaw(t); w.raw(startupOf(a)); w.asks(); return w },
			"within the SASL answer": func(t *testing.T) *wire {
				w := p.dialRaw(t)
				w.raw(startupOf(a))
				w.asks()
				w.raw([]byte{'p', 0, 0})
				return w
			},
			"within a header":                              inSession("", []byte{'Q', 0}),
			"within a message":                             inSession("", begun(100)),
			"in a transaction":                             inSession("BEGIN", nil),
			"within a message, in a transaction":           inSession("BEGIN", begun(100)),
			"within a message that is forwarded piecewise": inSession("BEGIN", append(begun(1<<20), make([]byte, 100<<10)...)),
			"between transactions":                         inSession("SELECT 1", nil),
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := enter(t)
				began := time.Now()
				w.ends()
				if took := time.Since(began); took > 2*time.Second+slack {
					t.Errorf("it took %s", took)
				}
			})
		}
		t.Run("a byte now and then", func(t *testing.T) {
			t.Parallel()
			w := p.dialRaw(t)
			began := time.Now()
			for _, b := range startup(protocol30, "user", strings.Repeat("x", 1000)) {
				if _, err := w.Write([]byte{b}); err != nil {
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
			if took := time.Since(began); took > time.Second+slack {
				t.Errorf("it took %s", took)
			}
		})
	})
	expect(t, p.connect(t, a), "SELECT current_schema()", a.schema)
}

func TestALongSASLAnswerIsRefusedByItsLength(t *testing.T) {
	s := theSite(t)
	w := s.proxy.dialRaw(t)
	w.raw(startupOf(s.tenant(t, "acme")))
	w.asks()
	w.raw(append(binary.BigEndian.AppendUint32([]byte{'p'}, 1<<20), make([]byte, 64)...))
	if refusal := w.refusal(); refusal.Code != "08P01" {
		t.Errorf("%s %s", refusal.Code, refusal.Message)
	}
}

// growth bounds what noise may add to the proxy's memory: buffers and the race detector's shadow of them.
const growth = 96 << 20

func TestRandomBytesNeverCrashIt(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	before := s.proxy.memory(t)
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		noise := make([]byte, 1+random.IntN(4096))
		for i := range noise {
			noise[i] = byte(random.Uint32())
		}
		switch seed % 4 { // the deeper a packet gets, the more there is to break
		case 1:
			noise = packet(protocol30, noise...)
		case 2:
			noise = append(packet(sslRequestCode), noise...)
		case 3:
			noise = append(startupOf(a), noise...)
		}
		w := s.proxy.dialRaw(t)
		w.raw(noise)
		w.Close()
	}
	expect(t, s.proxy.connect(t, a), "SELECT current_schema()", a.schema)
	if after := s.proxy.memory(t); after-before > growth {
		t.Errorf("memory grew from %d to %d MB", before>>20, after>>20)
	}
}

func TestRandomMessagesOfASessionNeverCrashIt(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	before := s.proxy.memory(t)
	kinds := []byte("QPBEDCHSFdcfXpQ\x00\xff")
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 1))
		var noise []byte
		for range 1 + random.IntN(20) {
			body := make([]byte, random.IntN(64))
			for i := range body {
				body[i] = byte(random.Uint32N(4)) * byte(random.Uint32())
			}
			noise = append(noise, kinds[random.IntN(len(kinds))])
			noise = append(binary.BigEndian.AppendUint32(noise, uint32(4+len(body))), body...)
		}
		w := takeOver(t, s.proxy.connect(t, a))
		w.raw(noise)
		w.Close()
	}
	expect(t, s.proxy.connect(t, a), "SELECT current_schema()", a.schema)
	if after := s.proxy.memory(t); after-before > growth {
		t.Errorf("memory grew from %d to %d MB", before>>20, after>>20)
	}
}

func TestManySilentConnectionsDoNotKeepOthersOut(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "acme")
	p := s.startProxy(t, nil)
	for range 500 {
		p.dialRaw(t)
	}
	expect(t, p.connect(t, a), "SELECT current_schema()", a.schema)
}
