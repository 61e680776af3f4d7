package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/provision/sqlite"
	"github.com/docex-proxy/docex-proxy/registry"
)

// deleteFlags are the flags of the verb tenant delete.
type deleteFlags struct {
	actor, confirm, archive string
	grace                   time.Duration
	purge, dryRun           bool
}

// defaultGrace is for how long a deleted tenant is kept.
const defaultGrace = 30 * 24 * time.Hour

func (c *cli) tenantDeleteCommand() *cobra.Command {
	var f deleteFlags
	command := &cobra.Command{
		Use:   "delete ID",
		Short: "Delete a tenant; its data is kept for a while, or archived, or purged",
		Long: `delete has proxies refuse the tenant and end its sessions at once. Its data stays, and tenant restore brings it back.

--archive FILE writes its schema with pg_dump after that, and restores it into a database of its own to see that it can be.
--purge drops the schema or database, the role and the rows of the registry, and there is no way back. Without it, deleting a
deleted tenant again purges it once the grace period is over.

It asks for the id to be typed again, unless --confirm says it.`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			return c.tenantDelete(command.Context(), f, args[0])
		},
	}
	flags := command.Flags()
	flags.StringVar(&f.confirm, "confirm", "", "the `ID` once more, instead of being asked for it")
	flags.StringVar(&f.archive, "archive", "", "write what the tenant has to `FILE` first, with pg_dump, and see that it restores")
	flags.BoolVar(&f.purge, "purge", false, "drop everything now, whatever the grace period")
	flags.DurationVar(&f.grace, "grace", defaultGrace, "for how long a deleted tenant is kept (`DURATION`)")
	flags.StringVar(&f.actor, "by", "cli_user", "`NAME` of who does it, for the registry")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the SQL and change nothing")
	return command
}

// deletedTenant is what tenant delete prints.
type deletedTenant struct {
	TenantID  string       `json:"tenant_id"`
	Status    string       `json:"status"`     // deleted or purged
	KeptUntil *time.Time   `json:"kept_until"` // null once it is purged
	Archive   *archiveView `json:"archive"`    // null where none was asked for
}

// archiveView says what is in an archive.
type archiveView struct {
	File   string `json:"file"`
	Bytes  int64  `json:"bytes"`
	Tables int    `json:"tables"`
	Rows   int64  `json:"rows"`
}

func (v deletedTenant) write(w io.Writer) {
	fmt.Fprintf(w, "Tenant '%s' is %s\n", v.TenantID, v.Status)
	if v.Archive != nil {
		fmt.Fprintf(w, "  Archive:\t%s, %d bytes, %d tables, %d rows, restored to see that it can be\n", v.Archive.File, v.Archive.Bytes, v.Archive.Tables, v.Archive.Rows)
	}
	if v.KeptUntil != nil {
		fmt.Fprintf(w, "  Kept Until:\t%s; `docexctl tenant restore %s` brings it back\n", stamp(*v.KeptUntil), v.TenantID)
	}
}

func (c *cli) tenantDelete(ctx context.Context, f deleteFlags, text string) error {
	id := registry.TenantID(text) // not parsed: the registry decides, as for tenant show
	if f.grace < 0 {
		return usagef("--grace is no time: %v", f.grace)
	}
	if done, err := c.files(func(i sqlite.Installation) error { return c.filesDelete(ctx, i, f, id) }); done {
		return err
	}
	tenant, err := c.tenant(ctx, id)
	if err != nil {
		return err
	}
	if err := f.checkArchive(); err != nil {
		return err
	}
	if !f.dryRun {
		if err := c.confirm(text, f); err != nil {
			return err
		}
	}
	var key secret.Key
	if f.archive != "" { // it logs in as the tenant
		if key, err = c.loadKey(); err != nil {
			return err
		}
	}
	provisioner, err := c.provisioner(key, f.dryRun)
	if err != nil {
		return err
	}
	before := tenant.Route != nil && tenant.Route.Status == registry.StatusDeleted
	view := deletedTenant{TenantID: text, Status: string(registry.StatusDeleted)}
	if tenant, err = provisioner.ChangeTenant(ctx, provision.ChangeRequest{ID: id, Actor: f.actor, Transition: provision.Delete}); err != nil {
		return err
	}
	if f.archive != "" && !f.dryRun {
		if view.Archive, err = archiveTo(ctx, provisioner, id, f.archive); err != nil {
			return partlyDeleted(before, text, err)
		}
	}
	if f.purge || before && f.archive == "" {
		if err := purge(ctx, provisioner, id, f); err != nil {
			return partlyDeleted(before, text, err)
		}
		view.Status = "purged"
	} else {
		kept := tenant.Route.UpdatedAt.Add(f.grace).UTC().Truncate(time.Second)
		view.KeptUntil = &kept
	}
	if f.dryRun {
		return c.nothingChanged()
	}
	return c.print(view, view.write)
}

// checkArchive refuses a file that could not be written, before anything is deleted.
func (f deleteFlags) checkArchive() error {
	if f.archive == "" {
		return nil
	}
	if _, err := os.Lstat(f.archive); err == nil {
		return &provision.ConflictError{Object: "file", Name: f.archive, Reason: "exists: an archive overwrites nothing"}
	}
	if info, err := os.Stat(filepath.Dir(f.archive)); err != nil || !info.IsDir() {
		return usagef("--archive: there is no directory %s", filepath.Dir(f.archive))
	}
	return nil
}

// confirm asks for the id.
func (c *cli) confirm(id string, f deleteFlags) error {
	if f.confirm == "" {
		what := "delete"
		if f.purge {
			what = "purge, for good,"
		}
		fmt.Fprintf(c.err, "To %s tenant '%s', type its id: ", what, id)
		line, err := bufio.NewReader(c.in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("confirmation: %w", err)
		}
		if f.confirm = strings.TrimSpace(line); f.confirm == "" {
			return usagef("not confirmed: type the id, or say --confirm %s", id)
		}
	}
	if f.confirm != id {
		return usagef("not confirmed: %q is not '%s'", f.confirm, id)
	}
	return nil
}

func archiveTo(ctx context.Context, provisioner *provision.Provisioner, id registry.TenantID, file string) (*archiveView, error) {
	result, err := provisioner.ArchiveTenant(ctx, provision.ArchiveRequest{ID: id, File: file})
	if err != nil {
		return nil, err
	}
	return &archiveView{File: file, Bytes: result.Bytes, Tables: result.Tables, Rows: result.Rows}, nil
}

func purge(ctx context.Context, provisioner *provision.Provisioner, id registry.TenantID, f deleteFlags) error {
	request := provision.PurgeRequest{ID: id, Actor: f.actor, Grace: f.grace}
	if f.purge {
		request.Grace = 0
	}
	return provisioner.PurgeTenant(ctx, request)
}

// partlyDeleted is about a tenant that this run has deleted, and what failed after that.
func partlyDeleted(before bool, id string, err error) error {
	if before {
		return err
	}
	return &partlyDoneError{done: fmt.Sprintf("tenant '%s' is deleted (`docexctl tenant restore %[1]s` brings it back)", id), err: err}
}

func (c *cli) tenantRestoreCommand() *cobra.Command {
	return c.statusCommand("restore", "Bring a deleted tenant back", "restore serves a deleted tenant again, with all that it had, unless it has been purged.", provision.Restore, "is active")
}
