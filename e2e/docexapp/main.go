// Command docexapp runs the real DocEX, from a checkout of it, through the built proxy: for each of its tenants the engine
// that DocEX makes, with its pool of 15 connections, and on all of them at once DocEX's own models.
//
//	go run ./e2e/docexapp -docex DIR
//
// DIR is a clone of the public project; python3 has to have its dependencies (Debian: python3-sqlalchemy, python3-psycopg2,
// python3-pydantic, python3-yaml, python3-click, python3-dotenv). It prints how many transactions were made and what the
// proxy says of pins and connections; a wrong answer, a pin, or more server connections than allowed is exit status 1.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/docex-proxy/docex-proxy/e2e/program"
	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

//go:embed engines.py
var engines string

const (
	database = "docex_app"
	login    = "docex_service"
)

type options struct {
	docex, python        string
	tenants, connections int
	rounds               int
}

func main() {
	var o options
	flag.StringVar(&o.docex, "docex", "", "`DIR` with DocEX's sources")
	flag.StringVar(&o.python, "python", "/usr/bin/python3", "the `PROGRAM`")
	flag.IntVar(&o.tenants, "tenants", 50, "how many")
	flag.IntVar(&o.connections, "connections", 20, "server connections of the proxy")
	flag.IntVar(&o.rounds, "rounds", 4, "units of work on each client connection")
	flag.Parse()
	if o.docex == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "docexapp:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "docex-app-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // for root, Postgres runs as somebody else
		return err
	}
	if err := program.Build(ctx, dir); err != nil {
		return err
	}
	cluster, err := localpg.Start(ctx, localpg.Options{DataDir: filepath.Join(dir, "pg"), Logger: slog.New(slog.DiscardHandler),
		Settings: map[string]string{"fsync": "off", "synchronous_commit": "off"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	if _, err := program.Run(ctx, nil, "psql", "-q", cluster.DSN("postgres"), "-c", "CREATE DATABASE "+database); err != nil {
		return err
	}
	docexctl := func(result any, arguments ...string) error {
		environment := []string{"DOCEX_DSN=" + cluster.DSN(database), "DOCEX_MASTER_KEY_FILE=" + filepath.Join(dir, "master.key")}
		text, err := program.Run(ctx, environment, filepath.Join(dir, "docexctl"), append(arguments, "-o", "json")...)
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(text), result)
	}
	var initialised struct {
		RegistryDSN string `json:"registry_dsn"`
	}
	if err := docexctl(&initialised, "init"); err != nil {
		return err
	}
	for i := range o.tenants {
		if err := docexctl(new(any), "tenant", "create", fmt.Sprintf("t%d", i)); err != nil {
			return err
		}
	}
	var created struct{ Password string }
	if err := docexctl(&created, "login", "create", login, "--all-tenants"); err != nil {
		return err
	}
	config := filepath.Join(dir, "proxy.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "registry: {dsn: %q}\nmaster_key_file: %q\nservers: {main: {host: %s, port: %d, sslmode: disable, max_connections: %d}}\nlimits: {clients: 5000}\n",
		initialised.RegistryDSN, filepath.Join(dir, "master.key"), cluster.Host(), cluster.Port(), o.connections), 0o600); err != nil {
		return err
	}
	proxy, err := program.Serve(ctx, filepath.Join(dir, "docex-proxy"), config, filepath.Join(dir, "proxy.log"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, proxy.Stop()) }()
	if err := work(ctx, o, dir, proxy, created.Password); err != nil {
		return err
	}
	return judge(proxy, o)
}

// work runs the script.
func work(ctx context.Context, o options, dir string, proxy *program.Proxy, password string) error {
	script := filepath.Join(dir, "engines.py")
	if err := os.WriteFile(script, []byte(engines), 0o600); err != nil {
		return err
	}
	host, port, _ := strings.Cut(proxy.Address, ":")
	command := exec.CommandContext(ctx, o.python, script)
	command.Env = append(program.Environment(), "PYTHONPATH="+o.docex, "HOME="+dir, "APP_HOST="+host, "APP_PORT="+port, "APP_DATABASE="+database,
		"APP_LOGIN="+login, "APP_PASSWORD="+password, "APP_TENANTS="+strconv.Itoa(o.tenants), "APP_ROUNDS="+strconv.Itoa(o.rounds))
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	return command.Run()
}

var series = regexp.MustCompile(`(?m)^docex_proxy_(session_pins_total|server_connections|server_connect_seconds_count)(\{[^}]*\}) ([0-9.e+]+)$`)

// judge reads the proxy's metrics.
func judge(proxy *program.Proxy, o options) error {
	response, err := http.Get("http://" + proxy.HTTP + "/metrics")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var pins, held float64
	for _, found := range series.FindAllSubmatch(page, -1) {
		value, err := strconv.ParseFloat(string(found[3]), 64)
		if err != nil {
			return err
		}
		switch string(found[1]) {
		case "session_pins_total":
			pins += value
		case "server_connections":
			held += value
		default:
			fmt.Printf("server connections opened: %g\n", value)
		}
	}
	fmt.Printf("server connections held: %g of %d\npins: %g\n", held, o.connections, pins)
	if pins > 0 || held > float64(o.connections) {
		return errors.New("a session was pinned, or there are more server connections than allowed")
	}
	return nil
}
