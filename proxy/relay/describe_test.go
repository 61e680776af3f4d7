package relay_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/proxy/relay"
)

const planChanged = "E:SERRORVERRORC0A000Mcached plan must not change result typeFplancache.cRRevalidateCachedQuery"

// elsewhere gives the stage another connection to the same database, which has never seen its statements.
func (s *stage) elsewhere() {
	column := s.double.column
	s.server, s.double = relay.NewServer(8, nil, 10), newDouble()
	s.double.column = column
}

func TestRowsOfAnotherShapeThanTheClientWasToldAreRefused(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("s1", "SELECT * FROM t"), describe("s1"), sync()))
	expectMessages(t, s.got(), "1:", "t:", "T:a", "Z:I")
	s.elsewhere()
	s.send(join(bind("s1"), execute(), sync()))
	expectMessages(t, s.got(), "2:", "D:SELECT * FROM t", "C:SELECT", "Z:I")
	s.elsewhere()
	s.double.column = "b"
	for range 2 { // the client has to prepare it again, as without a proxy
		s.send(join(bind("s1"), execute(), sync()))
		expectMessages(t, s.got(), planChanged, "Z:I")
		s.send(join(describe("s1"), sync()))
		expectMessages(t, s.got(), planChanged, "Z:I")
	}
	s.send(join(closeStatement("s1"), parse("s1", "SELECT * FROM t"), describe("s1"), sync()))
	expectMessages(t, s.got(), "3:", "1:", "t:", "T:b", "Z:I")
	s.send(join(bind("s1"), execute(), sync()))
	expectMessages(t, s.got(), "2:", "D:SELECT * FROM t", "C:SELECT", "Z:I")
}

func TestAClientIsAskedNothingForWhatItsStatementIsKnownToBe(t *testing.T) {
	births := relay.NewBirths()
	s := newStage(relay.Config{Births: births})
	s.send(join(parse("s1", "SELECT * FROM t"), describe("s1"), sync()))
	s.elsewhere()
	s.send(join(bind("s1"), execute(), sync()))
	seen := len(s.double.seen)
	if seen != 6 { // Parse, Describe, Flush, Bind, Execute, Sync
		t.Errorf("the first time the server saw %q", s.double.seen)
	}
	s.got()
	s.send(join(bind("s1"), execute(), sync()))
	if got := s.double.seen[seen:]; len(got) != 3 {
		t.Errorf("the second time the server saw %q", got)
	}
	expectMessages(t, s.got(), "2:", "D:SELECT * FROM t", "C:SELECT", "Z:I")
}

func TestAStatementFromBeforeTheClientPreparedItsOwnIsNotUsed(t *testing.T) {
	births := relay.NewBirths()
	old := newStage(relay.Config{Births: births})
	old.send(join(parse("x", "SELECT * FROM t"), sync()))
	server, double := old.server, old.double

	s := newStage(relay.Config{Births: births})
	s.double.column, double.column = "b", "b" // the table is changed
	s.send(join(parse("s1", "SELECT * FROM t"), sync()))
	s.got()
	s.server, s.double = server, double // where a plan of the old table is
	s.send(join(describe("s1"), sync()))
	expectMessages(t, s.got(), "t:", "T:b", "Z:I")
	s.send(join(bind("s1"), execute(), sync()))
	expectMessages(t, s.got(), "2:", "D:SELECT * FROM t", "C:SELECT", "Z:I")
}

func TestADescribeOfOursThatWasSkippedIsAskedAgain(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("s1", "SELECT * FROM t"), describe("s1"), sync()))
	s.got()
	s.elsewhere()
	s.send(join(parse("", "fail"), bind("s1"), execute(), sync()))
	expectMessages(t, s.got(), "E:SERRORVERRORC42601Msyntax error", "Z:I")
	s.send(join(bind("s1"), execute(), sync()))
	expectMessages(t, s.got(), "2:", "D:SELECT * FROM t", "C:SELECT", "Z:I")
}

func TestDeallocateByTheExtendedProtocolFindsAProtocolStatement(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("s1", "SELECT 1"), sync()))
	s.got()
	s.elsewhere()
	s.send(join(parse("", "/* a /* b */ */ DEALLOCATE PREPARE \"s1\" ; -- done"), bind(""), describePortal(), execute(), sync()))
	expectMessages(t, s.got(), "1:", "2:", "n:", `D:DEALLOCATE "dx1"`, "C:DEALLOCATE", "Z:I")
	s.send(join(bind("s1"), sync()))
	expectMessages(t, s.got(), `E:SERRORVERRORC26000Mprepared statement "s1" does not existFprepare.cRFetchPreparedStatement`, "Z:I")
	s.send(join(parse("s1", "SELECT 2"), sync()))
	expectMessages(t, s.got(), "1:", "Z:I")
}

func TestADeallocateThatWasSkippedTakesNoName(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("s1", "SELECT 1"), sync()))
	s.got()
	s.send(join(parse("", "DEALLOCATE s1"), bind(""), parse("x", "fail"), execute(), sync()))
	expectMessages(t, s.got(), "1:", "2:", "E:SERRORVERRORC42601Msyntax error", "Z:I")
	s.send(join(bind("s1"), execute(), sync()))
	expectMessages(t, s.got(), "2:", "D:SELECT 1", "C:SELECT", "Z:I")
}

func describePortal() []byte { return message('D', 'P', "") }

func TestDeallocateIsReadAsPostgresReadsIt(t *testing.T) {
	for text, found := range map[string]bool{
		"deallocate s1": true, " DEALLOCATE\n\tprepare S1 ;": true, `DEALLOCATE "s1"`: true, "-- x\nDEALLOCATE s1": true, "DEALLOCATE/**/s1": true,
		"DEALLOCATE s1; SELECT 1": false, `DEALLOCATE "S1"`: false, "DEALLOCATE s1 s2": false, "DEALLOCATE": false, "DEALLOCATE /* s1": false, "DEALLOCATED s1": false,
	} {
		s := newStage(relay.Config{})
		s.send(join(parse("s1", "SELECT 1"), sync()))
		s.got()
		s.send(query(text))
		s.got()
		s.send(join(bind("s1"), sync()))
		gone := strings.HasPrefix(s.got()[0], "E:")
		if gone != found {
			t.Errorf("%q: gone: %t", text, gone)
		}
	}
}

func TestAResetGoesBackToTheStartupSettingsBeforeTheClientIsTold(t *testing.T) {
	startup := relay.NewPairs(map[string]string{"timezone": "Asia/Tokyo"})
	for name, request := range map[string][]byte{
		"simple":   query("RESET timezone"),
		"extended": join(parse("", "RESET timezone"), bind(""), execute(), sync()),
	} {
		s := newStage(relay.Config{Settings: startup})
		s.double.settings = "timezone=Asia/Tokyo"
		s.send(query("SELECT 1"))
		s.got()
		s.send(request)
		if got := s.got(); got[len(got)-1] != "Z:I" || strings.Count(strings.Join(got, " "), "Z:") != 1 {
			t.Errorf("%s: client got %q", name, got)
		}
		if s.double.restored != 1 || s.session.Transactions() != 2 || s.released != 2 {
			t.Errorf("%s: restored %d times, %d transactions, released %d times", name, s.double.restored, s.session.Transactions(), s.released)
		}
	}
	none := newStage(relay.Config{})
	none.send(query("RESET timezone"))
	if none.double.restored != 0 {
		t.Error("settings were brought back for a client that gave none")
	}
}

func TestAFunctionCallMayLeaveAnythingBehind(t *testing.T) {
	asked := func(id byte, hi byte) bool {
		s := newStage(relay.Config{})
		s.send(message('F', []byte{0, 0, hi, id}, 0, 0, 0))
		return strings.Contains(strings.Join(s.double.seen, "\n"), "pg_advisory_lock") || strings.Contains(strings.Join(s.double.seen, "\n"), "pg_locks")
	}
	if !asked(0x40, 0x0b) { // 2880 is pg_advisory_lock
		t.Error("nothing was asked after pg_advisory_lock by FunctionCall")
	}
	if asked(0xb8, 0x03) { // 952 is lo_open
		t.Error("something was asked after lo_open by FunctionCall")
	}
}

func TestASessionKnowsItsOwnNotificationsByItsProcessID(t *testing.T) {
	s := newStage(relay.Config{})
	s.session.Introduce(4711)
	s.double.settings = "=listen"
	s.send(query("LISTEN c"))
	s.got()
	notify := func(process byte) string {
		s.double.say('A', []byte{0, 0, 0, process}, "c", "hello")
		s.serverSpeaks()
		return string(s.toClient)
	}
	if got := notify(7); got != string(message('A', []byte{0, 0, 0x12, 0x67}, "c", "hello")) {
		t.Errorf("its own: %q", got)
	}
	s.got()
	if got := notify(9); got != string(message('A', []byte{0, 0, 0, 9}, "c", "hello")) {
		t.Errorf("another's: %q", got)
	}
}

func TestASessionOfItsOwnKeepsItsConnection(t *testing.T) {
	s := newStage(relay.Config{Session: true})
	s.send(join(query("SELECT 1"), query("SET a.b = 1"), query("DISCARD ALL")))
	if s.released != 0 || s.session.Clean() || s.session.Pins().Names()[0] != "session" {
		t.Errorf("released %d times, pins %v", s.released, s.session.Pins().Names())
	}
	for _, m := range s.double.seen {
		if strings.Contains(m, "pg_settings") {
			t.Errorf("asked %q", m)
		}
	}
}

func TestASessionSeesItsOwnPreparedStatementsByItsOwnNames(t *testing.T) {
	births := relay.NewBirths()
	other := newStage(relay.Config{Births: births})
	other.send(join(parse("others", "SELECT 3"), sync()))
	s := newStage(relay.Config{Births: births})
	s.server, s.double = other.server, other.double
	s.send(join(parse("mine", "SELECT 1"), parse("gone", "SELECT 2"), parse("dx9", "SELECT 9"), sync()))
	s.got()
	s.send(join(closeStatement("gone"), sync()))
	expectMessages(t, s.got(), "3:", "Z:I")
	names := func() []string { return slices.Sorted(maps.Keys(s.double.statements)) }
	s.send(query("SELECT pg_prepared_statements"))
	expectMessages(t, s.got(), "T:", "D:SELECT pg_prepared_statements", "C:SELECT", "Z:I")
	if got := names(); !slices.Equal(got, []string{"mine"}) {
		t.Errorf("shown are %q", got)
	}
	s.send(join(bind("mine"), execute(), sync()))
	expectMessages(t, s.got(), "2:", "D:SELECT 1", "C:SELECT", "Z:I")
	s.send(join(parse("q", "SELECT pg_prepared_statements"), sync()))
	s.got()
	s.send(join(bind("q"), execute(), sync()))
	expectMessages(t, s.got(), "2:", "D:SELECT pg_prepared_statements", "C:SELECT", "Z:I")
	if got := names(); !slices.Equal(got, []string{"mine", "q"}) {
		t.Errorf("shown are %q", got)
	}
	third := newStage(relay.Config{Births: births})
	third.session = relay.NewSession(relay.Config{ID: 3, Births: births, MaxStatements: 9, MaxStatementBytes: 999})
	third.server, third.double = s.server, s.double
	third.send(query("SELECT 1"))
	if got := names(); len(got) != 0 || len(third.got()) != 4 {
		t.Errorf("another session finds %q", got)
	}
}

func TestAStatementThatCannotBePreparedAnyMoreIsNotShown(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("a", "SELECT 1"), parse("b", "SELECT 2"), sync()))
	s.got()
	s.double.broken = "SELECT 1"
	s.send(query("SELECT pg_prepared_statements"))
	expectMessages(t, s.got(), "T:", "D:SELECT pg_prepared_statements", "C:SELECT", "Z:I")
	if len(s.double.statements) != 1 || s.released != 2 {
		t.Errorf("%v, released %d times", s.double.statements, s.released)
	}
	s.send(query("BEGIN"))
	s.send(query("SELECT pg_prepared_statements"))
	expectMessages(t, s.got(), "C:BEGIN", "Z:T", "T:", "D:SELECT pg_prepared_statements", "C:SELECT", "Z:T")
	if len(s.double.statements) != 1 {
		t.Errorf("in a transaction %v", s.double.statements)
	}
}
