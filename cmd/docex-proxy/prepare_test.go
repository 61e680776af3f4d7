package main

import (
	"bytes"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/configs"
	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/provision"
)

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	dsn, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return dsn
}

func TestTheRegistrysRoleIsTheOneThatIsProvisioned(t *testing.T) {
	if registryRole != provision.RegistryRole {
		t.Errorf("%s and %s", registryRole, provision.RegistryRole)
	}
}

func TestTheRegistrysPasswordIsDerivedUnlessOneIsGiven(t *testing.T) {
	derive := func(role string, generation int) string { return "derived" }
	for _, c := range []struct{ dsn, want string }{
		{"postgres://docex_registry@db/docex", "postgres://docex_registry:derived@db/docex"},
		{"postgres://db/docex?sslmode=require", "postgres://docex_registry:derived@db/docex?sslmode=require"},
		{"postgres://db/docex?user=docex_registry", "postgres://docex_registry:derived@db/docex"},
		{"postgres:///docex?host=%2Frun&port=5433", "postgres://docex_registry:derived@/docex?host=%2Frun&port=5433"},
		{"postgres://docex_registry:given@db/docex", "postgres://docex_registry:given@db/docex"},
		{"postgres://docex_registry@db/docex?password=given", "postgres://docex_registry@db/docex?password=given"},
		{"postgres://a:5433,b:5434/docex", "postgres://docex_registry:derived@a:5433,b:5434/docex?target_session_attrs=primary"},
		{"postgres:///docex?host=a%2Cb&target_session_attrs=any", "postgres://docex_registry:derived@/docex?host=a%2Cb&target_session_attrs=any"},
		{"postgres://reader@db/docex", "postgres://reader@db/docex"},
	} {
		if got := completed(parse(t, c.dsn), derive); got != c.want {
			t.Errorf("%s: got %s, want %s", c.dsn, got, c.want)
		}
	}
	if got := completed(parse(t, "postgres://db/docex"), nil); got != "postgres://docex_registry@db/docex" {
		t.Errorf("without a key: %s", got)
	}
}

func TestWithoutServersTheRegistrysIsMain(t *testing.T) {
	for dsn, want := range map[string]configs.Server{
		"postgres://db/docex":                             {Host: "db", Port: "5432", SSLMode: "prefer", MaxConnections: 20},
		"postgres://[::1]:5433/docex?sslmode=verify-full": {Host: "::1", Port: "5433", SSLMode: "verify-full", MaxConnections: 20},
		"postgres:///docex?host=/run/pg&port=5434":        {Host: "/run/pg", Port: "5434", SSLMode: "prefer", MaxConnections: 20},
		"postgres://a,b:5433/docex":                       {Host: "a,b", Port: "5432,5433", SSLMode: "prefer", MaxConnections: 20},
		"postgres:///docex?host=a,b&target_session_attrs=any": {
			Host: "a,b", Port: "5432", TargetSessionAttrs: "any", SSLMode: "prefer", MaxConnections: 20},
		"postgres://db/docex?sslrootcert=/ca.pem": {Host: "db", Port: "5432", SSLMode: "prefer", SSLRootCert: "/ca.pem", MaxConnections: 20},
		"postgres://db/docex?sslcert=/a.crt&sslkey=/a.key": {
			Host: "db", Port: "5432", SSLMode: "prefer", SSLCert: "/a.crt", SSLKey: "/a.key", MaxConnections: 20},
	} {
		got, err := serversOf(nil, parse(t, dsn))
		if err != nil || len(got) != 1 || got["main"] != want {
			t.Errorf("%s: got %+v, %v", dsn, got, err)
		}
	}
	for _, dsn := range []string{"postgres:///docex", "postgres://db:99999/docex", "postgres://db/docex?port=0", "postgres:///docex?host=a,b,c&port=1,2"} {
		if got, err := serversOf(nil, parse(t, dsn)); err == nil {
			t.Errorf("%s: got %+v", dsn, got)
		}
	}
}

func TestConfiguredServersAreTakenAsTheyAre(t *testing.T) {
	config := configs.Default()
	config.Registry.DSN = "postgres://db/docex"
	config.Servers = map[string]configs.Server{"eu": {Host: "db2", Port: "5433", SSLMode: "require", MaxConnections: 3}}
	got, err := prepare(config)
	want := map[string]pool.Server{"eu": {Hosts: []pool.Host{{Name: "db2", Port: 5433}}, SSLMode: "require", MaxConnections: 3}}
	if err != nil || !reflect.DeepEqual(got.servers, want) {
		t.Errorf("got %+v, %v", got.servers, err)
	}
}

func TestAReplicaIsAStandbyUnlessItIsSaidToBeAnother(t *testing.T) {
	config := configs.Default()
	config.Registry.DSN = "postgres://db/docex"
	standard := configs.DefaultServer()
	standard.Host = "db"
	main, other, logical := standard, standard, standard
	main.Replica, other.Replica, logical.TargetSessionAttrs = "standby", "logical", "any"
	config.Servers = map[string]configs.Server{"main": main, "other": other, "standby": standard, "logical": logical}
	got, err := prepare(config)
	if err != nil || !reflect.DeepEqual(got.replicas, map[string]string{"main": "standby", "other": "logical"}) {
		t.Fatalf("got %v, %v", got.replicas, err)
	}
	if s := got.servers["standby"]; s.SessionAttributes != "standby" || s.ReadOnly {
		t.Errorf("a replica is %+v", s)
	}
	if s := got.servers["logical"]; s.SessionAttributes != "any" || !s.ReadOnly {
		t.Errorf("one that need not be a standby is %+v", s)
	}
	if s := got.servers["main"]; s.SessionAttributes != "" || s.ReadOnly {
		t.Errorf("a server is %+v", s)
	}
}

func TestTheLogFollowsLevelAndFormat(t *testing.T) {
	var out bytes.Buffer
	logger, err := newLogger(configs.Log{Level: "warn", Format: "json"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	logger.Info("quiet")
	logger.Warn("loud")
	if text := out.String(); strings.Contains(text, "quiet") || !strings.Contains(text, `"msg":"loud"`) {
		t.Error(text)
	}
}
