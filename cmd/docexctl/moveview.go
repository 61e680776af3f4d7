package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/docex-proxy/docex-proxy/provision/sqlite"
	"github.com/docex-proxy/docex-proxy/registry"
)

// moveView is a move as tenant show has it, as long as something of it is to be done.
type moveView struct {
	From      string     `json:"from"`
	To        string     `json:"to"`
	Step      string     `json:"step"`
	StartedAt time.Time  `json:"started_at"`
	HeldAt    *time.Time `json:"held_at"`
	FlippedAt *time.Time `json:"flipped_at"`
}

// moveOf is nil for a tenant with which no move has anything to do any more.
func (c *cli) moveOf(ctx context.Context, id registry.TenantID) (*moveView, error) {
	if done, err := c.files(func(sqlite.Installation) error { return nil }); done {
		return nil, err
	}
	var view *moveView
	err := c.withStore(ctx, func(store *registry.Store) error {
		m, err := store.Move(ctx, id)
		switch {
		case errors.Is(err, registry.ErrNotFound):
			return nil
		case err != nil || m.Step.Ended():
			return err
		}
		view = &moveView{m.From, m.To, string(m.Step), m.StartedAt, optionalTime(m.HeldAt), optionalTime(m.FlippedAt)}
		return nil
	})
	return view, err
}

func (v moveView) writeLine(w io.Writer) {
	fmt.Fprintf(w, "  Move:\tfrom %s to %s, at step %s since %s\n", v.From, v.To, v.Step, stamp(v.StartedAt))
}
