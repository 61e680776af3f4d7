package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

func simple(sql string) *pgproto3.Query { return &pgproto3.Query{String: sql} }

// is tells messages by the name of their type.
func is(name string) func(pgproto3.BackendMessage) bool {
	return func(m pgproto3.BackendMessage) bool { return fmt.Sprintf("%T", m) == "*pgproto3."+name }
}

func containsAll(lines []string, parts ...string) bool {
	text := strings.Join(lines, "\n")
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) })
}

// script is a sequence of client messages with the number of ReadyForQuery messages it is answered with.
type script struct {
	name  string
	ready int
	says  []pgproto3.FrontendMessage
}

func parse(name, sql string) *pgproto3.Parse { return &pgproto3.Parse{Name: name, Query: sql} }
func bind(portal, statement string, values ...string) *pgproto3.Bind {
	b := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: statement}
	for _, v := range values {
		b.Parameters = append(b.Parameters, []byte(v))
	}
	return b
}
func execution(portal string, rows uint32) *pgproto3.Execute {
	return &pgproto3.Execute{Portal: portal, MaxRows: rows}
}

// scripts are run directly and through the proxy, one after the other in one session; the answers have to be equal.
func scripts() []script {
	sync, flush := &pgproto3.Sync{}, &pgproto3.Flush{}
	describeS := func(n string) *pgproto3.Describe { return &pgproto3.Describe{ObjectType: 'S', Name: n} }
	describeP := func(n string) *pgproto3.Describe { return &pgproto3.Describe{ObjectType: 'P', Name: n} }
	closeS := func(n string) *pgproto3.Close { return &pgproto3.Close{ObjectType: 'S', Name: n} }
	say := func(m ...pgproto3.FrontendMessage) []pgproto3.FrontendMessage { return m }
	return []script{
		{"simple", 1, say(simple("SELECT 1 AS a, NULL AS b; SELECT 'x'"))},
		{"empty query", 1, say(simple(""))},
		{"simple error", 1, say(simple("SELECT 1; SELECT 1/0; SELECT 2"))},
		{"setup", 1, say(simple("CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10)"))},
		{"parse, describe", 1, say(parse("s1", "SELECT n FROM t WHERE n > $1 ORDER BY n"), describeS("s1"), sync)},
		{"bind, describe, execute", 1, say(bind("", "s1", "7"), describeP(""), execution("", 0), sync)},
		{"again", 1, say(bind("", "s1", "9"), execution("", 0), sync)},
		{"a name taken", 1, say(parse("s1", "SELECT 2"), bind("", "s1", "1"), execution("", 0), sync)},
		{"an unknown name", 1, say(bind("", "nobody"), execution("", 0), sync)},
		{"describing an unknown name", 1, say(describeS("nobody"), sync)},
		{"closing an unknown name", 1, say(closeS("nobody"), sync)},
		{"an unknown portal", 1, say(execution("nobody", 0), sync)},
		{"an error in Parse skips", 1, say(parse("bad", "SELECT nonsense FROM nowhere"), bind("", "bad"), execution("", 0), sync)},
		{"and the name is free", 1, say(parse("bad", "SELECT 1"), describeS("bad"), sync)},
		{"an error in Execute", 1, say(parse("", "SELECT 1/$1::int"), bind("", "", "0"), execution("", 0), parse("later", "SELECT 1"), sync)},
		{"what was skipped is not there", 1, say(bind("", "later"), sync)},
		{"two segments, the first fails", 2, say(parse("f", "SELECT 1/0"), bind("", "f"), execution("", 0), sync, bind("", "s1", "8"), execution("", 0), sync)},
		{"rows in portions", 1, say(bind("p", "s1", "0"), execution("p", 3), execution("p", 3), execution("p", 0), sync)},
		{"unnamed", 1, say(parse("", "SELECT $1::text"), sync)},
		{"unnamed, later", 1, say(bind("", "", "hello"), describeP(""), execution("", 0), sync)},
		{"a simple query ends the unnamed", 2, say(simple("SELECT 3"), bind("", "", "hello"), sync)},
		{"Close", 1, say(closeS("s1"), bind("", "s1", "1"), sync)},
		{"in a transaction", 3, say(simple("BEGIN"), parse("tx", "INSERT INTO t VALUES ($1)"), bind("", "tx", "11"), execution("", 0), sync, simple("SELECT count(*) FROM t"))},
		{"failed transaction", 2, say(bind("", "tx", "11"), execution("", 0), sync, bind("", "tx", "12"), execution("", 0), sync)},
		{"rollback", 2, say(simple("ROLLBACK"), simple("SELECT count(*) FROM t"))},
		{"an implicit transaction is rolled back", 2, say(bind("", "tx", "20"), execution("", 0), bind("", "tx", "20"), execution("", 0), sync, simple("SELECT count(*) FROM t"))},
		{"a duplicate name rolls back too", 2, say(bind("", "tx", "21"), execution("", 0), parse("tx", "SELECT 1"), sync, simple("SELECT count(*) FROM t"))},
		{"a portal outlives no transaction", 2, say(bind("q", "tx", "30"), sync, execution("q", 0), sync)},
		{"Flush", 1, say(parse("fl", "SELECT 5"), flush, bind("", "fl"), flush, execution("", 0), flush, sync)},
		{"Sync alone", 2, say(sync, sync)},
		{"function call", 1, say(&pgproto3.FunctionCall{Function: 177 /* int4pl */, ArgFormatCodes: []uint16{0}, Arguments: [][]byte{[]byte("2"), []byte("3")}, ResultFormatCode: 0})},
		{"SET and SHOW", 2, say(simple("SET work_mem = '7MB'"), simple("SHOW work_mem"))},
		{"PREPARE in SQL", 3, say(simple("PREPARE sq(int) AS SELECT $1 + 1"), simple("EXECUTE sq(1)"), simple("DEALLOCATE sq"))},
		{"DEALLOCATE of a protocol statement", 3, say(parse("da", "SELECT 1"), sync, simple("DEALLOCATE da"), bind("", "da"), sync)},
		{"DISCARD ALL", 2, say(simple("DISCARD ALL"), bind("", "tx", "1"), sync)},
		{"multi statement transaction", 1, say(simple("BEGIN; INSERT INTO t VALUES (40); ROLLBACK; SELECT count(*) FROM t"))},
		{"notice", 1, say(simple("DO $$BEGIN RAISE NOTICE 'n'; END$$"))},
		{"drop", 1, say(simple("DROP TABLE t"))},
	}
}

func TestTheProxyAnswersWhatPostgresAnswers(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "protocol_a")
	direct := takeOver(t, s.direct(t, with("search_path", "tenant_protocol_b")))
	s.tenant(t, "protocol_b")
	through := takeOver(t, s.proxy.connect(t, a))
	for _, sc := range scripts() {
		direct.say(sc.says...)
		want := direct.answers(sc.ready)
		through.say(sc.says...)
		got := through.answers(sc.ready)
		if !slices.Equal(neutral(got), neutral(want)) {
			t.Errorf("%s: through the proxy\n  %s\ndirectly\n  %s", sc.name, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
	}
}

// neutral leaves out what differs for good reason: object ids, and when parameters are reported.
func neutral(lines []string) []string {
	var kept []string
	for _, line := range lines {
		if strings.HasPrefix(line, "ParameterStatus") {
			continue
		}
		if at := strings.Index(line, `"TableOID":`); at >= 0 {
			parts := strings.Split(line, `"TableOID":`)
			for i := range parts[1:] {
				_, rest, _ := strings.Cut(parts[i+1], ",")
				parts[i+1] = rest
			}
			line = strings.Join(parts, "")
		}
		kept = append(kept, line)
	}
	return kept
}

// TestADeallocateAmidOthersDoesNotKnowProtocolNames pins a difference that docs/compatibility.md names.
func TestADeallocateAmidOthersDoesNotKnowProtocolNames(t *testing.T) {
	s := theSite(t)
	w := takeOver(t, s.proxy.connect(t, s.tenant(t, "protocol_a")))
	w.say(parse("amid", "SELECT 1"), &pgproto3.Sync{}, simple("SELECT 1; DEALLOCATE amid"), bind("", "amid"), &pgproto3.Sync{})
	if seen := w.answers(3); !containsAll(seen, "26000") || !containsAll(seen[len(seen)-2:], "BindComplete") {
		t.Errorf("got %q", seen)
	}
}

func TestAPipelineOfTwoThousandStatements(t *testing.T) {
	s := theSite(t)
	w := takeOver(t, s.proxy.connect(t, s.tenant(t, "protocol_a")))
	const n = 2000
	sent := make(chan error, 1)
	go func() {
		var b []byte
		var err error
		for i := range n {
			for _, m := range []pgproto3.FrontendMessage{parse("", "SELECT $1::text"), bind("", "", strings.Repeat("z", i%100)), execution("", 0), &pgproto3.Sync{}} {
				if b, err = m.Encode(b); err != nil {
					sent <- err
					return
				}
			}
		}
		_, err = w.Write(b)
		sent <- err
	}()
	seen := w.answers(n)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if len(seen) != 5*n {
		t.Errorf("%d messages came back of %d", len(seen), 5*n)
	}
}
