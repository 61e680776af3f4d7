package relay_test

import (
	"testing"

	"github.com/docex-proxy/docex-proxy/proxy/relay"
)

func TestACancelRequestDoesNotHitAStatementOfOurs(t *testing.T) {
	session := relay.NewSession(relay.Config{ID: 1, Settings: relay.NewPairs(map[string]string{"work_mem": "5MB"}), MaxStatements: 10, MaxStatementBytes: 1000})
	var out relay.Output
	if got := session.Cancel(); got != relay.CancelNothing {
		t.Errorf("while detached: %d", got)
	}
	session.Attach(relay.NewServer(7, nil, 10), &out)
	if got := session.Cancel(); got != relay.CancelNothing {
		t.Errorf("while only a setting of ours is made: %d", got)
	}
	if _, _, err := session.FromClient(query("SELECT 1"), &out); err != nil {
		t.Fatal(err)
	}
	if got := session.Cancel(); got != relay.CancelLater {
		t.Errorf("while the client's query waits behind a setting of ours: %d", got)
	}
	server := func(messages ...[]byte) {
		t.Helper()
		if _, _, err := session.FromServer(join(messages...), &out); err != nil {
			t.Fatal(err)
		}
	}
	server(message('C', "SELECT 1"), message('Z', 'I'))
	if got := session.Cancel(); got != relay.CancelNow {
		t.Errorf("while the client's query runs: %d", got)
	}
	server(message('C', "SET"), message('Z', 'I')) // so that we ask
	if got := session.Cancel(); got != relay.CancelNothing {
		t.Errorf("while a question of ours is open: %d", got)
	}
	if _, v, err := session.FromClient(query("SELECT 2"), &out); err != nil || v != relay.Hold {
		t.Fatalf("%v, %v", v, err)
	}
	if got := session.Cancel(); got != relay.CancelLater {
		t.Errorf("while the client's query is held: %d", got)
	}
}
