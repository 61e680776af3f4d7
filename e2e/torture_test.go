package e2e_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// positions are states that a session can be in when its client goes mad. Each brings a session there.
var positions = map[string]func(w *wire){
	"idle":                     func(*wire) {},
	"in a transaction":         func(w *wire) { w.say(simple("BEGIN")); w.answers(1) },
	"in a failed transaction":  func(w *wire) { w.say(simple("BEGIN; SELECT 1/0")); w.answers(1) },
	"in COPY in":               func(w *wire) { w.say(simple("COPY torture FROM STDIN")); w.answersTo(is("CopyInResponse")) },
	"in the middle of COPY in": func(w *wire) { w.say(simple("COPY torture FROM STDIN"), &pgproto3.CopyData{Data: []byte("1\n2")}) },
	"in COPY out": func(w *wire) {
		w.say(simple("COPY (SELECT generate_series(1, 300000)) TO STDOUT"))
		w.answersTo(is("CopyData"))
	},
	"in a result": func(w *wire) {
		w.say(simple("SELECT repeat('x', 1000) FROM generate_series(1, 20000)"))
		w.answersTo(is("DataRow"))
	},
	"while a query runs": func(w *wire) { w.say(simple("SELECT pg_sleep(0.2)")) },
	"in a pipeline": func(w *wire) {
		w.say(&pgproto3.Parse{Name: "s", Query: "SELECT 1"}, &pgproto3.Bind{PreparedStatement: "s"}, &pgproto3.Execute{})
	},
	skipping: func(w *wire) {
		w.say(&pgproto3.Parse{Query: "SELECT nonsense FROM nowhere"}, &pgproto3.Flush{})
		w.answersTo(is("ErrorResponse"))
	},
	"with many queries under way": func(w *wire) {
		for range 50 {
			w.Send(simple("SELECT 1"))
		}
		w.say()
	},
	"pinned": func(w *wire) { w.say(simple("CREATE TEMP TABLE scratch (x int)")); w.answers(1) },
	"with a portal open": func(w *wire) {
		w.say(simple("BEGIN"), &pgproto3.Parse{Query: "SELECT generate_series(1, 100)"}, &pgproto3.Bind{}, &pgproto3.Execute{MaxRows: 2}, &pgproto3.Flush{})
		w.answersTo(is("PortalSuspended"))
	},
}

func headed(kind byte, length uint32, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, length), body...)
}

// assaults are what such a client sends. The proxy has to end the session, with an error or without, in its time.
var assaults = map[string][]byte{
	"a length of 0":                      headed('Q', 0, ""),
	"a length of 3":                      headed('S', 3, ""),
	"a length of 2 GB":                   headed('d', 1<<31-1, "x"),
	"a negative length":                  headed('Q', 1<<32-1, "SELECT 1"),
	"the most negative length":           headed('B', 1<<31, ""),
	"a Sync of 20 kB":                    headed('S', 20000, strings.Repeat("x", 100)),
	"a type that there is not":           headed('~', 4, ""),
	"a type of 0":                        headed(0, 4, ""),
	"a message of the other side":        headed('Z', 5, "I"),
	"an SSLRequest":                      packet(sslRequestCode),
	"a startup packet":                   startup(protocol30, "user", "postgres"),
	"a password":                         headed('p', 8, "abc\x00"),
	"a Parse without an end":             headed('P', 8, "abcd"),
	"a Parse with too many types":        headed('P', 4+1+2+2, "\x00x\x00\x7f\xff"),
	"a Describe of neither":              headed('D', 6, "X\x00"),
	"a Close with something behind":      headed('C', 9, "S\x00abc"),
	"text":                               []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
	"half a header":                      {'Q', 0, 0},
	"half a message":                     headed('Q', 100, "SELECT"),
	"half of a large message":            headed('Q', 100000, "SELECT '"+strings.Repeat("x", 40000)),
	"Terminate":                          headed('X', 4, ""),
	"Terminate with something behind it": append(headed('X', 4, ""), headed('Q', 13, "SELECT 1")...),
}

// ignored are assaults that Postgres does not look into, because an error has it skip to the next Sync.
func ignored(position, assault string) bool {
	return position == skipping && (strings.HasPrefix(assault, "a Parse") || strings.HasPrefix(assault, "a Describe") || strings.HasPrefix(assault, "a Close"))
}

const skipping = "behind an error in a pipeline"

// pending are assaults that are no mistake yet: the session ends when its time is up, or its client hangs up.
func pending(assault string) bool { return strings.HasPrefix(assault, "half") }

func TestAClientThatGoesMadHarmsItselfAlone(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "torture")
	p := s.startProxy(t, settings{
		"servers.main.max_connections": "2", "timeouts.frame": "300ms", "timeouts.client_write": "2s", "timeouts.idle_transaction": "2s",
	})
	witness := p.connect(t, a)
	execute(t, witness, "CREATE TABLE torture (x int)")
	random := rand.New(rand.NewPCG(1, 2))
	for position, reach := range positions {
		for assault, bytes := range assaults {
			t.Run(position+"/"+assault, func(t *testing.T) {
				w := takeOver(t, p.connect(t, a))
				reach(w)
				for len(bytes) > 0 { // in pieces
					n := 1 + random.IntN(len(bytes))
					if _, err := w.Write(bytes[:n]); err != nil {
						break // it has been found out already
					}
					bytes = bytes[n:]
				}
				switch {
				case ignored(position, assault):
					w.say(&pgproto3.Sync{})
					w.answers(1)
					w.Close()
				case pending(assault) && random.IntN(2) == 0:
					w.Conn.(*net.TCPConn).SetLinger(0) //nolint:errcheck // it is closed
					w.Close()
				default:
					if err := finish(w); err != nil {
						t.Error(err)
					}
				}
				expect(t, witness, "SELECT 'unharmed'", "unharmed")
			})
		}
	}
	eventually(t, patience, "the proxy has let go of all sessions but one", func() bool {
		return p.metric(t, `docex_proxy_client_connections`) == 1
	})
	if n := query(t, s.direct(t), "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tenant_torture' AND state LIKE 'idle in%'"); n != "0" {
		t.Errorf("%s server connections are left in a transaction", n)
	}
	if n := query(t, witness, "SELECT count(*) FROM torture"); n != "0" {
		t.Errorf("%s rows of an unfinished COPY are there", n)
	}
}

// finish reads what the proxy has to say to the end of the connection.
func finish(w *wire) error {
	var code string
	for {
		message, err := w.Receive()
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			return fmt.Errorf("the session goes on; the last error was %q", code)
		case errors.Is(err, io.EOF), err != nil:
			return nil
		}
		if refusal, ok := message.(*pgproto3.ErrorResponse); ok {
			if code = refusal.Code; len(code) != 5 || refusal.Message == "" {
				return fmt.Errorf("an error without a code or a message: %+v", refusal)
			}
		}
	}
}

func TestAConversationInSingleBytesIsTheSame(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "torture")
	var conversation []byte
	for _, m := range []pgproto3.FrontendMessage{
		simple("SELECT 1; SELECT 2"), &pgproto3.Parse{Name: "s", Query: "SELECT $1::int"}, &pgproto3.Describe{ObjectType: 'S', Name: "s"}, &pgproto3.Sync{},
		&pgproto3.Bind{PreparedStatement: "s", Parameters: [][]byte{[]byte("7")}}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, &pgproto3.Sync{},
		simple("BEGIN"), &pgproto3.Parse{Query: "SELECT 1/0"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Parse{Name: "lost", Query: "SELECT 1"}, &pgproto3.Sync{},
		simple("ROLLBACK"), &pgproto3.Close{ObjectType: 'S', Name: "s"}, &pgproto3.Sync{}, simple("SET work_mem = '3MB'"), simple("SHOW work_mem"), simple("RESET ALL"),
		simple("SELECT 'end'"),
	} {
		b, err := m.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		conversation = append(conversation, b...)
	}
	const ready = 11
	var whole []string
	for _, piece := range []int{len(conversation), 1, 7} {
		w := takeOver(t, s.proxy.connect(t, a))
		for rest := conversation; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
			w.raw(rest[:min(piece, len(rest))])
			if piece == 1 {
				time.Sleep(20 * time.Microsecond) // a segment each
			}
		}
		got := w.answers(ready)
		if whole == nil {
			whole = got
		}
		if strings.Join(got, "\n") != strings.Join(whole, "\n") {
			t.Errorf("in pieces of %d:\n%s\nat once:\n%s", piece, strings.Join(got, "\n"), strings.Join(whole, "\n"))
		}
	}
}
