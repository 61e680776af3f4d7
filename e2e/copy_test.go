package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// table is the text of n rows of two columns.
func table(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "%d\t%s\n", i, strings.Repeat("x", 90))
	}
	return b.Bytes()
}

func TestCopyCarriesTwentyMegabytesBothWays(t *testing.T) {
	s := theSite(t)
	conn := s.proxy.connect(t, s.tenant(t, "copy_a"))
	execute(t, conn, "CREATE TABLE bulk (id int, pad text)")
	in := table(200_000)
	for _, format := range []string{"text", "binary"} {
		tag, err := conn.PgConn().CopyFrom(bounded(t), bytes.NewReader(in), "COPY bulk FROM STDIN (FORMAT text)")
		if err != nil || tag.RowsAffected() != 200_000 {
			t.Fatalf("in: %s, %v", tag, err)
		}
		var out bytes.Buffer
		if _, err := conn.PgConn().CopyTo(bounded(t), &out, "COPY (SELECT * FROM bulk ORDER BY id) TO STDOUT (FORMAT "+format+")"); err != nil {
			t.Fatal(err)
		}
		if format == "text" && !bytes.Equal(out.Bytes(), in) {
			t.Errorf("%d bytes came back of %d", out.Len(), len(in))
		}
		execute(t, conn, "TRUNCATE bulk")
		if format == "binary" {
			if tag, err := conn.PgConn().CopyFrom(bounded(t), &out, "COPY bulk FROM STDIN (FORMAT binary)"); err != nil || tag.RowsAffected() != 200_000 {
				t.Errorf("binary: %s, %v", tag, err)
			}
		}
	}
	expect(t, conn, "SELECT count(*) FROM bulk", "200000")
}

func TestACopyThatFailsLeavesTheSessionUsable(t *testing.T) {
	s := theSite(t)
	conn := s.proxy.connect(t, s.tenant(t, "copy_a"))
	execute(t, conn, "CREATE TABLE IF NOT EXISTS failing (id int)")
	bad := append(table(50_000)[:0], bytes.Repeat([]byte("1\n"), 50_000)...)
	bad = append(append(bad, "not a number\n"...), bytes.Repeat([]byte("1\n"), 500_000)...)
	if _, err := conn.PgConn().CopyFrom(bounded(t), bytes.NewReader(bad), "COPY failing FROM STDIN"); sqlstate(err) != "22P02" {
		t.Errorf("a bad row: %v", err)
	}
	expect(t, conn, "SELECT count(*) FROM failing", "0")
	broken := io.MultiReader(bytes.NewReader(bytes.Repeat([]byte("1\n"), 1000)), failingReader{})
	if _, err := conn.PgConn().CopyFrom(bounded(t), broken, "COPY failing FROM STDIN"); err == nil {
		t.Error("the client gave up and was told of success")
	}
	expect(t, conn, "SELECT count(*) FROM failing", "0")
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("the client gives up") }

func TestADisconnectInMidCopyLeavesTheNextSessionClean(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "copy_a")
	p := s.startProxy(t, settings{"servers.main.max_connections": "1"})
	execute(t, p.connect(t, a), "CREATE TABLE IF NOT EXISTS interrupted (id int)")
	for _, tail := range []string{"", "d", "d\x00\x00", "d\x00\x00\x00\x10half a m"} {
		w := takeOver(t, p.connect(t, a))
		w.say(simple("COPY interrupted FROM STDIN"))
		w.answersTo(is("CopyInResponse"))
		w.raw([]byte("d\x00\x00\x00\x061\n" + tail))
		w.Close()
		expect(t, p.connect(t, a), "SELECT count(*) FROM interrupted", "0")
	}
}

func TestValuesOfAHundredMegabytesPassBothWays(t *testing.T) {
	s := theSite(t)
	conn := s.proxy.connect(t, s.tenant(t, "copy_a"))
	value := strings.Repeat("0123456789abcdef", 100<<20/16)
	var back string
	if err := conn.QueryRow(bounded(t), "SELECT $1::text", value).Scan(&back); err != nil || back != value {
		t.Errorf("extended: %d bytes came back, %v", len(back), err)
	}
	if got := query(t, conn, "SELECT '"+value+"'"); got != value {
		t.Errorf("simple: %d bytes came back", len(got))
	}
}

func TestASlowReaderDoesNotFillTheProxy(t *testing.T) {
	s := theSite(t)
	p := s.startProxy(t, nil)
	conn := p.connect(t, s.tenant(t, "copy_a"))
	expect(t, conn, "SELECT 1", "1")
	before := p.memory(t)
	w := takeOver(t, conn)
	w.say(simple("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")) // 1 GB
	w.answersTo(is("RowDescription"))
	for range 10 {
		time.Sleep(100 * time.Millisecond) // the client does not read; what grows does so now
		if grown := p.memory(t) - before; grown > 32<<20 {
			t.Fatalf("the proxy has grown by %d MB", grown>>20)
		}
	}
	for ready := false; !ready; {
		m, err := w.Receive()
		if err != nil {
			t.Fatal(err)
		}
		_, ready = m.(*pgproto3.ReadyForQuery)
	}
	if grown := p.memory(t) - before; grown > 64<<20 {
		t.Errorf("the proxy has grown by %d MB", grown>>20)
	}
}

func TestBothSidesMaySendMuchAtOnce(t *testing.T) {
	s := theSite(t)
	w := takeOver(t, s.proxy.connect(t, s.tenant(t, "copy_a")))
	const n = 64
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	deadline, _ := ctx.Deadline()
	if err := w.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		var err error
		for range n {
			text, eerr := simple("SELECT '" + strings.Repeat("y", 1<<20) + "'").Encode(nil)
			if err = errors.Join(err, eerr); err != nil {
				break
			}
			if _, err = w.Write(text); err != nil {
				break
			}
		}
		sent <- err
	}()
	w.answers(n)
	if err := <-sent; err != nil {
		t.Error(err)
	}
}
