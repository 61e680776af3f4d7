package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/internal/buildinfo"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and the Go version it was built with",
		Args:  arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(command.OutOrStdout(), buildinfo.Line("docexctl"))
			return err
		},
	}
}
