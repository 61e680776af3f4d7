package admin

import (
	"slices"
	"strings"
	"time"
)

// show answers SHOW. The columns are PgBouncer's of version 1.18, of PEERS those of 1.19, where it is new; what has no meaning here is 0 or empty.
func (c *Console) show(words []string) (*table, error) {
	if len(words) == 0 {
		return nil, syntax("SHOW HELP lists what can be shown")
	}
	what := strings.ToUpper(strings.Join(words, "_"))
	for _, s := range shows() {
		if s.what == what {
			t := s.answer(c)
			t.tag = "SHOW"
			return t, nil
		}
	}
	return nil, syntax("there is no SHOW " + what + ": SHOW HELP lists what can be shown")
}

// showable is one thing that SHOW shows.
type showable struct {
	what, help string
	answer     func(*Console) *table
}

// shows lists everything, in the order of SHOW HELP.
func shows() []showable {
	var all []showable
	add := func(what, help string, answer func(*Console) *table) { all = append(all, showable{what, help, answer}) }
	add("HELP", "this list", (*Console).help)
	add("VERSION", "the proxy's version", (*Console).version)
	add("TENANTS", "every tenant that has used this proxy: sessions, transactions, bytes, waits, server connections", (*Console).tenants)
	add("PINS", "sessions that have kept a server connection, and why", (*Console).pins)
	add("POOLS", "server connections by tenant", (*Console).pools)
	add("CLIENTS", "sessions", (*Console).clients)
	add("SERVERS", "server connections, counted by tenant and state", (*Console).servers)
	add("DATABASES", "Postgres servers of the configuration", (*Console).databases)
	add("STATS", "totals and averages by tenant", (*Console).stats)
	add("STATS_TOTALS", "totals by tenant", (*Console).totals)
	add("STATS_AVERAGES", "averages by tenant, of about a minute", (*Console).averageTable)
	add("LISTS", "how many there are of what", (*Console).lists)
	add("USERS", "logins with sessions", (*Console).users)
	add("CONFIG", "the configuration, secrets left out", (*Console).config)
	add("STATE", "whether it serves", (*Console).state)
	add("PEERS", "the proxies of the same registry that are alive, with this one", (*Console).peers)
	for _, name := range []string{"MEM", "DNS_HOSTS", "DNS_ZONES"} {
		add(name, "nothing: for tools that ask", func(*Console) *table { return &table{columns: columnsOf("name")} })
	}
	return all
}

func (c *Console) help() *table {
	t := &table{columns: columnsOf("command help")}
	for _, s := range shows() {
		t.rows = append(t.rows, []any{"SHOW " + s.what, s.help})
	}
	for _, line := range [][2]string{
		{"KILL tenant", "end a tenant's sessions and close its server connections"},
		{"PAUSE [tenant]", "hold new transactions back, and wait until none runs and their server connections are closed"},
		{"RESUME [tenant]", "end a pause of the same name"},
		{"RECONNECT [tenant]", "close server connections when they are released"},
		{"WAIT_CLOSE [tenant]", "wait until those that a RECONNECT has found are closed"},
		{"EXPLAIN ROUTE name=value ...", "what the proxy would do with a client that sends these startup parameters"},
		{"RELOAD", "forget what is cached of the registry"},
		{"SHUTDOWN", "let transactions finish, and end"},
	} {
		t.rows = append(t.rows, []any{line[0], line[1]})
	}
	return t
}

func (c *Console) version() *table {
	return &table{columns: columnsOf("version"), rows: [][]any{{"docex-proxy " + c.o.Version}}}
}

func (c *Console) tenants() *table {
	t := &table{columns: columnsOf("tenant #sessions #transactions #received #sent #wait_us #active #idle #connecting #waiting server isolation #paused")}
	paused := c.o.Paused()
	pools := make(map[string][]Pool)
	for _, p := range c.o.Pools() {
		pools[p.Tenant] = append(pools[p.Tenant], p)
	}
	for _, tenant := range c.o.Tenants() {
		var sum Pool
		for _, p := range pools[tenant.Name] {
			sum.Active += p.Active
			sum.Idle += p.Idle
			sum.Connecting += p.Connecting
			sum.Waiting += p.Waiting
			if !p.Replica {
				sum.Server, sum.Isolation = p.Server, p.Isolation
			}
		}
		t.rows = append(t.rows, []any{
			tenant.Name, int64(tenant.Sessions), tenant.Transactions, tenant.Received, tenant.Sent, tenant.Waited.Microseconds(),
			int64(sum.Active), int64(sum.Idle), int64(sum.Connecting), int64(sum.Waiting), sum.Server, sum.Isolation,
			count(slices.Contains(paused, tenant.Name) || slices.Contains(paused, "")),
		})
	}
	return t
}

func (c *Console) pins() *table {
	t := &table{columns: columnsOf("#session tenant user addr reasons since")}
	for _, s := range c.sessions() {
		if len(s.Pins) > 0 {
			t.rows = append(t.rows, []any{int64(s.ID), s.Tenant, s.User, s.address(), strings.Join(s.Pins, ","), stamp(s.Began)})
		}
	}
	return t
}

func (c *Console) pools() *table {
	t := &table{columns: columnsOf("database user #cl_active #cl_waiting #cl_active_cancel_req #cl_waiting_cancel_req #sv_active #sv_active_cancel " +
		"#sv_being_canceled #sv_idle #sv_used #sv_tested #sv_login #maxwait #maxwait_us pool_mode")}
	sessions := make(map[string]int64)
	for _, s := range c.o.Sessions() {
		sessions[databaseOf(s.Tenant, s.Replica)]++
	}
	for _, p := range c.sortedPools() {
		database := databaseOf(p.Tenant, p.Replica)
		t.rows = append(t.rows, []any{
			database, p.Role, max(0, sessions[database]-int64(p.Waiting)), int64(p.Waiting), int64(0), int64(0), int64(p.Active), int64(0),
			int64(0), int64(p.Idle), int64(0), int64(0), int64(p.Connecting), int64(0), int64(0), "transaction",
		})
		delete(sessions, database)
	}
	for _, database := range sorted(sessions) { // sessions that have no server connection now
		t.rows = append(t.rows, []any{
			database, "", sessions[database], int64(0), int64(0), int64(0), int64(0), int64(0), int64(0), int64(0), int64(0), int64(0), int64(0), int64(0), int64(0), "transaction",
		})
	}
	return t
}

// databaseOf is what stands for PgBouncer's database: the tenant, and apart from it the tenant where it is only read.
func databaseOf(tenant string, replica bool) string {
	if replica {
		return tenant + "/replica"
	}
	return tenant
}

func (c *Console) sortedPools() []Pool {
	pools := c.o.Pools()
	slices.SortFunc(pools, func(a, b Pool) int {
		return strings.Compare(a.Tenant+"\x00"+a.Role+"\x00"+a.Server, b.Tenant+"\x00"+b.Role+"\x00"+b.Server)
	})
	return pools
}

func (c *Console) sessions() []Session {
	sessions := c.o.Sessions()
	slices.SortFunc(sessions, func(a, b Session) int { return int(min(1, max(-1, int64(a.ID)-int64(b.ID)))) })
	return sessions
}

func (s Session) address() string {
	if !s.Address.IsValid() {
		return "unix"
	}
	return s.Address.Addr().String()
}

func (c *Console) clients() *table {
	t := &table{columns: columnsOf("type user database state addr #port local_addr #local_port connect_time request_time #wait #wait_us #close_needed ptr link #remote_pid tls application_name")}
	for _, s := range c.sessions() {
		encryption := ""
		if s.TLS {
			encryption = "TLS"
		}
		t.rows = append(t.rows, []any{
			"C", s.User, databaseOf(s.Tenant, s.Replica), "active", s.address(), int64(s.Address.Port()), "", int64(0), stamp(s.Began), stamp(s.Began), int64(0), int64(0), int64(0),
			"session-" + number(s.ID), "", int64(0), encryption, s.Application,
		})
	}
	return t
}

// servers has one row for each connection, which differ in nothing but their state: the pool does not tell more.
func (c *Console) servers() *table {
	t := &table{columns: columnsOf("type user database state addr #port local_addr #local_port connect_time request_time #wait #wait_us #close_needed ptr link #remote_pid tls application_name")}
	hosts := make(map[string]Server)
	for _, s := range c.o.Servers() {
		hosts[s.Name] = s
	}
	for _, p := range c.sortedPools() {
		host := hosts[p.Server]
		for _, group := range []struct {
			state string
			count int
		}{{"active", p.Active}, {"idle", p.Idle}, {"login", p.Connecting}} {
			for range group.count {
				t.rows = append(t.rows, []any{
					"S", p.Role, databaseOf(p.Tenant, p.Replica), group.state, host.Host, int64(host.Port), "", int64(0), "", "", int64(0), int64(0), int64(0), "", "", int64(0), "", "",
				})
			}
		}
	}
	return t
}

func (c *Console) databases() *table {
	t := &table{columns: columnsOf("name host #port database force_user #pool_size #min_pool_size #reserve_pool pool_mode #max_connections #current_connections #paused #disabled")}
	used := make(map[string]int64)
	for _, p := range c.o.Pools() {
		used[p.Server] += int64(p.Active + p.Idle + p.Connecting)
	}
	servers := c.o.Servers()
	slices.SortFunc(servers, func(a, b Server) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range servers {
		t.rows = append(t.rows, []any{
			s.Name, s.Host, int64(s.Port), "", nil, int64(s.Max), int64(0), int64(0), "transaction", int64(s.Max), used[s.Name], count(c.pausedAll()), int64(0),
		})
	}
	return t
}

func (c *Console) peers() *table {
	t := &table{columns: columnsOf("#peer_id host #port #pool_size")}
	for _, p := range c.o.Peers() {
		t.rows = append(t.rows, []any{int64(p.Number), p.Host, int64(p.Port), int64(0)})
	}
	return t
}

func (c *Console) lists() *table {
	var used, idle, login int64
	for _, p := range c.o.Pools() {
		used += int64(p.Active)
		idle += int64(p.Idle)
		login += int64(p.Connecting)
	}
	sessions := c.o.Sessions()
	users := make(map[string]int64)
	for _, s := range sessions {
		users[s.User]++
	}
	t := &table{columns: columnsOf("list #items")}
	for _, line := range []struct {
		name  string
		items int64
	}{
		{"databases", int64(len(c.o.Servers()))},
		{"users", int64(len(users))},
		{"pools", int64(len(c.o.Pools()))},
		{"free_clients", 0},
		{"used_clients", int64(len(sessions))},
		{"login_clients", 0},
		{"free_servers", idle},
		{"used_servers", used + login},
		{"dns_names", 0},
		{"dns_zones", 0},
		{"dns_queries", 0},
		{"dns_pending", 0},
	} {
		t.rows = append(t.rows, []any{line.name, line.items})
	}
	return t
}

func (c *Console) users() *table {
	users := make(map[string]int64)
	for _, s := range c.o.Sessions() {
		users[s.User]++
	}
	t := &table{columns: columnsOf("name pool_mode")}
	for _, name := range sorted(users) {
		t.rows = append(t.rows, []any{name, ""})
	}
	return t
}

func (c *Console) config() *table {
	t := &table{columns: columnsOf("key value default changeable")}
	for _, s := range c.o.Settings() {
		t.rows = append(t.rows, []any{s.Key, s.Value, s.Default, "no"})
	}
	return t
}

func (c *Console) state() *table {
	active, paused := "yes", "no"
	if c.pausedAll() {
		active, paused = paused, active
	}
	return &table{columns: columnsOf("key value"), rows: [][]any{{"active", active}, {"paused", paused}, {"suspended", "no"}}}
}

// pausedAll reports whether all tenants are paused at once.
func (c *Console) pausedAll() bool { return slices.Contains(c.o.Paused(), "") }

// count is a truth as PgBouncer writes it.
func count(truth bool) int64 {
	if truth {
		return 1
	}
	return 0
}

func sorted(counts map[string]int64) []string {
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
