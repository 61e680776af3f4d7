package proxy

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/registry"
	"github.com/docex-proxy/docex-proxy/router"
)

// refusal is an error as a Postgres server sends it.
type refusal struct{ code string }

func (r *refusal) Error() string    { return r.code }
func (r *refusal) SQLState() string { return r.code }

// vault is a server that lets one generation of a secret in, a registry that may know it, and a router over what the
// proxy knows.
type vault struct {
	code                  string // what a wrong secret is refused with
	server, truth, cached int    // generations
	held                  int    // the generation at which the tenant is moving
	dials, asked          int
	dialed, answered      func() // run after each attempt, and each answer of the registry
}

func (v *vault) Acquire(_ context.Context, target pool.Target, _ int) (*pool.Conn, error) {
	v.dials++
	var err error
	if target.Generation != v.server {
		err = &pool.ConnectError{Server: "main", Err: &refusal{v.code}}
	}
	if v.dialed != nil {
		v.dialed()
	}
	return nil, err
}

func (v *vault) Ask(*pool.Request, pool.Target, int) (*pool.Conn, error) { return nil, pool.ErrBlocks }

func (v *vault) changed(_ context.Context, _ registry.TenantID, known *registry.Route) bool {
	v.asked++
	if v.truth == known.SecretGeneration {
		return false
	}
	v.cached = v.truth
	if v.answered != nil {
		v.answered()
	}
	return true
}

func (v *vault) Route(context.Context, router.Startup) (router.Route, error) {
	tenant := &registry.Tenant{ID: "acme", Route: &registry.Route{SecretGeneration: v.cached}}
	return router.Route{Tenant: tenant, Target: pool.Target{Server: "main", Generation: v.cached}, Held: v.held > 0 && v.cached == v.held}, nil
}

// session is one that knows what the vault's cache holds now.
func (v *vault) session(t *testing.T) *session {
	s := &session{server: &Server{}, o: &Options{Router: v, Pool: v, Changed: v.changed}}
	s.life.begin(t.Context())
	route, _ := v.Route(t.Context(), router.Startup{})
	s.route.Store(&route)
	return s
}

func TestASecretThatWasRotatedAMomentAgoIsAskedFor(t *testing.T) {
	for _, code := range []string{"28P01", "28000"} {
		v := &vault{code: code, server: 2, truth: 2, cached: 1}
		if _, err := v.session(t).acquire(t.Context()); err != nil || v.dials != 2 {
			t.Errorf("%s: %v after %d attempts", code, err, v.dials)
		}
	}
}

func TestASecretThatIsRotatedAgainMeanwhileIsAskedForAgain(t *testing.T) {
	v := &vault{code: "28P01", server: 2, truth: 2, cached: 1}
	v.answered = func() {
		if v.asked < 4 {
			v.server, v.truth = v.server+1, v.truth+1
		}
	}
	if _, err := v.session(t).acquire(t.Context()); err != nil || v.dials != 5 {
		t.Errorf("%v after %d attempts", err, v.dials)
	}
}

func TestWhatTheSessionLearnedByItselfIsNotAskedFor(t *testing.T) {
	v := &vault{code: "28P01", server: 2, truth: 2, cached: 1}
	s := v.session(t)
	v.dialed = func() {
		v.cached = 2
		s.recheck(s.life.context()) // as when the notification comes
	}
	if _, err := s.acquire(t.Context()); err != nil || v.asked != 0 {
		t.Errorf("%v after %d questions", err, v.asked)
	}
}

func TestALoginThatIsRefusedForGoodIsTriedOnce(t *testing.T) {
	for name, v := range map[string]*vault{
		"a wrong key":   {code: "28P01", server: 2, truth: 1, cached: 1},
		"another error": {code: "3D000", server: 2, truth: 2, cached: 1},
	} {
		var connect *pool.ConnectError
		if _, err := v.session(t).acquire(t.Context()); !errors.As(err, &connect) || v.dials != 1 {
			t.Errorf("%s: %v after %d attempts", name, err, v.dials)
		}
	}
}

// The old server of a tenant that is moving lets its role in no more.
func TestALoginThatIsRefusedBecauseTheTenantIsMovingWaitsForTheEndOfTheMove(t *testing.T) {
	v := &vault{code: "28000", server: 3, truth: 2, cached: 1, held: 2}
	s := v.session(t)
	done := make(chan error)
	go func() {
		_, err := s.acquire(t.Context())
		done <- err
	}()
	for !s.route.Load().Held {
		time.Sleep(time.Millisecond)
	}
	v.cached = 3
	s.recheck(t.Context()) // as when the notification comes
	if err := <-done; err != nil || v.dials != 2 || v.asked != 1 {
		t.Errorf("%v after %d attempts and %d questions", err, v.dials, v.asked)
	}
}
