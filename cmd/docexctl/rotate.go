package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// rotateFlags are the flags of the verb tenant rotate.
type rotateFlags struct {
	actor       string
	all, dryRun bool
}

func (c *cli) tenantRotateCommand() *cobra.Command {
	var f rotateFlags
	command := &cobra.Command{
		Use:   "rotate ID|--all",
		Short: "Give tenants' roles the password of the next generation",
		Long: `rotate raises the generation of a tenant's role and gives it the password that is derived from it, together. Proxies
learn of it at once, and open sessions stay. The logins of clients are not concerned: see the verb login. With --all
it does so for each tenant by itself, goes on when one fails, and ends with exit code 5 then.`,
		Args: arguments(cobra.MaximumNArgs(1)),
		RunE: func(command *cobra.Command, args []string) error { return c.tenantRotate(command.Context(), f, args) },
	}
	flags := command.Flags()
	flags.BoolVar(&f.all, "all", false, "rotate all tenants that have a role")
	flags.StringVar(&f.actor, "by", "cli_user", "`NAME` of who does it, for the audit trail")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the SQL and change nothing")
	return command
}

func (c *cli) tenantRotate(ctx context.Context, f rotateFlags, args []string) error {
	if f.all == (len(args) > 0) {
		return usagef("name one tenant, `docexctl tenant rotate ID`, or all of them with --all")
	}
	key, err := c.loadKey()
	if err != nil {
		return err
	}
	provisioner, err := c.provisioner(key, f.dryRun)
	if err != nil {
		return err
	}
	rotate := func(id registry.TenantID) (rotatedTenant, error) {
		result, err := provisioner.RotateTenant(ctx, provision.RotateRequest{ID: id, Actor: f.actor})
		return rotatedTenant{TenantID: string(id), Role: result.Role, SecretGeneration: result.Generation}, c.explainKey(err)
	}
	if f.all {
		return c.rotateAll(ctx, f.dryRun, rotate)
	}
	rotated, err := rotate(registry.TenantID(args[0])) // not parsed: the registry decides, as for tenant show
	if err != nil {
		return err
	}
	if f.dryRun {
		return c.nothingChanged()
	}
	return c.print(rotated, rotated.writeLine)
}

// rotateAll prints what was done even if not all of it was.
func (c *cli) rotateAll(ctx context.Context, dryRun bool, rotate func(registry.TenantID) (rotatedTenant, error)) error {
	var tenants []*registry.Tenant
	err := c.withStore(ctx, func(store *registry.Store) (err error) {
		tenants, err = store.Tenants(ctx)
		return err
	})
	if err != nil {
		return err
	}
	done, failed := []rotatedTenant{}, []error{}
	for _, tenant := range tenants {
		if tenant.Route == nil {
			continue
		}
		rotated, err := rotate(tenant.ID)
		if is[*provision.KeyMismatchError](err) || ctx.Err() != nil && err != nil {
			failed = append(failed, err) // the others would fail like this one
			break
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("tenant '%s': %w", tenant.ID, err))
			continue
		}
		done = append(done, rotated)
	}
	return errors.Join(c.reportRotated(done, dryRun), rotationFailure(len(done), failed))
}

func (c *cli) reportRotated(done []rotatedTenant, dryRun bool) error {
	if dryRun {
		return c.nothingChanged()
	}
	return c.print(done, func(w io.Writer) {
		for _, rotated := range done {
			rotated.writeLine(w)
		}
	})
}

func rotationFailure(done int, failed []error) error {
	err := errors.Join(failed...)
	if err == nil || done == 0 {
		return err
	}
	return &partlyDoneError{done: fmt.Sprintf("%d of the tenants are rotated", done), err: err}
}

// rotatedTenant is what tenant rotate prints of each.
type rotatedTenant struct {
	TenantID         string `json:"tenant_id"`
	Role             string `json:"role"`
	SecretGeneration int    `json:"secret_generation"`
}

func (r rotatedTenant) writeLine(w io.Writer) {
	fmt.Fprintf(w, "Tenant '%s' rotated: role %s has its password of generation %d\n", r.TenantID, r.Role, r.SecretGeneration)
}
