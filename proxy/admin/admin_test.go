package admin_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/proxy/admin"
)

// deeds is what a console has been asked to do.
type deeds []string

func newConsole(done *deeds, now func() time.Time) *admin.Console {
	transactions := int64(0)
	return admin.New(admin.Options{
		Version: "1.2.3",
		Now:     now,
		Tenants: func() []admin.Tenant {
			transactions += 600
			return []admin.Tenant{{Name: "globex"}, {Name: "acme", Sessions: 2, Transactions: transactions, Received: 10 * transactions, Waited: time.Duration(transactions) * 5 * time.Microsecond}}
		},
		Pools: func() []admin.Pool {
			return []admin.Pool{{Tenant: "acme", Role: "tenant_acme", Server: "main", Isolation: "role", Idle: 1, Active: 2, Waiting: 1}}
		},
		Sessions: func() []admin.Session {
			return []admin.Session{{ID: 9, Tenant: "globex", User: "app"}, {ID: 7, Tenant: "acme", User: "app", Application: "evil\x00name", Pins: []string{"listen"}}, {ID: 8, Tenant: "acme", User: "app"}}
		},
		Servers:   func() []admin.Server { return []admin.Server{{Name: "main", Host: "db", Port: 5432, Max: 20}} },
		Settings:  func() []admin.Setting { return []admin.Setting{{"listen", "a", "b"}} },
		Peers:     func() []admin.Peer { return []admin.Peer{{3, "10.0.0.7", 6432}} },
		Kill:      func(tenant string) int { *done = append(*done, "kill "+tenant); return 1 },
		Reconnect: func(tenant string) { *done = append(*done, "reconnect "+tenant) },
		WaitClose: func(_ context.Context, tenant string) error {
			*done = append(*done, "wait "+tenant)
			if tenant == "busy" {
				return errors.New("it works")
			}
			return nil
		},
		Pause: func(_ context.Context, tenant string) error {
			*done = append(*done, "pause "+tenant)
			if tenant == "busy" {
				return errors.New("it works")
			}
			return nil
		},
		Resume:   func(tenant string) bool { *done = append(*done, "resume "+tenant); return tenant != "active" },
		Paused:   func() []string { return []string{"acme"} },
		Reload:   func(context.Context) error { *done = append(*done, "reload"); return errors.New("not today") },
		Shutdown: func() { *done = append(*done, "shutdown") },
		Explain: func(_ context.Context, parameters map[string]string) ([][2]string, error) {
			return [][2]string{{"served", fmt.Sprint(parameters)}}, nil
		},
	})
}

// message frames one of a client's.
func message(kind byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))
	return append(b, body...)
}

func query(text string) []byte { return message('Q', text+"\x00") }

// talk sends messages and a goodbye, and returns the types of the answers and their bodies.
func talk(t *testing.T, c *admin.Console, said ...[]byte) (kinds string, bodies []string, err error) {
	t.Helper()
	var out bytes.Buffer
	err = c.Serve(t.Context(), struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(bytes.Join(said, nil)), &out})
	for b := out.Bytes(); len(b) > 0; {
		length := binary.BigEndian.Uint32(b[1:])
		kinds, bodies = kinds+string(b[:1]), append(bodies, string(b[5:1+length]))
		b = b[1+length:]
	}
	greeting := "SSSSSSSSKZ"
	if !strings.HasPrefix(kinds, greeting) {
		t.Fatalf("greeted with %q", kinds)
	}
	return kinds[len(greeting):], bodies[len(greeting):], err
}

var goodbye = message('X', "")

// rows are the answer to one command, columns first.
func rows(t *testing.T, c *admin.Console, command string) [][]string {
	t.Helper()
	_, bodies, err := talk(t, c, query(command), goodbye)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for i, body := range bodies[:len(bodies)-2] {
		n := int(binary.BigEndian.Uint16([]byte(body)))
		body = body[2:]
		var row []string
		for range n {
			if i == 0 {
				name, rest, _ := strings.Cut(body, "\x00")
				row, body = append(row, name), rest[18:]
				continue
			}
			length := int32(binary.BigEndian.Uint32([]byte(body)))
			if body = body[4:]; length < 0 {
				row = append(row, "NULL")
				continue
			}
			row, body = append(row, body[:length]), body[length:]
		}
		all = append(all, row)
	}
	return all
}

func TestEverythingThatHelpListsIsShown(t *testing.T) {
	c := newConsole(new(deeds), nil)
	for _, line := range rows(t, c, "show help")[1:] {
		if !strings.HasPrefix(line[0], "SHOW ") {
			continue
		}
		got := rows(t, c, line[0]+";")
		for _, row := range got {
			if len(row) != len(got[0]) {
				t.Errorf("%s: %q has other columns than %q", line[0], row, got[0])
			}
		}
	}
	for command, want := range map[string][]string{
		"SHOW VERSION":   {"docex-proxy 1.2.3"},
		"SHOW PEERS":     {"3", "10.0.0.7", "6432", "0"},
		"SHOW PINS":      {"7", "acme", "app", "unix", "listen", "0001-01-01 00:00:00 UTC"},
		"SHOW CONFIG":    {"listen", "a", "b", "no"},
		"SHOW pools":     {"acme", "tenant_acme", "1", "1", "0", "0", "2", "0", "0", "1", "0", "0", "0", "0", "0", "transaction"},
		"SHOW DATABASES": {"main", "db", "5432", "", "NULL", "20", "0", "0", "transaction", "20", "3", "0", "0"},
	} {
		if got := rows(t, c, command); len(got) < 2 || !slices.Equal(got[1], want) {
			t.Errorf("%s: %q", command, got)
		}
	}
	if got := rows(t, c, "SHOW CLIENTS"); len(got) != 4 || got[1][13] != "session-7" || got[1][17] != "evilname" {
		t.Errorf("clients %q", got)
	}
	if got := rows(t, c, "SHOW SERVERS"); len(got) != 4 || got[1][3] != "active" || got[3][3] != "idle" {
		t.Errorf("servers %q", got)
	}
}

func TestAveragesAreOfTheLastMinute(t *testing.T) {
	now := time.Now()
	c := newConsole(new(deeds), func() time.Time { return now })
	for _, want := range []string{"10", "10", "5", "10"} { // 600 transactions a look
		now = now.Add(time.Minute)
		if want == "5" {
			now = now.Add(time.Minute)
		}
		got := rows(t, c, "SHOW STATS")[1]
		if got[0] != "acme" || got[8] != want || got[14] != "5" {
			t.Errorf("%q, want %s transactions a second", got, want)
		}
	}
}

func TestCommandsAreCarriedOut(t *testing.T) {
	var done deeds
	c := newConsole(&done, nil)
	kinds, bodies, err := talk(t, c, query("KILL acme; RECONNECT; RECONNECT 'glo bex'; WAIT_CLOSE; WAIT_CLOSE acme"), query("reload"), query(""), query("EXPLAIN ROUTE user=app.acme 'options=-c a=b'"), query("SHUTDOWN"), goodbye)
	if err != nil || kinds != "CCCCCZEZIZTDCZCZ" {
		t.Errorf("%s, %v", kinds, err)
	}
	if want := []string{"kill acme", "reconnect ", "reconnect glo bex", "wait ", "wait acme", "reload", "shutdown"}; !slices.Equal(done, want) {
		t.Errorf("%q", done)
	}
	if !strings.Contains(bodies[6], "not today") || !strings.Contains(bodies[11], "map[options:-c a=b user:app.acme]") {
		t.Errorf("%q", bodies)
	}
}

func TestTenantsArePausedAndResumed(t *testing.T) {
	var done deeds
	c := newConsole(&done, nil)
	kinds, bodies, err := talk(t, c, query("PAUSE acme; PAUSE; RESUME; RESUME acme"), query("PAUSE busy"), query("RESUME active"), goodbye)
	if err != nil || kinds != "CCCCZEZEZ" {
		t.Errorf("%s, %v", kinds, err)
	}
	if want := []string{"pause acme", "pause ", "resume ", "resume acme", "pause busy", "resume active"}; !slices.Equal(done, want) {
		t.Errorf("%q", done)
	}
	if !strings.Contains(bodies[5], "C55000\x00") || !strings.Contains(bodies[5], "it works") || !strings.Contains(bodies[7], "C55000\x00") {
		t.Errorf("%q", bodies)
	}
}

func TestWhatIsNoCommandIsRefusedAndNothingElse(t *testing.T) {
	var done deeds
	c := newConsole(&done, nil)
	for command, code := range map[string]string{
		"SELECT 1": "42601", "SHOW": "42601", "SHOW NOTHING": "42601", "KILL": "42601", "KILL a b": "42601", "RECONNECT a b": "42601", "WAIT_CLOSE a b": "42601", "PAUSE a b": "42601", "SUSPEND": "0A000", "KILL 'a": "42601",
		"EXPLAIN SELECT 1": "42601", "EXPLAIN ROUTE acme": "42601", "DROP TABLE x": "42601",
	} {
		kinds, bodies, err := talk(t, c, query(command+"; SHUTDOWN"), query("SHOW VERSION"), goodbye)
		if err != nil || kinds != "EZTDCZ" || !strings.Contains(bodies[0], "C"+code+"\x00") {
			t.Errorf("%s: %s, %q, %v", command, kinds, bodies, err)
		}
	}
	if len(done) > 0 {
		t.Errorf("done: %q", done)
	}
	// The extended protocol is refused once, up to Sync.
	kinds, _, err := talk(t, c, message('P', "\x00SHOW VERSION\x00\x00\x00"), message('B', "\x00\x00\x00\x00\x00\x00\x00\x00"), message('S', ""), query("SHOW VERSION"), goodbye)
	if err != nil || kinds != "EZTDCZ" {
		t.Errorf("%s, %v", kinds, err)
	}
	for _, hostile := range [][]byte{{'Q', 0, 0, 0, 3}, {'Q', 0xff, 0xff, 0xff, 0xff}, {'Q', 0, 1, 0, 1}, {'Q', 0, 0, 0, 9, 'x'}, {}} {
		if _, _, err := talk(t, c, hostile); err == nil {
			t.Errorf("%v is taken", hostile)
		}
	}
}

func FuzzNothingThatIsSaidBreaksTheConsole(f *testing.F) {
	f.Add(query("SHOW STATS; KILL 'x'"))
	f.Add(append(message('P', ""), goodbye...))
	f.Fuzz(func(t *testing.T, said []byte) {
		var done deeds
		newConsole(&done, nil).Serve(t.Context(), struct { //nolint:errcheck // only that it ends is asked
			io.Reader
			io.Writer
		}{bytes.NewReader(said), io.Discard})
	})
}

func TestAReplicaIsADatabaseOfItsOwn(t *testing.T) {
	c := admin.New(admin.Options{
		Tenants: func() []admin.Tenant { return []admin.Tenant{{Name: "acme"}} },
		Pools: func() []admin.Pool {
			return []admin.Pool{
				{Tenant: "acme", Role: "tenant_acme", Server: "main", Isolation: "role", Active: 1},
				{Tenant: "acme", Role: "tenant_acme", Server: "read", Isolation: "role", Replica: true, Active: 1, Idle: 1},
			}
		},
		Sessions: func() []admin.Session {
			return []admin.Session{{ID: 1, Tenant: "acme"}, {ID: 2, Tenant: "acme", Replica: true}, {ID: 3, Tenant: "acme", Replica: true}}
		},
		Servers: func() []admin.Server { return []admin.Server{{Name: "main", Host: "db1"}, {Name: "read", Host: "db2"}} },
		Paused:  func() []string { return nil },
	})
	column := func(command string, at ...int) (found []string) {
		for _, row := range rows(t, c, command)[1:] {
			var cells []string
			for _, i := range at {
				cells = append(cells, row[i])
			}
			found = append(found, strings.Join(cells, " "))
		}
		return found
	}
	for _, shown := range []struct {
		command string
		columns []int
		want    []string
	}{
		{"SHOW POOLS", []int{0, 2, 6, 9}, []string{"acme 1 1 0", "acme/replica 2 1 1"}},
		{"SHOW SERVERS", []int{2, 4}, []string{"acme db1", "acme/replica db2", "acme/replica db2"}},
		{"SHOW CLIENTS", []int{2}, []string{"acme", "acme/replica", "acme/replica"}},
		{"SHOW TENANTS", []int{0, 6, 7, 10}, []string{"acme 2 1 main"}},
	} {
		if got := column(shown.command, shown.columns...); !slices.Equal(got, shown.want) {
			t.Errorf("%s: %q", shown.command, got)
		}
	}
}
