package provision_test

import (
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/registry"
)

func TestZZ(t *testing.T) {
	s := newMovingSite(t)
	s.createHere(t, "acme", registry.IsolationDatabase)
	execute(t, s.on(t, "acme"), "CREATE TABLE journal (id integer PRIMARY KEY)")
	w := s.write(t, "acme")
	last := time.Now()
	s.AfterStep(func(done string) error { t.Logf("%s: %v", done, time.Since(last)); last = time.Now(); return nil })
	for _, to := range []string{"eu", "main"} {
		result := s.move(t, "acme", to)
		t.Logf("held for %v", result.Held)
	}
	w.ends(t, "acme")
}
