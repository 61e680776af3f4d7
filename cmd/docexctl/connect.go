package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// libpqVariables are those of libpq's environment variables that say where a database is.
var libpqVariables = [...]string{"PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE"}

// mainServer is the name of the server that holds the registry.
const mainServer = "main"

// database finds the DSN of the database; "" stands for libpq's variables. Without any of them it is an error: a
// tenant in whatever database a local socket leads to would be a surprise.
func (c *cli) database() (dsn string, err error) {
	if c.dsn != "" {
		return c.dsn, nil
	}
	if c.docexConfig != "" {
		config, err := readDocexConfig(c.docexConfig)
		if err != nil {
			return "", err
		}
		return config.dsn(), nil
	}
	if dsn := os.Getenv("DOCEX_DSN"); dsn != "" {
		return dsn, nil
	}
	for _, name := range libpqVariables {
		if os.Getenv(name) != "" {
			return "", nil
		}
	}
	return "", usagef("no database is named: give --dsn or --docex-config, or set DOCEX_DSN or PGHOST and PGDATABASE")
}

// schemaTemplate is DocEX's own when its configuration is at hand; "" is the default.
func (c *cli) schemaTemplate() (string, error) {
	if c.docexConfig == "" {
		return "", nil
	}
	config, err := readDocexConfig(c.docexConfig)
	if err != nil {
		return "", err
	}
	return config.schemaTemplate(), nil
}

// keyPath is where the master key is or shall be.
func (c *cli) keyPath() (string, error) {
	if c.keyFile != "" {
		return c.keyFile, nil
	}
	if path := os.Getenv("DOCEX_MASTER_KEY_FILE"); path != "" {
		return path, nil
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", usagef("no place for the master key: give --key-file (%w)", err)
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "docex", "master.key"), nil
}

func (c *cli) loadKey() (secret.Key, error) {
	path, err := c.keyPath()
	if err != nil {
		return secret.Key{}, err
	}
	key, err := secret.Load(path)
	if err != nil {
		return secret.Key{}, fmt.Errorf("%w; `docexctl init` creates it, or name another with --key-file", err)
	}
	return key, nil
}

// provisioner returns one for the database. With dryRun it prints statements instead of changing anything.
func (c *cli) provisioner(key secret.Key, dryRun bool) (*provision.Provisioner, error) {
	return c.provisionerFor(key, dryRun, 0)
}

// provisionerFor returns one that so many requests at a time are made of, for whoever closes it.
func (c *cli) provisionerFor(key secret.Key, dryRun bool, parallel int) (*provision.Provisioner, error) {
	dsn, err := c.database()
	if err != nil {
		return nil, err
	}
	servers, err := c.servers()
	if err != nil {
		return nil, err
	}
	for _, name := range c.serverCitus {
		if _, known := servers[name]; !known && name != mainServer {
			return nil, usagef("--server-citus names server %q: say with --server-dsn how it is reached", name)
		}
	}
	options := provision.Options{DSN: dsn, Servers: servers, Citus: c.serverCitus, Key: key, Idle: parallel}
	if dryRun {
		options.DryRun = func(statement string) { fmt.Fprintln(c.out, statement) }
	}
	return provision.New(options), nil
}

// servers are the DSNs of other servers, by name.
func (c *cli) servers() (map[string]string, error) {
	servers := make(map[string]string)
	for _, text := range c.serverDSNs {
		name, dsn, ok := strings.Cut(text, "=")
		if _, twice := servers[name]; !ok || name == "" || dsn == "" || twice {
			return nil, usagef("--server-dsn takes NAME=DSN, once for each server")
		}
		servers[name] = dsn
	}
	return servers, nil
}

// withStore runs a function on the registry.
func (c *cli) withStore(ctx context.Context, run func(*registry.Store) error) error {
	dsn, err := c.database()
	if err != nil {
		return err
	}
	store, err := registry.OpenStore(ctx, dsn)
	if err != nil {
		return err
	}
	defer store.Close()
	return run(store)
}
