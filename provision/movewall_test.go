package provision_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

func TestTheSessionsOfSlotsThatWereATenantsEndWithItsMoveAndNoOthers(t *testing.T) {
	s := newMovingSite(t)
	s.slotted(t, 4)
	s.createSmall(t, "acme", registry.IsolationSlot)
	s.createSmall(t, "globex", registry.IsolationSlot)
	switcher := s.as(t, provision.SwitcherRole)
	seat := func(tenant string, slot int) *pgx.Conn {
		t.Helper()
		conn := s.as(t, fmt.Sprintf("docex_slot_%d", slot))
		execute(t, switcher, fmt.Sprintf("SELECT docex_system.seat('%s', %d, true)", tenant, slot))
		execute(t, conn, "SET ROLE "+tenant)
		execute(t, switcher, fmt.Sprintf("SELECT docex_system.seat('%s', %d, false)", tenant, slot))
		return conn
	}
	idle, busy, others := seat("tenant_acme", 1), seat("tenant_acme", 2), seat("tenant_globex", 3)
	unknown := s.as(t, "docex_slot_4") // nobody has said anything of it
	ended := make(chan error, 1)
	s.AfterStep(func(done string) error {
		switch done {
		case "wait for the changes meanwhile": // replication waits for transactions that have begun before it
			execute(t, busy, "BEGIN; INSERT INTO tenant_acme.notes VALUES (1001)")
			execute(t, others, "BEGIN; INSERT INTO tenant_globex.notes VALUES (1001)")
			return nil
		case "close the old server":
		default:
			return nil
		}
		refused(t, switcher, "42704", "SELECT docex_system.seat('tenant_acme', 1, true)")
		execute(t, switcher, "SELECT docex_system.seat('tenant_globex', 3, true), docex_system.seat('tenant_globex', 3, false)")
		go func() {
			for idle.Ping(t.Context()) == nil {
				time.Sleep(10 * time.Millisecond)
			}
			_, err := busy.Exec(t.Context(), "INSERT INTO tenant_acme.notes VALUES (1002); COMMIT")
			ended <- err
		}()
		return nil
	})
	s.move(t, "acme", "eu")
	s.AfterStep(nil)
	if err := <-ended; err != nil {
		t.Error("the transaction that was running did not come to its end:", err)
	}
	for name, conn := range map[string]*pgx.Conn{"busy": busy, "unknown": unknown} {
		if err := conn.Ping(t.Context()); err == nil {
			t.Errorf("the %s session goes on", name)
		}
	}
	execute(t, others, "COMMIT")
	notes := func(where string) []string {
		return lines(t, s.on(t, "acme"), "SELECT id::text FROM notes WHERE "+where+" ORDER BY id")
	}
	if got := notes("id > 1000"); !slices.Equal(got, []string{"1001", "1002"}) {
		t.Errorf("moved %q", got)
	}

	// Slots are lent to the tenant where it is, and nowhere else.
	there := s.asThere(t, provision.SwitcherRole)
	lend := "SELECT docex_system.seat('tenant_acme', 1, true), docex_system.seat('tenant_acme', 1, false)"
	refused(t, switcher, "42704", lend)
	execute(t, there, lend)
	s.move(t, "acme", "main")
	execute(t, switcher, lend)
	refused(t, there, "42704", lend)
}

func TestAMoveWaitsForASlotThatIsBeingLent(t *testing.T) {
	s := newMovingSite(t)
	s.slotted(t, 1)
	s.createSmall(t, "acme", registry.IsolationSlot)
	switcher, slot := s.as(t, provision.SwitcherRole), s.as(t, "docex_slot_1")
	lent := make(chan struct{})
	s.AfterStep(func(done string) error {
		if done == "hold the tenant" { // a proxy that has not heard of it
			execute(t, switcher, "BEGIN; SELECT docex_system.seat('tenant_acme', 1, true)")
			go func() {
				defer close(lent)
				time.Sleep(200 * time.Millisecond)
				execute(t, switcher, "COMMIT")
				execute(t, slot, "BEGIN; SET ROLE tenant_acme; INSERT INTO tenant_acme.notes VALUES (1001)")
				time.Sleep(200 * time.Millisecond)
				execute(t, slot, "COMMIT")
			}()
		}
		return nil
	})
	s.move(t, "acme", "eu")
	<-lent
	if got := lines(t, s.on(t, "acme"), "SELECT id::text FROM notes WHERE id > 1000"); !slices.Equal(got, []string{"1001"}) {
		t.Errorf("moved %q", got)
	}
}
