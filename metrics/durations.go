package metrics

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Durations are counted in four buckets for each doubling, from 16 µs to two minutes: a quantile is then right to less than
// a quarter, and a tenant's take less than 400 bytes.
const (
	durationSteps    = 4
	shortestExponent = 14 // of 2, in nanoseconds
	longestExponent  = 37
	durationBuckets  = (longestExponent - shortestExponent) * durationSteps
)

// durations counts how long something took. A count may run over: what is looked at is the difference of two.
type durations [durationBuckets]atomic.Uint32

// durationCounts are durations at one moment, or between two.
type durationCounts [durationBuckets]uint32

func (d *durations) observe(took time.Duration) { d[durationBucket(took)].Add(1) }

func (d *durations) load() *durationCounts {
	var counts durationCounts
	for i := range d {
		counts[i] = d[i].Load()
	}
	return &counts
}

func durationBucket(took time.Duration) int {
	took = max(took, 1<<shortestExponent)
	exponent := bits.Len64(uint64(took)) - 1
	step := int(took>>(exponent-2)) & (durationSteps - 1)
	return min((exponent-shortestExponent)*durationSteps+step, durationBuckets-1)
}

// bucketBegin is the shortest duration that falls into a bucket.
func bucketBegin(bucket int) time.Duration {
	exponent, step := shortestExponent+bucket/durationSteps, bucket%durationSteps
	return time.Duration(durationSteps+step) << (exponent - 2)
}

// add adds what has been counted between two moments; earlier may be nil, which is the beginning.
func (c *durationCounts) add(later, earlier *durationCounts) {
	for i := range c {
		c[i] += later[i]
		if earlier != nil {
			c[i] -= earlier[i]
		}
	}
}

// quantile is the duration that a share of those counted did not exceed, 0 when there is none.
func (c *durationCounts) quantile(share float64) time.Duration {
	total := uint64(0)
	for _, n := range c {
		total += uint64(n)
	}
	rank := share * float64(total)
	below := 0.0
	for bucket, n := range c {
		if n == 0 {
			continue
		}
		if within := (rank - below) / float64(n); within <= 1 {
			begin := bucketBegin(bucket)
			return begin + time.Duration(within*float64(bucketBegin(bucket+1)-begin))
		}
		below += float64(n)
	}
	return 0
}
