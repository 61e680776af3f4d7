package main

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

const systemSchema = "docex_system"

// docexConfig is what DocEX's config.yaml says about Postgres, in versions 2 and 3. Everything else in the file is
// DocEX's business and is not looked at.
type docexConfig struct {
	Database struct {
		Type   string `yaml:"type"`
		SQLite struct {
			PathTemplate string `yaml:"path_template"`
		} `yaml:"sqlite"`
		Postgres   docexPostgres  `yaml:"postgres"`
		Postgresql *docexPostgres `yaml:"postgresql"` // for the connection DocEX prefers it to postgres
	} `yaml:"database"`
	MultiTenancy struct {
		BootstrapTenant struct {
			Schema       string `yaml:"schema"`
			DatabasePath string `yaml:"database_path"`
		} `yaml:"bootstrap_tenant"`
	} `yaml:"multi_tenancy"`
}

type docexPostgres struct {
	Host           string `yaml:"host"`
	Port           string `yaml:"port"`
	Database       string `yaml:"database"`
	User           string `yaml:"user"`
	Password       string `yaml:"password"`
	SSLMode        string `yaml:"sslmode"`
	SchemaTemplate string `yaml:"schema_template"`
	SystemSchema   string `yaml:"system_schema"`
}

// loadDocexConfig reads the file of an installation, on whatever database.
func loadDocexConfig(path string) (*docexConfig, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("DocEX's configuration: %w", err)
	}
	var config docexConfig
	if err := yaml.Unmarshal(text, &config); err != nil {
		return nil, usagef("DocEX's configuration %s: %w", path, err)
	}
	return &config, nil
}

// readDocexConfig reads the file and refuses what docexctl and DocEX would understand differently.
func readDocexConfig(path string) (*docexConfig, error) {
	config, err := loadDocexConfig(path)
	if err != nil {
		return nil, err
	}
	if err := config.check(); err != nil {
		return nil, usagef("DocEX's configuration %s: %w", path, err)
	}
	return config, nil
}

func (c *docexConfig) check() error {
	if t := c.Database.Type; t != "postgres" && t != "postgresql" {
		return fmt.Errorf("database.type is %q; this verb, as the proxy, is for postgres", t)
	}
	for key, schema := range map[string]string{
		"database.postgres.system_schema":       c.Database.Postgres.SystemSchema,
		"multi_tenancy.bootstrap_tenant.schema": c.MultiTenancy.BootstrapTenant.Schema,
	} {
		if schema != "" && schema != systemSchema {
			return fmt.Errorf("%s is %q; the registry is in %s", key, schema, systemSchema)
		}
	}
	// DocEX reads the template from the one block even where it connects with the other.
	if other := c.Database.Postgresql; other != nil && other.SchemaTemplate != "" && other.SchemaTemplate != c.schemaTemplate() {
		return fmt.Errorf("database.postgresql.schema_template is %q, but DocEX only reads database.postgres.schema_template", other.SchemaTemplate)
	}
	if c.connection().Host == "" || c.connection().Database == "" {
		return fmt.Errorf("the block database.postgres names no host and database")
	}
	return nil
}

func (c *docexConfig) connection() docexPostgres {
	if c.Database.Postgresql != nil {
		return *c.Database.Postgresql
	}
	return c.Database.Postgres
}

func (c *docexConfig) schemaTemplate() string { return c.Database.Postgres.SchemaTemplate }

func (c *docexConfig) dsn() string {
	p := c.connection()
	dsn := url.URL{Scheme: "postgres", Path: "/" + p.Database, User: url.UserPassword(p.User, p.Password)}
	dsn.Host = net.JoinHostPort(p.Host, cmp.Or(p.Port, "5432"))
	// Installations append further parameters to the word, since DocEX puts it into its URL as it is.
	sslmode, _, _ := strings.Cut(p.SSLMode, "&")
	dsn.RawQuery = url.Values{"sslmode": {cmp.Or(sslmode, "prefer")}}.Encode()
	return dsn.String()
}
