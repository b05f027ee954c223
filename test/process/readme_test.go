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
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	n := start(t, t.TempDir())
	password := n.adminPassword()
	var script strings.Builder
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(readme), -1) {
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
	// What a start says to try is what the README says.
	for _, line := range []string{"TOKEN=$(curl", "/api/verify -H \"Authorization: Bearer $TOKEN\""} {
		if !strings.Contains(n.out.String(), line) {
			t.Errorf("the terminal does not say %q:\n%s", line, n.out)
		}
	}
}
