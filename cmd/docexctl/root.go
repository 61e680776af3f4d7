package main

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/spf13/cobra"
)

// cli is one run of the program: its streams and the flags that all verbs share.
type cli struct {
	in       io.Reader
	out, err io.Writer

	dsn         string
	docexConfig string
	keyFile     string
	serverDSNs  []string
	serverCitus []string
	output      string

	silent sync.Map // names of servers that did not answer, and of which a warning has been given
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &cli{in: stdin, out: stdout, err: stderr}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(stderr, "docexctl: "+oneLine(err))
	}
	return exitCode(err)
}

func (c *cli) root() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "docexctl",
		Short: "Provision the tenants of a DocEX database behind docex-proxy",
		Long: `docexctl initialises the registry, provisions tenants and creates the logins of clients.

It talks to Postgres itself, never through the proxy. The database is, in this order: --dsn, the database block of
--docex-config, DOCEX_DSN, libpq's variables (PGHOST, PGDATABASE, PGSERVICE, ...).

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 in conflict with what exists, 5 partly done.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return c.checkOutput() },
	})
	flags := root.PersistentFlags()
	flags.StringVar(&c.dsn, "dsn", "", "`DSN` of the database, as a superuser or as a role that may provision")
	flags.StringVar(&c.docexConfig, "docex-config", "", "DocEX's config.yaml, read for its database and schema template (`FILE`)")
	flags.StringVar(&c.keyFile, "key-file", "", "master key `FILE` (default $DOCEX_MASTER_KEY_FILE, else docex/master.key below $XDG_CONFIG_HOME or ~/.config)")
	flags.StringArrayVar(&c.serverDSNs, "server-dsn", nil, "how another server that holds tenants is reached, by the proxy's name for it: `NAME=DSN` (may be repeated)")
	flags.StringArrayVar(&c.serverCitus, "server-citus", nil, "the server of this `NAME`, main or one of --server-dsn, is the coordinator of a Citus cluster: tenants' schemas are distributed (may be repeated)")
	flags.StringVarP(&c.output, "output", "o", "table", "output `FORMAT`: table, json or yaml")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(c.initCommand(), c.tenantCommand(), c.loginCommand(), c.migrateCommand(), c.migrateTenantsCommand("migrate-v2-to-v3"), c.routeCommand(), c.doctorCommand(), versionCommand(), manCommand())
	c.offerNames(root)
	return root
}

// group makes a command that only has verbs below it. Without one of them it is wrong usage.
func group(command *cobra.Command) *cobra.Command {
	command.SuggestionsMinimumDistance = 2 // what cobra itself uses for its own suggestions
	command.Args = cobra.ArbitraryArgs     // otherwise cobra itself answers, with an error that cannot be told apart
	command.RunE = func(command *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("a verb is missing; see `%s --help`", command.CommandPath())
		}
		hint := ""
		if similar := command.SuggestionsFor(args[0]); len(similar) > 0 {
			hint = fmt.Sprintf("did you mean %q? ", similar[0])
		}
		return usagef("unknown verb %q; %ssee `%s --help`", args[0], hint, command.CommandPath())
	}
	return command
}

// arguments makes what cobra finds wrong with the number of arguments wrong usage.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		if err := check(command, args); err != nil {
			return usagef("%w; see `%s --help`", err, command.CommandPath())
		}
		return nil
	}
}
