package localpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// maxSocketPath is the shortest sun_path of the systems Postgres runs on, less its NUL byte, is 103; Linux has 107.
const maxSocketPath = 103

// portAttempts bounds how often a start is tried again because another program took the free port first.
const portAttempts = 5

// Options says what to run and where. DataDir is required.
type Options struct {
	BinDir     string   // the directory of initdb and postgres; "" = what FindBinDir finds
	DataDir    string   // initialised when it is no cluster yet, used as it is otherwise
	SocketDir  string   // "" = DataDir, or a temporary directory when that path is too long for a socket
	Port       int      // TCP port on 127.0.0.1, also part of the socket's name; 0 = a free one
	Superuser  string   // "" = postgres; matters only when DataDir is initialised
	StandbyOf  *Cluster // DataDir becomes a copy of this running one's, and follows it, unless it is a cluster already
	Settings   map[string]string
	Logger     *slog.Logger // nil = slog.Default()
	DownloadOK bool         // fetch server programs when the machine has none
}

// Cluster is one running postmaster. Whoever started it calls Stop.
type Cluster struct {
	options    Options
	binDir     string
	account    account
	socketDir  string
	ownsSocket bool // socketDir is a temporary directory of ours
	port       int
	postmaster *postmaster

	stopOnce sync.Once
	stopErr  error
}

// Start runs a cluster and returns when it answers. As root it runs it as the user postgres, else nobody, who gets
// the data directory. The error carries the end of the server's own log.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	cluster, err := newCluster(o)
	if err != nil {
		return nil, fmt.Errorf("local Postgres: %w", err)
	}
	if err := cluster.start(ctx); err != nil {
		return nil, fmt.Errorf("local Postgres in %s: %w", cluster.options.DataDir, errors.Join(err, cluster.removeSocketDir()))
	}
	return cluster, nil
}

func newCluster(o Options) (*Cluster, error) {
	if o.DataDir == "" {
		return nil, errors.New("no data directory named")
	}
	dataDir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return nil, err
	}
	o.DataDir = dataDir
	o.Superuser = cmp.Or(o.Superuser, "postgres")
	o.Logger = cmp.Or(o.Logger, slog.Default())
	binDir, err := o.binDir()
	if err != nil {
		return nil, err
	}
	account, err := serverAccount()
	if err != nil {
		return nil, err
	}
	if err := account.canReach(program(binDir, "postgres")); err != nil {
		return nil, err
	}
	return &Cluster{options: o, binDir: binDir, account: account}, nil
}

func (c *Cluster) start(ctx context.Context) error {
	if err := c.initialise(ctx); err != nil {
		return err
	}
	if err := c.chooseSocketDir(); err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		err := c.startOnPort(ctx)
		if err == nil {
			c.options.Logger.Debug("local Postgres started", "data_dir", c.options.DataDir, "port", c.port)
			return nil
		}
		lostRace := c.options.Port == 0 && strings.Contains(err.Error(), "could not bind")
		if !lostRace || attempt == portAttempts {
			return err
		}
	}
}

func (c *Cluster) startOnPort(ctx context.Context) error {
	c.port = c.options.Port
	if c.port == 0 {
		port, err := freePort()
		if err != nil {
			return err
		}
		c.port = port
	}
	if err := c.configure(); err != nil {
		return err
	}
	postmaster, err := startPostmaster(ctx, c.binDir, c.options.DataDir, c.account)
	c.postmaster = postmaster
	return err
}

// freePort asks the kernel for a port nobody listens on. Another program may take it before Postgres does.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}

func (c *Cluster) chooseSocketDir() error {
	c.socketDir = cmp.Or(c.options.SocketDir, c.options.DataDir)
	if len(filepath.Join(c.socketDir, ".s.PGSQL.65535")) <= maxSocketPath {
		return nil
	}
	if c.options.SocketDir != "" {
		return fmt.Errorf("the socket directory %s is too long for a unix socket: at most %d bytes with the socket's name",
			c.socketDir, maxSocketPath)
	}
	dir, err := os.MkdirTemp("", "docex-pg-")
	if err != nil {
		return err
	}
	c.socketDir, c.ownsSocket = dir, true
	if err := c.account.canReach(dir); err != nil {
		return err
	}
	return c.account.give(dir)
}

func (c *Cluster) removeSocketDir() error {
	if !c.ownsSocket {
		return nil
	}
	return os.RemoveAll(c.socketDir)
}

// Stop shuts the cluster down (fast: sessions are ended, transactions rolled back) and returns when its process is
// gone. Further calls return what the first one did.
func (c *Cluster) Stop() error {
	c.stopOnce.Do(func() {
		c.stopErr = errors.Join(c.postmaster.stop(), c.removeSocketDir())
	})
	return c.stopErr
}

// Host is the address the cluster listens on.
func (c *Cluster) Host() string { return "127.0.0.1" }

// Port is its TCP port.
func (c *Cluster) Port() int { return c.port }

// SocketDir is the directory of its unix socket, which a host parameter may name.
func (c *Cluster) SocketDir() string { return c.socketDir }

// Superuser is the role that needs no password from this machine.
func (c *Cluster) Superuser() string { return c.options.Superuser }

// DSN is the superuser's connection URL for a database.
func (c *Cluster) DSN(database string) string {
	dsn := url.URL{
		Scheme:   "postgres",
		User:     url.User(c.Superuser()),
		Host:     net.JoinHostPort(c.Host(), strconv.Itoa(c.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return dsn.String()
}
