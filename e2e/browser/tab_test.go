package browser

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// tab is a page that is open.
type tab struct {
	*chromium
	t       *testing.T
	session string

	mutex      sync.Mutex // guards what follows
	complaints []string   // of the console: exceptions, violations of the policy, what could not be fetched
	requests   []string   // URLs
}

// open opens an address, seen on a screen of a width, in a colour scheme.
func open(t *testing.T, c *chromium, address string, width int, scheme string) *tab {
	t.Helper()
	tab := &tab{chromium: c, t: t}
	c.mutex.Lock()
	c.told = tab.hear
	c.mutex.Unlock()
	var made struct{ TargetID, SessionID string }
	tab.must("Target.createTarget", map[string]any{"url": "about:blank"}, &made)
	tab.must("Target.attachToTarget", map[string]any{"targetId": made.TargetID, "flatten": true}, &made)
	tab.session = made.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		tab.must(domain+".enable", nil, nil)
	}
	tab.must("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 640, "deviceScaleFactor": 1, "mobile": width < 500}, nil)
	tab.must("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	tab.must("Page.navigate", map[string]any{"url": address}, nil)
	tab.await("the page is loaded", `document.readyState === "complete" && location.href !== "about:blank"`)
	return tab
}

// hear keeps what the tests look at.
func (tab *tab) hear(m message) {
	text, err := json.Marshal(m.Params)
	if err != nil {
		return
	}
	var request struct{ Request struct{ URL string } }
	tab.mutex.Lock()
	defer tab.mutex.Unlock()
	switch m.Method {
	case "Network.requestWillBeSent":
		if json.Unmarshal(text, &request) == nil {
			tab.requests = append(tab.requests, request.Request.URL)
		}
	case "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded":
		tab.complaints = append(tab.complaints, string(text))
	}
}

func (tab *tab) must(method string, params, result any) {
	tab.t.Helper()
	if err := tab.call(tab.session, method, params, result); err != nil {
		tab.t.Fatal(err)
	}
}

// evaluate runs an expression in the page and decodes its value.
func (tab *tab) evaluate(expression string, value any) {
	tab.t.Helper()
	var result struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails any
	}
	tab.must("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &result)
	if result.ExceptionDetails != nil {
		tab.t.Fatalf("%s: %v", expression, result.ExceptionDetails)
	}
	if err := json.Unmarshal(result.Result.Value, value); err != nil {
		tab.t.Fatalf("%s: %v: %s", expression, err, result.Result.Value)
	}
}

// await waits until an expression is true.
func (tab *tab) await(what, expression string) {
	tab.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		var yes bool
		if tab.evaluate(expression, &yes); yes {
			return
		}
		if time.Now().After(end) {
			var text string
			tab.evaluate("document.body.innerText", &text)
			tab.t.Fatalf("never: %s\n%s", what, text)
		}
	}
}

// rows are the texts of a table's body, as a reader sees them.
func (tab *tab) rows(table string) [][]string {
	tab.t.Helper()
	var rows [][]string
	tab.evaluate(fmt.Sprintf(`[...document.querySelectorAll("#%s tbody tr")].map(row => [...row.cells].map(cell => cell.textContent.trim()))`, table), &rows)
	return rows
}

// row is the one that begins with a name.
func (tab *tab) row(table, name string) []string {
	tab.t.Helper()
	rows := tab.rows(table)
	i := slices.IndexFunc(rows, func(row []string) bool { return row[0] == name })
	if i < 0 {
		tab.t.Fatalf("no %q among %q", name, rows)
	}
	return rows[i]
}

// picture is the whole page, as a PNG.
func (tab *tab) picture() []byte {
	tab.t.Helper()
	var shot struct{ Data []byte }
	tab.must("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &shot)
	return shot.Data
}

// uneventful fails the test for what the console says, and for what was fetched from elsewhere.
func (tab *tab) uneventful(origin string) {
	tab.t.Helper()
	tab.mutex.Lock()
	defer tab.mutex.Unlock()
	for _, text := range tab.complaints {
		tab.t.Errorf("the console says %s", text)
	}
	for _, address := range tab.requests {
		bare, _, _ := strings.Cut(address, "?")
		if !slices.Contains([]string{"data:,", origin + "/", origin + "/status.json"}, bare) {
			tab.t.Errorf("it has asked for %s", address)
		}
	}
}
