//go:build unix

package localpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the operating system user that runs the server programs.
type account struct {
	name string
	uid  uint32
	gid  uint32
	own  bool // it is the user we run as: nothing has to change hands
}

// mustDropPrivileges reports whether we run as root, which initdb and postgres refuse.
func mustDropPrivileges() bool { return os.Geteuid() == 0 }

// serverAccount is ourselves, or for root the user postgres, or nobody where there is none.
func serverAccount() (account, error) {
	if !mustDropPrivileges() {
		return account{own: true}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(found.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(found.Gid, 10, 32)
		if uidErr == nil && gidErr == nil && uid != 0 {
			return account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
		}
	}
	return account{}, errors.New("root cannot run Postgres: it refuses to, and this machine has neither a user postgres nor a user nobody")
}

// give makes the account the owner of a file or directory.
func (a account) give(path string) error {
	if a.own {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// canReach checks that the account may enter every directory above path.
func (a account) canReach(path string) error {
	if a.own {
		return nil
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if !a.mayEnter(info) {
			return fmt.Errorf("the user %s, who runs Postgres because root must not, cannot enter %s (mode %#o) on the way to %s: "+
				"choose another directory or chmod 0755 it", a.name, dir, info.Mode().Perm(), path)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func (a account) mayEnter(info fs.FileInfo) bool {
	bit := fs.FileMode(0o001)
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		switch {
		case owner.Uid == a.uid:
			bit = 0o100
		case owner.Gid == a.gid:
			bit = 0o010
		}
	}
	return info.Mode()&bit != 0
}

// attributes are those of a child process: it runs as the account, in a process group of its own so that a
// terminal's Ctrl-C reaches us and not Postgres.
func (a account) attributes() *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Setpgid: true}
	if !a.own {
		attributes.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	return attributes
}
