//go:build unix

package localpg_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

// TestADataDirThatTheServersUserCannotReachIsRefused needs root: anyone else runs the server as himself, and then the
// same directory has to work.
func TestADataDirThatTheServersUserCannotReachIsRefused(t *testing.T) {
	closed := openDir(t)
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	options := localpg.Options{DataDir: filepath.Join(closed, "data")}
	if os.Geteuid() != 0 {
		start(t, options)
		return
	}
	_, err := localpg.Start(t.Context(), options)
	if err == nil || !strings.Contains(err.Error(), "cannot enter "+closed+" (mode 0700)") {
		t.Errorf("got %v", err)
	}
}
