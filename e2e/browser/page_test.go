package browser

import (
	"bytes"
	"flag"
	"image/png"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

var pictures = flag.String("pictures", "", "write screenshots to this `DIR`")

// markup is a tenant that DocEX would not have made: its id comes from the registry's table all the same.
const markup = `<img src=x onerror="document.title='run'">`

// rename gives a tenant another id, past everything that would refuse it.
func (s *site) rename(t *testing.T, from, to string) {
	t.Helper()
	direct := s.superuser(t)
	execute(t, direct, "SET session_replication_role = replica") // an id that is referred to is not to be changed otherwise
	for _, table := range []string{"tenant_registry", "tenant_route", "proxy_login_tenant"} {
		execute(t, direct, "UPDATE docex_system."+table+" SET tenant_id = $2 WHERE tenant_id = $1", from, to)
	}
	execute(t, direct, "NOTIFY docex_registry, '*'")
}

// busySite has tenants that do different things.
func busySite(t *testing.T) *site {
	t.Helper()
	s := startSite(t, "acme,globex,initech,umbrella,hooli")
	load(t, s.dsn(t, "acme"), "SELECT count(*) FROM docbasket", 4, time.Millisecond)
	load(t, s.dsn(t, "globex"), "SELECT pg_sleep(0.05)", 2, 10*time.Millisecond)
	load(t, s.dsn(t, "umbrella"), "SELECT 1", 1, 200*time.Millisecond)
	pinned := connect(t, s.dsn(t, "initech"))
	execute(t, pinned, "LISTEN news")
	execute(t, connect(t, s.dsn(t, "initech")), "BEGIN")
	load(t, s.dsn(t, "acme"), "SELECT 1", 1, time.Millisecond)
	wrong, err := pgx.ParseConfig(s.dsn(t, "acme"))
	if err != nil {
		t.Fatal(err)
	}
	wrong.Password = "wrong"
	for range 3 {
		if _, err := pgx.ConnectConfig(t.Context(), wrong); err == nil {
			t.Fatal("a wrong password was let in")
		}
	}
	return s
}

func figure(t *testing.T, text string) float64 {
	t.Helper()
	number, _, _ := strings.Cut(text, " ")
	value, err := strconv.ParseFloat(number, 64)
	if err != nil {
		t.Errorf("%q is no figure", text)
	}
	return value
}

func TestTheStatusPageInABrowser(t *testing.T) {
	s, c := busySite(t), startChromium(t)
	tab := open(t, c, s.page()+"/", 1120, "light")
	t.Run("it shows each tenant as it is", func(t *testing.T) { tab.t = t; showsTenants(t, tab) })
	t.Run("it shows servers and refusals", func(t *testing.T) { tab.t = t; showsServers(t, tab) })
	t.Run("it follows what happens", func(t *testing.T) { tab.t = t; follows(t, tab, s) })
	t.Run("it finds a tenant by a part of its name", func(t *testing.T) { tab.t = t; finds(tab) })
	t.Run("it looks as it should", func(t *testing.T) { looks(t, c, s) })
	t.Run("a tenant's name is text", func(t *testing.T) { tab.t = t; showsNamesAsText(t, tab, s) })
	t.Run("nothing is asked of others, and nothing goes wrong", func(t *testing.T) { tab.t = t; tab.uneventful(s.page()) })
	t.Run("it is not answered under another name", func(t *testing.T) {
		for host, want := range map[string]int{"rebound.example": 421, "localhost": 200} {
			if got := s.get(t, "/status.json", host); got != want {
				t.Errorf("%s: %d", host, got)
			}
		}
	})
	t.Run("it says when the proxy is gone", func(t *testing.T) {
		tab := open(t, c, s.page()+"/", 1120, "light")
		tab.await("the proxy is ready", `document.querySelector("#state").textContent === "ready"`)
		s.interrupt()
		tab.await("it lets transactions finish", `document.querySelector("#state").textContent === "draining"`)
		tab.await("it is gone", `document.querySelector("#state").textContent === "no answer"`)
	})
}

func showsTenants(t *testing.T, tab *tab) {
	tab.await("rates are known", `parseFloat(document.querySelector("#tenants tbody tr td:nth-child(6)").textContent) > 20`)
	if first := tab.rows("tenants")[0]; first[0] != "acme" {
		t.Errorf("the busiest is %q", first)
	}
	tab.await("globex has its time", `[...document.querySelectorAll("#tenants tbody tr")].some(row => row.cells[0].textContent === "globex" && row.cells[6].textContent.includes("ms"))`)
	acme, globex, initech := tab.row("tenants", "acme"), tab.row("tenants", "globex"), tab.row("tenants", "initech")
	if acme[1] != "active" || acme[2] != "5" || figure(t, acme[5]) < 20 {
		t.Errorf("acme is shown as %q", acme)
	}
	if p99 := figure(t, globex[6]); globex[2] != "2" || p99 < 40 || p99 > 500 {
		t.Errorf("globex, which sleeps for 50 ms, is shown as %q", globex)
	}
	if initech[2] != "2" || initech[3] != "2" || initech[7] != "1" {
		t.Errorf("initech, with a pin and a transaction, is shown as %q", initech)
	}
}

func showsServers(t *testing.T, tab *tab) {
	main := tab.row("servers", "main")
	used, limit, ok := strings.Cut(main[1], " / ")
	if !ok || figure(t, used) < 4 || limit != "20" || main[4] != "0" {
		t.Errorf("main is shown as %q", main)
	}
	if refused := tab.row("refusals", "bad_password"); refused[1] != "3" {
		t.Errorf("refusals are shown as %q", refused)
	}
}

func showsNamesAsText(t *testing.T, tab *tab, s *site) {
	s.rename(t, "hooli", markup)
	defer s.rename(t, markup, "hooli")
	execute(t, connect(t, s.dsn(t, "hooli"), func(c *pgx.ConnConfig) {
		c.User, c.Password = s.made.AppLogin.Login, s.made.AppLogin.Password
		c.RuntimeParams = map[string]string{"options": "-c search_path=tenant_hooli"}
	}), "SELECT 1")
	tab.await("it is shown", `document.querySelector("#tenants tbody").textContent.includes("<img")`)
	if got := tab.row("tenants", markup); got[1] != "active" || got[2] != "1" {
		t.Errorf("it is shown as %q", got)
	}
	var title string
	var images int
	tab.evaluate("document.title", &title)
	tab.evaluate("document.images.length", &images)
	if title != "docex-proxy" || images != 0 {
		t.Errorf("the title is %q, and there are %d images", title, images)
	}
}

func follows(t *testing.T, tab *tab, s *site) {
	tab.evaluate(`(document.querySelector("#tenants tbody tr").dataset.kept = "yes") === "yes"`, new(bool))
	state := func(want string) string {
		return `[...document.querySelectorAll("#tenants tbody tr")].some(row => row.cells[0].textContent === "umbrella" && row.cells[1].textContent === "` + want + `")`
	}
	s.docexctl(t, "tenant", "suspend", "umbrella", "--by", "test")
	tab.await("umbrella is suspended", state("suspended"))
	s.docexctl(t, "tenant", "resume", "umbrella", "--by", "test")
	tab.await("umbrella is active", state("active"))
	admin := connect(t, s.made.Admin.DSN, func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol })
	execute(t, admin, "PAUSE umbrella")
	tab.await("umbrella is paused", state("paused"))
	execute(t, admin, "RESUME umbrella")
	tab.await("umbrella goes on", state("active"))
	var kept bool
	if tab.evaluate(`document.querySelector("#tenants tbody tr").dataset.kept === "yes"`, &kept); !kept {
		t.Error("the rows are made anew each time")
	}
}

func finds(tab *tab) {
	say := func(text string) {
		tab.evaluate(`(input => { input.value = "`+text+`"; return input.dispatchEvent(new Event("input")); })(document.querySelector("#filter input"))`, new(bool))
	}
	say("GLOB")
	tab.await("only globex is left", `document.querySelectorAll("#tenants tbody tr").length === 1 && document.querySelector("#tenants tbody th").textContent === "globex"`)
	say("nobody")
	tab.await("none is left", `document.querySelectorAll("#tenants tbody tr").length === 0 && !document.querySelector("#no-tenants").hidden`)
	say("")
	tab.await("all are back", `document.querySelectorAll("#tenants tbody tr").length >= 4`)
}

// looks takes pictures, of which a person can be the judge; that there is something, and nothing too wide, is checked here.
func looks(t *testing.T, c *chromium, s *site) {
	s.docexctl(t, "tenant", "suspend", "umbrella", "--by", "test")
	load(t, s.dsn(t, "hooli"), "SELECT pg_sleep(0.02)", 24, time.Millisecond)
	time.Sleep(6 * time.Second) // the rates are of five
	for _, look := range []struct {
		name, scheme string
		width        int
	}{{"light", "light", 1120}, {"dark", "dark", 1120}, {"narrow", "light", 390}, {"narrow-dark", "dark", 390}} {
		tab := open(t, c, s.page()+"/", look.width, look.scheme)
		tab.await("the script has run", `document.querySelector("#footer").textContent.includes("once a second")`)
		var wide int
		if tab.evaluate("document.documentElement.scrollWidth", &wide); wide > look.width {
			t.Errorf("%s: it is %d pixels wide", look.name, wide)
		}
		text := tab.picture()
		picture, err := png.Decode(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if red, _, _, _ := picture.At(2, 2).RGBA(); (red > 0x8000) != (look.scheme == "light") {
			t.Errorf("%s: the ground is of the other colour", look.name)
		}
		if *pictures != "" {
			if err := os.WriteFile(filepath.Join(*pictures, look.name+".png"), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		tab.uneventful(s.page())
		tab.must("Page.close", nil, nil)
	}
}
