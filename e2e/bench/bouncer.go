//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bouncer is a running PgBouncer.
type bouncer struct {
	command  *exec.Cmd
	port     int
	prepares bool // prepared statements work in transaction mode
	exited   chan struct{}
}

// startBouncer runs it in transaction mode, with the same number of server connections in all, and returns when it
// listens. It knows the passwords of the tenants' roles.
func startBouncer(ctx context.Context, s *site, o options) (*bouncer, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &bouncer{port: listener.Addr().(*net.TCPAddr).Port, exited: make(chan struct{})}
	listener.Close()
	var users strings.Builder
	for number := 1; number <= o.most("role"); number++ {
		tenant := nameOf("role", number)
		fmt.Fprintf(&users, "%q %q\n", roleOf(tenant), s.rolePassword(tenant))
	}
	config := fmt.Sprintf(`
[databases]
%s = host=%s port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = transaction
max_client_conn = 20000
default_pool_size = %[6]d
max_db_connections = %[6]d
log_connections = 0
log_disconnections = 0
query_wait_timeout = 60
client_login_timeout = 60
ignore_startup_parameters = extra_float_digits
client_tls_sslmode = allow
client_tls_cert_file = %[7]s
client_tls_key_file = %[8]s
`, database, s.cluster.SocketDir(), s.cluster.Port(), b.port, s.path("users.txt"), o.connections,
		s.path("bouncer.crt"), s.path("bouncer.key"))
	if b.prepares = canPrepare(ctx, o.bouncer); b.prepares {
		config += "max_prepared_statements = 200\n"
	}
	for from, to := range map[string]string{"tls.crt": "bouncer.crt", "tls.key": "bouncer.key"} { // it is another user's
		text, err := os.ReadFile(s.path(from))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(s.path(to), text, 0o644); err != nil {
			return nil, err
		}
	}
	for name, text := range map[string]string{"pgbouncer.ini": config, "users.txt": users.String()} {
		if err := os.WriteFile(s.path(name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	b.command = exec.Command(o.bouncer, "-q", s.path("pgbouncer.ini"))
	if b.command.SysProcAttr, err = unprivileged(); err != nil {
		return nil, err
	}
	if err := b.command.Start(); err != nil {
		return nil, fmt.Errorf("pgbouncer: %w", err)
	}
	go func() {
		defer close(b.exited)
		b.command.Wait() //nolint:errcheck // how it ended does not matter
	}()
	return b, b.awaitListening(ctx)
}

func canPrepare(ctx context.Context, program string) bool {
	text, err := exec.CommandContext(ctx, program, "--version").Output()
	var major, minor int
	_, scanErr := fmt.Sscanf(string(text), "PgBouncer %d.%d", &major, &minor)
	return err == nil && scanErr == nil && (major > 1 || minor >= 21)
}

// unprivileged is how a program that refuses to be root is run by root: as the user postgres, else nobody.
func unprivileged() (*syscall.SysProcAttr, error) {
	attributes := &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() != 0 {
		return attributes, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(found.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(found.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		attributes.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return attributes, nil
	}
	return nil, errors.New("root cannot run PgBouncer, and there is neither a user postgres nor a user nobody")
}

func (b *bouncer) awaitListening(ctx context.Context) error {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		select {
		case <-b.exited:
			return errors.New("pgbouncer has ended")
		default:
		}
		if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port))); err == nil {
			return conn.Close()
		}
	}
	return errors.New("pgbouncer does not listen")
}

func (b *bouncer) stop() error {
	if err := b.command.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-b.exited:
		return nil
	case <-time.After(10 * time.Second):
		return b.command.Process.Kill()
	}
}
