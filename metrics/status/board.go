package status

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// freshness is for how long figures are shown.
	freshness = time.Second
	// most is how many tenants are shown at a time.
	most = 200
	// mostStates is for how many tenants the registry is asked, the most active ones, and statePatience for how long.
	mostStates    = 1000
	statePatience = 300 * time.Millisecond
)

// Options is what a Board shows. The functions are called one at a time.
type Options struct {
	Version  string
	Began    time.Time
	Ready    func() error // why it is not
	Draining func() bool
	Servers  func() []Server
	// Tenants are those that are told apart, and the number of the others, with what these do together.
	Tenants  func(now time.Time) (named []Tenant, others Tenant, otherTenants int)
	Refusals func() map[string]int64
	States   func(ctx context.Context, tenants []string) (map[string]string, error)

	Now func() time.Time // nil: time.Now
}

// Board works out what is shown, at most once a second.
type Board struct {
	o Options

	mutex  sync.Mutex // held while figures are worked out, so that it happens once
	latest *snapshot
}

// snapshot is everything at one moment. It is not modified.
type snapshot struct {
	Figures // of all tenants, without Rest
	others  Tenant
	hidden  int // tenants that others are
	encoded func() ([]byte, error)
}

// New makes a Board that has not looked yet.
func New(o Options) *Board {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Board{o: o}
}

// look returns what was found within the last second.
func (b *Board) look(ctx context.Context) *snapshot {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	now := b.o.Now()
	if b.latest == nil || now.Sub(b.latest.Now) >= freshness {
		b.latest = b.find(context.WithoutCancel(ctx), now) // it is not only for who has asked
	}
	return b.latest
}

func (b *Board) find(ctx context.Context, now time.Time) *snapshot {
	s := &snapshot{Figures: Figures{
		Version: b.o.Version, Now: now, Uptime: int64(now.Sub(b.o.Began).Seconds()), Draining: b.o.Draining(), Servers: b.o.Servers(),
	}}
	if err := b.o.Ready(); err != nil {
		s.Reason = err.Error()
	}
	s.Ready = s.Reason == ""
	s.Tenants, s.others, s.hidden = b.o.Tenants(now)
	slices.SortFunc(s.Servers, func(x, y Server) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(s.Tenants, byActivity)
	b.addStates(ctx, s.Tenants[:min(mostStates, len(s.Tenants))])
	for i := range s.Tenants {
		s.All.add(&s.Tenants[i], 1)
	}
	s.All.add(&s.others, s.hidden)
	s.Refusals = refusals(b.o.Refusals())
	s.encoded = sync.OnceValues(func() ([]byte, error) { return json.Marshal(s.only("")) })
	return s
}

// byActivity has the busiest first. Rates are rounded, or neighbours would change places all the time.
func byActivity(x, y Tenant) int {
	return cmp.Or(cmp.Compare(rounded(y.Rate), rounded(x.Rate)), cmp.Compare(y.Active+y.Waiting, x.Active+x.Waiting),
		cmp.Compare(y.Clients, x.Clients), cmp.Compare(x.Name, y.Name))
}

func rounded(rate *float64) int {
	if rate == nil {
		return 0
	}
	size := 0
	for n := int(*rate); n > 0; n = n * 9 / 10 {
		size++
	}
	return size
}

// addStates says of tenants that are not paused what the registry says of them. Where it does not, the state is unknown.
func (b *Board) addStates(ctx context.Context, tenants []Tenant) {
	ctx, stop := context.WithTimeout(ctx, statePatience)
	defer stop()
	names := make([]string, len(tenants))
	for i, t := range tenants {
		names[i] = t.Name
	}
	states, err := b.o.States(ctx, names)
	for i := range tenants {
		t := &tenants[i]
		state, known := states[t.Name]
		switch {
		case err != nil:
		case !known:
			t.State = "gone"
		case t.State == "" || state != "active":
			t.State = state
		}
	}
}

func refusals(counts map[string]int64) []Refusal {
	all := []Refusal{}
	for reason, count := range counts {
		if count > 0 {
			all = append(all, Refusal{reason, count})
		}
	}
	slices.SortFunc(all, func(x, y Refusal) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), strings.Compare(x.Reason, y.Reason))
	})
	return all
}

// only is the figures with those tenants whose names contain a text, as many as are shown. The others count for the rest
// only where nothing is looked for: their names are not known.
func (s *snapshot) only(text string) *Figures {
	f := s.Figures
	f.Tenants = make([]Tenant, 0, min(most, len(s.Tenants)))
	for i := range s.Tenants {
		t := &s.Tenants[i]
		switch {
		case !strings.Contains(strings.ToLower(t.Name), strings.ToLower(text)):
		case len(f.Tenants) < most:
			f.Tenants = append(f.Tenants, *t)
		default:
			f.Rest.add(t, 1)
		}
	}
	if text == "" {
		f.Rest.add(&s.others, s.hidden)
	}
	return &f
}
