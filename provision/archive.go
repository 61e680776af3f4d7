package provision

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

const (
	dumpProgram    = "pg_dump"
	restoreProgram = "pg_restore"
	// quietPatience is how long an archive waits for transactions that write to the tenant's tables.
	quietPatience = 10 * time.Second
	quietPause    = 50 * time.Millisecond
)

// ArchiveRequest asks for a file with everything in a tenant's schema.
type ArchiveRequest struct {
	ID   registry.TenantID
	File string // must not exist
}

// ArchiveResult says what is in the file.
type ArchiveResult struct {
	Bytes  int64
	Tables int
	Rows   int64
}

// ArchiveTenant writes a tenant's schema to a file in pg_dump's custom format, which only its owner may read, and restores
// it into a database of its own, to see that it can be, and that it has each row of each table. That database is dropped
// again. pg_dump and pg_restore are those in PATH. Everything runs as the tenant's role, because what is restored runs the
// tenant's code. The tenant should be suspended or deleted: what is written meanwhile is not in the file, and is an error.
//
// Errors: ErrNotFound, *ConflictError for a tenant without a role, or with large objects in a database that it shares,
// whatever the programs say.
func (p *Provisioner) ArchiveTenant(ctx context.Context, r ArchiveRequest) (result ArchiveResult, err error) {
	tenant, config, err := p.tenantConfig(ctx, r.ID)
	if err != nil {
		return result, err
	}
	there, _ := p.at(tenant.Route.Server)
	a := &archive{Provisioner: there, request: r, tenant: tenant, config: config}
	if err := a.findPrograms(ctx); err != nil {
		return result, err
	}
	if err := a.checkLargeObjects(ctx); err != nil {
		return result, err
	}
	if err := a.waitForQuiet(ctx); err != nil {
		return result, err
	}
	defer func() {
		if err != nil && a.created {
			err = errors.Join(err, os.Remove(r.File)) // half an archive is none
		}
	}()
	if err := a.dumpReading(ctx); err != nil {
		return result, err
	}
	if err := a.tryOut(ctx); err != nil {
		return result, fmt.Errorf("%s is written, but does not restore: %w", r.File, err)
	}
	p.logger.Info("tenant archived", slog.String("tenant", string(r.ID)), slog.String("file", r.File), slog.Int64("bytes", a.result.Bytes))
	return a.result, nil
}

// archive is one run of ArchiveTenant.
type archive struct {
	*Provisioner // for the tenant's server
	request      ArchiveRequest
	tenant       *registry.Tenant
	config       *pgx.ConnConfig // of the tenant's role
	blobs        bool            // large objects are the tenant's alone
	created      bool            // the file is ours
	result       ArchiveResult
}

var programVersion = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// findPrograms refuses those that are older than the server: they do not know what it has.
func (a *archive) findPrograms(ctx context.Context) error {
	conn, err := a.connect(ctx, a.config.Database)
	if err != nil {
		return err
	}
	defer closeDetached(ctx, conn)
	var server int
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::integer / 10000").Scan(&server); err != nil {
		return err
	}
	for _, program := range []string{dumpProgram, restoreProgram} {
		text, err := exec.CommandContext(ctx, program, "--version").Output()
		if err != nil {
			return fmt.Errorf("%s of Postgres %d or later is needed in PATH: %w", program, server, err)
		}
		found := programVersion.FindSubmatch(text)
		if found == nil {
			return fmt.Errorf("%s says %q instead of its version", program, bytes.TrimSpace(text))
		}
		if version, _ := strconv.Atoi(string(found[1])); version < server {
			return fmt.Errorf("%s in PATH is of version %d, and the server is Postgres %d: put one of that version or later first in PATH",
				program, version, server)
		}
	}
	return nil
}

// checkLargeObjects: pg_dump takes all of a database or none.
func (a *archive) checkLargeObjects(ctx context.Context) error {
	a.blobs = a.tenant.Route.Isolation == registry.IsolationDatabase
	if a.blobs {
		return nil
	}
	conn, err := a.connect(ctx, a.config.Database)
	if err != nil {
		return err
	}
	defer closeDetached(ctx, conn)
	var count int
	err = conn.QueryRow(ctx, `SELECT count(*) FROM pg_largeobject_metadata WHERE lomowner = to_regrole(quote_ident($1))`, a.config.User).Scan(&count)
	if err == nil && count > 0 {
		return &ConflictError{Object: "tenant", Name: string(a.request.ID), Reason: fmt.Sprintf(
			"has %d large objects, which pg_dump cannot take by tenant: export them as role %s, unlink them, and archive again", count, a.config.User)}
	}
	return err
}

// waitForQuiet waits until no transaction writes to the tenant's tables: those of its sessions end within a second after
// it has been deleted.
func (a *archive) waitForQuiet(ctx context.Context) error {
	conn, err := a.connect(ctx, a.config.Database)
	if err != nil {
		return err
	}
	defer closeDetached(ctx, conn)
	for began := time.Now(); ; {
		var busy bool
		err := conn.QueryRow(ctx, `
SELECT EXISTS (SELECT FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
                WHERE l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND l.granted AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
                  AND c.relnamespace = to_regnamespace(quote_ident($1)))`, a.tenant.SchemaName).Scan(&busy)
		switch {
		case err != nil || !busy:
			return err
		case time.Since(began) > quietPatience:
			return fmt.Errorf("transactions have been writing to schema %q for %v: suspend or delete tenant '%s' first", a.tenant.SchemaName, quietPatience, a.request.ID)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(quietPause):
		}
	}
}

// dumpReading dumps, and lends the tenant's role what pg_dump reads and light hardening keeps from PUBLIC: comments and
// settings of databases and roles. What a run that is killed leaves of it, the next one takes.
func (a *archive) dumpReading(ctx context.Context) (err error) {
	s, err := a.openStarted(ctx, a.config.Database, "")
	if err != nil {
		return err
	}
	defer s.close(ctx)
	var hardened bool
	if err := s.transact(ctx, func(w *work) error { hardened, err = w.hardened(ctx); return err }); err != nil {
		return err
	}
	if hardened {
		rights, role := "SELECT ON pg_catalog.pg_shdescription, pg_catalog.pg_db_role_setting", quote(a.config.User)
		if err := s.exec(ctx, "GRANT "+rights+" TO "+role); err != nil {
			return fmt.Errorf("pg_dump reads what light hardening keeps from tenants, and only a superuser can lend it: %w", err)
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearPatience)
			defer cancel()
			err = errors.Join(err, s.exec(ctx, "REVOKE "+rights+" FROM "+role))
		}()
	}
	return a.dump(ctx)
}

func (a *archive) dump(ctx context.Context) error {
	file, err := os.OpenFile(a.request.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	a.created = true
	blobs := "--no-blobs"
	if a.blobs {
		blobs = "--blobs"
	}
	command := a.command(ctx, a.config.Database, dumpProgram, "--format=custom", blobs, "--strict-names",
		"--schema="+quote(a.tenant.SchemaName), "--lock-wait-timeout="+strconv.Itoa(int(quietPatience.Milliseconds())))
	command.Stdout = file
	if err := say(command); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	a.result.Bytes = info.Size()
	return file.Close()
}

// command runs a program of Postgres as the tenant's role. The password is in its environment, which others cannot read.
func (a *archive) command(ctx context.Context, database, program string, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, program, append(arguments, "--no-password")...)
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "PG") || strings.HasPrefix(variable, "PGSSLROOTCERT=") { // a service or an option there is not for this role
			command.Env = append(command.Env, variable)
		}
	}
	command.Env = append(command.Env, "PGHOST="+a.config.Host, "PGPORT="+strconv.Itoa(int(a.config.Port)), "PGUSER="+a.config.User,
		"PGPASSWORD="+a.config.Password, "PGDATABASE="+database, "PGSSLMODE="+sslMode(&a.config.Config), "PGAPPNAME=docexctl", "PGCLIENTENCODING=UTF8")
	if certificate := parameter(a.dsn, "sslrootcert"); certificate != "" {
		command.Env = append(command.Env, "PGSSLROOTCERT="+certificate)
	}
	return command
}

// say runs a program, and makes what it says an error when it fails.
func say(command *exec.Cmd) error {
	var complaint bytes.Buffer
	command.Stderr = &complaint
	if err := command.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", command.Args[0], err, bytes.TrimSpace(complaint.Bytes()))
	}
	return nil
}

// tryOut restores the file into a database of its own.
func (a *archive) tryOut(ctx context.Context) (err error) {
	s, err := a.openStarted(ctx, "", "")
	if err != nil {
		return err
	}
	defer s.close(ctx)
	if err := s.lock(ctx, sideLockClass, string(a.request.ID)); err != nil {
		return err
	}
	database := a.trialDatabase(s.work.database)
	drop := func(ctx context.Context) error {
		return s.each(ctx, "SET ROLE "+OwnerRole, "DROP DATABASE IF EXISTS "+quote(database), "RESET ROLE")
	}
	if err := drop(ctx); err != nil { // what a run that was killed has left
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearPatience)
		defer cancel()
		err = errors.Join(err, drop(ctx))
	}()
	if err := a.createTrial(ctx, s, database); err != nil {
		return err
	}
	if err := say(a.command(ctx, database, restoreProgram, "--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges",
		"--dbname="+database, a.request.File)); err != nil {
		return err
	}
	return a.compare(ctx, database)
}

func (a *archive) trialDatabase(registryDatabase string) string {
	sum := sha256.Sum256([]byte(registryDatabase + "\x00" + string(a.request.ID)))
	return "docex_archive_" + hex.EncodeToString(sum[:8])
}

// createTrial creates a database like the tenant's, with its extensions, where the tenant's role may create the schema.
func (a *archive) createTrial(ctx context.Context, s *side, database string) error {
	conn, err := a.connect(ctx, a.config.Database)
	if err != nil {
		return err
	}
	defer closeDetached(ctx, conn)
	var like string
	err = conn.QueryRow(ctx, `
SELECT format('ENCODING %L LC_COLLATE %L LC_CTYPE %L', pg_encoding_to_char(encoding), datcollate, datctype)
  FROM pg_database WHERE datname = current_database()`).Scan(&like)
	if err != nil {
		return err
	}
	rows, err := conn.Query(ctx, `
SELECT DISTINCT format('CREATE SCHEMA IF NOT EXISTS %I', nspname), format('CREATE EXTENSION %I SCHEMA %I VERSION %L CASCADE', extname, nspname, extversion)
  FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = extnamespace WHERE extname <> 'plpgsql' AND nspname <> $1`, a.tenant.SchemaName)
	if err != nil {
		return err
	}
	statements := []string{"CREATE SCHEMA IF NOT EXISTS " + extensionSchema}
	var schema, extension string
	if _, err := pgx.ForEachRow(rows, []any{&schema, &extension}, func() error {
		statements = append(statements, schema, extension)
		return nil
	}); err != nil {
		return err
	}
	role := quote(a.config.User)
	create := []string{
		"CREATE DATABASE " + quote(database) + " TEMPLATE template0 OWNER " + OwnerRole + " " + like, "SET ROLE " + OwnerRole,
		"REVOKE ALL ON DATABASE " + quote(database) + " FROM PUBLIC", "GRANT CREATE, CONNECT, TEMPORARY ON DATABASE " + quote(database) + " TO " + role,
		"GRANT CREATE, CONNECT ON DATABASE " + quote(database) + " TO " + quote(s.work.user), "RESET ROLE",
	}
	if err := s.each(ctx, create...); err != nil {
		return err
	}
	trial, err := a.connect(ctx, database)
	if err != nil {
		return err
	}
	defer closeDetached(ctx, trial)
	for _, sql := range append(statements, "GRANT USAGE ON SCHEMA "+extensionSchema+" TO "+role) {
		if _, err := trial.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// compare counts the rows of each table, as the tenant's role, here and there.
func (a *archive) compare(ctx context.Context, database string) error {
	here, err := a.count(ctx, a.config.Database)
	if err != nil {
		return err
	}
	there, err := a.count(ctx, database)
	if err != nil {
		return err
	}
	for table, rows := range here {
		if restored, ok := there[table]; !ok || restored != rows {
			return fmt.Errorf("table %q has %d rows, and %d in the archive: was it written to?", table, rows, restored)
		}
		a.result.Tables++
		a.result.Rows += rows
	}
	return nil
}

func (a *archive) count(ctx context.Context, database string) (map[string]int64, error) {
	config := a.config.Copy()
	config.Database = database
	conn, err := connectAsTenant(ctx, a.request.ID, config)
	if err != nil {
		return nil, err
	}
	defer closeDetached(ctx, conn)
	rows, err := conn.Query(ctx, `
SELECT c.relname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relkind = 'r'`, a.tenant.SchemaName)
	if err != nil {
		return nil, err
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int64, len(tables))
	for _, table := range tables {
		var n int64
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM "+quote(a.tenant.SchemaName)+"."+quote(table)).Scan(&n); err != nil {
			return nil, fmt.Errorf("table %q: %w", table, err)
		}
		counts[table] = n
	}
	return counts, nil
}
