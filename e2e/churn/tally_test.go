package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

func TestAnAnswerThatNamesItsTenantIsCountedOnceWithAllItsMarks(t *testing.T) {
	counts := newTally(1)
	own, err := counts.check("t007", "", []byte("own-t007 and tenant_t007, town-t007t007"))
	if own != 3 || err != nil {
		t.Fatalf("%d marks, %v", own, err)
	}
	if counts.answers.Load() != 1 || !counts.done() {
		t.Fatalf("%d answers", counts.answers.Load())
	}
}

func TestAnAnswerThatNamesNobodyIsNoProof(t *testing.T) {
	counts := newTally(1)
	for _, answer := range []string{"", "t007", "own-", "own-t00", "own-tabc", "tenant_table", "tenant_t"} {
		if own, err := counts.check("t007", "", []byte(answer)); own != 0 || err != nil {
			t.Errorf("%q: %d marks, %v", answer, own, err)
		}
	}
	if counts.answers.Load() != 0 || counts.messages.Load() != 7 {
		t.Errorf("%d answers, %d messages", counts.answers.Load(), counts.messages.Load())
	}
}

func TestAForeignMarkIsFoundWhereverItIs(t *testing.T) {
	for _, answer := range []string{
		"own-t008", "\x00\x01\x00\x00\x00\x08own-t008", "own-t007own-t008", "own-t007, tenant_t008", "tenant_t008.mine",
		strings.Repeat("own-t007 ", 1000) + "own-t070" + strings.Repeat(" own-t007", 1000),
	} {
		counts := newTally(1)
		_, err := counts.check("t007", "", []byte(answer))
		if _, ok := errors.AsType[*foreignError](err); !ok || counts.foreign.Load() != 1 {
			t.Errorf("%.40q: %v, counted %d", answer, err, counts.foreign.Load())
		}
	}
}

func TestOnlyTheTenantThatTheClientHasNamedMayBeNamedInAnError(t *testing.T) {
	counts := newTally(1)
	if _, err := counts.check("t007", "t008", []byte("permission denied for schema tenant_t008")); err != nil {
		t.Error(err)
	}
	if _, err := counts.check("t007", "t008", []byte("permission denied for schema tenant_t009")); err == nil {
		t.Error("t009 went through")
	}
	if counts.answers.Load() != 0 {
		t.Error("a refusal that names another tenant only was counted")
	}
}

func TestNumbersBelongToATenantToo(t *testing.T) {
	counts := newTally(1)
	if err := counts.checkNumber("t007", 7*rowUnit+20, rowUnit); err != nil {
		t.Error(err)
	}
	if err := counts.checkNumber("t007", 8*rowUnit+20, rowUnit); err == nil || counts.foreign.Load() != 1 {
		t.Errorf("%v, counted %d", err, counts.foreign.Load())
	}
}

func TestMessagesOutOfOrderMissingMarksErrorsAndOpenTransactionsAreFaults(t *testing.T) {
	due := answers{own: 20, shape: []byte("TDCZ"), status: 'I'}
	if err := want(due, nil, 20, "TDCZ"); err != nil {
		t.Error(err)
	}
	for what, wrong := range map[string]answers{
		"order":       {own: 20, shape: []byte("TCDZ"), status: 'I'},
		"mark":        {own: 19, shape: []byte("TDCZ"), status: 'I'},
		"error":       {own: 20, shape: []byte("TDCZ"), status: 'I', codes: []string{"22012"}},
		"transaction": {own: 20, shape: []byte("TDCZ"), status: 'T'},
	} {
		if want(wrong, nil, 20, "TDCZ") == nil {
			t.Errorf("%s: nothing was found", what)
		}
	}
	if want(due, nil, 20, "TDCZ", "22012") == nil {
		t.Error("an error that is due did not come and nothing was found")
	}
}

func TestATenantThatIsLosingItsRoleMayHaveErrorsButNobodysRows(t *testing.T) {
	losing, other := &tenant{name: "t007"}, &tenant{name: "t008"}
	losing.losing.Store(true)
	for _, c := range []struct {
		of    *tenant
		err   error
		fault bool
	}{
		{losing, &refusedError{"08006"}, false},
		{losing, &foreignError{tenant: "t007"}, true},
		{losing, &servedError{"TDCZ"}, true},
		{losing, os.ErrDeadlineExceeded, true},
		{other, &refusedError{"08006"}, true},
	} {
		if got := judge(c.of, c.err, "a step", nil) != nil; got != c.fault {
			t.Errorf("%s, %v: a fault is %t", c.of.name, c.err, got)
		}
	}
}

func TestOtherIsNeverTheTenantItself(t *testing.T) {
	s, r := &site{}, rand.New(rand.NewPCG(1, 1))
	for i := range 3 {
		s.tenants = append(s.tenants, &tenant{name: nameOf(i + 1)})
	}
	for range 100 {
		if s.other("t002", r) == "t002" {
			t.Fatal("it is")
		}
	}
}
