package configs_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/configs"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const dsn = "postgres://docex_registry@db/docex"

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, text string) *configs.Config {
	t.Helper()
	config, err := configs.Load(write(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func TestTheSampleIsTheDefaultButForItsExamples(t *testing.T) {
	got, err := configs.Load("docex-proxy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("docex-proxy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var plain strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(strings.TrimSpace(line), "# example") {
			plain.WriteString(line)
		}
	}
	t.Setenv("DOCEX_PROXY_REGISTRY_DSN", dsn)
	want := configs.Default()
	want.Registry.DSN = dsn
	if plain := load(t, plain.String()); !reflect.DeepEqual(plain, want) {
		t.Errorf("without its examples the sample is\n%+v\nwant\n%+v", plain, want)
	}
	server := configs.DefaultServer()
	server.Host = "127.0.0.1"
	if !reflect.DeepEqual(got.Servers, map[string]configs.Server{"main": server}) {
		t.Errorf("the sample's servers are %+v", got.Servers)
	}
}

func TestTheSampleDocumentsEveryKey(t *testing.T) {
	text, err := os.ReadFile("docex-proxy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range configs.Paths() {
		name := path[strings.LastIndexByte(path, '.')+1:]
		if !bytes.Contains(text, []byte(name+":")) {
			t.Errorf("%s is not in the sample", path)
		}
	}
}

func TestWithoutAFileTheDefaultsHold(t *testing.T) {
	t.Setenv("DOCEX_PROXY_REGISTRY_DSN", dsn)
	got, err := configs.Load("")
	if err != nil {
		t.Fatal(err)
	}
	want := configs.Default()
	want.Registry.DSN = dsn
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestAServerTakesWhatItLeavesOutFromTheDefaults(t *testing.T) {
	got := load(t, "registry: {dsn: "+dsn+"}\nservers:\n  main: {host: db1}\n  eu-west: {host: db2, port: 5433, sslcert: a.crt, sslkey: a.key, max_connections: 7}\n")
	want := map[string]configs.Server{
		"main":    {Host: "db1", Port: "5432", SSLMode: "prefer", MaxConnections: 20},
		"eu-west": {Host: "db2", Port: "5433", SSLMode: "prefer", SSLCert: "a.crt", SSLKey: "a.key", MaxConnections: 7},
	}
	if !reflect.DeepEqual(got.Servers, want) {
		t.Errorf("got %+v", got.Servers)
	}
}

func TestAServerMayHaveSeveralHosts(t *testing.T) {
	t.Setenv("DOCEX_PROXY_SERVERS_EU_HOST", "db3,db4")
	t.Setenv("DOCEX_PROXY_SERVERS_EU_PORT", "5433,5434")
	got := load(t, "registry: {dsn: "+dsn+"}\nservers:\n  main:\n    host: db1, db2\n    port: 5432,6432\n  one: {host: \"db5,db6\", port: 7432}\n")
	for name, want := range map[string][]configs.Host{
		"main": {{"db1", 5432}, {"db2", 6432}},
		"eu":   {{"db3", 5433}, {"db4", 5434}},
		"one":  {{"db5", 7432}, {"db6", 7432}},
	} {
		if hosts, err := got.Servers[name].Hosts(); err != nil || !reflect.DeepEqual(hosts, want) {
			t.Errorf("%s: %v, %v", name, hosts, err)
		}
	}
}

func TestTheEnvironmentWinsOverTheFile(t *testing.T) {
	for variable, value := range map[string]string{
		"DOCEX_PROXY_LISTEN":                          "0.0.0.0:5432",
		"DOCEX_PROXY_HTTP":                            "",
		"DOCEX_PROXY_LOG_LEVEL":                       "debug",
		"DOCEX_PROXY_IDENTITY_USER_SUFFIX":            "false",
		"DOCEX_PROXY_AUTH_TRUST":                      "app,batch",
		"DOCEX_PROXY_TIMEOUTS_QUEUE_WAIT":             "90s",
		"DOCEX_PROXY_LIMITS_CLIENTS":                  "5",
		"DOCEX_PROXY_SERVERS_EU_WEST_MAX_CONNECTIONS": "9",
		"DOCEX_PROXY_SERVERS_US_HOST":                 "db3",
	} {
		t.Setenv(variable, value)
	}
	got := load(t, "registry: {dsn: "+dsn+"}\nlisten: 127.0.0.1:1\nlog: {level: warn, format: json}\nservers: {eu-west: {host: db2}, main: {host: db1}}\n")
	want := configs.Default()
	want.Registry.DSN = dsn
	want.Listen, want.HTTP, want.Log = "0.0.0.0:5432", "", configs.Log{Level: "debug", Format: "json"}
	want.Identity.UserSuffix = false
	want.Auth.Trust = []string{"app", "batch"}
	want.Timeouts.QueueWait = 90 * time.Second
	want.Limits.Clients = 5
	want.Servers = map[string]configs.Server{
		"main":    {Host: "db1", Port: "5432", SSLMode: "prefer", MaxConnections: 20},
		"eu-west": {Host: "db2", Port: "5432", SSLMode: "prefer", MaxConnections: 9},
		"us":      {Host: "db3", Port: "5432", SSLMode: "prefer", MaxConnections: 20},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestEveryKeyCanBeSetByTheEnvironment(t *testing.T) {
	for _, path := range configs.Paths() {
		t.Run(path, func(t *testing.T) {
			t.Setenv("DOCEX_PROXY_REGISTRY_DSN", dsn)
			t.Setenv("DOCEX_PROXY_SERVERS_MAIN_HOST", "db1")
			// A value that no key allows but a text: whoever complains about it has read it.
			t.Setenv("DOCEX_PROXY_"+strings.ToUpper(strings.ReplaceAll(path, ".", "_")), "-7x")
			config, err := configs.Load("")
			if err != nil {
				if !strings.Contains(err.Error(), path) { // in full, as in the file
					t.Errorf("the error does not name the key: %v", err)
				}
				return
			}
			if text := fmt.Sprintf("%+v", config); !strings.Contains(text, "-7x") {
				t.Errorf("not read: %s", text)
			}
		})
	}
}

func TestASecretCanComeFromAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(path, []byte(dsn+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCEX_PROXY_REGISTRY_DSN_FILE", path)
	if got := load(t, ""); string(got.Registry.DSN) != dsn {
		t.Errorf("got %q", string(got.Registry.DSN))
	}
	t.Setenv("DOCEX_PROXY_REGISTRY_DSN", dsn)
	if _, err := configs.Load(""); err == nil || !strings.Contains(err.Error(), "both DOCEX_PROXY_REGISTRY_DSN and") {
		t.Errorf("two sources: %v", err)
	}
	os.Unsetenv("DOCEX_PROXY_REGISTRY_DSN")
	t.Setenv("DOCEX_PROXY_REGISTRY_DSN_FILE", "/nowhere/dsn")
	if _, err := configs.Load(""); err == nil || !strings.Contains(err.Error(), "registry.dsn: DOCEX_PROXY_REGISTRY_DSN_FILE: open /nowhere/dsn") {
		t.Errorf("no such file: %v", err)
	}
}

func TestASecretIsNeverPrinted(t *testing.T) {
	config := configs.Default()
	config.Registry.DSN = "postgres://u:hunter2@db/docex"
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("loaded", "dsn", config.Registry.DSN, "config", config)
	asJSON, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprint(config), fmt.Sprintf("%v %+v %#v", *config, *config, *config), fmt.Sprintf("%s %q", config.Registry.DSN, config.Registry.DSN),
		log.String(), string(asJSON),
	} {
		if strings.Contains(text, "hunter2") || !strings.Contains(text, "[redacted]") {
			t.Error(text)
		}
	}
}

func TestAFileThatIsNotThereIsNamedOnce(t *testing.T) {
	_, err := configs.Load("/nowhere/docex-proxy.yaml")
	if err == nil || err.Error() != "/nowhere/docex-proxy.yaml: no such file or directory" {
		t.Errorf("got %v", err)
	}
}

// TestBadFilesGetTheirErrors loads testdata/*.yaml and compares the errors with the .golden files beside them.
func TestBadFilesGetTheirErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := configs.Load(file)
			if err == nil {
				t.Fatal("no error")
			}
			got := err.Error() + "\n"
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if strings.Contains(got, "hunter2") {
				t.Error("a password is in the error")
			}
		})
	}
}

// FuzzLoad looks for a text that makes Load panic, or that it takes although Validate would not.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"docex-proxy.yaml", "testdata/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		config, err := configs.Load(write(t, text))
		if err == nil && config.Validate() != nil {
			t.Errorf("loaded, and invalid: %v", config.Validate())
		}
	})
}

func TestThePageOfTheConfigurationHasEveryKeyWithItsDefault(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| (`[a-zA-Z_.`, ]+`) \\| (?:`(.*?)`)? ?\\|").FindAllStringSubmatch(string(text), -1) {
		for _, key := range strings.Split(row[1], ", ") {
			documented[strings.Trim(key, "`")] = row[2]
		}
	}
	config := configs.Default()
	config.Servers = map[string]configs.Server{"NAME": configs.DefaultServer()}
	for _, s := range config.Settings() {
		said, found := documented[s.Key]
		if !found {
			t.Errorf("%s is not in docs/configuration.md", s.Key)
		}
		if length, err := time.ParseDuration(said); err == nil && strings.HasSuffix(s.Default, "s") {
			said = length.String()
		}
		if s.Key == "registry.dsn" {
			said = s.Default // it has none, and is not shown
		}
		if said == `""` || said == "[]" {
			said = ""
		}
		if said != s.Default {
			t.Errorf("docs/configuration.md has %q as the default of %s, which is %q", said, s.Key, s.Default)
		}
		delete(documented, s.Key)
	}
	delete(documented, "servers")
	for key := range documented {
		t.Errorf("docs/configuration.md has %s, which does not exist", key)
	}
}
