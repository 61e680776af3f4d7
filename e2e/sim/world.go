//go:build unix

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing/synctest"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
)

// world is the whole of a simulation. Everything in it belongs to the goroutine that turns its calendar, except what the
// goroutines of the proxies' code hand in at the desk: while they run, that goroutine waits.
type world struct {
	o options
	calendar
	desk    newsDesk
	rng     *rand.Rand
	begin   time.Time
	sockets samples
	atWork  sync.WaitGroup // goroutines that end by themselves when everything has been closed

	servers     []*server
	poolServers map[string]pool.Server
	office      *office
	home        []int16 // the server of each tenant
	limits      map[int32]int
	byRank      []int32 // tenants, the most asked for first
	popularity  *rand.Zipf
	proxies     []*proxy // the newest of each number
	live        []*proxy

	wires    int64 // opened so far
	sessions int64 // begun so far
	born     int   // proxies so far
	waiting  int   // sessions in a queue
	leased   []int32
	nextOne  time.Duration // when the next session begins
	watched  []int32       // tenants whose connections are counted
	classOf  func(tenant int32) class
	quiet    bool // no session begins any more

	tally  tally
	drains drains
	broken []string
	breaks int
}

const mostBroken = 20

// violated notes that what must not be is. It may be called by any goroutine.
func (w *world) violated(format string, args ...any) {
	w.desk.mu.Lock()
	defer w.desk.mu.Unlock()
	if w.breaks++; len(w.broken) < mostBroken {
		w.broken = append(w.broken, fmt.Sprintf("%.4f s: ", time.Since(w.begin).Seconds())+fmt.Sprintf(format, args...))
	}
}

// newWorld makes servers, tenants and proxies. It has to be called in a bubble of synctest, and closed there.
func newWorld(o options, length time.Duration) (*world, error) {
	w := &world{o: o, calendar: newCalendar(length + afterwards), rng: rand.New(rand.NewPCG(o.seed, 0)), begin: time.Now(),
		limits: make(map[int32]int), leased: make([]int32, o.tenants),
		classOf: func(int32) class { return others }}
	var err error
	if w.sockets, err = newSamples(); err != nil {
		return nil, err
	}
	w.poolServers = make(map[string]pool.Server, o.servers)
	for i := range o.servers {
		s := &server{index: i, name: serverName(i), cores: make(processors, o.cores)}
		w.servers = append(w.servers, s)
		w.poolServers[s.name] = pool.Server{Hosts: []pool.Host{{Name: s.name, Port: 5432}}, SSLMode: "disable", MaxConnections: o.budget()}
	}
	w.office = newOffice(w)
	w.home = settle(o.tenants, o.servers, leastTenants)
	w.byRank = make([]int32, o.tenants)
	for i := range w.byRank {
		w.byRank[i] = int32(i)
	}
	w.rng.Shuffle(len(w.byRank), func(i, j int) { w.byRank[i], w.byRank[j] = w.byRank[j], w.byRank[i] })
	w.popularity = rand.NewZipf(w.rng, o.skew, 1, uint64(o.tenants-1))
	for i := range o.proxies {
		p, err := newProxy(w, i)
		if err != nil {
			return nil, err
		}
		w.proxies = append(w.proxies, p)
		time.Sleep(time.Microsecond) // the proxies' beats come at different times
	}
	w.begin = time.Now()
	w.gather()
	return w, nil
}

// gather lists the proxies that the balancer sends clients to.
func (w *world) gather() {
	w.live = w.live[:0]
	for _, p := range w.proxies {
		if p.alive {
			w.live = append(w.live, p)
		}
	}
}

// elapsed is the simulated time since the beginning. Unlike now it is not rounded, and may be asked for by any goroutine.
func (w *world) elapsed() time.Duration { return time.Since(w.begin) }

// stopwatch is the machine's own time, which time.Now does not tell in a bubble.
func (w *world) stopwatch() time.Duration {
	var now syscall.Timeval
	syscall.Gettimeofday(&now) //nolint:errcheck // it has none
	return time.Duration(now.Nano())
}

// about is a span of time that varies as those between independent events do, with the mean.
func (w *world) about(mean time.Duration) time.Duration {
	return time.Duration(w.rng.ExpFloat64() * float64(mean))
}

// wake lets a goroutine go on, and waits until it, and those that it wakes, wait for something again.
func (w *world) wake(sleeper chan struct{}) {
	close(sleeper)
	synctest.Wait()
}

// pass lets a tick pass, and has happen what is due.
func (w *world) pass() {
	time.Sleep(tick)
	w.now++
	w.arrive()
	for {
		synctest.Wait()
		heard := w.desk.take()
		for _, n := range heard {
			n.tell()
		}
		e := w.due()
		if len(heard) == 0 && e == nil {
			return
		}
		for ; e != nil; e = w.due() {
			e.what.happen()
		}
	}
}

// arrive begins the sessions whose time has come.
func (w *world) arrive() {
	if w.quiet {
		return
	}
	for elapsed := w.now.duration(); w.nextOne <= elapsed; w.nextOne += w.about(w.o.between()) {
		s := &session{tenant: -1, left: w.length(), think: w.o.think}
		if w.rng.Float64() < w.o.strangers {
			s.name = fmt.Sprintf("stranger%d", w.popularity.Uint64()%1000)
		} else {
			s.tenant = w.byRank[w.popularity.Uint64()]
			s.name = tenantName(s.tenant)
			s.class = w.classOf(s.tenant)
		}
		w.admit(s, w.balance(s))
	}
}

// length is how many transactions a session has: at least one, and the mean that is asked for.
func (w *world) length() int { return 1 + int(w.about(time.Duration(w.o.transactions-1))) }

// admit has a client connect to a proxy.
func (w *world) admit(s *session, p *proxy) {
	w.sessions++
	s.id, s.world, s.what = w.sessions, w, s
	s.proxy = p
	w.at(w.now, &s.entry)
}

// retry has a client whose session has ended come again, as another.
func (w *world) retry(s *session) {
	w.do(w.about(retryPause), func() { w.again(s) })
}

// again begins a session for what another has left to do.
func (w *world) again(s *session) {
	if !w.quiet {
		next := &session{tenant: s.tenant, name: s.name, class: s.class, left: s.left + 1, think: s.think}
		w.admit(next, w.balance(next))
	}
}

// balance is what stands before the proxies.
func (w *world) balance(s *session) *proxy {
	if !w.o.sticky {
		return w.live[w.rng.IntN(len(w.live))]
	}
	var best *proxy // rendezvous: a proxy that goes takes no other's tenants with it
	var most uint64
	for _, p := range w.live {
		if weight := mix(uint64(s.tenant)<<16 | uint64(p.number)); best == nil || weight > most {
			best, most = p, weight
		}
	}
	return best
}

// mix is the finaliser of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// afterwards is how long the proxies get to end.
const afterwards = 20 * time.Second

// close ends all proxies, and checks that nothing is left over: no server connection, no session that waits, no claim.
func (w *world) close() {
	w.quiet = true
	for _, p := range w.live {
		p.stop(false)
	}
	ended := make(chan struct{})
	go func() { w.atWork.Wait(); close(ended) }()
	for end := w.now + moment(afterwards/tick); w.now < end && !over(ended); w.pass() {
	}
	for _, s := range w.servers {
		if n := s.sockets.Load(); n != 0 {
			w.violated("%d sockets to %s are left", n, s.name)
		}
	}
	if w.waiting != 0 {
		w.violated("%d sessions have asked for a connection and were never told", w.waiting)
	}
	w.sockets.close()
}

func over(ended <-chan struct{}) bool {
	select {
	case <-ended:
		return true
	default:
		return false
	}
}

// err says what was violated.
func (w *world) err() error {
	if w.breaks == 0 {
		return nil
	}
	return fmt.Errorf("%d violations:\n%s", w.breaks, strings.Join(w.broken, "\n"))
}

// unreachable is a server that does not answer any more, or does again. What was connected is reset.
func (w *world) unreachable(s *server, is bool) {
	if s.up() == is {
		synctest.Wait()
		s.epoch.Add(1)
		clear(s.cores)
	}
}

// failures are the kinds of errors that clients see.
type failures struct{ queue, connect, broken int }

func (f *failures) add(err error) {
	var queue *pool.QueueError
	switch {
	case errors.Is(err, errReset) && !errors.As(err, new(*pool.ConnectError)):
		f.broken++
	case errors.As(err, &queue):
		f.queue++
	default:
		f.connect++
	}
}
