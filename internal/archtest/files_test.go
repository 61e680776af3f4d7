package archtest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// forEachFile parses every Go file of the module.
func forEachFile(t *testing.T, visit func(name string, set *token.FileSet, file *ast.File)) {
	t.Helper()
	output, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	root, set, files := strings.TrimSpace(string(output)), token.NewFileSet(), 0
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
			return filepath.SkipDir
		}
		if entry.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files++
		relative, err := filepath.Rel(root, path)
		visit(relative, set, file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Fatal("no files found")
	}
}

// forEachSelector visits every x.Name whose x is a plain name.
func forEachSelector(t *testing.T, visit func(position token.Position, of, name string)) {
	t.Helper()
	forEachFile(t, func(_ string, set *token.FileSet, file *ast.File) {
		ast.Inspect(file, func(node ast.Node) bool {
			if selector, ok := node.(*ast.SelectorExpr); ok {
				if of, ok := selector.X.(*ast.Ident); ok {
					visit(set.Position(selector.Pos()), of.Name, selector.Sel.Name)
				}
			}
			return true
		})
	})
}

func TestNoTestIsSkipped(t *testing.T) {
	receivers := []string{"t", "b", "tb", "f"}
	forEachSelector(t, func(position token.Position, of, name string) {
		if slices.Contains(receivers, of) && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, name) {
			t.Errorf("%s: %s.%s: a test that cannot run here has to fail, or nobody sees that it never runs", position, of, name)
		}
	})
}

func TestNothingIsRegisteredGlobally(t *testing.T) {
	forEachSelector(t, func(position token.Position, of, name string) {
		global := []string{"DefaultRegisterer", "DefaultGatherer", "Register", "MustRegister", "Unregister"}
		if of == "prometheus" && slices.Contains(global, name) || of == "promauto" || of == "promhttp" && name == "Handler" {
			t.Errorf("%s: %s.%s: instruments belong to the registry that the command makes", position, of, name)
		}
	})
}

func TestOnlyTestsImportPgtest(t *testing.T) {
	forEachFile(t, func(name string, _ *token.FileSet, file *ast.File) {
		if strings.HasSuffix(name, "_test.go") {
			return
		}
		for _, spec := range file.Imports {
			if spec.Path.Value == `"`+module+`/internal/pgtest"` {
				t.Errorf("%s imports internal/pgtest, which is for tests", name)
			}
		}
	})
}

func TestNothingRunsBeforeMain(t *testing.T) {
	forEachFile(t, func(_ string, set *token.FileSet, file *ast.File) {
		for _, declaration := range file.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if ok && function.Recv == nil && function.Name.Name == "init" {
				t.Errorf("%s: func init: wiring is done in cmd, by hand and in order", set.Position(function.Pos()))
			}
		}
	})
}

// TestOnlyDevStartsServers keeps what belongs to the command dev out of the one that serves.
func TestOnlyDevStartsServers(t *testing.T) {
	forEachFile(t, func(name string, _ *token.FileSet, file *ast.File) {
		dir, base := filepath.Split(name)
		if filepath.ToSlash(dir) != "cmd/docex-proxy/" || strings.HasPrefix(base, "dev") || strings.HasSuffix(base, "_test.go") {
			return
		}
		for _, spec := range file.Imports {
			for _, barred := range []string{"provision", "internal/localpg"} {
				if spec.Path.Value == `"`+module+"/"+barred+`"` {
					t.Errorf("%s imports %s: serve changes nothing in Postgres and starts none; only dev does", name, barred)
				}
			}
		}
	})
}
