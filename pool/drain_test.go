package pool_test

import (
	"fmt"
	"testing"

	"github.com/docex-proxy/docex-proxy/pool"
)

func TestADrainFindsWhatIsLeftOfATenantsTargets(t *testing.T) {
	for gone := range 3 {
		t.Run(fmt.Sprintf("without the %d.", gone+1), func(t *testing.T) {
			b := newBench(t, 4)
			set, other := b.set(), b.tenant("other")
			kept := acquire(t, set, other, 0)
			var leased []*pool.Conn
			for i := range 3 {
				target := b.tenant("acme")
				target.SearchPath = fmt.Sprintf("path%d", i)
				leased = append(leased, acquire(t, set, target, 0))
			}
			leased[gone].Destroy()
			eventually(t, "its target is forgotten", func() bool { return set.Targets() == 3 })
			for i, c := range leased {
				if i != gone {
					c.Release()
				}
			}
			set.Drain("acme")
			eventually(t, "the others are closed", func() bool { return b.backends() == 1 })
			eventually(t, "and forgotten", func() bool { return set.Targets() == 1 })
			if err := set.Audit(); err != nil {
				t.Error(err)
			}
			kept.Release()
			if s := stat(set, other); s.Idle != 1 {
				t.Errorf("another tenant's connection: %+v", s)
			}
		})
	}
}
