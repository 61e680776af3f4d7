//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// killer ends the programs of a move with SIGKILL, at steps and moments drawn by chance.
type killer struct {
	random          *rand.Rand
	killed, proxies int
	at              map[string]int // steps of the registry
	wrong           []string
}

// kill begins a move twice and ends it, and looks each time on how many servers the tenant may write.
func (k *killer) kill(ctx context.Context, s *site, tenant, to string, proxyToo bool) error {
	for again := range 2 {
		bounded, stop := context.WithCancel(ctx)
		step, later := 1+k.random.IntN(len(killedAt)-1), time.Duration(k.random.Int64N(int64(killedWithin)))
		var group sync.WaitGroup
		group.Go(func() {
			s.awaitStep(bounded, tenant, to, killedAt[step:])
			pause(bounded, later)
			stop()
		})
		err := s.moveTenant(bounded, new(moveReport), tenant, to) // the end of the context kills it
		ended := bounded.Err() != nil
		stop()
		group.Wait()
		switch {
		case err == nil:
			return nil
		case !ended || ctx.Err() != nil:
			return err
		}
		k.killed++
		if err := k.look(ctx, s, tenant); err != nil {
			return err
		}
		if proxyToo && again == 0 {
			k.proxies++
			if err := killedProxy(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// killedAt are the registry's steps of a move, in their order.
var killedAt = []string{"", "prepare", "copy", "hold", "open", "kept"}

// killedWithin is for how long at most a move goes on after the step at which it is killed: the hold takes about as long.
const killedWithin = 150 * time.Millisecond

// awaitStep returns when the registry says that the tenant's move to a server is at one of the steps, or when the context ends.
func (s *site) awaitStep(ctx context.Context, tenant, to string, steps []string) {
	conn, err := pgx.Connect(ctx, s.cluster.DSN(database))
	if err != nil {
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for there := false; err == nil && !there; pause(ctx, 2*time.Millisecond) {
		err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM docex_system.tenant_move WHERE tenant_id = $1 AND to_server = $3 AND step = ANY ($2))", tenant, steps, to).Scan(&there)
	}
}

// look notes how far the move had come, and whether there are two servers where the tenant's role may log in.
func (k *killer) look(ctx context.Context, s *site, tenant string) error {
	step := "no move"
	conn, err := pgx.Connect(ctx, s.cluster.DSN(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SELECT step FROM docex_system.tenant_move WHERE tenant_id = $1", tenant).Scan(&step)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	if k.at == nil {
		k.at = make(map[string]int)
	}
	k.at[step]++
	var open []string
	for name, dsn := range map[string]string{"main": s.cluster.DSN("postgres"), secondServer: s.second.DSN("postgres")} {
		lets, err := letsIn(ctx, dsn, "tenant_"+tenant)
		if err != nil {
			return err
		}
		if lets {
			open = append(open, name)
		}
	}
	if len(open) > 1 {
		k.wrong = append(k.wrong, fmt.Sprintf("%s may log in to %v at step %q", tenant, open, step))
	}
	return nil
}

func letsIn(ctx context.Context, dsn, role string) (lets bool, err error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return false, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND rolcanlogin)", role).Scan(&lets)
	return lets, err
}

// said is at in words.
func (k *killer) said() string {
	var words []string
	for _, step := range slices.Sorted(maps.Keys(k.at)) {
		words = append(words, fmt.Sprintf("%s ×%d", step, k.at[step]))
	}
	return strings.Join(words, ", ")
}
