package proxy_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"testing/iotest"

	"github.com/docex-proxy/docex-proxy/proxy"
)

func packet(code uint32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(binary.BigEndian.AppendUint32(b, code), body...)
}

func TestAStartupPacketIsReadWholeAndNotAByteMore(t *testing.T) {
	r := bytes.NewReader(append(packet(3<<16, "user\x00app.acme\x00\x00"), "rest"...))
	_, parameters, err := proxy.DecodeStartup(iotest.OneByteReader(r))
	if err != nil || parameters["user"] != "app.acme" || r.Len() != len("rest") {
		t.Errorf("%v, %v, %d bytes left", parameters, err, r.Len())
	}
}

func TestMalformedStartupPacketsAreRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"length 0":           {0, 0, 0, 0, 0, 3, 0, 0},
		"length 7":           {0, 0, 0, 7, 0, 3, 0, 0},
		"length 10001":       {0, 0, 0x27, 0x11, 0, 3, 0, 0},
		"length -1":          {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"length 2^31-1":      {0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"no terminator":      packet(3<<16, "user\x00app"),
		"a name alone":       packet(3<<16, "user\x00\x00"),
		"nothing":            packet(3<<16, ""),
		"a truncated packet": packet(3<<16, "user\x00app\x00\x00")[:12],
	} {
		if _, parameters, err := proxy.DecodeStartup(bytes.NewReader(b)); err == nil {
			t.Errorf("%s: read as %v", name, parameters)
		}
	}
}

// FuzzStartup: whatever arrives first, reading it does not panic, takes no more than the packet, and accepts no packet
// larger than Postgres does.
func FuzzStartup(f *testing.F) {
	f.Add(packet(3<<16, "user\x00app.acme\x00options\x00-cdocex.tenant_id=acme\x00\x00"))
	f.Add(packet(3<<16|2, "user\x00app\x00_pq_.x\x001\x00\x00"))
	f.Add(packet(80877103, ""))
	f.Add(packet(80877102, "\x00\x00\x00\x01\x00\x00\x00\x02"))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0})
	f.Add(packet(3<<16, "\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		_, _, err := proxy.DecodeStartup(r)
		if used := len(b) - r.Len(); used > 10000 || err == nil && used != int(binary.BigEndian.Uint32(b)) {
			t.Errorf("%d bytes used of %d", used, len(b))
		}
	})
}

func TestASASLInitialResponseThatIsCutOffIsRefused(t *testing.T) {
	whole := "SCRAM-SHA-256\x00\x00\x00\x00\x0bn,,n=,r=abc"
	if mechanism, data, err := proxy.DecodeSASLInitial([]byte(whole)); err != nil || mechanism != "SCRAM-SHA-256" || string(data) != "n,,n=,r=abc" {
		t.Errorf("%q, %q, %v", mechanism, data, err)
	}
	for n := range len(whole) {
		if _, _, err := proxy.DecodeSASLInitial([]byte(whole[:n])); err == nil {
			t.Errorf("the first %d bytes are accepted", n)
		}
	}
}

// FuzzSASLInitial: whatever a client answers the challenge with, reading it does not panic, and gives nothing that was
// not sent.
func FuzzSASLInitial(f *testing.F) {
	f.Add([]byte("SCRAM-SHA-256\x00\x00\x00\x00\x0bn,,n=,r=abc"))
	f.Add([]byte("SCRAM-SHA-256\x00"))
	f.Add([]byte("SCRAM-SHA-256\x00\xff\xff\xff\xff"))
	f.Add([]byte("\x00\x7f\xff\xff\xffabc"))
	f.Fuzz(func(t *testing.T, body []byte) {
		mechanism, data, err := proxy.DecodeSASLInitial(body)
		if err == nil && len(mechanism)+1+4+len(data) != len(body) {
			t.Errorf("%q gives %q and %q", body, mechanism, data)
		}
	})
}
