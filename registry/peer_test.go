package registry_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/docex-proxy/docex-proxy/registry"
)

func beat(t *testing.T, store *registry.Store, name string) string {
	t.Helper()
	peers, err := store.Beat(t.Context(), name+strings.Repeat("-", 16), name+":6432")
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, p := range peers {
		word := fmt.Sprintf("%d=%s", p.Number, p.Address)
		if p.Own {
			word = "*" + word
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func TestProxiesThatBeatHaveNumbersAndKnowOfEachOther(t *testing.T) {
	dsn, conn := migrated(t)
	store := openStore(t, dsn)
	for _, step := range []struct{ who, sees string }{
		{"a", "*1=a:6432"}, {"b", "1=a:6432 *2=b:6432"}, {"c", "1=a:6432 2=b:6432 *3=c:6432"}, {"a", "*1=a:6432 2=b:6432 3=c:6432"},
	} {
		if got := beat(t, store, step.who); got != step.sees {
			t.Errorf("%s sees %q, want %q", step.who, got, step.sees)
		}
	}
	// One that was silent for a while is not seen, and keeps its number; after longer the number is free.
	exec(t, conn, "UPDATE docex_system.proxy_instance SET seen_at = now() - interval '1 minute' WHERE instance = 2")
	if got := beat(t, store, "d"); got != "1=a:6432 3=c:6432 *4=d:6432" {
		t.Errorf("d sees %q", got)
	}
	if got := beat(t, store, "b"); got != "1=a:6432 *2=b:6432 3=c:6432 4=d:6432" {
		t.Errorf("b sees %q", got)
	}
	exec(t, conn, "UPDATE docex_system.proxy_instance SET seen_at = now() - interval '1 hour' WHERE instance = 2")
	if got := beat(t, store, "e"); got != "1=a:6432 *2=e:6432 3=c:6432 4=d:6432" {
		t.Errorf("e sees %q", got)
	}
	if err := store.Leave(t.Context(), "c"+strings.Repeat("-", 16)); err != nil {
		t.Error(err)
	}
	if got := beat(t, store, "a"); got != "*1=a:6432 2=e:6432 4=d:6432" {
		t.Errorf("after one has left a sees %q", got)
	}
}

func TestProxiesThatStartTogetherHaveDifferentNumbers(t *testing.T) {
	dsn, _ := migrated(t)
	store := openStore(t, dsn)
	var mu sync.Mutex
	var group sync.WaitGroup
	taken := make(map[int]string)
	for i := range 40 {
		group.Go(func() {
			name := fmt.Sprintf("proxy-%d-%s", i, strings.Repeat("-", 16))
			peers, err := store.Beat(t.Context(), name, name)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, p := range peers {
				if other := taken[p.Number]; p.Own && other != "" {
					t.Errorf("%s and %s are both number %d", name, other, p.Number)
				} else if p.Own {
					taken[p.Number] = name
				}
			}
		})
	}
	group.Wait()
	if len(taken) != 40 {
		t.Errorf("%d of 40 have a number", len(taken))
	}
}
