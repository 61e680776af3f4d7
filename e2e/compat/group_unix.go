//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// endTogether makes what a program has started end with it, when its context does.
func endTogether(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
}
