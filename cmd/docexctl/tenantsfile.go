package main

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/docex-proxy/docex-proxy/registry"
)

// wantedTenant is one that a file wants.
type wantedTenant struct {
	ID          string          `yaml:"id"`
	DisplayName string          `yaml:"display_name"`
	Isolation   string          `yaml:"isolation"`
	Server      string          `yaml:"server"`
	Database    string          `yaml:"database"`
	CreatedBy   string          `yaml:"created_by"`
	Status      registry.Status `yaml:"status"` // active, suspended or deleted; "": stays as it is
	Limits      *wantedLimits   `yaml:"limits"` // nil: stay as they are
}

// wantedLimits are all of a tenant's limits: those that are not named are the proxy's.
type wantedLimits struct {
	MaxServerConnections int               `yaml:"max_server_connections"`
	MaxClients           int               `yaml:"max_clients"`
	PoolMode             registry.PoolMode `yaml:"pool_mode"`
	Rate                 float64           `yaml:"rate"`
	QueueWait            registry.Duration `yaml:"queue_wait"`
	Query                registry.Duration `yaml:"query"`
	Transaction          registry.Duration `yaml:"transaction"`
	IdleTransaction      registry.Duration `yaml:"idle_transaction"`
	ClientIdle           registry.Duration `yaml:"client_idle"`
}

// String names those that are not the proxy's, as the file does.
func (l wantedLimits) String() string {
	var words []string
	say := func(named bool, name string, value any) {
		if named {
			words = append(words, fmt.Sprint(name, " ", value))
		}
	}
	say(l.MaxServerConnections > 0, "max_server_connections", l.MaxServerConnections)
	say(l.MaxClients > 0, "max_clients", l.MaxClients)
	say(l.PoolMode != "", "pool_mode", l.PoolMode)
	say(l.Rate > 0, "rate", l.Rate)
	say(l.QueueWait > 0, "queue_wait", time.Duration(l.QueueWait))
	say(l.Query > 0, "query", time.Duration(l.Query))
	say(l.Transaction > 0, "transaction", time.Duration(l.Transaction))
	say(l.IdleTransaction > 0, "idle_transaction", time.Duration(l.IdleTransaction))
	say(l.ClientIdle > 0, "client_idle", time.Duration(l.ClientIdle))
	return cmp.Or(strings.Join(words, " "), "the proxy's")
}

// readTenants reads a file of tenants: YAML, or one tenant a line, as ID or ID,DISPLAY NAME. "-" is standard input, YAML
// where it begins with "tenants:".
func (c *cli) readTenants(path string) (tenants []wantedTenant, err error) {
	var text []byte
	if path == "-" {
		text, err = io.ReadAll(c.in)
	} else {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, usagef("tenants: %w", err)
	}
	extension := strings.ToLower(filepath.Ext(path))
	if extension == ".yaml" || extension == ".yml" || path == "-" && bytes.HasPrefix(text, []byte("tenants:")) {
		tenants, err = parseYAML(text)
	} else {
		tenants, err = parseLines(text)
	}
	if err == nil {
		err = checkTenants(tenants)
	}
	if err != nil {
		return nil, usagef("%s: %w", path, err)
	}
	return tenants, nil
}

func parseYAML(text []byte) ([]wantedTenant, error) {
	var file struct {
		Tenants []wantedTenant `yaml:"tenants"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return file.Tenants, nil
}

func parseLines(text []byte) (tenants []wantedTenant, err error) {
	reader := csv.NewReader(bytes.NewReader(text))
	reader.FieldsPerRecord, reader.Comment, reader.TrimLeadingSpace = -1, '#', true
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return tenants, nil
		}
		if err != nil {
			return nil, err
		}
		if len(record) > 2 {
			line, _ := reader.FieldPos(0)
			return nil, fmt.Errorf("line %d has %d fields; a line is ID or ID,DISPLAY NAME", line, len(record))
		}
		t := wantedTenant{ID: record[0]}
		if len(record) == 2 {
			t.DisplayName = record[1]
		}
		tenants = append(tenants, t)
	}
}

// checkTenants finds what is wrong with a file before anything is changed.
func checkTenants(tenants []wantedTenant) error {
	seen := make(map[string]bool)
	var wrong []error
	for i, t := range tenants {
		if err := t.check(); err != nil {
			wrong = append(wrong, fmt.Errorf("tenant %d, %q: %w", i+1, t.ID, err))
		}
		if seen[t.ID] {
			wrong = append(wrong, fmt.Errorf("tenant %d, %q: is there twice", i+1, t.ID))
		}
		seen[t.ID] = true
	}
	return errors.Join(wrong...)
}

func (t wantedTenant) check() error {
	if _, err := registry.ParseTenantID(t.ID); err != nil {
		return err
	}
	if _, err := (tenantFlags{isolation: t.Isolation}).level(); err != nil {
		return err
	}
	switch t.Status {
	case "", registry.StatusActive, registry.StatusSuspended, registry.StatusDeleted:
	default:
		return fmt.Errorf("status is active, suspended or deleted, not %q", t.Status)
	}
	if l := t.Limits; l != nil {
		return registry.Limits(*l).Check()
	}
	return nil
}
