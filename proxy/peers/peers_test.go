package peers_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/proxy/peers"
	"github.com/docex-proxy/docex-proxy/registry"
)

const patience = 10 * time.Second

// book is a registry that can be down.
type book struct {
	mu    sync.Mutex
	down  bool
	peers []*registry.Peer
	beats int
	left  chan struct{}
}

func (b *book) Beat(_ context.Context, _, address string) ([]*registry.Peer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beats++
	if b.down {
		return nil, errors.New("the registry is down")
	}
	return append([]*registry.Peer{{Number: 1, Address: address, Own: true}}, b.peers...), nil
}

func (b *book) Leave(context.Context, string) error {
	close(b.left)
	return nil
}

func (b *book) set(down bool, others ...*registry.Peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down, b.peers = down, others
}

func (b *book) asked() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.beats
}

// peer takes one packet on each connection.
func peer(t *testing.T) (address string, packets <-chan []byte) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	got := make(chan []byte, 100)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			head := make([]byte, 4)
			io.ReadFull(conn, head)
			body := make([]byte, binary.BigEndian.Uint32(head)-4)
			io.ReadFull(conn, body)
			got <- body
			conn.Close()
		}
	}()
	return listener.Addr().String(), got
}

func run(t *testing.T, b *book) *peers.Fleet {
	t.Helper()
	b.left = make(chan struct{})
	fleet := peers.New(peers.Options{Book: b, Address: "127.0.0.1:1", Logger: slog.New(slog.DiscardHandler)})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); fleet.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return fleet
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time: " + what)
		}
	}
}

func TestARequestGoesToThePeerOfItsNumberAndNowhereElse(t *testing.T) {
	two, atTwo := peer(t)
	three, atThree := peer(t)
	b := &book{peers: []*registry.Peer{{Number: 2, Address: two}, {Number: 3, Address: three}}}
	fleet := run(t, b)
	eventually(t, "it has a number", func() bool { return fleet.Number() == 1 && fleet.Live() == 3 })
	for _, number := range []int{0, 1, 4, 1023} { // none, its own, and nobody's
		fleet.Forward(number, []byte("nobody"))
	}
	fleet.Forward(2, []byte("pidsecret"))
	want := string(binary.BigEndian.AppendUint32(nil, peers.CancelCode)) + "pidsecret"
	select {
	case got := <-atTwo:
		if string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	select {
	case got := <-atTwo:
		t.Errorf("a second request: %q", got)
	case got := <-atThree:
		t.Errorf("at another peer: %q", got)
	case <-time.After(300 * time.Millisecond):
	}
}

func TestAPeerThatHasJustStartedIsFoundAndStrangersDoNotHaveTheRegistryAskedForEver(t *testing.T) {
	b := &book{}
	fleet := run(t, b)
	eventually(t, "it has a number", func() bool { return fleet.Number() == 1 })
	two, atTwo := peer(t)
	b.set(false, &registry.Peer{Number: 2, Address: two})
	fleet.Forward(2, []byte("pidsecret"))
	select {
	case <-atTwo:
	case <-time.After(patience):
		t.Fatal("it was not looked for")
	}
	before := b.asked()
	for range 1000 {
		fleet.Forward(77, []byte("pidsecret"))
	}
	time.Sleep(100 * time.Millisecond)
	if more := b.asked() - before; more > 2 {
		t.Errorf("a thousand requests for nobody have asked the registry %d times", more)
	}
}

func TestWhatWasSeenLastHoldsWhileTheRegistryIsDown(t *testing.T) {
	two, atTwo := peer(t)
	b := &book{peers: []*registry.Peer{{Number: 2, Address: two}}}
	fleet := run(t, b)
	eventually(t, "it has a number", func() bool { return fleet.Number() == 1 })
	b.set(true)
	fleet.Forward(77, nil) // has it asked now
	eventually(t, "it was asked while down", func() bool { return b.asked() >= 2 })
	if fleet.Live() != 2 || fleet.Number() != 1 {
		t.Errorf("number %d of %d", fleet.Number(), fleet.Live())
	}
	if all := fleet.Peers(); len(all) != 2 || all[0].Number != 1 || all[1] != (registry.Peer{Number: 2, Address: two}) {
		t.Errorf("peers %v", all)
	}
	fleet.Forward(2, []byte("pidsecret"))
	select {
	case <-atTwo:
	case <-time.After(patience):
		t.Error("nothing came")
	}
}

func TestAProxyTakesLeave(t *testing.T) {
	b := &book{left: make(chan struct{})}
	fleet := peers.New(peers.Options{Book: b, Address: "127.0.0.1:1", Logger: slog.New(slog.DiscardHandler)})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); fleet.Run(ctx) }()
	eventually(t, "it has a number", func() bool { return fleet.Number() == 1 })
	stop()
	<-done
	select {
	case <-b.left:
	default:
		t.Error("it did not")
	}
}

func TestPortionsOfALimit(t *testing.T) {
	for _, c := range []struct{ limit, sharers, want int }{{0, 3, 0}, {10, 1, 10}, {10, 3, 3}, {2, 3, 1}} {
		if got := peers.Portion(c.limit, c.sharers); got != c.want {
			t.Errorf("of %d for %d: %d, want %d", c.limit, c.sharers, got, c.want)
		}
	}
}
