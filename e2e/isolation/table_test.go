package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// required is how many cases the project's list has; further ones follow.
const required = 65

func TestTheTableHasEveryCaseOfTheListOnce(t *testing.T) {
	all := table()
	if len(all) < required {
		t.Fatalf("%d cases, want at least %d", len(all), required)
	}
	for i, c := range all {
		if c.number != i+1 {
			t.Fatalf("case %d is where %d should be: a number is missing or there twice", c.number, i+1)
		}
	}
}

func TestEveryCasePromisesSomethingAtEveryLevel(t *testing.T) {
	for _, c := range table() {
		for _, l := range allLevels() {
			if c.promise.at(l) == unknown {
				t.Errorf("case %d promises nothing at level %s", c.number, l)
			}
		}
	}
}

func TestEveryCaseIsOneSentenceOfItsOwn(t *testing.T) {
	seen := make(map[string]int)
	for _, c := range table() {
		if other, ok := seen[c.sentence]; ok || c.sentence == "" {
			t.Errorf("cases %d and %d say the same: %q", c.number, other, c.sentence)
		}
		seen[c.sentence] = c.number
		if strings.ContainsAny(c.sentence, "|\n") {
			t.Errorf("case %d does not fit a cell: %q", c.number, c.sentence)
		}
	}
}

func TestEveryCaseIsTriedAtSomeLevel(t *testing.T) {
	for _, c := range table() {
		if c.run == nil || !slices.ContainsFunc(allLevels(), c.at) {
			t.Errorf("case %d is never tried", c.number)
		}
	}
}

func TestLevelSlotOwesWhatLevelRoleOwesWhereNothingElseIsSaid(t *testing.T) {
	if got := always(refused).at(levelSlot); got != refused {
		t.Errorf("it owes %s", got)
	}
	if got := (promise{role: refused, slot: contained}).at(levelSlot); got != contained {
		t.Errorf("it owes %s where contained is said", got)
	}
}

func TestACaseOfOneLevelIsNotMissedAtTheOthers(t *testing.T) {
	for _, l := range allLevels() {
		results := make(map[int]result)
		for _, c := range table() {
			if c.at(l) {
				results[c.number] = result{outcome: refused}
			}
		}
		c := column{level: l, results: results}
		if v := c.verdict(); v.notRun > 0 || (v.elsewhere > 0) == (l == levelSlot) || (report{columns: []column{c}}).failed() {
			t.Errorf("level %s: %+v", l, v)
		}
	}
}

func TestOnlyTheSharedCataloguesLeakAtLevelRole(t *testing.T) {
	// Names, code, sizes and advisory locks of one database, and what a tenant hides from itself.
	leaky := map[int]bool{66: true, 67: true, 68: true, 69: true, 72: true, 87: true}
	for _, c := range table() {
		if leaky[c.number] != (c.promise.role == leaks) {
			t.Errorf("case %d promises %q at level role", c.number, c.promise.role)
		}
	}
}

func TestAWeakerOutcomeOrAnErrorBreaksThePromise(t *testing.T) {
	for _, c := range []struct {
		found    outcome
		promised outcome
		kept     bool
	}{
		{refused, refused, true}, {refused, contained, true}, {contained, leaks, true}, {leaks, leaks, true},
		{contained, refused, false}, {leaks, contained, false}, {unknown, leaks, false}, {unknown, refused, false},
	} {
		if kept := (result{outcome: c.found}).kept(c.promised); kept != c.kept {
			t.Errorf("%s where %s is promised: kept is %t", c.found, c.promised, kept)
		}
	}
}

func TestTheReportClaimsNothingThatDidNotRun(t *testing.T) {
	r := report{columns: []column{
		{level: levelRole, results: map[int]result{1: {outcome: refused}, 2: {err: errors.New("out of order")}}},
		{level: levelTrusted, absent: "level not available in this build"},
	}}
	if !r.failed() {
		t.Error("an error is no failure")
	}
	var text bytes.Buffer
	r.write(&text)
	for _, want := range []string{
		"`role`: 1 promises kept, 0 BROKEN, 1 errors",
		"`trusted`: level not available in this build",
		"| 1 | Read the victim's table by its qualified name | refused | not run | ok |",
		"| error (refused) | not run | **BROKEN** |",
		"| 3 | SET search_path to the victim's schema, then read unqualified | not run | not run | not run |",
		"| 60 | RESET ROLE and SET ROLE on a slot, raced 60000 times, win nothing | n/a | n/a | not run |",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, text.String())
		}
	}
}

func TestALevelThatIsAbsentFailsOnlyWhenItWasAskedFor(t *testing.T) {
	absent := column{level: levelDatabase, absent: "level not available in this build"}
	if (report{columns: []column{absent}}).failed() {
		t.Error("a level that nobody asked for is a failure")
	}
	absent.asked = true
	if !(report{columns: []column{absent}}).failed() {
		t.Error("a level that was asked for may be absent")
	}
}
