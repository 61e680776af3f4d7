package localpg

import "syscall"

// account stands for the user we run as: on Windows the server programs drop administrator rights themselves.
type account struct{}

func mustDropPrivileges() bool        { return false }
func serverAccount() (account, error) { return account{}, nil }
func (account) give(string) error     { return nil }
func (account) canReach(string) error { return nil }

func (account) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
