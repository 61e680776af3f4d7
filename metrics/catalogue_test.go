package metrics_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var metricName = regexp.MustCompile(`docex_proxy_[a-z_]+`)

// catalogue reads the names of all metrics, each as a scrape calls it, from the golden file.
func catalogue(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("testdata/metrics.golden")
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 4 || words[1] != "TYPE" {
			continue
		}
		names[words[2]] = true
		if words[3] == "histogram" {
			for _, suffix := range []string{"_sum", "_count", "_bucket"} {
				names[words[2]+suffix] = true
			}
		}
	}
	if len(names) == 0 {
		t.Fatal("the golden file names no metric")
	}
	return names
}

func TestAlertsAndDashboardsAskForMetricsThatThereAre(t *testing.T) {
	names := catalogue(t)
	for _, file := range []string{"../configs/prometheus-alerts.yml", "../configs/prometheus-alerts-test.yml", "../configs/grafana/dashboards/docex-proxy.json"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := metricName.FindAllString(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s asks for nothing", file)
		}
		for _, name := range found {
			if !names[name] {
				t.Errorf("%s asks for %s, which there is not", file, name)
			}
		}
	}
}

func TestEveryMetricIsInTheManual(t *testing.T) {
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range catalogue(t) {
		bare := name
		for _, suffix := range []string{"_sum", "_count", "_bucket"} {
			bare = strings.TrimSuffix(bare, suffix)
		}
		if !strings.Contains(string(text), "| `"+bare+"` |") {
			t.Errorf("docs/operations.md says nothing of %s", bare)
		}
	}
}
