package localpg

import "os"

// shutdownSignals has only the last resort: Windows has no signals, and Postgres recovers at the next start.
func shutdownSignals() []os.Signal { return []os.Signal{os.Kill} }
