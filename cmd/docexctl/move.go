package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// moveFlags are the flags of the verb tenant move.
type moveFlags struct {
	to, actor, verify string
	citusNode         string
	hold, keep        time.Duration
	abort, finish     bool
}

func (c *cli) tenantMoveCommand() *cobra.Command {
	var f moveFlags
	command := &cobra.Command{
		Use:   "move ID --to SERVER|--abort|--finish|--citus-node HOST:PORT",
		Short: "Move a tenant to another server while it is served",
		Long: `move copies a tenant to another server by logical replication, holds its new transactions while the last changes arrive,
compares both sides and changes the route. Clients wait for a moment and see no error. Where it is ended, the same command
goes on; --abort takes back what has not reached its end. What is on the old server stays there, closed, for --keep: moving
the tenant back copies it anew, and --finish drops what is left.

It needs superusers on both servers (--dsn, --server-dsn NAME=DSN), wal_level = logical on the old one, a way from the new
server to the old one by the address in the old one's DSN, and pg_dump and pg_restore in PATH.

On a server that is marked as Citus (--server-citus NAME) --citus-node has Citus move the tenant's schema to another of its
nodes; the tenant stays on the server.`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			return c.tenantMove(command.Context(), f, registry.TenantID(args[0])) // not parsed: the registry decides, as for tenant show
		},
	}
	flags := command.Flags()
	flags.StringVar(&f.to, "to", "", "the proxy's `NAME` of the server to move to; main is the registry's own")
	flags.BoolVar(&f.abort, "abort", false, "take the move back; the tenant is served where it was")
	flags.BoolVar(&f.finish, "finish", false, "drop what a move has left on the old server")
	flags.StringVar(&f.citusNode, "citus-node", "", "have Citus move the tenant to its node `HOST:PORT`")
	flags.DurationVar(&f.hold, "hold", 10*time.Second, "while the tenant is held, wait for its transactions, and for the last changes, for `DURATION` each")
	flags.DurationVar(&f.keep, "keep", 24*time.Hour, "the old server's copy shall be kept for `DURATION`")
	flags.StringVar(&f.verify, "verify", string(provision.CompareSnapshot), "compare rows while the tenant is held: `HOW` is snapshot (at one moment before, and small tables while it is held), full, counts or none")
	flags.StringVar(&f.actor, "by", "cli_user", "`NAME` of who does it, for the registry")
	return command
}

func (c *cli) tenantMove(ctx context.Context, f moveFlags, id registry.TenantID) error {
	chosen := 0
	for _, given := range []bool{f.to != "", f.abort, f.finish, f.citusNode != ""} {
		if given {
			chosen++
		}
	}
	switch {
	case chosen != 1:
		return usagef("say one of --to SERVER, --abort, --finish and --citus-node HOST:PORT")
	case f.hold <= 0 || f.keep <= 0:
		return usagef("--hold and --keep take a time of more than nothing")
	}
	key, err := c.loadKey()
	if err != nil {
		return err
	}
	provisioner, err := c.provisioner(key, false)
	if err != nil {
		return err
	}
	if f.citusNode != "" {
		return c.citusMove(ctx, provisioner, provision.CitusMoveRequest{ID: id, Node: f.citusNode, Actor: f.actor})
	}
	show, done := c.showMove(id)
	request := provision.MoveRequest{
		ID: id, To: f.to, Actor: f.actor, Hold: f.hold, Keep: f.keep, Verify: provision.Comparison(f.verify), Progress: show,
	}
	run, word := provisioner.MoveTenant, "moved"
	switch {
	case f.abort:
		run, word = provisioner.AbortMove, "is served where it was"
	case f.finish:
		run, word = provisioner.FinishMove, "has nothing left of its move"
	}
	result, err := run(ctx, request)
	done()
	if err != nil {
		return c.explainKey(err)
	}
	view := viewMove(id, result)
	return c.print(view, func(w io.Writer) { view.writeLines(w, fmt.Sprintf("Tenant '%s' %s", id, word)) })
}

// citusMove moves a tenant between nodes of Citus.
func (c *cli) citusMove(ctx context.Context, provisioner *provision.Provisioner, r provision.CitusMoveRequest) error {
	server, err := provisioner.MoveWithinCitus(ctx, r)
	if err != nil {
		return err
	}
	view := struct {
		TenantID string `json:"tenant_id"`
		Server   string `json:"server"`
		Node     string `json:"citus_node"`
	}{string(r.ID), server, r.Node}
	return c.print(view, func(w io.Writer) {
		fmt.Fprintf(w, "Tenant '%s' is on node %s of server %s\n", r.ID, r.Node, server)
	})
}

// showMove says on a terminal what is being done, in one line that changes.
func (c *cli) showMove(id registry.TenantID) (show func(provision.MoveProgress), done func()) {
	if !isTerminal(c.err) {
		return nil, func() {}
	}
	const clearLine = "\r\x1b[K"
	show = func(p provision.MoveProgress) {
		fmt.Fprintf(c.err, "%smove %s: %s", clearLine, id, p.What)
		if p.Total > 0 {
			fmt.Fprintf(c.err, ", %d of %d MB", p.Done>>20, p.Total>>20)
		}
	}
	return show, func() { fmt.Fprint(c.err, clearLine) }
}

// movedTenant is what tenant move prints.
type movedTenant struct {
	TenantID  string     `json:"tenant_id"`
	From      string     `json:"from"`
	To        string     `json:"to"`
	Step      string     `json:"step"`
	Tables    int        `json:"tables"`
	Summed    int        `json:"tables_summed"`
	Rows      int64      `json:"rows"`
	Bytes     int64      `json:"bytes"`
	Held      float64    `json:"held_seconds"`
	KeptUntil *time.Time `json:"kept_until"`
}

func viewMove(id registry.TenantID, r provision.MoveResult) movedTenant {
	return movedTenant{
		TenantID: string(id), From: r.From, To: r.To, Step: string(r.Step), Tables: r.Tables, Summed: r.Summed, Rows: r.Rows, Bytes: r.Bytes,
		Held: r.Held.Seconds(), KeptUntil: optionalTime(r.KeptUntil.UTC()),
	}
}

func (v movedTenant) writeLines(w io.Writer, title string) {
	fmt.Fprintln(w, title)
	fmt.Fprintf(w, "  From:\t%s\n  To:\t%s\n", v.From, v.To)
	if v.Step != string(registry.MoveKept) {
		return
	}
	fmt.Fprintf(w, "  Held:\t%.3f s\n", v.Held)
	fmt.Fprintf(w, "  Compared:\t%d tables with %d rows, %d of them by checksum\n", v.Tables, v.Rows, v.Summed)
	fmt.Fprintf(w, "  Kept:\ton server %s until %s, closed; `docexctl tenant move %s --finish` drops it\n", v.From, stamp(*v.KeptUntil), v.TenantID)
}
