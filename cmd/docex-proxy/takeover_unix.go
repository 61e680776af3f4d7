//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sync/errgroup"
)

// takeover is how a process serves clients after another one, without a moment in which nobody does: the old process
// starts the program anew, as it is on disk by then, and gives it the listeners; when the new one is ready the old one
// accepts no more and keeps its sessions to their end. A nil takeover neither takes over nor is taken over from.
type takeover struct {
	upgrader *tableflip.Upgrader // nil where the system cannot do this
	before   *net.UnixConn       // to the process that this one has taken over from, nil when there is none
	signals  chan os.Signal      // SIGUSR2, from the beginning: it would end the process otherwise
}

// cancelsFile is the name of the socket between the two, on which cancel requests go to the old process.
const cancelsFile = "cancels"

// newTakeover makes the process's only one.
func newTakeover() *takeover {
	upgrader, err := tableflip.New(tableflip.Options{})
	if err != nil {
		return nil // there is one already, or the system cannot do it: then a new process is a restart
	}
	t := &takeover{upgrader: upgrader, signals: make(chan os.Signal, 1)}
	signal.Notify(t.signals, syscall.SIGUSR2)
	if file, err := upgrader.File(cancelsFile); err == nil && file != nil {
		t.before, _ = unixConn(file)
	}
	return t
}

// unixConn takes a file over.
func unixConn(file *os.File) (*net.UnixConn, error) {
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, errors.New("not a unix socket")
	}
	return socket, nil
}

// listen returns the listener of the process before, or a new one. Two of them may have the same address, with a port that
// the system picks: their names keep them apart.
func (t *takeover) listen(name, address string) (net.Listener, error) {
	if t == nil {
		return listenTCP(name, address)
	}
	return t.upgrader.ListenWithCallback(name, address, listenTCP)
}

// forward is proxy.Options.Forward.
func (t *takeover) forward() func(body []byte) {
	if t == nil || t.before == nil {
		return nil
	}
	return func(body []byte) { t.before.Write(body) } //nolint:errcheck // it has ended, and its sessions with it
}

// ready tells the process before that this one serves, when it can: when the registry was reached. Until then the old
// one does.
func (t *takeover) ready(ctx context.Context, reached <-chan struct{}) error {
	if t == nil {
		return nil
	}
	if t.upgrader.HasParent() {
		select {
		case <-reached:
		case <-ctx.Done():
			return nil
		}
	}
	if err := t.upgrader.Ready(); err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	return nil
}

// await has another process take over at each SIGUSR2 until one has. Then it calls retire, and serves the cancel requests
// that the other one forwards, until ctx ends.
func (t *takeover) await(ctx context.Context, g *graph, retire func()) {
	if t == nil {
		return
	}
	defer context.AfterFunc(ctx, t.upgrader.Stop)() // which ends a wait for a process that does not get ready
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.signals:
		}
		after, err := t.handOver()
		if err == nil {
			g.logger.Info("another process has taken over, the sessions stay here to their end")
			retire()
			serveCancels(ctx, after, g)
			return
		}
		g.logger.Error("no other process has taken over, this one goes on", "error", err)
	}
}

// handOver starts the program and returns when it is ready, with the socket for its cancel requests.
func (t *takeover) handOver() (*net.UnixConn, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return nil, err
	}
	for _, fd := range pair {
		syscall.CloseOnExec(fd)
	}
	theirs := os.NewFile(uintptr(pair[1]), cancelsFile)
	defer theirs.Close()
	ours, err := unixConn(os.NewFile(uintptr(pair[0]), cancelsFile))
	if err != nil {
		return nil, err
	}
	if err = t.upgrader.AddFile(cancelsFile, theirs); err == nil {
		err = t.upgrader.Upgrade()
	}
	if err != nil {
		ours.Close()
		return nil, err
	}
	return ours, nil
}

// stop ends the possibility to be taken over from.
func (t *takeover) stop() {
	if t != nil {
		signal.Stop(t.signals)
		t.upgrader.Stop()
	}
}

// mostCancels are passed on at a time, of those that another process forwards.
const mostCancels = 64

// serveCancels serves what comes on the socket until ctx ends.
func serveCancels(ctx context.Context, socket *net.UnixConn, g *graph) {
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	var group errgroup.Group
	defer group.Wait() //nolint:errcheck // there is none
	group.SetLimit(mostCancels)
	body := make([]byte, 512)
	for {
		n, err := socket.Read(body)
		if err != nil {
			if ctx.Err() == nil {
				g.logger.Warn("cancel requests are not forwarded any more", "error", err)
			}
			return
		}
		request := slices.Clone(body[:n])
		group.Go(func() error {
			g.proxy.CancelRequest(ctx, request)
			return nil
		})
	}
}
