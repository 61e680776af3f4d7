package secret_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/docex-proxy/docex-proxy/internal/secret"
)

func TestAKeyFileIsMadeOnceAndReadByAllThatStartAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "master.key")
	var wait sync.WaitGroup
	passwords := make([]string, 20)
	for i := range passwords {
		wait.Go(func() {
			key, _, err := secret.LoadOrCreate(path)
			if err != nil {
				t.Error(err)
				return
			}
			passwords[i] = key.Password("tenant_acme", 1)
		})
	}
	wait.Wait()
	for _, p := range passwords[1:] {
		if p != passwords[0] || len(p) != 43 {
			t.Fatalf("passwords %q", passwords)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestPasswordsDifferByRoleAndGeneration(t *testing.T) {
	key := secret.New()
	seen := map[string]bool{}
	for _, p := range []string{key.Password("a", 1), key.Password("a", 2), key.Password("b", 1), key.Password("a1", 1), secret.New().Password("a", 1)} {
		if seen[p] {
			t.Errorf("password %q twice", p)
		}
		seen[p] = true
	}
}

func TestAnOpenOrBrokenKeyFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	digits := "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
	if _, err := secret.Load(write("good", digits, 0o600)); err != nil {
		t.Error(err)
	}
	for _, path := range []string{write("open", digits, 0o644), write("short", digits[:40], 0o600), write("text", "hello", 0o600), filepath.Join(dir, "none")} {
		if _, err := secret.Load(path); err == nil {
			t.Errorf("%s was read", path)
		}
	}
}

// It is how a key comes to a process from a package or from a secret of Kubernetes.
func TestAKeyFileOfRootMayBeReadByItsGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	if _, _, err := secret.LoadOrCreate(path); err != nil {
		t.Fatal(err)
	}
	for mode, ofRoot := range map[os.FileMode]bool{0o440: true, 0o640: true, 0o660: false, 0o644: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		want := ofRoot && os.Getuid() == 0
		if _, err := secret.Load(path); (err == nil) != want {
			t.Errorf("mode %#o: %v", mode, err)
		}
	}
}
