package app

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/watchword-auth/watchword"

// layers are the packages from the ground up; docs/architecture.md draws them. A
// package may import those of the layers below its own, and within its layer those
// that stand before it. A name covers the packages under it.
var layers = [][]string{
	{"verify/accesstoken", "verify/revoked", "verify/known"},
	{"verify"},
	{"internal/secretfile", "internal/newfile", "internal/problem", "internal/timing", "internal/poll", "internal/trace", "internal/token", "internal/seal", "internal/names", "internal/yamlfile", "internal/csvfile", "internal/config", "internal/passkey", "internal/canary", "internal/sqldb"},
	{"internal/store", "internal/state", "internal/bell", "internal/discovery", "internal/backup"},
	{"internal/audit", "internal/keysource", "internal/sharedsecret", "internal/keyring", "internal/cluster", "internal/revocation", "internal/session", "internal/password", "internal/limit", "internal/initfile", "internal/userfile", "internal/stoke", "internal/directory", "internal/mfa", "internal/login", "internal/activity"},
	{"internal/httpkit", "internal/feed", "internal/web/page", "internal/web/signin", "internal/web/account", "internal/web/admin", "internal/httpapi"},
	{"internal/doctor", "internal/loadgen", "internal/operator", "internal/graceful", "internal/app"},
	{"state", "store", "", "cmd/watchword", "examples"},
	{"internal/doctor", "internal/operator", "internal/graceful", "internal/app"},
	{"state", "store", "", "cmd/watchword", "deploy", "examples"},
}

// A package imports only packages that stand below it.
func TestLayers(t *testing.T) {
	rank := map[string]int{}
	n := 0
	for _, layer := range layers {
		for _, name := range layer {
			rank[name] = n
			n++
		}
	}
	room := func(pkg string) (string, bool) {
		path := strings.TrimPrefix(strings.TrimPrefix(pkg, module), "/")
		for {
			if _, ok := rank[path]; ok {
				return path, true
			}
			cut := strings.LastIndexByte(path, '/')
			if cut < 0 {
				return "", false
			}
			path = path[:cut]
		}
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}: {{join .Imports " "}}`, module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for line := range strings.Lines(string(out)) {
		pkg, imports, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if strings.Contains(pkg, "/test/") || strings.HasSuffix(pkg, "test") || strings.Contains(pkg, "/internal/testenv") {
			continue // tests and what they are made of
		}
		from, ok := room(pkg)
		if !ok {
			t.Errorf("%s has no place in the house; give it one here and in docs/architecture.md", pkg)
			continue
		}
		for imported := range strings.FieldsSeq(imports) {
			if !strings.HasPrefix(imported, module) {
				continue
			}
			checked++
			to, ok := room(imported)
			if !ok || from != to && rank[to] > rank[from] {
				t.Errorf("%s imports %s, which does not stand below it", pkg, imported)
			}
		}
	}
	if checked < 30 {
		t.Errorf("only %d imports were checked", checked)
	}
}

// What a resource server imports is small: the standard library and golang-jwt.
func TestResourceServersImportLittle(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", `{{if not .Standard}}{{.ImportPath}}{{end}}`, module+"/verify").Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(out))
	slices.Sort(got)
	want := []string{"github.com/golang-jwt/jwt/v5", module + "/verify", module + "/verify/accesstoken", module + "/verify/known", module + "/verify/revoked"}
	if !slices.Equal(got, want) {
		t.Errorf("package verify brings along %v, want %v", got, want)
	}
}
