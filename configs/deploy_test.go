package configs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/docex-proxy/docex-proxy/configs"
)

func TestTheConfigurationForKubernetesIsValid(t *testing.T) {
	text, err := os.ReadFile("kubernetes/docex-proxy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n---\n")
	var manifest struct{ Data map[string]string }
	if err := yaml.Unmarshal([]byte(first), &manifest); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "proxy.yaml")
	if err := os.WriteFile(file, []byte(manifest.Data["proxy.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCEX_PROXY_REGISTRY_DSN", "postgres://docex_registry@postgres/docex") // the Deployment's, from a secret
	config, err := configs.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if config.Servers["main"].Host == "" || !config.TLS.Required {
		t.Errorf("read %+v", config)
	}
}
