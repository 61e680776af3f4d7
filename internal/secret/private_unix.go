//go:build unix

package secret

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// CheckPrivate refuses a key file that others may read or change, by libpq's rule (section 34.19.3): mode 0600 or less,
// or 0640 or less when it belongs to root, who gives it to a group.
func CheckPrivate(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	forbidden := fs.FileMode(0o077)
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid == 0 {
		forbidden = 0o037
	}
	if mode := info.Mode().Perm(); mode&forbidden != 0 {
		return fmt.Errorf("%s has permissions %#o; nobody but its owner may read it (chmod 600), or its group when root owns it (chmod 640)", file, mode)
	}
	return nil
}
