package pool

import (
	"sync/atomic"
	"time"
)

// complaintInterval lies between two complaints about the same thing, however often there is cause.
const complaintInterval = time.Second

// complaint keeps a warning from filling the log.
type complaint struct{ last atomic.Int64 } // Unix time in nanoseconds

// due reports whether it is time to complain, to one of those who ask at the same moment.
func (c *complaint) due(now time.Time) bool {
	last := c.last.Load()
	return now.UnixNano()-last >= int64(complaintInterval) && c.last.CompareAndSwap(last, now.UnixNano())
}
