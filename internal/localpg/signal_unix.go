//go:build unix

package localpg

import (
	"os"
	"syscall"
)

// shutdownSignals are the postmaster's ways to end, gentlest first: fast, immediate (recovers at the next start),
// and none of its own choice. See https://www.postgresql.org/docs/current/server-shutdown.html
func shutdownSignals() []os.Signal { return []os.Signal{syscall.SIGINT, syscall.SIGQUIT, os.Kill} }
