package status_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/metrics/status"
)

// scene is a proxy as a Board sees it.
type scene struct {
	status.Options
	now   time.Time
	looks int
}

func number(n float64) *float64 { return &n }

func newScene(tenants ...status.Tenant) *scene {
	s := &scene{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	s.Options = status.Options{
		Version: "v1.2.3", Began: s.now.Add(-time.Hour),
		Ready: func() error { return nil }, Draining: func() bool { return false },
		Servers: func() []status.Server {
			return []status.Server{{Name: "second", Max: 10}, {Name: "main", Used: 3, Max: 20, Idle: 1, Waiting: 2, Failures: 4}}
		},
		Tenants: func(time.Time) ([]status.Tenant, status.Tenant, int) {
			s.looks++
			return append([]status.Tenant{}, tenants...), status.Tenant{Clients: 7, Rate: number(3)}, 5
		},
		Refusals: func() map[string]int64 { return map[string]int64{"bad_password": 2, "limit": 9, "timeout": 0} },
		States: func(_ context.Context, names []string) (map[string]string, error) {
			states := map[string]string{}
			for _, name := range names {
				states[name] = "active"
			}
			return states, nil
		},
		Now: func() time.Time { return s.now },
	}
	return s
}

func fetch(b *status.Board, query string) (page, figures *httptest.ResponseRecorder) {
	page, figures = httptest.NewRecorder(), httptest.NewRecorder()
	b.Page().ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/"+query, nil))
	b.JSON().ServeHTTP(figures, httptest.NewRequest(http.MethodGet, "/status.json"+query, nil))
	return page, figures
}

func figures(t *testing.T, b *status.Board, query string) status.Figures {
	t.Helper()
	_, response := fetch(b, query)
	var f status.Figures
	if err := json.Unmarshal(response.Body.Bytes(), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

func names(f status.Figures) string {
	var all []string
	for _, t := range f.Tenants {
		all = append(all, t.Name)
	}
	return strings.Join(all, " ")
}

func TestTheFiguresAreInTheJSON(t *testing.T) {
	s := newScene(status.Tenant{Name: "acme", Clients: 3, Active: 2, Waiting: 1, Rate: number(12.5), P99: number(4), Pins: 6})
	_, response := fetch(status.New(s.Options), "")
	const want = `{"version":"v1.2.3","now":"2026-01-02T03:04:05Z","uptime":3600,"ready":true,"draining":false,` +
		`"all":{"tenants":6,"clients":10,"active":2,"waiting":1,"tps":15.5,"pins":6},` +
		`"servers":[{"name":"main","used":3,"max":20,"idle":1,"waiting":2,"failures":4},{"name":"second","used":0,"max":10,"idle":0,"waiting":0,"failures":0}],` +
		`"tenants":[{"tenant":"acme","state":"active","clients":3,"active":2,"waiting":1,"tps":12.5,"p99_ms":4,"pins":6}],` +
		`"rest":{"tenants":5,"clients":7,"active":0,"waiting":0,"tps":3,"pins":0},` +
		`"refusals":[{"reason":"limit","count":9},{"reason":"bad_password","count":2}]}`
	if got := response.Body.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestThePageShowsTheFiguresWithoutAScript(t *testing.T) {
	s := newScene(status.Tenant{Name: "acme", Clients: 3, Rate: number(12.5), P99: number(4)}, status.Tenant{Name: "globex"})
	s.Draining = func() bool { return true }
	page, _ := fetch(status.New(s.Options), "")
	for _, want := range []string{
		`<span class="pill warn">draining</span>`, "v1.2.3", "1 h 0 min", `<th role="rowheader" scope="row">main</th>`, `value="3"`, "3 / 20",
		`<th role="rowheader" scope="row">acme</th>`, `data-label="tps">12<`, `data-label="p99">4.0 ms<`, `data-label="tps">–<`,
		"and 5 more", `<th scope="row">limit</th><td>9</td>`,
	} {
		if !strings.Contains(page.Body.String(), want) {
			t.Errorf("no %q in:\n%s", want, page.Body)
		}
	}
}

func TestAProxyThatIsNotReadySaysWhy(t *testing.T) {
	s := newScene()
	s.Ready = func() error { return errors.New("<b>the registry</b>") }
	b := status.New(s.Options)
	if f := figures(t, b, ""); f.Ready || f.Reason != "<b>the registry</b>" {
		t.Errorf("%+v", f)
	}
	if page, _ := fetch(b, ""); !strings.Contains(page.Body.String(), "not ready: &lt;b&gt;the registry&lt;/b&gt;") {
		t.Error(page.Body)
	}
}

func TestNoNameIsMarkup(t *testing.T) {
	for _, name := range []string{`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `</th></table><iframe>`, `{{.Version}}`, "'`${1}"} {
		s := newScene(status.Tenant{Name: name})
		b := status.New(s.Options)
		page, _ := fetch(b, "?tenant="+url.QueryEscape(name))
		if f := figures(t, b, ""); f.Tenants[0].Name != name {
			t.Errorf("%q is called %q", name, f.Tenants[0].Name)
		}
		if text := page.Body.String(); strings.ContainsAny(name, "<") && strings.Contains(text, name) {
			t.Errorf("%q is on the page as it is", name)
		}
	}
}

func TestThePageMayRunItsOwnScriptOnly(t *testing.T) {
	b := status.New(newScene().Options)
	page, response := fetch(b, "")
	again, _ := fetch(b, "")
	policy := page.Header().Get("Content-Security-Policy")
	_, rest, _ := strings.Cut(policy, "script-src 'nonce-")
	nonce, _, _ := strings.Cut(rest, "'")
	if len(nonce) < 20 || !strings.Contains(page.Body.String(), `<script nonce="`+nonce+`">`) || !strings.Contains(page.Body.String(), `<style nonce="`+nonce+`">`) {
		t.Errorf("%q is not the nonce of the script", nonce)
	}
	if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") || policy == again.Header().Get("Content-Security-Policy") {
		t.Errorf("policy %q", policy)
	}
	for _, outside := range []string{"http://", "https://", "//cdn", "@import", " style=", " onclick="} {
		if strings.Contains(page.Body.String(), outside) {
			t.Errorf("the page has %q in it", outside)
		}
	}
	for _, r := range []*httptest.ResponseRecorder{page, response} {
		h := r.Header()
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" || h.Get("Set-Cookie") != "" || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("headers %v", h)
		}
	}
}

func TestTheBusiestTenantsAreShownFirst(t *testing.T) {
	s := newScene(status.Tenant{Name: "idle"}, status.Tenant{Name: "slow", Rate: number(1)}, status.Tenant{Name: "stuck", Waiting: 3},
		status.Tenant{Name: "busy", Rate: number(1000)}, status.Tenant{Name: "alike", Rate: number(1010)}, status.Tenant{Name: "open", Clients: 1})
	if got := names(figures(t, status.New(s.Options), "")); got != "alike busy slow stuck open idle" {
		t.Error(got)
	}
}

func TestThousandsOfTenantsAreCountedAndNotShown(t *testing.T) {
	var crowd []status.Tenant
	for i := range 5000 {
		crowd = append(crowd, status.Tenant{Name: fmt.Sprintf("tenant_number_%d_of_many", i), Clients: 1, Rate: number(1234.56789), P99: number(12.345678)})
	}
	s := newScene(crowd...)
	asked := 0
	s.States = func(_ context.Context, names []string) (map[string]string, error) {
		asked = len(names)
		return nil, nil
	}
	b := status.New(s.Options)
	f := figures(t, b, "")
	if len(f.Tenants) != 200 || f.Rest.Tenants != 4805 || f.All.Tenants != 5005 || f.Rest.Clients != 4807 || asked > 1000 {
		t.Errorf("%d are shown, %+v are not, of %+v; the registry was asked for %d", len(f.Tenants), f.Rest, f.All, asked)
	}
	page, response := fetch(b, "")
	if page.Body.Len() > 150<<10 || response.Body.Len() > 50<<10 {
		t.Errorf("the page has %d bytes, the JSON %d", page.Body.Len(), response.Body.Len())
	}
	if f := figures(t, b, "?tenant=NUMBER_4999_"); names(f) != "tenant_number_4999_of_many" || f.Rest.Tenants != 0 {
		t.Errorf("looked for: %s, and %d more", names(f), f.Rest.Tenants)
	}
	if f := figures(t, b, "?tenant=nobody"); len(f.Tenants) != 0 || f.Tenants == nil {
		t.Errorf("%v", f.Tenants)
	}
}

func TestManyViewersCostNoMoreThanOne(t *testing.T) {
	s := newScene(status.Tenant{Name: "acme"})
	b := status.New(s.Options)
	for second := range 3 {
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() { fetch(b, "") })
		}
		group.Wait()
		if s.looks != second+1 {
			t.Errorf("%d looks in %d seconds", s.looks, second+1)
		}
		s.now = s.now.Add(time.Second)
	}
}

func TestTheStateIsTheRegistrysUnlessTheTenantIsPaused(t *testing.T) {
	s := newScene(status.Tenant{Name: "a_active"}, status.Tenant{Name: "b_paused", State: "paused"}, status.Tenant{Name: "c_both", State: "paused"}, status.Tenant{Name: "d_gone"})
	s.States = func(context.Context, []string) (map[string]string, error) {
		return map[string]string{"a_active": "active", "b_paused": "active", "c_both": "suspended"}, nil
	}
	var states []string
	for _, tenant := range figures(t, status.New(s.Options), "").Tenants {
		states = append(states, tenant.State)
	}
	if got := strings.Join(states, " "); got != "active paused suspended gone" {
		t.Error(got)
	}
}

func TestARegistryThatDoesNotAnswerDelaysThePageALittle(t *testing.T) {
	s := newScene(status.Tenant{Name: "acme"}, status.Tenant{Name: "held", State: "paused"})
	s.States = func(ctx context.Context, _ []string) (map[string]string, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	began := time.Now()
	f := figures(t, status.New(s.Options), "")
	if f.Tenants[0].State != "" || f.Tenants[1].State != "paused" || time.Since(began) > 5*time.Second {
		t.Errorf("%+v after %s", f.Tenants, time.Since(began))
	}
}
