package proxy

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"sync"
)

// cancelKey is what BackendKeyData gives a client: a process id and a secret, both ours and random. The server's own
// never leaves the proxy.
type cancelKey struct {
	pid    uint32
	secret string
}

// Lengths of a secret, in bytes (section 55.7, BackendKeyData): of a client that speaks protocol 3.0, of one that speaks
// 3.2, and the most that there may be.
const (
	shortSecret = 4
	longSecret  = 32
	mostSecret  = 256
)

func parseCancelKey(body []byte) (cancelKey, bool) {
	if len(body) < 4+shortSecret || len(body) > 4+mostSecret {
		return cancelKey{}, false
	}
	return cancelKey{pid: binary.BigEndian.Uint32(body), secret: string(body[4:])}, true
}

// body is what parseCancelKey reads.
func (k cancelKey) body() []byte {
	return append(binary.BigEndian.AppendUint32(nil, k.pid), k.secret...)
}

// backendKeyData is a message that pgproto3/v2 knows with a short secret only.
func (k cancelKey) backendKeyData() []byte {
	b := []byte{'K'}
	b = binary.BigEndian.AppendUint32(b, uint32(4+4+len(k.secret)))
	return append(b, k.body()...)
}

// cancelTable finds the session that a key was given to.
type cancelTable struct {
	mu   sync.Mutex
	held map[uint32]*cancelEntry
}

type cancelEntry struct {
	secret  string
	session *session
}

// numberShift is where a proxy's number is in a key's process id: 10 bits, below the sign.
const numberShift = 21

// proxy is the number of the proxy that has given the key, if it had one then.
func (k cancelKey) proxy() int { return int(k.pid >> numberShift) }

// issue draws a key for a session, with a secret of so many bytes, that names the proxy of the number, 0 for none; withdraw
// ends it.
func (t *cancelTable) issue(s *session, length, number int) cancelKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		random := make([]byte, 4+length)
		rand.Read(random)
		// Drivers read the process id as a signed number and some dislike a negative one.
		key := cancelKey{pid: binary.BigEndian.Uint32(random) & 0x7fffffff, secret: string(random[4:])}
		if number != 0 {
			key.pid = uint32(number)<<numberShift | key.pid&(1<<numberShift-1)
		}
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
	if subtle.ConstantTimeCompare([]byte(entry.secret), []byte(key.secret)) != 1 {
		return nil
	}
	return entry.session
}
