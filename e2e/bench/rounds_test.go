//go:build linux

package main

import (
	"errors"
	"io"
	"math"
	"slices"
	"testing"

	"github.com/docex-proxy/docex-proxy/e2e/program"
)

func TestEachTargetIsMeasuredOnceInEachRoundInAlternatingOrder(t *testing.T) {
	a, b := &target{name: "a"}, &target{name: "b"}
	var order string
	all, err := rounds(3, []*target{a, b}, func(t *target) (sample, error) {
		order += t.name
		return sample{rate: float64(len(order))}, nil
	})
	if err != nil || order != "abbaab" || len(all[a]) != 3 || len(all[b]) != 3 {
		t.Errorf("%q, %v, %v", order, all, err)
	}
	boom := errors.New("boom")
	if _, err := rounds(3, []*target{a}, func(*target) (sample, error) { return sample{}, boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
}

func TestARatioIsTheMedianOfTheRoundsOwnRatios(t *testing.T) {
	a, b := &target{}, &target{}
	all := samples{a: {{rate: 10}, {rate: 200}, {rate: 30}}, b: {{rate: 5}, {rate: 50}, {rate: 30}}}
	if got := all.ratio(a, b, rate); got != 2 { // of 2, 4, 1
		t.Errorf("ratio %g", got)
	}
	if got := all.of(a, rate); got != 30 {
		t.Errorf("median %g", got)
	}
	if got := all.ratio(a, nil, rate); !math.IsNaN(got) {
		t.Errorf("ratio to nothing %g", got)
	}
	values := []float64{4, 1, 3, 2}
	if got := median(values); got != 2.5 || !slices.Equal(values, []float64{4, 1, 3, 2}) {
		t.Errorf("median %g of %v", got, values)
	}
}

func TestAnAnswerOfAnotherTenantIsSeen(t *testing.T) {
	row := func(tenant string) []byte {
		c := client{}
		c.say('D', "\x00\x02\x00\x00\x00"+string(rune(len(tenant)))+tenant+"\x00\x00\x00\x010")
		return c.out
	}
	c := client{tenant: "role12"}
	for tenant, own := range map[string]bool{"role12": true, "role1": false, "role123": false, "slot12": false, "": false} {
		if got := c.owns(row(tenant)); got != own {
			t.Errorf("a row of %q counts as own: %t", tenant, got)
		}
	}
	if c.owns([]byte("D\x00\x00\x00\x06\x00\x00")) || c.owns(row("role12")[:14]) {
		t.Error("a row that is cut off counts as own")
	}
}

func TestFlagsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, arguments := range [][]string{
		{"-rounds", "0"}, {"-single", "simple"}, {"-single", "odd:8"}, {"-single", "simple:0"}, {"-tenants", "many"}, {"-sizes", "-1"}, {"more"}, {"-io", ""},
	} {
		if _, err := parse(arguments, io.Discard); err == nil {
			t.Errorf("%q passes", arguments)
		}
	}
	o, err := parse([]string{"-single", "", "-tenants", "10,20", "-levels", "slot"}, io.Discard)
	if err != nil || len(o.single) != 0 || !slices.Equal(o.tenants, []int{10, 20}) || !slices.Equal(o.levels, []string{"slot"}) {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestAProcessHasUsedTimeAndMemory(t *testing.T) {
	if used, err := processorTime(0); used != 0 || err != nil {
		t.Error(used, err)
	}
	if kb, err := program.ResidentKB(1); kb == 0 || err != nil {
		t.Error(kb, err)
	}
	if _, err := processorTime(1 << 30); err == nil {
		t.Error("a process that is not there has used time")
	}
}

func TestPercentile(t *testing.T) {
	values := []float64{3, 1, 2}
	if got := percentile(values, 99); got != 3 || values[0] != 3 {
		t.Errorf("percentile %g of %v", got, values)
	}
	if got := percentile(values, 50); got != 2 {
		t.Errorf("percentile %g", got)
	}
	if got := percentile(nil, 50); !math.IsNaN(got) {
		t.Errorf("percentile of nothing is %g", got)
	}
}
