package slots

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"time"
)

// Switch puts the seat's session at the disposal of a tenant's role: whatever it was used for before is gone, and all
// that it can do is the role's. The session has to be at ReadyForQuery "idle". It returns the parameters that
// ParameterStatus reported meanwhile. After an error the connection must be closed.
func (s *Seat) Switch(ctx context.Context, conn net.Conn, tenant string) (reported map[string]string, err error) {
	stop, err := bound(ctx, conn)
	if err != nil {
		return nil, err
	}
	defer stop()
	w := &s.wire
	w.begin(conn)
	if !s.fresh {
		if err := w.run(command{discardAll, discardAll}, command{"SELECT pg_catalog.setseed(" + seed() + ")", ""}); err != nil {
			return nil, err
		}
	}
	s.fresh = false
	if err := s.become(ctx, w, tenant); err != nil {
		s.cleanUp(ctx, tenant)
		return nil, err
	}
	return w.reported, nil
}

const discardAll = "DISCARD ALL"

// become makes the session the tenant's. A proxy that starts beside this one takes back all memberships, ours of this
// moment too: hence the second try.
func (s *Seat) become(ctx context.Context, w *wire, tenant string) error {
	for attempt := 0; ; attempt++ {
		if err := s.board.switcher.do(ctx, seat(tenant, s.role, true)); err != nil {
			return err
		}
		err := w.run(command{"SET ROLE " + identifier(tenant), "SET"})
		if err == nil {
			break
		}
		if attempt > 0 || !hasCode(err, insufficientPrivilege) {
			return err
		}
	}
	return s.board.switcher.do(ctx, seat(tenant, s.role, false))
}

// seat lets a slot become a tenant's role, or takes that back.
func seat(tenant, slot string, take bool) string {
	return "SELECT docex_system.seat(" + literal(tenant) + ", " + slot[len(slotPrefix):] + ", " + strconv.FormatBool(take) + ")"
}

// cleanUp takes back what a failed switch may have granted, even if its caller does not wait any more. If that fails
// too, the membership is found when the slot is next opened.
func (s *Seat) cleanUp(ctx context.Context, tenant string) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer stop()
	if err := s.board.switcher.do(ctx, seat(tenant, s.role, false)); err != nil {
		s.board.o.Logger.Warn("a membership may be left after a failed switch", "slot", s.role, "error", err)
	}
}

// bound has the connection's reads and writes end with the context. stop lifts that.
func bound(ctx context.Context, conn net.Conn) (stop func(), err error) {
	deadline, _ := ctx.Deadline() // zero: none
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	interrupted := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !cancel() {
			<-interrupted
		}
		_ = conn.SetDeadline(time.Time{})
	}, nil
}

// seed is a number between -1 and 1 that nobody else knows: a tenant may have set the sequence of random(), which
// DISCARD ALL does not end.
func seed() string {
	var b [8]byte
	rand.Read(b[:])
	return strconv.FormatFloat(float64(int64(binary.BigEndian.Uint64(b[:])))/(1<<63), 'f', 17, 64)
}

// command is a Query and the tag that its CommandComplete has to have; "" takes any.
type command struct{ sql, tag string }

func (c command) mismatch(got string) error {
	if c.tag == "" || got == c.tag {
		return nil
	}
	return fmt.Errorf("%s was answered with %q", c.tag, got)
}
