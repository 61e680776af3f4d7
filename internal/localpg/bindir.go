package localpg

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// ErrNoBinaries says that this machine has no Postgres server programs where FindBinDir looks.
var ErrNoBinaries = errors.New("no Postgres server programs (initdb, postgres) found: install them, for example " +
	`"apt-get install postgresql", "dnf install postgresql-server" or "brew install postgresql", ` +
	"or put their directory into PATH")

// FindBinDir returns the directory that holds initdb and postgres. It looks in PATH, asks pg_config, then takes the
// newest of the versioned directories that distributions use. The error wraps ErrNoBinaries.
func FindBinDir() (string, error) {
	return findBinDir([]string{ // Debian and Ubuntu, PGDG's packages for Red Hat and SUSE, Homebrew
		"/usr/lib/postgresql/*/bin",
		"/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin",
	})
}

func findBinDir(patterns []string) (string, error) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if isBinDir(dir) {
			return dir, nil
		}
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		if dir := strings.TrimSpace(string(out)); isBinDir(dir) {
			return dir, nil
		}
	}
	var dirs []string
	for _, pattern := range patterns {
		found, _ := filepath.Glob(pattern) // fails on a malformed pattern only
		dirs = append(dirs, found...)
	}
	if dir, ok := newestBinDir(dirs); ok {
		return dir, nil
	}
	return "", ErrNoBinaries
}

// newestBinDir picks the directory with the highest version number in its path that holds the programs.
func newestBinDir(dirs []string) (string, bool) {
	dirs = slices.DeleteFunc(slices.Clone(dirs), func(dir string) bool { return !isBinDir(dir) })
	if len(dirs) == 0 {
		return "", false
	}
	return slices.MaxFunc(dirs, func(a, b string) int { return cmp.Compare(versionIn(a), versionIn(b)) }), true
}

// versionIn reads 15 from "/usr/lib/postgresql/15/bin" and 9.6 from "/usr/pgsql-9.6/bin"; 0 where there is none.
func versionIn(binDir string) float64 {
	name := filepath.Base(filepath.Dir(binDir))
	version, err := strconv.ParseFloat(name[strings.LastIndexAny(name, "-@")+1:], 64)
	if err != nil {
		return 0
	}
	return version
}

func isBinDir(dir string) bool { return isProgram(dir, "initdb") && isProgram(dir, "postgres") }

func isProgram(dir, name string) bool {
	info, err := os.Stat(program(dir, name))
	return err == nil && info.Mode().IsRegular() && (runtime.GOOS == "windows" || info.Mode()&0o111 != 0)
}

func program(dir, name string) string {
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(dir, name)
}

// binDir resolves Options.BinDir: what is named must be right, what is not is searched, then downloaded if allowed.
func (o Options) binDir() (string, error) {
	if o.BinDir != "" {
		if !isBinDir(o.BinDir) {
			return "", fmt.Errorf("%s does not hold the programs initdb and postgres", o.BinDir)
		}
		return o.BinDir, nil
	}
	dir, err := FindBinDir()
	if err == nil || !o.DownloadOK {
		return dir, err
	}
	o.Logger.Info("no Postgres server programs on this machine, downloading them")
	dir, downloadErr := downloadBinDir()
	if downloadErr != nil {
		return "", errors.Join(err, fmt.Errorf("download: %w", downloadErr))
	}
	return dir, nil
}
