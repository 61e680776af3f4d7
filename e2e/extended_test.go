package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// corners are scripts for what drivers rarely send and Postgres answers nevertheless. Each starts in a session of its
// own, so that one that goes wrong does not spoil the next.
func corners() []script {
	sync, flush := &pgproto3.Sync{}, &pgproto3.Flush{}
	statement := func(name string) *pgproto3.Describe { return &pgproto3.Describe{ObjectType: 'S', Name: name} }
	portal := func(name string) *pgproto3.Describe { return &pgproto3.Describe{ObjectType: 'P', Name: name} }
	closing := func(kind byte, name string) *pgproto3.Close { return &pgproto3.Close{ObjectType: kind, Name: name} }
	data := func(text string) *pgproto3.CopyData { return &pgproto3.CopyData{Data: []byte(text)} }
	done, failed := &pgproto3.CopyDone{}, &pgproto3.CopyFail{Message: "changed my mind"}
	binary := bind("", "b", "1")
	binary.ResultFormatCodes = []int16{1}
	say := func(m ...pgproto3.FrontendMessage) []pgproto3.FrontendMessage { return m }
	return []script{
		{"a portal's name is taken", 1, say(parse("s", "SELECT 1"), bind("p", "s"), bind("p", "s"), sync)},
		{"an unknown portal is described", 1, say(portal("nobody"), sync)},
		{"a portal is closed and used", 1, say(parse("s", "SELECT 1"), bind("p", "s"), closing('P', "p"), execution("p", 0), sync)},
		{"a statement is closed and its name used again", 2, say(parse("s", "SELECT 1"), closing('S', "s"), parse("s", "SELECT 2"), bind("", "s"), execution("", 0), sync, closing('S', "s"), sync)},
		{"a statement is closed while its portal is open", 1, say(parse("s", "SELECT 1"), bind("p", "s"), closing('S', "s"), execution("p", 0), sync)},
		{"too few values", 1, say(parse("s", "SELECT $1::int"), bind("", "s"), execution("", 0), sync)},
		{"a value that is none", 1, say(parse("s", "SELECT $1::int"), bind("", "s", "x"), execution("", 0), sync)},
		{"binary results", 1, say(parse("b", "SELECT $1::int"), binary, portal(""), execution("", 0), sync)},
		{"declared types", 1, say(&pgproto3.Parse{Name: "t", Query: "SELECT $1, $2", ParameterOIDs: []uint32{23, 25}}, statement("t"), sync)},
		{"an empty statement", 1, say(parse("", ""), bind("", ""), portal(""), execution("", 0), sync)},
		{"two statements in one", 1, say(parse("s", "SELECT 1; SELECT 2"), sync)},
		{"a statement without rows", 1, say(parse("s", "SET work_mem = '2MB'"), statement("s"), bind("", "s"), portal(""), execution("", 0), sync)},
		{"the same text under two names", 3, say(parse("x", "SELECT 1"), parse("y", "SELECT 1"), sync, closing('S', "x"), bind("", "y"), execution("", 0), sync, bind("", "x"), sync)},
		{"a name with spaces and quotes", 1, say(parse(`it's "my" name`, "SELECT 1"), bind(`p "x"`, `it's "my" name`), execution(`p "x"`, 0), sync)},
		{"portions across Sync in a transaction", 4, say(simple("BEGIN"), parse("s", "SELECT generate_series(1, 5)"), bind("p", "s"), execution("p", 2), sync, execution("p", 2), sync, execution("p", 2), sync)},
		{"a simple query amid unsynced messages", 2, say(parse("s", "SELECT 1"), bind("", "s"), execution("", 0), simple("SELECT 2"), sync)},
		{"a simple query behind an unsynced error", 1, say(parse("s", "SELECT nonsense"), simple("SELECT 2"), sync)},
		{"BEGIN and COMMIT in one segment", 2, say(parse("", "BEGIN"), bind("", ""), execution("", 0), parse("", "SELECT 1"), bind("", ""), execution("", 0), parse("", "COMMIT"), bind("", ""), execution("", 0), sync, sync)},
		{"an error amid a transaction in one segment", 2, say(parse("", "BEGIN"), bind("", ""), execution("", 0), parse("", "SELECT 1/0"), bind("", ""), execution("", 0), parse("", "COMMIT"), bind("", ""), execution("", 0), sync, simple("ROLLBACK"))},
		{"Close in a failed transaction", 3, say(parse("s", "SELECT 1"), sync, simple("BEGIN; SELECT 1/0"), closing('S', "s"), bind("", "s"), sync)},
		{"Parse in a failed transaction", 3, say(simple("BEGIN; SELECT 1/0"), parse("s", "SELECT 1"), sync, parse("r", "ROLLBACK"), bind("", "r"), execution("", 0), sync)},
		{"a statement of a rolled back transaction stays", 4, say(simple("BEGIN"), parse("s", "SELECT 1"), sync, simple("ROLLBACK"), bind("", "s"), execution("", 0), sync)},
		{"Flush answers what was asked", 1, say(parse("s", "SELECT 1"), statement("s"), flush, bind("", "s"), flush, execution("", 0), sync)},
		{"DEALLOCATE of an unknown name", 1, say(simple("DEALLOCATE nobody"))},
		{"DEALLOCATE ALL", 3, say(parse("s", "SELECT 1"), sync, simple("DEALLOCATE ALL"), bind("", "s"), sync)},
		{"DEALLOCATE PREPARE, in capitals and quotes", 3, say(parse("S", "SELECT 1"), sync, simple(`DEALLOCATE PREPARE "S";`), bind("", "S"), sync)},
		{"a cursor", 1, say(simple("BEGIN; DECLARE c CURSOR FOR SELECT generate_series(1, 5); FETCH 2 FROM c; MOVE 1 FROM c; FETCH ALL FROM c; CLOSE c; COMMIT"))},
		{"a cursor as a portal", 2, say(simple("BEGIN; DECLARE c CURSOR FOR SELECT generate_series(1, 5)"), portal("c"), execution("c", 2), sync)},
		{"a function call that fails", 2, say(&pgproto3.FunctionCall{Function: 154 /* int4div */, Arguments: [][]byte{[]byte("1"), []byte("0")}}, simple("SELECT 1"))},
		{"an unknown function call", 1, say(&pgproto3.FunctionCall{Function: 1})},
		{"COPY in, out and in again", 3, say(simple("CREATE TEMP TABLE c (x int)"), simple("COPY c FROM STDIN; COPY c TO STDOUT; COPY c FROM STDIN"), data("1\n2\n"), done, data("3\n"), done, simple("SELECT sum(x) FROM c"))},
		{"COPY that the client fails", 2, say(simple("CREATE TEMP TABLE c (x int); COPY c FROM STDIN"), data("1\n"), failed, simple("SELECT count(*) FROM c"))},
		{"COPY that a row fails", 2, say(simple("CREATE TEMP TABLE c (x int); COPY c FROM STDIN"), data("1\nx\n"), data("2\n"), done, simple("SELECT 1"))},
		{"COPY by the extended protocol", 3, say(simple("CREATE TEMP TABLE c (x int)"), parse("", "COPY c FROM STDIN"), bind("", ""), execution("", 0), data("1\n"), done, sync, simple("SELECT count(*) FROM c"))},
		{"COPY by the extended protocol, with a Sync amid", 2, say(simple("CREATE TEMP TABLE c (x int)"), parse("", "COPY c FROM STDIN"), bind("", ""), execution("", 0), sync, data("1\n"), done, sync)},
		{"COPY messages without COPY", 1, say(data("1\n"), done, failed, simple("SELECT 1"))},
		{"a plan whose result has changed", 4, say(simple("CREATE TEMP TABLE c (x int)"), parse("s", "SELECT * FROM c"), bind("", "s"), execution("", 0), sync, simple("ALTER TABLE c ADD y int"), bind("", "s"), execution("", 0), sync)},
		{"warnings, one of them outside a transaction", 2, say(simple("COMMIT"), simple("BEGIN; BEGIN; COMMIT"))},
		{"SET LOCAL outside a transaction", 1, say(simple("SET LOCAL work_mem = '1MB'"))},
		{"an unterminated text", 1, say(simple("SELECT 'x"))},
	}
}

func TestInTheCornersOfTheProtocolTheAnswersArePostgresOwn(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "corners")
	for _, corner := range corners() {
		t.Run(corner.name, func(t *testing.T) {
			direct := takeOver(t, s.direct(t, with("search_path", a.schema)))
			through := takeOver(t, s.proxy.connect(t, a))
			direct.say(corner.says...)
			want := neutral(direct.answers(corner.ready))
			through.say(corner.says...)
			if got := neutral(through.answers(corner.ready)); !slices.Equal(got, want) {
				t.Errorf("through the proxy\n  %s\ndirectly\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
		})
	}
}

// TestAStatementIsKnownOnlyToTheProtocolOrOnlyToSQL pins a difference from Postgres, where both see each other's: a
// session that relies on that is told that there is no such statement, and never gets another one's answer.
func TestAStatementIsKnownOnlyToTheProtocolOrOnlyToSQL(t *testing.T) {
	s := theSite(t)
	w := takeOver(t, s.proxy.connect(t, s.tenant(t, "corners")))
	for _, says := range [][]pgproto3.FrontendMessage{
		{simple("PREPARE a AS SELECT 7"), bind("", "a"), execution("", 0), &pgproto3.Sync{}},
		{parse("b", "SELECT 7"), &pgproto3.Sync{}, simple("EXECUTE b")},
	} {
		w.say(says...)
		if seen := w.answers(2); !containsAll(seen, "26000") {
			t.Errorf("got %q", seen)
		}
	}
	w.say(simple("EXECUTE a"), bind("", "b"), execution("", 0), &pgproto3.Sync{})
	if seen := w.answers(2); strings.Contains(strings.Join(seen, ""), "ErrorResponse") {
		t.Errorf("got %q", seen)
	}
}

// pipeline makes n times Parse, Bind and Execute of different texts, without a Sync.
func pipeline(n int) []pgproto3.FrontendMessage {
	var messages []pgproto3.FrontendMessage
	for i := range n {
		messages = append(messages, parse("", fmt.Sprintf("SELECT %d, $1::text", i)), bind("", "", "x"), execution("", 0))
	}
	return messages
}

func TestLongPipelinesOfOneSegment(t *testing.T) {
	s := theSite(t)
	for _, n := range []int{2000, 20000} { // the second has more messages than the proxy lets be under way
		w := takeOver(t, s.proxy.connect(t, s.tenant(t, "corners")))
		sent := make(chan error, 1)
		go func() { sent <- w.write(append(pipeline(n), &pgproto3.Sync{})) }()
		seen := w.answers(1)
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if want := 4*n + 1; len(seen) != want {
			t.Errorf("%d messages came back, want %d; the last is %s", len(seen), want, seen[len(seen)-1])
		}
	}
}

func TestAnErrorInALongPipelineSkipsToItsSync(t *testing.T) {
	s := theSite(t)
	w := takeOver(t, s.proxy.connect(t, s.tenant(t, "corners")))
	messages := append(pipeline(500), parse("", "SELECT 1/0"), bind("", ""), execution("", 0))
	messages = append(append(messages, pipeline(500)...), &pgproto3.Sync{}, simple("SELECT 'after'"))
	sent := make(chan error, 1)
	go func() { sent <- w.write(messages) }()
	seen := w.answers(2)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	// 500 answered in full; the failing statement's ParseComplete (its Bind may evaluate it) and the error; the Sync.
	if len(seen) < 2000+3 || len(seen) > 2000+4+4 || !containsAll(seen, "22012", "after") {
		t.Errorf("%d messages came back: %s", len(seen), strings.Join(seen[max(0, len(seen)-10):], "\n"))
	}
}

// write sends many messages without the test's goroutine, which has to read meanwhile.
func (w *wire) write(messages []pgproto3.FrontendMessage) error {
	var b []byte
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			return err
		}
	}
	_, err := w.Write(b)
	return err
}

func TestFlushIsAnsweredBeforeAnySync(t *testing.T) {
	s := theSite(t)
	w := takeOver(t, s.proxy.connect(t, s.tenant(t, "corners")))
	w.say(parse("", "SELECT 1"), &pgproto3.Flush{})
	w.answersTo(is("ParseComplete"))
	w.say(bind("", ""), &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Flush{})
	w.answersTo(is("RowDescription"))
	w.say(execution("", 1), &pgproto3.Flush{})
	w.answersTo(is("PortalSuspended"))
	w.say(&pgproto3.Sync{})
	w.answers(1)
}

func TestStatementsFollowTheirSessionToOtherConnections(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "following")
	move := func(t *testing.T, conn *pgx.Conn, crowd *crowd) { t.Helper(); crowd.elsewhere(conn) }
	t.Run("named", func(t *testing.T) {
		conn := s.proxy.connect(t, a)
		crowd := &crowd{t: t, p: s.proxy, a: a}
		if _, err := conn.Prepare(bounded(t), "mine", "SELECT $1::int + 1"); err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			move(t, conn, crowd)
			var got int
			if err := conn.QueryRow(bounded(t), "mine", n).Scan(&got); err != nil || got != n+1 {
				t.Errorf("%d, %v", got, err)
			}
		}
		if err := conn.Deallocate(bounded(t), "mine"); err != nil {
			t.Error(err)
		}
	})
	t.Run("the same name in two sessions", func(t *testing.T) {
		one, two := s.proxy.connect(t, a), s.proxy.connect(t, a)
		for sql, conn := range map[string]*pgx.Conn{"SELECT 'one'": one, "SELECT 'two'": two} {
			if _, err := conn.Prepare(bounded(t), "same", sql); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			for want, conn := range map[string]*pgx.Conn{"one": one, "two": two} {
				var got string
				if err := conn.QueryRow(bounded(t), "same").Scan(&got); err != nil || got != want {
					t.Errorf("%q, %v, want %q", got, err, want)
				}
			}
		}
	})
	t.Run("unnamed", func(t *testing.T) {
		w, other := takeOver(t, s.proxy.connect(t, a)), s.proxy.connect(t, a)
		w.say(parse("", "SELECT $1::text, pg_backend_pid()"), &pgproto3.Sync{})
		w.answers(1)
		execute(t, other, "SELECT 'this drops the unnamed statement of the connection'")
		occupy(t, other)
		w.say(bind("", "", "hello"), execution("", 0), &pgproto3.Sync{})
		if seen := w.answers(1); !containsAll(seen, "BindComplete", "hello", "CommandComplete") {
			t.Errorf("got %q", seen)
		}
	})
}
