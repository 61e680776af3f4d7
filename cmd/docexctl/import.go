package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/provision/sqlite"
	"github.com/docex-proxy/docex-proxy/registry"
)

// importFlags are the flags of the verb tenant import.
type importFlags struct{ file, actor string }

func (c *cli) tenantImportCommand() *cobra.Command {
	var f importFlags
	command := &cobra.Command{
		Use:   "import ID --from-sqlite FILE",
		Short: "Copy a tenant of DocEX on SQLite into one here",
		Long: `import copies all rows of DocEX's tables from a SQLite file into a tenant that is here and empty (docexctl tenant create), in one
transaction, and compares the number and a checksum of the rows of each table before it commits. The file is only read;
see that nothing writes to it meanwhile.`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			return c.tenantImport(command.Context(), f, args[0])
		},
	}
	command.Flags().StringVar(&f.file, "from-sqlite", "", "the tenant's `FILE`")
	command.Flags().StringVar(&f.actor, "by", "cli_user", "`NAME` of who does it, for the registry")
	return command
}

func (c *cli) tenantImport(ctx context.Context, f importFlags, id string) error {
	if f.file == "" {
		return usagef("name the file: --from-sqlite FILE")
	}
	key, err := c.loadKey() // it logs in as the tenant
	if err != nil {
		return err
	}
	provisioner, err := c.provisioner(key, false)
	if err != nil {
		return err
	}
	file, err := sqlite.OpenFile(f.file)
	if err != nil {
		return err
	}
	defer file.Close()
	result, err := provisioner.ImportTenant(ctx, provision.ImportRequest{ID: registry.TenantID(id), From: file, Actor: f.actor})
	if err != nil {
		return err
	}
	view := struct {
		TenantID string `json:"tenant_id"`
		File     string `json:"file"`
		Tables   int    `json:"tables"`
		Rows     int64  `json:"rows"`
	}{id, f.file, result.Tables, result.Rows}
	return c.print(view, func(w io.Writer) {
		fmt.Fprintf(w, "Tenant '%s' has %d rows of %d tables from %s, compared value by value\n", id, view.Rows, view.Tables, view.File)
	})
}
