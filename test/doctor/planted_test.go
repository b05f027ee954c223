package doctor

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/watchword-auth/watchword/internal/doctor"
)

// TestMain lets more tests run side by side than there are processors: they wait most of the time
// for what a check waits for.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// For each check a test plants the fault, and so names the check.
func TestEachCheckHasItsFault(t *testing.T) {
	files, err := filepath.Glob("../../internal/doctor/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, file := range append(files, "cluster_test.go") {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING {
				id, _ := strconv.Unquote(text.Value)
				named[id] = true
			}
			return true
		})
	}
	for _, c := range doctor.Checks() {
		if !named[c.ID] {
			t.Errorf("no test plants a fault for %s", c.ID)
		}
	}
}
