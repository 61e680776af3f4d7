package pool

import (
	"sync/atomic"
	"time"
)

// complaintInterval lies between two complaints about the same thing, however often there is cause.
const complaintInterval = time.Second

// complaint keeps a warning from filling the log.
type complaint struct{ last atomic.Pointer[time.Time] } // with its monotonic part: a clock that is set back silences nothing

// due reports whether it is time to complain, to one of those who ask at the same moment.
func (c *complaint) due(now time.Time) bool {
	last := c.last.Load()
	return (last == nil || now.Sub(*last) >= complaintInterval) && c.last.CompareAndSwap(last, &now)
}
