package main

import (
	"errors"
	"os"
	"testing"
	"time"
)

// TestSessionsThatEndBadlyMeetNothingOfAnotherTenant is a short form of the program, at the level at which everything
// depends on the proxy: as it is, then with tenants that lose their schema, then with a row that must be found.
func TestSessionsThatEndBadlyMeetNothingOfAnotherTenant(t *testing.T) {
	o := options{level: "trusted", tenants: 12, connections: 4, workers: 24, answers: 30_000, seed: 1, io: "auto"}
	dir, err := os.MkdirTemp("", "docex-churn-test-") // as short as a socket's path has to be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := newSite(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	phase := func(o options) (*tally, error) {
		counts, began := newTally(o.answers), time.Now()
		err := churn(t.Context(), s, o, counts)
		if err := report(t.Output(), s, o, counts, time.Since(began)); err != nil {
			t.Error(err)
		}
		return counts, err
	}

	if counts, err := phase(o); err != nil || counts.foreign.Load() > 0 {
		t.Fatal(err)
	}

	losing := o
	losing.answers, losing.drop = 3_000, dropSchema
	counts, err := phase(losing)
	if err != nil {
		t.Fatal(err)
	}
	if s.lost() != len(s.tenants)/2 || counts.counted(refusals) == 0 {
		t.Fatalf("%d tenants lost their schema, %d queries were refused", s.lost(), counts.counted(refusals))
	}

	if err := s.sabotage(t.Context()); err != nil {
		t.Fatal(err)
	}
	if counts, err = phase(o); counts.foreign.Load() == 0 {
		t.Fatalf("a row of another tenant was not found: %v", err)
	}
	if _, ok := errors.AsType[*foreignError](err); !ok {
		t.Fatalf("it was found, and the run ended with %v", err)
	}
}
