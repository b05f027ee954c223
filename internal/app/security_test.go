package app

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each test that docs/security.md names is there, so that no line of it rests on a test that
// went, and no line is left unfinished.
func TestSecurityTestsExist(t *testing.T) {
	document, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	declaration := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err = filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range declaration.FindAllSubmatch(source, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllSubmatch(document, -1)
	if len(named) < 50 {
		t.Errorf("it names %d tests only", len(named))
	}
	for _, m := range named {
		if name := string(m[1]); !there[name] {
			t.Errorf("docs/security.md names %s, and there is no such test", name)
		}
	}
	// Every line says how it stands.
	line, state := regexp.MustCompile(`(?m)^\| \d.*$`), regexp.MustCompile(`^\| [^|]+ \| [^|]+ \| (met|part|no|later|n/a) \| [^|]*\|$`)
	for _, l := range line.FindAll(document, -1) {
		if !state.Match(l) {
			t.Errorf("not a line of four columns with a state: %s", l)
		}
	}
}

// Every answer says that it is no page, is not framed and is of no other type: of a route, of
// none, and refusals.
func TestEveryAnswerIsNoPage(t *testing.T) {
	w := newWorld(t, nil)
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/api/pkeys", 200},
		{"GET", "/openapi.json", 200},
		{"GET", "/metrics", 200},
		{"GET", "/api/verify", 401},
		{"GET", "/nothing", 404},
		{"GET", "//api/pkeys", 404},
		{"TRACE", "/api/pkeys", 405},
	} {
		a := w.do(c.method, c.path, "", nil)
		if a.status != c.status || a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Content-Security-Policy") != "default-src 'none'; frame-ancestors 'none'" {
			t.Errorf("%s %s: %d %v", c.method, c.path, a.status, a.header)
		}
	}
}
