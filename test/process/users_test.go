package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/users.md, from its init file to its last line, works as it stands there, but for the
// port.
func TestUsersGuide(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/users.md")
	if err != nil {
		t.Fatal(err)
	}
	page, dir := string(data), t.TempDir()
	block := func(language string) [][]string {
		return regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(page, -1)
	}
	if err := os.WriteFile(filepath.Join(dir, "init.yaml"), []byte(block("yaml")[0][1]), 0o600); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	env := ""
	for _, b := range block("sh") {
		if before, serves := strings.CutSuffix(b[1], " watchword serve\n"); serves {
			env = before
		} else {
			script.WriteString(b[1])
		}
	}
	n := start(t, dir, env)
	alice := regexp.MustCompile("password of `alice` is `(.*?)`").FindStringSubmatch(page)
	if claims := n.Verify(n.login("alice", alice[1]).AccessToken); claims["log"] != "r,w" || claims["ship"] != "acc" || claims["name"] != "Alice Ames" {
		t.Errorf("alice has %v", claims)
	}

	lines := strings.ReplaceAll(script.String(), "http://127.0.0.1:8080", n.url)
	cmd := exec.Command("bash", "-euc", "set -o pipefail\nwatchword() { "+binary+" \"$@\"; }\n"+lines)
	cmd.Dir, cmd.Env, cmd.Stderr = dir, n.cmd.Env, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, lines, out)
	}
	for _, want := range []string{`"cargo":"r,w"`, `"preferred_username":"carol"`, "Added the user bob"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the lines do not answer %s:\n%s", want, out)
		}
	}
	if claims := n.Verify(n.login("bob", "another good password").AccessToken); claims["cargo"] != "r,w" || claims["log"] != "r" {
		t.Errorf("bob has %v", claims)
	}
}

// Each example says how to try it, or examples/README.md does.
func TestExamplesGuide(t *testing.T) {
	page, err := os.ReadFile("../../examples/README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := os.ReadDir("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range examples {
		if !e.IsDir() || regexp.MustCompile(`(?m)^## .*\b`+e.Name()+`\b`).Match(page) {
			continue
		}
		files, err := filepath.Glob("../../examples/" + e.Name() + "/*")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(files, func(file string) bool {
			text, err := os.ReadFile(file)
			return err == nil && regexp.MustCompile(`(?i)\b(try|run|start|curl)\b`).Match(text)
		}) {
			t.Errorf("nothing says how to try examples/%s", e.Name())
		}
	}
}
