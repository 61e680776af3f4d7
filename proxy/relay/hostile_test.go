package relay_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/proxy/relay"
)

// scenario is a client's stream with a bit of everything.
func scenario() []byte {
	return join(
		query("SELECT 1"), parse("s1", "SELECT 1"), describe("s1"), sync(),
		bind("s1"), execute(), sync(), query("BEGIN"), parse("", "SELECT crash"), bind(""), execute(), parse("lost", "x"), sync(),
		query("ROLLBACK"), bind("lost"), sync(), query("COPY t"), message('d', []byte("a")), message('c'),
		query("SELECT "+strings.Repeat("y", 17<<10)), parse("s2", "SELECT 2"), parse("s3", "SELECT 2"), message('H'),
		closeStatement("s2"), bind("s3"), execute(), sync(), query("SET a.b = 1"), message('F', []byte{0, 0, 0, 1}, 0, 0, 0), query("SELECT fail"),
	)
}

func TestAnySplitOfTheBytesGivesTheSameTranscript(t *testing.T) {
	whole := newStage(relay.Config{})
	whole.send(scenario())
	want := whole.got()
	if whole.err != nil || len(want) < 40 {
		t.Fatalf("%d messages, %v", len(want), whole.err)
	}
	for seed := range uint64(36) {
		r := rand.New(rand.NewPCG(seed, 1))
		largest := []int{1, 3, 7, 100, 5000, 60000}[seed%6]
		s := newStage(relay.Config{})
		s.cut = func(n int) int { return min(n, 1+r.IntN(largest)) }
		for rest := scenario(); len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(largest))
			s.send(rest[:n])
			rest = rest[n:]
		}
		if got := s.got(); s.err != nil || !slices.Equal(got, want) {
			t.Fatalf("seed %d, pieces up to %d: %v\n%s\nwant\n%s", seed, largest, s.err, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// FuzzFromClient: whatever a client sends, the machine does not panic, consumes no more than it was given, and what the
// server is sent is whole messages of types that a frontend may send.
func FuzzFromClient(f *testing.F) {
	f.Add(scenario(), uint64(1))
	f.Add(join(query("SELECT 1"), message('X')), uint64(2))
	f.Add(join(parse("a", "b"), bind("a"), closeStatement("a"), sync()), uint64(3))
	f.Add([]byte{'Q', 0xff, 0xff, 0xff, 0xff}, uint64(4))
	f.Add(join(query("COPY t"), sync(), parse("a", "fail"), message('f', "x")), uint64(5))
	f.Add(join(parse("a", "SELECT * FROM t"), describe("a"), sync(), parse("", "DEALLOCATE a"), bind(""), execute(), sync(), bind("a"), sync()), uint64(6))
	f.Add(join(parse("a", "b"), query("RESET ALL"), query("SELECT pg_prepared_statements"), bind("a"), execute(), sync(), query("DISCARD ALL")), uint64(7))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 2))
		s := newStage(relay.Config{MaxStatementBytes: 4096, MaxStatements: 5, Settings: relay.NewPairs(map[string]string{"timezone": "UTC"})})
		for rest := stream; len(rest) > 0 && s.err == nil && !s.ended; {
			n := min(len(rest), 1+r.IntN(64))
			s.send(rest[:n])
			rest = rest[n:]
		}
		for _, m := range s.double.seen {
			if !strings.ContainsRune("QPBDECHSFdcf", rune(m[0])) {
				t.Errorf("the server was sent %q", m)
			}
		}
		if len(s.double.in) > 0 && s.err == nil && s.session.Clean() {
			t.Errorf("clean with %d bytes of a message half sent", len(s.double.in))
		}
	})
}

// FuzzFromServer: whatever a server sends, the machine does not panic and consumes no more than it was given.
func FuzzFromServer(f *testing.F) {
	f.Add(join(message('T', 0), message('C', "SELECT 1"), message('Z', 'I')))
	f.Add(message('E', 'S', "ERROR", byte(0)))
	f.Add(message('S', "TimeZone", "UTC"))
	f.Add([]byte{'D', 0x7f, 0xff, 0xff, 0xff, 0})
	f.Add([]byte{'E', 0x7f, 0xff, 0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, stream []byte) {
		for _, request := range [][]byte{query("SET x.y = 1"), join(parse("a", "b"), bind("a"), execute(), sync())} {
			session := relay.NewSession(relay.Config{ID: 1, MaxStatementBytes: 1000, MaxStatements: 10})
			var out relay.Output
			session.Attach(relay.NewServer(7, nil, 2), &out)
			if _, _, err := session.FromClient(request, &out); err != nil {
				t.Fatal(err)
			}
			n, _, err := session.FromServer(stream, &out)
			if n > len(stream) {
				t.Errorf("consumed %d of %d bytes (%v)", n, len(stream), err)
			}
		}
	})
}
