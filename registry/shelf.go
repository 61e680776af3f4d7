package registry

import (
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// kind is what a name in a lookup names; the texts are label values of the lookup counter.
type kind string

const (
	kindTenant kind = "tenant"
	kindSchema kind = "schema"
	kindLogin  kind = "login"
)

// The outcomes of a lookup, as the counter's label has them.
const (
	outcomeHit      = "hit"       // known and fresh
	outcomeMiss     = "miss"      // loaded
	outcomeNegative = "negative"  // known not to exist
	outcomeStale    = "stale"     // known, too old, and the source is unavailable
	outcomeNotFound = "not_found" // loaded: does not exist
	outcomeError    = "error"
)

type key struct {
	kind kind
	name string
}

type entry struct {
	value    any // *Tenant or *Login, by the key's kind
	loadedAt time.Time
}

type failure struct {
	at  time.Time
	err error // an *UnavailableError
}

// shelf holds what a Cache remembers, in three bounded maps: what exists, what does not, and what could not be
// asked. They are apart so that names somebody guesses push out no tenant. It has no lock of its own.
type shelf struct {
	known  *simplelru.LRU[key, entry]
	absent *simplelru.LRU[key, time.Time] // since when
	failed *simplelru.LRU[key, failure]

	// schemas finds the kindSchema entry of a tenant when the tenant is dropped. A tenant has one at most.
	schemas map[TenantID]string
}

func newShelf(size int) *shelf {
	s := &shelf{schemas: make(map[TenantID]string)}
	s.known = newLRU(size, s.unlink)
	s.absent = newLRU[time.Time](size, nil)
	s.failed = newLRU[failure](size, nil)
	return s
}

func newLRU[V any](size int, onEvict simplelru.EvictCallback[key, V]) *simplelru.LRU[key, V] {
	lru, err := simplelru.NewLRU(size, onEvict)
	if err != nil {
		panic(err) // only for a size that is not positive, which CacheOptions cannot give
	}
	return lru
}

func (s *shelf) putKnown(k key, e entry) {
	s.drop(k)
	s.known.Add(k, e)
	if k.kind == kindSchema {
		id := e.value.(*Tenant).ID
		if former, ok := s.schemas[id]; ok {
			s.known.Remove(key{kindSchema, former})
		}
		s.schemas[id] = k.name
	}
}

func (s *shelf) putAbsent(k key, since time.Time) {
	s.drop(k)
	s.absent.Add(k, since)
}

func (s *shelf) drop(k key) {
	s.known.Remove(k)
	s.absent.Remove(k)
	s.failed.Remove(k)
}

// dropTenant also drops all that is absent, since a new tenant's schema is not known from its id, and the
// failures, since whoever sends news of a change can be asked again.
func (s *shelf) dropTenant(id TenantID) {
	s.drop(key{kindTenant, string(id)})
	if schema, ok := s.schemas[id]; ok {
		s.drop(key{kindSchema, schema})
	}
	s.absent.Purge()
	s.failed.Purge()
}

func (s *shelf) dropLogin(name string) { s.drop(key{kindLogin, name}) }

func (s *shelf) dropAll() {
	s.known.Purge()
	s.absent.Purge()
	s.failed.Purge()
}

// unlink keeps schemas in step when an entry leaves known, for whatever reason.
func (s *shelf) unlink(k key, e entry) {
	if k.kind != kindSchema {
		return
	}
	if id := e.value.(*Tenant).ID; s.schemas[id] == k.name {
		delete(s.schemas, id)
	}
}
