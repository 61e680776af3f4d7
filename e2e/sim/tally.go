//go:build unix

package main

import (
	"math/bits"
	"slices"
	"time"
)

// tally is what has happened since the row before.
type tally struct {
	since        moment
	logins       int // begun
	hits         int // of them, those for which the registry was not asked
	strangers    int // refused, because there is no such tenant
	offline      int // refused, because the registry did not answer
	rechecks     int // of tenants, on a proxy
	queries      int // of the registry
	late         int // of them, not even begun in time
	changes      int // in the registry
	transactions int
	switches     int
	dials        int
	welcome      spans
	waits        [classes]spans
	most         []int32 // connections at once, of each tenant that is watched
	failures     [classes]failures
}

func (t *tally) failed(c class, err error) { t.failures[c].add(err) }

func (t *tally) allWaits() *spans {
	var all spans
	for i := range t.waits {
		all.merge(&t.waits[i])
	}
	return &all
}

func (t *tally) allFailures() failures {
	var all failures
	for _, f := range t.failures {
		all.queue, all.connect, all.broken = all.queue+f.queue, all.connect+f.connect, all.broken+f.broken
	}
	return all
}

// spans counts spans of time in buckets: exact below 32 ticks, within 1/16 above.
type spans struct {
	counts  []int
	n       int
	longest moment
}

const (
	exact = 32
	parts = 16 // of an octave
)

func bucketOf(m moment) int {
	if m < exact {
		return int(m)
	}
	octave := bits.Len32(uint32(m)) - 5 // at least 1
	return exact + (octave-1)*parts + int(m>>octave) - parts
}

// upTo is the longest span of a bucket.
func upTo(bucket int) moment {
	if bucket < exact {
		return moment(bucket)
	}
	octave := (bucket-exact)/parts + 1
	return moment((bucket-exact)%parts+parts+1)<<octave - 1
}

func (s *spans) add(m moment) {
	b := bucketOf(m)
	if b >= len(s.counts) {
		s.counts = append(s.counts, make([]int, b+1-len(s.counts))...)
	}
	s.counts[b]++
	s.n++
	s.longest = max(s.longest, m)
}

func (s *spans) merge(t *spans) {
	if missing := len(t.counts) - len(s.counts); missing > 0 {
		s.counts = append(s.counts, make([]int, missing)...)
	}
	for i, n := range t.counts {
		s.counts[i] += n
	}
	s.n += t.n
	s.longest = max(s.longest, t.longest)
}

// milliseconds is the span that the given share does not exceed; -1 where there are none.
func (s *spans) milliseconds(share float64) float64 {
	if s.n == 0 {
		return -1
	}
	left := int(float64(s.n) * share)
	for b, n := range s.counts {
		if left -= n; left < 0 {
			return min(upTo(b), s.longest).duration().Seconds() * 1000
		}
	}
	return s.longest.duration().Seconds() * 1000
}

// drains is what the pools' Drain took, by the machine's clock.
type drains []time.Duration

func (d *drains) add(took time.Duration) {
	if len(*d) < 1<<20 {
		*d = append(*d, took)
	}
}

func (d drains) median() time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)/2]
}
