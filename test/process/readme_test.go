package process

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The README's lines work as they stand there, but for the port and the password.
func TestReadme(t *testing.T) {
	t.Parallel()
	readme := readReadme(t)
	n := start(t, t.TempDir())
	password := n.adminPassword()
	var script strings.Builder
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(readme, -1) {
		if strings.Contains(block[1], "curl") {
			script.WriteString(block[1])
		}
	}
	lines := strings.NewReplacer("http://127.0.0.1:8080", n.url, "PASSWORD", password).Replace(script.String())
	cmd := exec.Command("bash", "-euxc", lines)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, lines, out)
	}
	for _, want := range []string{`"kty":"EC"`, `"preferred_username":"admin"`, "HTTP/1.1 204", "HTTP/1.1 401", `"code":"token_revoked"`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the README's lines do not answer %s:\n%s", want, out)
		}
	}
}

// The lines that a start shows work as they stand there, for whatever administrator was
// named.
func TestTryLines(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), "ADMIN_GUI_USERNAME=o'neil", "ADMIN_GUI_PASSWORD=correct horse battery staple")
	waitUntil(t, "it says what to try", func() bool { return strings.Contains(n.out.String(), "Ctrl-C") })
	_, shown, _ := strings.Cut(n.out.String(), "Try, in another terminal")
	var script strings.Builder
	for line := range strings.Lines(shown) {
		if strings.Contains(line, "curl") {
			script.WriteString(line)
		}
	}
	lines := strings.ReplaceAll(script.String(), "PASSWORD", "correct horse battery staple")
	out, err := exec.Command("bash", "-euxc", lines).CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"kty":"EC"`) || !strings.Contains(string(out), `"preferred_username":"o'neil"`) {
		t.Errorf("%v\n%s\n%s", err, lines, out)
	}
}

func readReadme(t *testing.T) string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(readme)
}

// readmeStart is what a first start shows, as the README has it.
func readmeStart(t *testing.T) string {
	t.Helper()
	_, after, begins := strings.Cut(readReadme(t), "$ make run\n")
	shown, _, ends := strings.Cut(after, "```")
	if !begins || !ends {
		t.Fatal("the README does not show a start")
	}
	return shown
}

// readmePassword is the password in it.
func readmePassword(t *testing.T) string {
	t.Helper()
	shown := shownPassword.FindStringSubmatch(readmeStart(t))
	if shown == nil {
		t.Fatal("the README shows no password")
	}
	return shown[1]
}
