package main

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/internal/pgtest"

	"github.com/docex-proxy/docex-proxy/e2e/program"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// tidy takes away what a script left in the tenant's schema, so that the next run of it finds nothing.
const tidy = `
DO $$
DECLARE o record;
BEGIN
  FOR o IN SELECT c.oid::regclass AS name, relkind FROM pg_class c WHERE relnamespace = 'tenant_compat'::regnamespace AND relkind IN ('r', 'v', 'S') LOOP
    IF to_regclass(o.name::text) IS NOT NULL THEN
      EXECUTE format('DROP %s %s CASCADE', CASE o.relkind WHEN 'r' THEN 'TABLE' WHEN 'v' THEN 'VIEW' ELSE 'SEQUENCE' END, o.name);
    END IF;
  END LOOP;
  FOR o IN SELECT oid::regprocedure AS name FROM pg_proc WHERE pronamespace = 'tenant_compat'::regnamespace LOOP
    EXECUTE 'DROP ROUTINE ' || o.name || ' CASCADE';
  END LOOP;
  FOR o IN SELECT oid::regtype AS name FROM pg_type WHERE typnamespace = 'tenant_compat'::regnamespace AND typtype IN ('e', 'd') LOOP
    EXECUTE 'DROP TYPE ' || o.name || ' CASCADE';
  END LOOP;
  PERFORM lo_unlink(oid) FROM pg_largeobject_metadata;
END
$$`

// stage is a site with the superuser's session beside it.
type stage struct {
	*site
	superuser *pgconn.PgConn
}

func newStage(t *testing.T) *stage {
	t.Helper()
	dir, err := os.MkdirTemp("", "docex-compat-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := program.Build(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	const connections = 2
	s, err := newSite(t.Context(), dir, dir, "compat", connections)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	superuser, err := pgconn.Connect(t.Context(), s.cluster.DSN(s.tenant))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { superuser.Close(context.Background()) })
	return &stage{s, superuser}
}

// run runs statements of the superuser.
func (s *stage) run(t *testing.T, sql string) [][]string {
	t.Helper()
	rows, err := rowsOf(s.superuser.Exec(t.Context(), sql))
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestTranscriptsThroughTheProxyAreThoseOfPostgres runs each script directly and through the proxy, where two others
// share the two server connections with it.
func TestTranscriptsThroughTheProxyAreThoseOfPostgres(t *testing.T) {
	s := newStage(t)
	direct, through := s.endpoints()[0], s.endpoints()[1]
	crowd := newCrowd(t, through)
	all := scripts(t)
	for _, file := range slices.Sorted(maps.Keys(all)) {
		t.Run(file, func(t *testing.T) {
			for _, sc := range all[file] {
				t.Run(sc.name, func(t *testing.T) {
					want := s.transcript(t, sc, direct, func() {})
					got := s.transcript(t, sc, through, func() { crowd.turn(t) })
					switch equal := slices.Equal(got, want); {
					case equal && sc.differs != "":
						t.Errorf("no difference any more: %s", sc.differs)
					case !equal && sc.differs == "":
						t.Errorf("directly (-) and through the proxy (+):\n%s", difference(want, got))
					}
				})
			}
		})
	}
}

// transcript is what a session that follows the script is told, from its login on. Before each step others have a turn.
func (s *stage) transcript(t *testing.T, sc script, at endpoint, turn func()) (lines []string) {
	t.Helper()
	s.run(t, tidy)
	session := dial(t, at, sc.parameters)
	defer session.conn.Close()
	for _, name := range slices.Sorted(maps.Keys(session.parameters)) {
		lines = append(lines, "reported: "+name+" = "+session.parameters[name])
	}
	for _, st := range sc.steps {
		turn()
		if err := session.say(st.says...); err != nil {
			return append(lines, "the connection is gone")
		}
		s.act(t, st.action, session)
		for _, m := range st.says {
			lines = append(lines, "> "+session.ids.written(typeName(m), m))
		}
		lines = append(lines, session.answers(st)...)
	}
	return lines
}

// act is what somebody else does: a cancel request once the session's statement runs, or a statement of the superuser.
func (s *stage) act(t *testing.T, action string, session *session) {
	t.Helper()
	switch action {
	case "":
	case "cancel":
		const busy = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = 'tenant_compat' AND wait_event = 'PgSleep'"
		for end := time.Now().Add(answerPatience); ; time.Sleep(5 * time.Millisecond) {
			if s.run(t, busy)[0][0] != "0" {
				break
			}
			if time.Now().After(end) {
				t.Fatal("nothing to cancel")
			}
		}
		if err := session.cancel(); err != nil {
			t.Fatal(err)
		}
	default:
		s.run(t, action)
	}
}

// difference shows two transcripts as one, line by line, as far as they differ: with the lines around.
func difference(want, got []string) string {
	var lines []string
	differs := make(map[int]bool)
	mark := func(sign, line string) {
		if sign != " " {
			differs[len(lines)] = true
		}
		lines = append(lines, sign+" "+line)
	}
	common := longestCommon(want, got)
	for _, line := range append(common, "") {
		for len(want) > 0 && want[0] != line {
			mark("-", want[0])
			want = want[1:]
		}
		for len(got) > 0 && got[0] != line {
			mark("+", got[0])
			got = got[1:]
		}
		if len(want) > 0 {
			mark(" ", line)
			want, got = want[1:], got[1:]
		}
	}
	var text strings.Builder
	const around = 4
	for i, line := range lines {
		for near := i - 1; near <= i+around; near++ {
			if differs[near] {
				text.WriteString(line + "\n")
				break
			}
		}
	}
	return text.String()
}

// longestCommon is the longest sequence of lines that both have.
func longestCommon(a, b []string) []string {
	length := make([][]int, len(a)+1) // of what a[i:] and b[j:] have in common
	for i := range length {
		length[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				length[i][j] = length[i+1][j+1] + 1
			} else {
				length[i][j] = max(length[i+1][j], length[i][j+1])
			}
		}
	}
	var common []string
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] == b[j]:
			common = append(common, a[i])
			i, j = i+1, j+1
		case length[i+1][j] >= length[i][j+1]:
			i++
		default:
			j++
		}
	}
	return common
}
