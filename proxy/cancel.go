package proxy

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"sync"
)

// cancelKey is what BackendKeyData gives a client: a process id and a secret, both ours and random. The server's own
// never leaves the proxy.
type cancelKey struct{ pid, secret uint32 }

func parseCancelKey(body []byte) (cancelKey, bool) {
	if len(body) != 8 {
		return cancelKey{}, false
	}
	return cancelKey{pid: binary.BigEndian.Uint32(body), secret: binary.BigEndian.Uint32(body[4:])}, true
}

// cancelTable finds the session that a key was given to.
type cancelTable struct {
	mu   sync.Mutex
	held map[uint32]*cancelEntry
}

type cancelEntry struct {
	secret  uint32
	session *session
}

// issue draws a key for a session; withdraw ends it.
func (t *cancelTable) issue(s *session) cancelKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		var random [8]byte
		rand.Read(random[:])
		// Drivers read the process id as a signed number and some dislike a negative one.
		key := cancelKey{pid: binary.BigEndian.Uint32(random[:]) & 0x7fffffff, secret: binary.BigEndian.Uint32(random[4:])}
		if _, taken := t.held[key.pid]; key.pid != 0 && !taken {
			t.held[key.pid] = &cancelEntry{secret: key.secret, session: s}
			return key
		}
	}
}

func (t *cancelTable) withdraw(key cancelKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.held, key.pid)
}

// find returns the session of a key, nil for a key that was never given out or is no longer held.
func (t *cancelTable) find(key cancelKey) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	entry := t.held[key.pid]
	if entry == nil {
		return nil
	}
	var want, got [4]byte
	binary.BigEndian.PutUint32(want[:], entry.secret)
	binary.BigEndian.PutUint32(got[:], key.secret)
	if subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
		return nil
	}
	return entry.session
}
