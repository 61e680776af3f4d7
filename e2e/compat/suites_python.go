package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/docex-proxy/docex-proxy/e2e/program"
)

// python is the system's, which has the distribution's drivers.
const python = "/usr/bin/python3"

// psycopg2Suite and psycopgSuite run against the drivers as the distribution has them installed. Neither package
// contains the tests, so these come from -sources.
func psycopg2Suite() suite {
	return suite{
		name: "psycopg2", tenant: "psycopg2_test",
		rights:  "CREATE EXTENSION hstore SCHEMA ext; GRANT CREATE ON DATABASE psycopg2_test TO %[1]s",
		prepare: pythonDriver("psycopg2", "python3-psycopg2"),
		run: func(ctx context.Context, w *workshop, at endpoint) (results, error) {
			return pytest(ctx, w, at, []string{"PSYCOPG2_TEST_FAST=1"})
		},
	}
}

func psycopgSuite() suite {
	return suite{
		name: "psycopg", tenant: "psycopg_test",
		rights:  "CREATE EXTENSION hstore SCHEMA ext; GRANT CREATE ON DATABASE psycopg_test TO %[1]s",
		prepare: pythonDriver("psycopg", "python3-psycopg"),
		run: func(ctx context.Context, w *workshop, at endpoint) (results, error) {
			environment := []string{"PSYCOPG_TEST_DSN=" + at.keywords(), "PSYCOPG_IMPL=python"}
			return pytest(ctx, w, at, environment, "-m", "not slow and not flakey and not dns")
		},
	}
}

// pythonDriver finds the installed driver and copies the tests of its version from the sources to where they may write.
func pythonDriver(name, debian string) func(context.Context, *workshop) (string, error) {
	return func(ctx context.Context, w *workshop) (string, error) {
		version, err := program.Run(ctx, nil, python, "-c", "import pytest, "+name+"; print("+name+".__version__.split()[0])")
		if err != nil {
			return "", fmt.Errorf("install it with: apt-get install %s python3-pytest python3-pytest-asyncio python3-dateutil: %w", debian, err)
		}
		return strings.TrimSpace(version), w.checkout(name, "source", "tests")
	}
}

// checkout copies a directory of tests from a checkout below -sources into the workshop.
func (w *workshop) checkout(name, into, tests string) error {
	from := filepath.Join(w.sources, name, tests)
	if _, err := os.Stat(from); w.sources == "" || err != nil {
		return fmt.Errorf("the package has no tests: -sources DIR wants them, of the version installed, in DIR/%s/%s", name, tests)
	}
	return os.CopyFS(filepath.Join(w.dir, into, tests), os.DirFS(from))
}

// pytest runs the tests of a Python driver.
func pytest(ctx context.Context, w *workshop, at endpoint, environment []string, arguments ...string) (results, error) {
	report := filepath.Join(w.dir, strings.ReplaceAll(at.name, " ", "_")+".xml")
	all := []string{"-m", "pytest", "-q", "-o", "asyncio_mode=auto", "-o", "junit_family=xunit1", "--junitxml=" + report}
	all = append(append(all, arguments...), "tests")
	_, err := w.execute(ctx, at, filepath.Join(w.dir, "source"), append(at.libpq(), environment...), python, all...)
	text, reading := os.ReadFile(report)
	if reading != nil {
		return nil, errors.Join(err, reading)
	}
	return junitResults(bytes.TrimSpace(text))
}

// keywords is the endpoint as a libpq connection string.
func (e endpoint) keywords() string {
	return fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s sslmode=disable", e.host, e.port, e.user, e.password, e.database)
}
