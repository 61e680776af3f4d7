package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/configs"
)

const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is about the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "docex-proxy",
		Short:         "One Postgres address for all tenants",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs, // otherwise cobra answers a wrong verb, with an error that cannot be told apart
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("a verb is missing; see `docex-proxy --help`")
			}
			return usagef("unknown verb %q; see `docex-proxy --help`", args[0])
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(serveCommand(), devCommand(), checkConfigCommand(), versionCommand(), manCommand())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	fmt.Fprintln(stderr, "docex-proxy: "+strings.ReplaceAll(err.Error(), "\n", "\n  "))
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

// noArguments makes an argument too many wrong usage.
func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q", args[0])
	}
	return nil
}

func checkConfigCommand() *cobra.Command {
	var file string
	var schema bool
	command := &cobra.Command{
		Use:   "check-config --config FILE | --schema",
		Short: "Check a configuration file, the environment and the files they name, without serving",
		Args:  noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			if schema {
				text, err := configs.Schema()
				if err == nil {
					_, err = command.OutOrStdout().Write(text)
				}
				return err
			}
			config, err := configs.Load(file)
			if err != nil {
				return err
			}
			if err := checkGraph(command.Context(), config); err != nil {
				return err
			}
			_, err = fmt.Fprintln(command.OutOrStdout(), "ok")
			return err
		},
	}
	command.Flags().StringVar(&file, "config", "", "configuration `FILE`; without it defaults and environment hold")
	command.Flags().BoolVar(&schema, "schema", false, "print the file's JSON Schema instead, for editors")
	return command
}
