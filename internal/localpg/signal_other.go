//go:build !linux

package localpg

import "syscall"

// dieWithParent does nothing: only Linux can tie a child's life to ours. Elsewhere a postmaster survives a kill -9 of
// this process, and the next Start on its data directory fails and says so.
func dieWithParent(*syscall.SysProcAttr) {}
