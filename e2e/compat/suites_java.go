package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/docex-proxy/docex-proxy/e2e/program"
)

// jars is where the distribution has Java's libraries.
const jars = "/usr/share/java"

// pgjdbcPackages have the driver, and what its tests are compiled and run with.
const pgjdbcPackages = "default-jdk-headless libpostgresql-jdbc-java libscram-java libchecker-framework-java junit5"

// pgjdbcSuite runs the tests of pgJDBC against the driver as the distribution has it installed.
func pgjdbcSuite() suite {
	return suite{
		name: "pgJDBC", tenant: "test", rights: "CREATE EXTENSION hstore SCHEMA ext; GRANT CREATE ON DATABASE test TO %[1]s",
		prepare: func(ctx context.Context, w *workshop) (string, error) {
			version, err := pgjdbcVersion(ctx)
			if err != nil {
				return "", fmt.Errorf("install it with: apt-get install %s: %w", pgjdbcPackages, err)
			}
			if err := w.checkout("pgjdbc", "source", "pgjdbc/src/test"); err != nil {
				return "", err
			}
			return version, w.compilePgjdbc(ctx)
		},
		run: pgjdbc,
	}
}

// libraries are the installed driver, what it needs for SCRAM, JUnit, and the annotations in the tests.
func libraries() []string {
	var paths []string
	for _, name := range []string{
		"postgresql", "scram-client", "scram-common", "saslprep", "stringprep", "junit-platform-console-standalone", "checker-qual",
	} {
		paths = append(paths, filepath.Join(jars, name+".jar"))
	}
	return paths
}

func classPath(paths []string) string { return strings.Join(paths, string(os.PathListSeparator)) }

// pgjdbcVersion is the installed driver's, which says it when it is started as a program, and then fails: it is none.
func pgjdbcVersion(ctx context.Context) (string, error) {
	for _, path := range libraries() {
		if _, err := os.Stat(path); err != nil {
			return "", err
		}
	}
	if _, err := exec.LookPath("javac"); err != nil {
		return "", err
	}
	said, err := exec.CommandContext(ctx, "java", "-cp", classPath(libraries()), "org.postgresql.util.PGJDBCMain").Output()
	found := regexp.MustCompile(`PostgreSQL JDBC Driver (\S+)`).FindSubmatch(said)
	if found == nil {
		return "", fmt.Errorf("the driver says no version: %w", err)
	}
	return string(found[1]), nil
}

// uncompiled are tests with libraries that the distribution lacks (System Stubs, OSGi, a detector of class loader leaks),
// and the lists of tests, which name them.
var uncompiled = regexp.MustCompile(`webcompere|org\.osgi|jiderhamn|StubEnvironmentAndProperties|@RunWith\(Suite`)

// adaptPgjdbc makes the tests use the schema that there is, and do without a superuser for a comment on two things. A test
// that ends the process that BackendKeyData names, and then writes until its connection breaks, does not write forever.
var adaptPgjdbc = strings.NewReplacer(
	`"public"`, `"tenant_test"`, `"public.`, `"tenant_test.`, `"publ%"`, `"tenant_t%"`,
	"update pg_description set objoid = 'duplicate'::regclass where objoid = 'bar'::regproc", "select 1",
	"while (true) {\n        copyIn.writeToCopy", "for (int i = 0; i < 1000000; i++) {\n        copyIn.writeToCopy",
)

// compilePgjdbc compiles the tests in the workshop, adapted.
func (w *workshop) compilePgjdbc(ctx context.Context) error {
	root := filepath.Join(w.dir, "source", "pgjdbc", "src", "test", "java")
	arguments := []string{"-nowarn", "-proc:none", "-encoding", "UTF-8", "-d", filepath.Join(w.dir, "classes"), "-cp", classPath(libraries())}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".java" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || uncompiled.Match(text) {
			return err
		}
		arguments = append(arguments, path)
		return os.WriteFile(path, []byte(adaptPgjdbc.Replace(string(text))), 0o644)
	})
	if err != nil {
		return err
	}
	_, err = program.Run(ctx, nil, "javac", arguments...)
	return err
}

// pgjdbc runs the tests in one JVM, as the suite does itself. Its privileged user is the tenant's role as well, and its
// other servers, from which it may fall back to the first, are at a port where nobody listens.
func pgjdbc(ctx context.Context, w *workshop, at endpoint) (results, error) {
	reports := filepath.Join(w.dir, strings.ReplaceAll(at.name, " ", "_"))
	source, classes := filepath.Join(w.dir, "source", "pgjdbc"), filepath.Join(w.dir, "classes")
	var arguments []string
	for name, value := range map[string]string{
		"server": at.host, "port": at.port, "database": at.database, "username": at.user, "password": at.password,
		"privilegedUser": at.user, "privilegedPassword": at.password, "preparethreshold": "5", "protocolVersion": "0",
		"secondaryServer1": at.host, "secondaryPort1": "1", "secondaryServer2": at.host, "secondaryPort2": "1",
		"user.timezone": "UTC", "junit.jupiter.execution.timeout.default": "2 m",
	} {
		arguments = append(arguments, "-D"+name+"="+value)
	}
	paths := append(libraries(), classes, filepath.Join(source, "src", "test", "resources"))
	arguments = append(arguments, "-cp", classPath(paths),
		"org.junit.platform.console.ConsoleLauncher", "--scan-class-path="+classes, "--reports-dir="+reports, "--details=tree",
		"--disable-banner", "--disable-ansi-colors")
	_, err := w.execute(ctx, at, source, nil, "java", arguments...)
	found := make(results)
	for _, engine := range []string{"vintage", "jupiter"} {
		text, reading := os.ReadFile(filepath.Join(reports, "TEST-junit-"+engine+".xml"))
		if reading != nil {
			return nil, errors.Join(err, reading)
		}
		some, reading := junitResults(text)
		if reading != nil {
			return nil, reading
		}
		maps.Copy(found, some)
	}
	return found, nil
}
