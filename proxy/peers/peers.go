package peers

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docex-proxy/docex-proxy/registry"
)

// CancelCode opens a connection on which a peer passes a cancel request on. Like Postgres's own codes it is no protocol
// version (section 55.7); the body is that of a CancelRequest.
const CancelCode = 1234<<16 | 5690

const (
	interval     = 5 * time.Second // between beats; who misses three is taken for gone
	beatPatience = 3 * time.Second
	sendPatience = 2 * time.Second
	lookPause    = 200 * time.Millisecond
	mostSending  = 64 // requests at a time; further ones are dropped, as Postgres may drop one
)

// book is where proxies are entered; registry.Store has it.
type book interface {
	Beat(ctx context.Context, token, address string) ([]*registry.Peer, error)
	Leave(ctx context.Context, token string) error
}

// Options is what a Fleet is made with.
type Options struct {
	Book    book
	Address string // where peers reach this proxy, HOST:PORT
	Logger  *slog.Logger
}

// Fleet is the proxies of a registry, seen from one of them. Its methods may be called at the same time.
type Fleet struct {
	o       Options
	token   string
	seen    atomic.Pointer[sight]
	tried   chan struct{} // closed after the first beat
	sending chan struct{} // a place for each request that is being passed on

	looking sync.Mutex // guards looked
	looked  time.Time
}

// sight is what one beat has shown.
type sight struct {
	own, live int
	addresses map[int]string // of the others
}

// New makes a Fleet that knows of nobody, and has no number, before Run.
func New(o Options) *Fleet {
	f := &Fleet{o: o, token: rand.Text(), tried: make(chan struct{}), sending: make(chan struct{}, mostSending)}
	f.seen.Store(&sight{live: 1})
	return f
}

// Number is this proxy's own, 0 before it has one.
func (f *Fleet) Number() int { return f.seen.Load().own }

// Live is how many proxies there are, this one included, as far as is known.
func (f *Fleet) Live() int { return f.seen.Load().live }

// Peers are the proxies that are alive, this one included, by their numbers, as far as is known.
func (f *Fleet) Peers() []registry.Peer {
	seen := f.seen.Load()
	var all []registry.Peer
	if seen.own != 0 {
		all = append(all, registry.Peer{Number: seen.own, Address: f.o.Address, Own: true})
	}
	for number, address := range seen.addresses {
		all = append(all, registry.Peer{Number: number, Address: address})
	}
	slices.SortFunc(all, func(a, b registry.Peer) int { return a.Number - b.Number })
	return all
}

// Tried is closed when the first beat has been tried. Sessions that begin before have keys that name nobody.
func (f *Fleet) Tried() <-chan struct{} { return f.tried }

// Run beats until ctx ends, and takes leave. While the registry cannot be reached, what was seen last holds.
func (f *Fleet) Run(ctx context.Context) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	failing := false
	for first := true; ctx.Err() == nil; first = false {
		err := f.beat(ctx)
		if first {
			close(f.tried)
		}
		if err != nil && !failing && ctx.Err() == nil {
			f.o.Logger.Warn("the other proxies are not known", "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), beatPatience)
	defer stop()
	if f.Number() != 0 && !failing {
		f.o.Book.Leave(ctx, f.token) //nolint:errcheck // then it is taken for gone in 15 seconds
	}
}

func (f *Fleet) beat(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, beatPatience)
	defer stop()
	live, err := f.o.Book.Beat(ctx, f.token, f.o.Address)
	if err != nil {
		return err
	}
	now := &sight{live: max(1, len(live)), addresses: make(map[int]string, len(live))}
	for _, peer := range live {
		if peer.Own {
			now.own = peer.Number
		} else if peer.Address != f.o.Address { // that is the process that this one takes over from
			now.addresses[peer.Number] = peer.Address
		}
	}
	if before := f.seen.Swap(now); before.live != now.live || before.own != now.own {
		f.o.Logger.Info("proxies of this registry", "number", now.own, "live", now.live)
	}
	return nil
}

// Portion is a proxy's part of a limit that so many proxies share, at least 1; 0 is no limit.
func Portion(limit, sharers int) int {
	if limit == 0 {
		return 0
	}
	return max(1, limit/sharers)
}

// Forward passes the body of a cancel request on to the peer of a number, if there is one. It returns at once.
func (f *Fleet) Forward(number int, body []byte) {
	if f.Number() == 0 || number == 0 {
		return
	}
	select {
	case f.sending <- struct{}{}:
	default:
		return
	}
	go func() {
		defer func() { <-f.sending }()
		address := f.find(number)
		if address == "" {
			return
		}
		if err := send(address, body); err != nil {
			f.o.Logger.Warn("cannot pass a cancel request on to another proxy", "address", address, "error", err)
		}
	}()
}

// find is the address of the peer of a number, "" where there is none. One that has just started is not known before the next
// beat, which is brought forward; numbers that nobody has do not bring it forward more often than once in lookPause.
func (f *Fleet) find(number int) string {
	if address, known := f.seen.Load().addresses[number]; known {
		return address
	}
	f.looking.Lock()
	defer f.looking.Unlock()
	if time.Since(f.looked) >= lookPause {
		f.beat(context.Background()) //nolint:errcheck // then what is known holds
		f.looked = time.Now()
	}
	return f.seen.Load().addresses[number]
}

// send returns when the peer has dealt with the request, and says so by closing the connection.
func send(address string, body []byte) error {
	deadline := time.Now().Add(sendPatience)
	conn, err := (&net.Dialer{Deadline: deadline}).Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	packet := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	packet = binary.BigEndian.AppendUint32(packet, CancelCode)
	if _, err := conn.Write(append(packet, body...)); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn)
	return err
}
