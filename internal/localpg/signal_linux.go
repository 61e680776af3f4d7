package localpg

import "syscall"

// dieWithParent asks the kernel for a fast shutdown of the postmaster when the thread that started it ends. That
// thread is locked to the goroutine which waits for the process (see postmaster.run), so it ends with us.
func dieWithParent(attributes *syscall.SysProcAttr) { attributes.Pdeathsig = syscall.SIGINT }
