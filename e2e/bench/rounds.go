//go:build linux

package main

import (
	"cmp"
	"math"
	"slices"
)

// sample is one measurement of one target.
type sample struct {
	rate      float64 // transactions, or megabytes, each second
	latency   float64 // mean or 99th percentile, in ms
	processor float64 // µs of the pooler's process, by transaction
}

// samples are a target's, by round.
type samples map[*target][]sample

// rounds measures every target once in each round, in alternating order.
func rounds(n int, targets []*target, measure func(*target) (sample, error)) (samples, error) {
	all := make(samples)
	order := slices.Clone(targets)
	for range n {
		for _, t := range order {
			s, err := measure(t)
			if err != nil {
				return nil, err
			}
			all[t] = append(all[t], s)
		}
		slices.Reverse(order)
	}
	return all, nil
}

// of is the median of one figure of a target.
func (s samples) of(t *target, figure func(sample) float64) float64 {
	values := make([]float64, 0, len(s[t]))
	for _, one := range s[t] {
		values = append(values, figure(one))
	}
	return median(values)
}

// ratio is the median of the rounds' ratios of one figure of two targets.
func (s samples) ratio(a, b *target, figure func(sample) float64) float64 {
	var values []float64
	for i, one := range s[a] {
		if i < len(s[b]) && figure(s[b][i]) > 0 {
			values = append(values, figure(one)/figure(s[b][i]))
		}
	}
	return median(values)
}

func rate(s sample) float64      { return s.rate }
func latency(s sample) float64   { return s.latency }
func processor(s sample) float64 { return s.processor }

// percentile of no values is NaN.
func percentile(values []float64, n int) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	values = slices.SortedFunc(slices.Values(values), cmp.Compare)
	return values[len(values)*n/100]
}

// median of no values is NaN.
func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	values = slices.SortedFunc(slices.Values(values), cmp.Compare)
	return (values[(n-1)/2] + values[n/2]) / 2
}
