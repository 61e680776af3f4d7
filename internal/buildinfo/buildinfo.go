// Package buildinfo says which build of the project a program is, by what the Go tool wrote into it.
package buildinfo

import (
	"cmp"
	"fmt"
	"runtime/debug"
)

// Version is the version of the project's module that the program was built from, "unknown" where nobody said.
func Version() string {
	version, _, _ := read()
	return version
}

// Line is what the verb `version` of a program prints: its name, version, commit and the version of Go.
func Line(program string) string {
	version, commit, goVersion := read()
	return fmt.Sprintf("%s %s (commit %s, %s)", program, version, commit, goVersion)
}

func read() (version, commit, goVersion string) {
	version, commit, goVersion = "unknown", "unknown", "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version, commit, goVersion
	}
	version, goVersion = cmp.Or(info.Main.Version, version), info.GoVersion
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			commit = setting.Value
		}
	}
	return version, commit, goVersion
}
