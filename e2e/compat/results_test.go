package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func outcomes(r results) map[string]outcome {
	only := make(map[string]outcome)
	for name, one := range r {
		only[name] = one.outcome
	}
	return only
}

func TestGoTestResultsKnowWhatNeverEnded(t *testing.T) {
	found, err := goTestResults(strings.NewReader(`
# a line of the build
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestB","Output":"panic: oh\n"}
{"Action":"run","Package":"p","Test":"TestC/dir=/tmp/123456789/x"}
{"Action":"skip","Package":"p","Test":"TestC/dir=/tmp/123456789/x"}
{"Action":"fail","Package":"q"}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]outcome{"p.TestA": passed, "p.TestB": failed, "p.TestC/dir=/tmp/N/x": skipped, "q.": failed}
	if got := outcomes(found); !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if found["p.TestB"].said != "panic: oh\n" {
		t.Errorf("said %q", found["p.TestB"].said)
	}
}

func TestJUnitResultsHaveTheWorstOutcomeOfATest(t *testing.T) {
	found, err := junitResults([]byte(`<testsuites><testsuite>
<testcase classname="m" name="a"/>
<testcase classname="m" name="b"><failure message="no">at line 1</failure></testcase>
<testcase classname="m" name="b"/>
<testcase classname="m" name="c"/>
<testcase classname="m" name="c"><error message="teardown"/></testcase>
<testcase classname="m" name="d"><skipped message="later"/></testcase>
</testsuite></testsuites>`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]outcome{"m.a": passed, "m.b": failed, "m.c": failed, "m.d": skipped}
	if got := outcomes(found); !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestJUnitResultsMayBeOfOneSuite(t *testing.T) {
	found, err := junitResults([]byte(`<testsuite name="JUnit Vintage" tests="2">
<properties><property name="port" value="1"/></properties>
<testcase name="a[binary = FORCE]" classname="p.C"/>
<testcase name="b" classname="p.C"><failure message="no" type="E"><![CDATA[at line 1]]></failure></testcase>
</testsuite>`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]outcome{"p.C.a[binary = FORCE]": passed, "p.C.b": failed}
	if got := outcomes(found); !maps.Equal(got, want) || found["p.C.b"].said != "no\nat line 1" {
		t.Errorf("got %v", found)
	}
}

func TestWhatPassesDirectlyOnlyHasAReasonOrIsAFault(t *testing.T) {
	c := column{
		suite:   suite{name: "lib/pq"},
		direct:  results{"pq.TestPing": {outcome: passed}, "pq.TestA": {outcome: passed}, "pq.TestB": {outcome: passed}, "pq.TestC": {outcome: failed}},
		through: results{"pq.TestPing": {outcome: failed}, "pq.TestA": {outcome: passed}, "pq.TestC": {outcome: failed}},
	}
	if got := slices.Sorted(maps.Keys(c.regressions())); !slices.Equal(got, []string{"pq.TestB", "pq.TestPing"}) {
		t.Errorf("regressions %q", got)
	}
	var text strings.Builder
	if faults := report(&text, []column{c}); faults != 1 || !strings.Contains(text.String(), "it did not run") {
		t.Errorf("%d faults in\n%s", faults, &text)
	}
	if want := "| lib/pq |  |  | 3 | 1 | 1 | 1 |\n"; !strings.Contains(text.String(), want) {
		t.Errorf("no %q in\n%s", want, &text)
	}
}

func TestReasonsAreForSuitesThatThereAre(t *testing.T) {
	for _, r := range reasons() {
		if !slices.ContainsFunc(allSuites(), func(s suite) bool { return s.name == r.suite }) {
			t.Errorf("there is no suite %q", r.suite)
		}
	}
}

func TestADifferenceHasTheLinesAround(t *testing.T) {
	same := strings.Split("1 2 3 4 5 6 7 8 9", " ")
	want, got := slices.Clone(same), slices.Clone(same)
	want[5], got[5] = "old", "new"
	if text := difference(want, got); text != "  2\n  3\n  4\n  5\n- old\n+ new\n  7\n" {
		t.Errorf("got\n%s", text)
	}
	if text := difference(same, same); text != "" {
		t.Errorf("got\n%s", text)
	}
}

func TestScriptsAreRead(t *testing.T) {
	read, err := parseScripts(`# a comment
== first
@ TimeZone=UTC
! because
Query SELECT 1
Query SELECT 2

Parse - SELECT $1
Bind - s "a b" NULL :binary
Execute p 3
Until PortalSuspended

== second
Query SELECT pg_sleep(1)
Cancel
`)
	if err != nil {
		t.Fatal(err)
	}
	if len(read) != 2 || len(read[0].steps) != 2 || len(read[1].steps) != 1 {
		t.Fatalf("%+v", read)
	}
	first := read[0]
	if first.name != "first" || first.parameters["TimeZone"] != "UTC" || first.differs != "because" || first.steps[0].ready != 2 {
		t.Errorf("%+v", first)
	}
	if st := first.steps[1]; st.ready != 0 || st.until != "PortalSuspended" || len(st.says) != 3 || read[1].steps[0].action != "cancel" {
		t.Errorf("%+v", read)
	}
	for _, wrong := range []string{"Query SELECT 1", "== x\nNonsense", "== x\nBind p", "== x\nReady many", "== x\nBind p s \"unclosed"} {
		if _, err := parseScripts(wrong); err == nil {
			t.Errorf("%q was read", wrong)
		}
	}
}
