package provision_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// writer writes numbered rows as the tenant, one by one, wherever the registry says it is, until it is told to stop. What it
// got an answer for is in its log.
type writer struct {
	site *movingSite
	stop chan struct{}
	done chan struct{}
	log  []int
	gap  time.Duration // the longest between two answers
}

func (s *movingSite) write(t *testing.T, id registry.TenantID) *writer {
	w := &writer{site: s, stop: make(chan struct{}), done: make(chan struct{})}
	store := s.store(t)
	ctx := context.WithoutCancel(t.Context())
	go func() {
		defer close(w.done)
		var conn *pgx.Conn
		last := time.Now()
		for n := 1; ; n++ {
			for {
				select {
				case <-w.stop:
					if conn != nil {
						_ = conn.Close(ctx)
					}
					return
				default:
				}
				if conn == nil || conn.IsClosed() {
					tenant, err := store.Tenant(ctx, id)
					if err != nil || tenant.Route.Status != registry.StatusActive {
						time.Sleep(time.Millisecond)
						continue
					}
					if conn, err = pgx.Connect(ctx, s.address(t, tenant.Route.Server, *tenant.Route)); err != nil {
						continue
					}
				}
				// A row that has been committed without an answer is not written twice.
				if _, err := conn.Exec(ctx, "INSERT INTO journal VALUES ($1) ON CONFLICT DO NOTHING", n); err == nil {
					break
				}
				_ = conn.Close(ctx)
			}
			w.log = append(w.log, n)
			w.gap = max(w.gap, time.Since(last))
			last = time.Now()
		}
	}()
	return w
}

// ends stops the writer and demands that every row that it got an answer for is there.
func (w *writer) ends(t *testing.T, id registry.TenantID) {
	t.Helper()
	close(w.stop)
	<-w.done
	var missing []int
	rows, err := w.site.on(t, id).Query(t.Context(), "SELECT n FROM unnest($1::int[]) AS n WHERE NOT EXISTS (SELECT FROM journal WHERE id = n)", w.log)
	if err == nil {
		missing, err = pgx.CollectRows(rows, pgx.RowTo[int])
	}
	if err != nil || len(missing) > 0 || len(w.log) == 0 {
		t.Errorf("of %d rows %v are missing (%v)", len(w.log), missing, err)
	}
	t.Logf("%d rows, the longest gap is %v", len(w.log), w.gap)
}

func TestNothingThatIsWrittenWhileATenantMovesIsLost(t *testing.T) {
	for _, level := range movedLevels {
		t.Run(string(level), func(t *testing.T) {
			s := newMovingSite(t)
			s.createSmall(t, "acme", level)
			execute(t, s.on(t, "acme"), "CREATE TABLE journal (id integer PRIMARY KEY)")
			w := s.write(t, "acme")
			for _, to := range []string{"eu", "main"} {
				result := s.move(t, "acme", to)
				t.Logf("held for %v", result.Held)
			}
			w.ends(t, "acme")
		})
	}
}

func TestNothingIsLostWhenAMoveIsKilledWhileTheTenantWrites(t *testing.T) {
	s := newMovingSite(t)
	s.createSmall(t, "acme", registry.IsolationDatabase)
	execute(t, s.on(t, "acme"), "CREATE TABLE journal (id integer PRIMARY KEY)")
	w := s.write(t, "acme")
	to := "eu"
	for _, name := range []string{"hold the tenant", "end the subscription", "open the new server"} {
		s.killedMove(t, name, "acme", to)
		s.move(t, "acme", to)
		to = map[string]string{"eu": "main", "main": "eu"}[to]
	}
	w.ends(t, "acme")
}
