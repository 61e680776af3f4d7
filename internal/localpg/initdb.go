package localpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	settingsFile = "localpg.conf"
	accessFile   = "localpg_hba.conf"
)

// initialise makes the data directory a cluster, unless it is one already.
func (c *Cluster) initialise(ctx context.Context) error {
	dir := c.options.DataDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := c.account.canReach(dir); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "PG_VERSION")); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := errors.Join(os.Chmod(dir, 0o700), c.account.give(dir)); err != nil {
		return err
	}
	if c.options.StandbyOf != nil {
		return c.copy(ctx, c.options.StandbyOf)
	}
	output, err := c.initdb(ctx, "C.UTF-8")
	if err != nil && strings.Contains(output, "locale") {
		// macOS and old distributions have no C.UTF-8; the encoding stays UTF8, only the collation is plainer.
		output, err = c.initdb(ctx, "C")
	}
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, strings.TrimSpace(output))
	}
	return c.includeSettings()
}

// copy makes the data directory a streaming standby's. The settings' file is included already, and written anew.
func (c *Cluster) copy(ctx context.Context, primary *Cluster) error {
	initdb, err := filepath.EvalSymlinks(program(c.binDir, "initdb")) // what is linked into PATH may be a part of the programs
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program(filepath.Dir(initdb), "pg_basebackup"), "--pgdata="+c.options.DataDir, "--dbname="+primary.DSN("postgres"),
		"--checkpoint=fast", "--write-recovery-conf", "--no-sync", "--no-password")
	cmd.Env, cmd.Dir, cmd.SysProcAttr = environment(), c.options.DataDir, c.account.attributes()
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w: %s", err, strings.TrimSpace(string(text)))
	}
	return nil
}

func (c *Cluster) initdb(ctx context.Context, locale string) (output string, err error) {
	cmd := exec.CommandContext(ctx, program(c.binDir, "initdb"), "--pgdata="+c.options.DataDir, "--auth=trust",
		"--username="+c.options.Superuser, "--encoding=UTF8", "--locale="+locale, "--no-sync", "--no-instructions")
	cmd.Env, cmd.Dir, cmd.SysProcAttr = environment(), c.options.DataDir, c.account.attributes()
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// environment is ours without libpq's variables, which the server programs read too.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "PG") })
}

// includeSettings makes postgresql.conf read settingsFile, last, so that it wins.
func (c *Cluster) includeSettings() error {
	file, err := os.OpenFile(filepath.Join(c.options.DataDir, "postgresql.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "\n# Written anew at every start.\ninclude_if_exists = '%s'\n", settingsFile)
	return errors.Join(err, file.Close())
}

// configure writes the settings and the access rules of this start.
func (c *Cluster) configure() error {
	settings := maps.Clone(c.options.Settings)
	if settings == nil {
		settings = map[string]string{}
	}
	settings["port"] = fmt.Sprint(c.port)
	settings["listen_addresses"] = c.Host()
	settings["unix_socket_directories"] = c.socketDir
	settings["hba_file"] = filepath.Join(c.options.DataDir, accessFile)
	settings["logging_collector"] = "off" // its standard error is our log file

	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "%s = %s\n", name, quoteSetting(settings[name]))
	}
	return errors.Join(c.writeFile(settingsFile, text.String()), c.writeFile(accessFile, accessRules(c.options.Superuser)))
}

func quoteSetting(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(value) + "'"
}

func accessRules(superuser string) string {
	superuser = `"` + strings.ReplaceAll(superuser, `"`, `""`) + `"`
	return `# Written anew at every start. Only the superuser is trusted, and only from this machine.
local all ` + superuser + `              trust
host  all ` + superuser + ` 127.0.0.1/32 trust
host  all ` + superuser + ` ::1/128      trust
host  replication ` + superuser + ` 127.0.0.1/32 trust
local all all              scram-sha-256
host  all all 127.0.0.1/32 scram-sha-256
host  all all ::1/128      scram-sha-256
`
}

// writeFile replaces a file of the data directory whole and gives it to the server's account.
func (c *Cluster) writeFile(name, text string) error {
	path := filepath.Join(c.options.DataDir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return c.account.give(path)
}
