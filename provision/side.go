package provision

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// side is a connection beside a request's transaction: for what cannot run in one, as CREATE DATABASE, and for what
// another connection has to see before the request is complete. In a dry run there is no connection: statements are
// shown. Whoever opens one closes it.
type side struct {
	conn     *pgx.Conn // nil in a dry run
	work     work      // what is known of server and role; its tx is set while transact runs
	registry string    // the registry's database, which marks name
	leave    func()    // shows, in a dry run, that the statements which follow belong to the first database again
}

// openSide connects to a database of the server that w works on.
func (p *Provisioner) openSide(ctx context.Context, w *work, database string) (*side, error) {
	s := &side{work: *w, registry: w.database}
	s.work.tx, s.work.database = nil, database
	if p.dryRun != nil {
		s.work.show = func(sql string) { p.dryRun(shown(sql)) }
		if database != w.database {
			p.dryRun(`\connect ` + quote(database))
			s.leave = func() { p.dryRun(`\connect ` + quote(w.database)) }
		}
		return s, nil
	}
	conn, err := p.connect(ctx, database)
	if err != nil {
		return nil, err
	}
	s.conn = conn
	if err := s.exec(ctx, "SET lock_timeout = '"+lockTimeout+"'"); err != nil {
		s.close(ctx)
		return nil, err
	}
	return s, nil
}

func (s *side) close(ctx context.Context) {
	if s.conn != nil {
		closeDetached(ctx, s.conn)
	}
	if s.leave != nil {
		s.leave()
	}
}

// exec runs one statement outside of any transaction.
func (s *side) exec(ctx context.Context, sql string) error {
	if s.conn == nil {
		return s.work.exec(ctx, sql)
	}
	_, err := s.conn.Exec(ctx, sql)
	return err
}

// each runs statements outside of any transaction.
func (s *side) each(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if err := s.exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// lock takes an advisory lock for as long as the connection lives.
func (s *side) lock(ctx context.Context, class int32, name string) error {
	if s.conn == nil {
		return nil
	}
	_, err := s.conn.Exec(ctx, "SELECT pg_advisory_lock($1, hashtext($2))", class, name)
	return err
}

// transact runs a function in a transaction of the connection's own, and commits it.
func (s *side) transact(ctx context.Context, run func(*work) error) error {
	w := s.work
	if s.conn == nil {
		w.show("BEGIN")
		if err := run(&w); err != nil {
			return err
		}
		w.show("COMMIT")
		return nil
	}
	tx, err := s.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer rollbackDetached(ctx, tx) // after a commit it does nothing
	w.tx = tx
	if err := run(&w); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
