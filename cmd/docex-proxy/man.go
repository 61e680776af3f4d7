package main

import (
	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/internal/manpage"
)

// manCommand is for those who build packages: help does not list it.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write a manual page of each verb into a directory",
		Hidden: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("a directory has to be named")
			}
			return nil
		},
		RunE: func(command *cobra.Command, args []string) error { return manpage.Write(command.Root(), args[0]) },
	}
}
