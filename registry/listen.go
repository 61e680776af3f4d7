package registry

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/metrics"
)

const (
	// Channel is where the registry's triggers notify. The payload is the id of the tenant whose row or route
	// has changed, or "login/<name>", or "*" after a TRUNCATE. Cache.Forget understands all of them.
	Channel = "docex_registry"

	loginPrefix = "login/"
	everything  = "*"

	minBackoff   = 50 * time.Millisecond
	maxBackoff   = 2 * time.Second
	closeTimeout = time.Second
)

// ListenOptions say where to listen and whom to tell. The callbacks run one at a time, in Listen's goroutine,
// and hold up further notifications while they run.
type ListenOptions struct {
	DSN       string
	OnChange  func(payload string)
	OnConnect func()           // after each connect and reconnect: changes before it may have been missed; may be nil
	PingAfter time.Duration    // silence after which the connection is tried; default 10 seconds. A dead one is noticed within 1.5 times that
	Metrics   *metrics.Metrics // nil: not counted
	Logger    *slog.Logger     // nil: silent
}

// Listen reports notifications on Channel over a connection of its own until ctx ends, and then returns nil. A
// connection that fails, or has died without a word, is replaced after a pause between 25 ms and 2 s. The only
// error is a malformed DSN.
func Listen(ctx context.Context, o ListenOptions) error {
	config, err := pgx.ParseConfig(o.DSN)
	if err != nil {
		return fmt.Errorf("registry: listen: %w", err)
	}
	prepareConnection(config)
	if o.PingAfter <= 0 {
		o.PingAfter = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	l := &listener{ListenOptions: o, config: config}
	l.run(ctx)
	return nil
}

type listener struct {
	ListenOptions
	config  *pgx.ConnConfig
	backoff time.Duration // the next pause, before jitter
}

func (l *listener) run(ctx context.Context) {
	l.Metrics.RegistryListening(false)
	l.backoff = minBackoff
	for ctx.Err() == nil {
		err := l.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		// One line when news stops; the attempts that follow matter only to somebody who debugs.
		level := slog.LevelDebug
		if l.backoff == minBackoff {
			level = slog.LevelWarn
		}
		l.Logger.Log(ctx, level, "registry notifications are interrupted", "error", err)
		l.pause(ctx)
	}
}

// listen serves one connection. It returns when the connection has failed or ctx has ended.
func (l *listener) listen(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, l.config)
	if err != nil {
		return err
	}
	defer closeDetached(ctx, conn)
	if err := l.subscribe(ctx, conn); err != nil {
		return err
	}
	l.backoff = minBackoff
	l.Metrics.RegistryListening(true)
	defer l.Metrics.RegistryListening(false)
	l.Logger.Info("listening for registry notifications")
	if l.OnConnect != nil {
		l.OnConnect()
	}
	for {
		if err := l.next(ctx, conn); err != nil {
			return err
		}
	}
}

func (l *listener) subscribe(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	_, err := conn.Exec(ctx, "LISTEN "+Channel)
	return err
}

// next waits for one notification, or for PingAfter and then tries the connection.
func (l *listener) next(ctx context.Context, conn *pgx.Conn) error {
	waiting, cancel := context.WithTimeout(ctx, l.PingAfter)
	defer cancel()
	notification, err := conn.WaitForNotification(waiting)
	switch {
	case err == nil:
		l.OnChange(notification.Payload)
		return nil
	case ctx.Err() == nil && waiting.Err() != nil && !conn.IsClosed():
		return l.ping(ctx, conn)
	default:
		return err
	}
}

func (l *listener) ping(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, l.PingAfter/2)
	defer cancel()
	// Not conn.Ping, which sends an empty statement: this one also fails where Postgres itself is stuck.
	_, err := conn.Exec(ctx, "SELECT 1")
	return err
}

// pause sleeps between half of the backoff and all of it, so that the proxies of a fleet do not return in step.
func (l *listener) pause(ctx context.Context) {
	pause := time.NewTimer(l.backoff/2 + rand.N(l.backoff/2))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
	l.backoff = min(2*l.backoff, maxBackoff)
}

// closeDetached says goodbye to the server even when ctx has ended, but not for long.
func closeDetached(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	// Nothing follows from a failed goodbye: the socket is closed all the same.
	_ = conn.Close(ctx)
}
