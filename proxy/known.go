package proxy

import (
	"sync"

	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy/relay"
)

// knownParameters remembers what ParameterStatus says on a target with a client's settings applied, so that a login
// needs no server connection. It is a cache: where the server has changed its mind, the session is told at its first
// transaction.
type knownParameters struct {
	mu     sync.Mutex
	values map[knownKey]relay.Pairs
}

type knownKey struct {
	target   pool.Target
	settings relay.Pairs
}

// maxKnown bounds the entries; when it is reached all are forgotten, and learned again as they are needed.
const maxKnown = 20000

func (k *knownParameters) get(target pool.Target, settings relay.Pairs) (relay.Pairs, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	parameters, ok := k.values[knownKey{target, settings}]
	return parameters, ok
}

func (k *knownParameters) put(target pool.Target, settings, parameters relay.Pairs) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.values == nil || len(k.values) >= maxKnown {
		k.values = make(map[knownKey]relay.Pairs)
	}
	k.values[knownKey{target, settings}] = parameters
}
