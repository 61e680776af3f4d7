//go:build !unix

package main

import "os/exec"

// endTogether does nothing where there are no process groups: only the program itself ends with its context.
func endTogether(*exec.Cmd) {}
