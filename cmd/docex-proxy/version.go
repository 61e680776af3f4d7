package main

import (
	"cmp"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and the Go version it was built with",
		Args:  noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			built := buildInfo()
			_, err := fmt.Fprintf(command.OutOrStdout(), "docex-proxy %s (commit %s, %s)\n", built.version, built.commit, built.goVersion)
			return err
		},
	}
}

type build struct{ version, commit, goVersion string }

// buildInfo is what the Go tool wrote into the program; "unknown" stands for what it did not.
func buildInfo() build {
	built := build{version: "unknown", commit: "unknown", goVersion: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return built
	}
	built.version, built.goVersion = cmp.Or(info.Main.Version, built.version), info.GoVersion
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			built.commit = setting.Value
		}
	}
	return built
}
