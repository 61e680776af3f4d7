package relay_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/proxy/relay"
)

func expectMessages(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("client got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestASimpleQueryAttachesAndReleases(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(query("SELECT 1"))
	expectMessages(t, s.got(), "T:", "D:SELECT 1", "C:SELECT", "Z:I")
	if s.released != 1 || s.session.Attached() {
		t.Errorf("released %d times, attached %v", s.released, s.session.Attached())
	}
}

func TestATransactionKeepsItsConnection(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(query("BEGIN"))
	s.send(query("SELECT 1"))
	if s.released != 0 || !s.session.Attached() {
		t.Fatal("released in mid-transaction")
	}
	s.send(query("COMMIT"))
	if s.released != 1 {
		t.Error("not released after COMMIT")
	}
}

func TestAPipelineIsReleasedOnlyAfterItsLastAnswer(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(query("SELECT 1"), query("SELECT 2"), query("SELECT 3")))
	expectMessages(t, s.got(), "T:", "D:SELECT 1", "C:SELECT", "Z:I", "T:", "D:SELECT 2", "C:SELECT", "Z:I", "T:", "D:SELECT 3", "C:SELECT", "Z:I")
	if s.released != 1 {
		t.Errorf("released %d times", s.released)
	}
}

func TestExtendedMessagesWithoutASyncKeepTheConnection(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("", "SELECT 1"), bind(""), execute(), message('H')))
	expectMessages(t, s.got(), "1:", "2:", "D:SELECT 1", "C:SELECT")
	if s.released != 0 {
		t.Fatal("released before the Sync")
	}
	s.send(sync())
	expectMessages(t, s.got(), "Z:I")
	if s.released != 1 {
		t.Error("not released after the Sync")
	}
}

func TestAStatementFollowsItsSessionToAnotherConnection(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("s1", "SELECT 1"), sync()))
	expectMessages(t, s.got(), "1:", "Z:I")
	s.server, s.double = relay.NewServer(7, nil, 10), newDouble() // another connection, which has never seen it
	s.send(join(bind("s1"), execute(), sync()))
	expectMessages(t, s.got(), "2:", "D:SELECT 1", "C:SELECT", "Z:I")
	if got := s.double.seen; len(got) != 4 || !strings.HasPrefix(got[0], "P:dx1|SELECT 1") {
		t.Errorf("server saw %q", got)
	}
	s.send(join(bind("s1"), execute(), sync()))
	if got := s.double.seen[4:]; len(got) != 3 {
		t.Errorf("prepared again: %q", got)
	}
}

func TestADescribeAloneReplaysItsParse(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("s1", "SELECT 1"), sync()))
	s.got()
	s.server, s.double = relay.NewServer(7, nil, 10), newDouble()
	s.send(join(describe("s1"), sync()))
	expectMessages(t, s.got(), "t:", "n:", "Z:I")
}

func TestTheUnnamedStatementFollowsToo(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("", "SELECT 1"), sync()))
	s.got()
	s.server, s.double = relay.NewServer(7, nil, 10), newDouble()
	s.send(join(bind(""), execute(), sync()))
	expectMessages(t, s.got(), "2:", "D:SELECT 1", "C:SELECT", "Z:I")
}

func TestAnotherSessionsUnnamedStatementIsNeverRun(t *testing.T) {
	s := newStage(relay.Config{})
	s.double.statements[""] = "SELECT secret"
	s.send(join(bind(""), execute(), sync()))
	expectMessages(t, s.got(), "E:SERRORVERRORC26000Munnamed prepared statement does not existFpostgres.cRexec_bind_message", "Z:I")
}

func TestANameOfOursMeansNothingToClients(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("s1", "SELECT 1"), sync()))
	s.got()
	s.send(join(bind("dx1"), execute(), sync()))
	expectMessages(t, s.got(), `E:SERRORVERRORC26000Mprepared statement "dx1" does not existFprepare.cRFetchPreparedStatement`, "Z:I")
}

func TestTwoSessionsShareOneStatementOnTheServer(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("a", "SELECT 1"), sync()))
	other := newStage(relay.Config{})
	other.server, other.double = s.server, s.double
	other.send(join(parse("b", "SELECT 1"), bind("b"), execute(), sync()))
	expectMessages(t, other.got(), "1:", "2:", "D:SELECT 1", "C:SELECT", "Z:I")
	if len(s.double.statements) != 1 {
		t.Errorf("server holds %v", s.double.statements)
	}
}

func TestAParseOfATakenNameFailsInItsPlace(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("s1", "SELECT 1"), sync()))
	s.got()
	s.send(join(parse("s1", "SELECT 2"), bind("s1"), execute(), sync()))
	expectMessages(t, s.got(), `E:SERRORVERRORC42P05Mprepared statement "s1" already existsFprepare.cRStorePreparedStatement`, "Z:I")
	s.send(join(bind("s1"), execute(), sync()))
	expectMessages(t, s.got(), "2:", "D:SELECT 1", "C:SELECT", "Z:I")
}

func TestAnErrorSkipsToSyncAndTakesBackWhatWasSkipped(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("kept", "SELECT 0"), sync()))
	s.got()
	s.send(join(parse("", "SELECT fail"), parse("s2", "SELECT 2"), closeStatement("kept"), sync()))
	expectMessages(t, s.got(), "E:SERRORVERRORC42601Msyntax error", "Z:I")
	s.send(join(bind("s2"), sync()))
	expectMessages(t, s.got(), `E:SERRORVERRORC26000Mprepared statement "s2" does not existFprepare.cRFetchPreparedStatement`, "Z:I")
	s.send(join(bind("kept"), execute(), sync()))
	expectMessages(t, s.got(), "2:", "D:SELECT 0", "C:SELECT", "Z:I")
}

func TestAStatementPutInByUsIsPutInAgainAfterItsSegmentFailed(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("s1", "SELECT 1"), sync()))
	s.got()
	s.server, s.double = relay.NewServer(7, nil, 10), newDouble()
	s.send(join(parse("", "SELECT fail"), bind("s1"), execute(), sync(), bind("s1"), execute(), sync()))
	expectMessages(t, s.got(), "E:SERRORVERRORC42601Msyntax error", "Z:I", "2:", "D:SELECT 1", "C:SELECT", "Z:I")
}

func TestTheStatementsOfAServerAreBounded(t *testing.T) {
	s := newStage(relay.Config{})
	for i := range 50 {
		s.send(join(parse(fmt.Sprint("s", i), fmt.Sprint("SELECT ", i)), sync()))
	}
	if n := len(s.double.statements); n > 11 {
		t.Errorf("server holds %d statements", n)
	}
	s.got()
	s.send(join(bind("s0"), execute(), sync()))
	expectMessages(t, s.got(), "2:", "D:SELECT 0", "C:SELECT", "Z:I")
}

func TestASessionsStatementsAreBounded(t *testing.T) {
	s := newStage(relay.Config{MaxStatements: 3, MaxStatementBytes: 1000})
	for i := range 4 {
		s.send(join(parse(fmt.Sprint("s", i), "SELECT 1"), sync()))
	}
	got := s.got()
	if last := got[len(got)-2]; !strings.Contains(last, "54000") {
		t.Errorf("the fourth statement was answered %q", last)
	}
	s.send(join(closeStatement("s0"), sync(), parse("big", "SELECT "+strings.Repeat("x", 20<<10)), sync(), parse("s9", "SELECT 1"), sync()))
	expectMessages(t, s.got(), "3:", "Z:I",
		"E:SERRORVERRORC54000Mprepared statement is too longHlimits.max_statement_bytes bounds it.", "Z:I", "1:", "Z:I")
}

func TestDeallocateFindsAProtocolStatement(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("s1", "SELECT 1"), sync()))
	s.got()
	s.send(query("DEALLOCATE s1"))
	expectMessages(t, s.got(), "C:DEALLOCATE", "Z:I")
	s.send(join(bind("s1"), sync()))
	expectMessages(t, s.got(), `E:SERRORVERRORC26000Mprepared statement "s1" does not existFprepare.cRFetchPreparedStatement`, "Z:I")
}

func TestDeallocateInAPipelineIsAnsweredInItsTurn(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("s1", "SELECT 1"), sync(), query("DEALLOCATE s1"), bind("s1"), sync()))
	expectMessages(t, s.got(), "1:", "Z:I", "T:", `D:DEALLOCATE "dx1"`, "C:DEALLOCATE", "Z:I",
		`E:SERRORVERRORC26000Mprepared statement "s1" does not existFprepare.cRFetchPreparedStatement`, "Z:I")
	s.send(join(parse("s2", "SELECT 1"), sync()))
	s.got()
	s.send(join(parse("", "SELECT fail"), query("DEALLOCATE s2"), sync(), bind("s2"), execute(), sync()))
	expectMessages(t, s.got(), "E:SERRORVERRORC42601Msyntax error", "Z:I", "2:", "D:SELECT 1", "C:SELECT", "Z:I")
	s.send(join(parse("", "SELECT fail"), closeStatement("s2"), sync(), bind("s2"), execute(), sync()))
	expectMessages(t, s.got(), "E:SERRORVERRORC42601Msyntax error", "Z:I", "2:", "D:SELECT 1", "C:SELECT", "Z:I")
}

func TestOnlyNotificationsThatAreForTheSessionArrive(t *testing.T) {
	s := newStage(relay.Config{Hears: func(process uint32) bool { return process == 7 }})
	s.double.settings = "=listen"
	notify := func(process byte) { s.double.say('A', []byte{0, 0, 0, process}, "news", fmt.Sprint("from ", process)) }
	s.send(query("BEGIN"))
	notify(7)
	s.send(query("COMMIT"))
	s.got()
	s.send(query("LISTEN news"))
	s.got()
	notify(7)
	notify(8)
	s.send(query("SELECT 1"))
	if got := s.got(); len(got) != 5 || got[0] != "A:newsfrom 7" {
		t.Errorf("got %q", got)
	}
}

func TestDiscardAllForgetsStatementsOnBothSides(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(parse("s1", "SELECT 1"), sync()))
	s.send(query("DISCARD ALL"))
	s.got()
	s.send(join(parse("s1", "SELECT 1"), bind("s1"), execute(), sync()))
	expectMessages(t, s.got(), "1:", "2:", "D:SELECT 1", "C:SELECT", "Z:I")
}

func TestCopyInSwallowsASync(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(query("COPY t FROM STDIN"), sync()))
	s.send(join(message('d', []byte("row\n")), sync(), message('c')))
	expectMessages(t, s.got(), "G:", "C:COPY 1", "Z:I")
	if s.released != 1 {
		t.Error("not released after COPY")
	}
}

func TestWhatIsLeftOfAFailedCopyIsDropped(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(query("COPY fail"))
	s.send(join(message('d', []byte("row\n")), message('c')))
	s.send(query("SELECT 1"))
	expectMessages(t, s.got(), "E:SERRORVERRORC42601Msyntax error", "Z:I", "T:", "D:SELECT 1", "C:SELECT", "Z:I")
}

func TestSettingsAreCarriedAndReported(t *testing.T) {
	s := newStage(relay.Config{Settings: relay.NewPairs(map[string]string{"application_name": "it's"})})
	s.send(query("SELECT 1"))
	if got := s.double.seen[0]; got != `Q:SELECT pg_catalog.set_config( E'application_name',  E'it''s', false)|` {
		t.Errorf("first the server saw %q", got)
	}
	s.send(query("SELECT 2"))
	if n := len(s.double.seen); n != 3 {
		t.Errorf("settings applied again: %q", s.double.seen)
	}
	other := newStage(relay.Config{})
	other.server, other.double = s.server, s.double
	other.send(query("SELECT 3"))
	if got := s.double.seen[3]; got != "Q:RESET ALL|" {
		t.Errorf("another session's settings stay: %q", s.double.seen[3:])
	}
}

func TestWhatKindOfServerItIsFollowsItsReports(t *testing.T) {
	s := newStage(relay.Config{})
	s.server = relay.NewServer(7, map[string]string{"in_hot_standby": "on", "default_transaction_read_only": "off"}, 10)
	expect := func(when string, standby, readOnly bool) {
		t.Helper()
		if is, reads := s.server.Kind(); is != standby || reads != readOnly {
			t.Errorf("%s: a standby: %t, read-only: %t", when, is, reads)
		}
	}
	expect("at first", true, false)
	s.double.reports = map[string]string{"in_hot_standby": "off"}
	s.send(query("SELECT 1"))
	expect("promoted", false, false)
	s.double.reports, s.double.settings = map[string]string{"default_transaction_read_only": "on"}, "default_transaction_read_only=on"
	s.send(query("SET default_transaction_read_only = on"))
	expect("a session's own wish", false, false)
	s.server, s.double = relay.NewServer(7, nil, 10), newDouble()
	s.session = newStage(relay.Config{}).session
	s.double.reports = map[string]string{"default_transaction_read_only": "on"}
	s.send(query("SELECT 1"))
	expect("the server's configuration", false, true)
}

func TestASharedConnectionBecomesItsTenantBeforeTheFirstByte(t *testing.T) {
	s := newStage(relay.Config{Role: "tenant_a", Settings: relay.NewPairs(map[string]string{"search_path": "a"})})
	s.send(join(parse("s1", "SELECT 1"), bind("s1"), execute(), sync()))
	expectMessages(t, s.got(), "1:", "2:", "D:SELECT 1", "C:SELECT", "Z:I")
	seen := s.double.seen
	if len(seen) != 8 || seen[0] != "Q:SET ROLE NONE|" || seen[1] != "Q:DISCARD ALL|" || !strings.HasSuffix(seen[2], `SET ROLE "tenant_a"|`) ||
		!strings.Contains(seen[3], "search_path") {
		t.Errorf("server saw %q", seen)
	}
	s.send(query("SELECT 2"))
	if got := s.double.seen[8:]; len(got) != 1 {
		t.Errorf("the same tenant switched again: %q", got)
	}
	other := newStage(relay.Config{Role: "tenant_b"})
	other.server, other.double = s.server, s.double
	other.send(query("SELECT 3"))
	if got := s.double.seen[9:]; len(got) != 4 || got[0] != "Q:SET ROLE NONE|" || got[1] != "Q:DISCARD ALL|" {
		t.Errorf("another tenant saw %q", got)
	}
	s.send(join(bind("s1"), execute(), sync()))
	s.got()
	if got := s.double.seen[13:]; len(got) != 8 || !strings.HasPrefix(got[4], "P:") {
		t.Errorf("back again: %q", got)
	}
}

func TestASwitchThatFailsEndsTheSession(t *testing.T) {
	s := newStage(relay.Config{Role: "missing"})
	s.send(query("SELECT 1"))
	var e *relay.Error
	// The double does not skip what was sent behind, as a Postgres would not: the client must not be told that it was not done.
	if !errors.As(s.err, &e) || e.Severity != "FATAL" || e.Code != "08006" || !strings.Contains(e.Message, "22023") {
		t.Errorf("got %v", s.err)
	}
	if got := s.got(); len(got) != 0 {
		t.Errorf("the client was sent %q", got)
	}
	saw := len(s.double.seen)
	s.err = nil
	s.send(query("SELECT 2"))
	if len(s.double.seen) > saw {
		t.Errorf("after the failure the server was sent %q", s.double.seen[saw:])
	}
}

func TestASettingThatIsRefusedBeforeAnythingWasSentKeepsItsCode(t *testing.T) {
	s := newStage(relay.Config{Settings: relay.NewPairs(map[string]string{"work_mem": "fail"})})
	var out relay.Output
	s.session.Attach(s.server, &out)
	s.flush(&out)
	s.serverSpeaks()
	var e *relay.Error
	if !errors.As(s.err, &e) || e.Severity != "FATAL" || e.Code != "42601" {
		t.Errorf("got %v", s.err)
	}
}

func TestAQuestionThatWasCanceledIsAskedOnceMore(t *testing.T) {
	s := newStage(relay.Config{})
	s.double.cancel, s.double.settings = 1, "search_path=a"
	s.send(query("SET search_path TO a"))
	if s.released != 1 || s.session.EverPinned() != 0 {
		t.Errorf("released %d, pins %v", s.released, s.session.EverPinned().Names())
	}
	s.double.cancel = 2
	s.send(query("SET search_path TO a"))
	if s.released != 1 || s.session.Pins() != relay.PinUnknown {
		t.Errorf("asked in vain twice: released %d, pins %v", s.released, s.session.Pins().Names())
	}
}

func TestASharedConnectionIsNotTrustedAfterASet(t *testing.T) {
	s := newStage(relay.Config{Role: "tenant_a"})
	s.send(query("SET ROLE NONE"))
	n := len(s.double.seen)
	s.send(query("SELECT 1"))
	if got := s.double.seen[n:]; len(got) != 4 || got[0] != "Q:SET ROLE NONE|" {
		t.Errorf("server saw %q", got)
	}
}

func TestASetIsAskedForAfterItsCommitAndKept(t *testing.T) {
	s := newStage(relay.Config{Settings: relay.NewPairs(map[string]string{"datestyle": "ISO"})})
	s.double.settings = "search_path=tenant_acme,app.user=alice"
	s.send(query("SET search_path TO tenant_acme; SET app.user = 'alice'"))
	expectMessages(t, s.got(), "T:", "D:6SET search_path TO tenant_acme; SET app.user = 'alice'", "C:SET", "Z:I")
	asked := s.double.seen[len(s.double.seen)-1]
	if !strings.Contains(asked, "pg_settings") || !strings.Contains(asked, `current_setting( E'app.user', true)`) {
		t.Errorf("asked %q", asked)
	}
	if s.released != 1 {
		t.Error("not released after the answer")
	}
	s.server, s.double = relay.NewServer(7, nil, 10), newDouble()
	s.send(query("SELECT 1"))
	want := `Q:SELECT pg_catalog.set_config( E'app.user',  E'alice', false), pg_catalog.set_config( E'datestyle',  E'ISO', false),` +
		` pg_catalog.set_config( E'search_path',  E'tenant_acme', false)|`
	if s.double.seen[0] != want {
		t.Errorf("a new connection saw %q", s.double.seen[0])
	}
}

func TestAPinKeepsTheConnectionUntilItIsGone(t *testing.T) {
	s := newStage(relay.Config{})
	s.double.settings = "=temporary"
	s.send(query("CREATE TEMP TABLE x()"))
	if s.released != 0 || s.session.Pins() != relay.PinTemporary {
		t.Fatalf("released %d, pins %v", s.released, s.session.Pins().Names())
	}
	s.double.settings = ""
	s.send(query("DISCARD ALL"))
	if s.released != 1 || s.session.Pins() != 0 {
		t.Errorf("released %d, pins %v", s.released, s.session.Pins().Names())
	}
}

func TestARefusalAnswersOneRequest(t *testing.T) {
	for name, c := range map[string]struct {
		request []byte
		want    []string
	}{
		"simple":   {query("SELECT 1"), []string{"E:SERRORVERRORC53300Mbusy", "Z:I"}},
		"extended": {join(parse("s1", "SELECT 1"), bind("s1"), execute(), sync()), []string{"E:SERRORVERRORC53300Mbusy", "Z:I"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(relay.Config{})
			s.session.Refuse(&relay.Error{Severity: "ERROR", Code: "53300", Message: "busy"})
			s.send(c.request)
			expectMessages(t, s.got(), c.want...)
			s.send(query("SELECT 2"))
			expectMessages(t, s.got(), "T:", "D:SELECT 2", "C:SELECT", "Z:I")
		})
	}
}

func TestMalformedMessagesEndTheSession(t *testing.T) {
	for name, b := range map[string][]byte{
		"a negative length":       {'Q', 0xff, 0xff, 0xff, 0xff},
		"a length below 4":        {'Q', 0, 0, 0, 3},
		"an oversized length":     {'Q', 0x7f, 0xff, 0xff, 0xff},
		"an unknown type":         {'~', 0, 0, 0, 4},
		"a password":              message('p', "secret"),
		"an oversized Sync":       append([]byte{'S', 0, 0, 0xff, 0xff}, make([]byte, 100)...),
		"Parse without strings":   message('P', []byte("abc")),
		"Parse with bad types":    message('P', "", "SELECT 1", 5),
		"Bind without strings":    message('B', []byte("abc")),
		"Describe of nothing":     message('D', 'X', "a"),
		"Close without its end":   message('C', 'S', []byte("abc")),
		"Close with bytes behind": message('C', 'S', "abc", "d"),
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(relay.Config{})
			s.send(b)
			var e *relay.Error
			if !errors.As(s.err, &e) || e.Code != "08P01" || e.Severity != "FATAL" {
				t.Errorf("got %v", s.err)
			}
		})
	}
}

func TestTerminateNeverReachesTheServer(t *testing.T) {
	s := newStage(relay.Config{})
	s.send(join(query("BEGIN"), message('X')))
	if !s.ended || slices.ContainsFunc(s.double.seen, func(m string) bool { return m[0] == 'X' }) {
		t.Errorf("ended %v, server saw %q", s.ended, s.double.seen)
	}
	if s.session.Clean() {
		t.Error("a connection in mid-transaction is called clean")
	}
}

func TestAHalfSentMessageIsNeverCalledClean(t *testing.T) {
	whole := query(strings.Repeat("x", 100<<10))
	for _, n := range []int{20 << 10, 50 << 10, len(whole) - 1} {
		s := newStage(relay.Config{})
		s.send(whole[:n])
		if !s.session.Attached() || s.session.Clean() || !s.session.MidFrame() {
			t.Errorf("at %d: attached %v, clean %v", n, s.session.Attached(), s.session.Clean())
		}
	}
	s := newStage(relay.Config{})
	s.send(query("SELECT 1")[:8])
	if s.session.Attached() {
		t.Error("a short message is forwarded before it is whole")
	}
}
