// Package readme runs the programs that the README shows for services in three languages, and holds
// the packages of two of them to one version and one licence.
package readme

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/node"
	"github.com/watchword-auth/watchword/test/sdk/servers"
)

// programs are how each language's block of the README is run, as a file in a directory.
var programs = map[servers.Language]struct {
	fence string
	file  string
	run   func(t *testing.T, path string) *exec.Cmd
}{
	servers.Go: {"go", "main.go", func(t *testing.T, path string) *exec.Cmd {
		program, err := servers.Build(path, strings.TrimSuffix(path, ".go"))
		if err != nil {
			t.Fatal(err)
		}
		return exec.Command(program)
	}},
	servers.JavaScript: {"js", "main.mjs", func(t *testing.T, path string) *exec.Cmd {
		modules := filepath.Join(filepath.Dir(path), "node_modules")
		for name, target := range map[string]string{"@watchword-auth/verify": "sdk/js", "express": "sdk/js/node_modules/express"} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(modules, name)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(servers.Installed(t, target), filepath.Join(modules, name)); err != nil {
				t.Fatal(err)
			}
		}
		return servers.Script(t, servers.JavaScript, path)
	}},
	servers.Python: {"python", "main.py", func(t *testing.T, path string) *exec.Cmd {
		return servers.Script(t, servers.Python, path)
	}},
}

// Each program of the section works as it stands there, but for the issuer and the port.
func TestServices(t *testing.T) {
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(readme), "\n## In your own service\n")
	section, _, _ = strings.Cut(section, "\n## ")
	n := node.Start(t)
	admin := n.Login("admin").AccessToken
	for _, l := range servers.Languages {
		tester := n.Login("tester").AccessToken
		t.Run(string(l), func(t *testing.T) {
			t.Parallel()
			p := programs[l]
			blocks := regexp.MustCompile("(?s)```"+p.fence+"\n(.*?)```").FindAllStringSubmatch(section, -1)
			if len(blocks) != 1 {
				t.Fatalf("the README has %d programs in %s", len(blocks), l)
			}
			address := testenv.Address(t)
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				t.Fatal(err)
			}
			text := blocks[0][1]
			for old, new := range map[string]string{"https://auth.example.com": n.URL, "9000": port} {
				if strings.Count(text, old) != 1 {
					t.Fatalf("the program in %s has %q %d times", l, old, strings.Count(text, old))
				}
				text = strings.Replace(text, old, new, 1)
			}
			path := filepath.Join(t.TempDir(), p.file)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			log := &testenv.Log{}
			cmd := p.run(t, path)
			cmd.Stdout, cmd.Stderr = log, log
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = cmd.Process.Kill() // it has no end of its own
				_ = cmd.Wait()
				kit.KeepsSecrets(t, log.String())
			})
			service := &kit.Client{T: t, URL: "http://" + address, Log: log}
			works(service, tester, admin)
			n.Logout(tester)
			kit.Eventually(t, func() error {
				if a := service.Do("GET", "/ships", tester, nil); a.Code() != "token_revoked" {
					return fmt.Errorf("after the logout: %d %s", a.Status, a.Body)
				}
				return nil
			})
		})
	}
}

// The packages for JavaScript and Python are released together, under the licence of the whole.
func TestPackagesAgree(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join("../../..", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	versions := map[string]string{}
	for name, pattern := range map[string]string{
		"sdk/js/package.json":       `"version": "([^"]+)"`,
		"sdk/js/package-lock.json":  `"version": "([^"]+)"`, // the first one is the package's own
		"sdk/python/pyproject.toml": `(?m)^version = "([^"]+)"$`,
	} {
		found := regexp.MustCompile(pattern).FindStringSubmatch(read(name))
		if found == nil {
			t.Fatalf("%s has no version", name)
		}
		versions[found[1]] += " " + name
	}
	if len(versions) != 1 {
		t.Errorf("the packages have several versions: %v", versions)
	}
	for _, name := range []string{"sdk/js/LICENSE", "sdk/python/LICENSE"} {
		if read(name) != read("LICENSE") {
			t.Errorf("%s is not the licence of the whole", name)
		}
	}
}

// works holds a service to what the section says.
func works(service *kit.Client, tester, admin string) {
	t := service.T
	t.Helper()
	for _, c := range []struct {
		request, token string
		status         int
		body, header   string // what is in them
	}{
		{"GET /ships", tester, http.StatusOK, "hello tester\n", ""},
		{"GET /ships", "", http.StatusUnauthorized, "token_missing", "Bearer realm="},
		{"GET /ships", "x" + tester, http.StatusUnauthorized, "token_malformed", "invalid_token"},
		{"GET /ships", admin, http.StatusForbidden, "ship=acc", "insufficient_scope"},
		{"POST /transfer", tester, http.StatusUnauthorized, "reauthentication_required", "insufficient_user_authentication"},
		{"GET /transfer", tester, 0, "", ""}, // it is not there
	} {
		method, path, _ := strings.Cut(c.request, " ")
		kit.Eventually(t, func() error {
			a, err := service.Try(service.Request(method, path, c.token, nil))
			if err != nil || a.Status == http.StatusServiceUnavailable { // it starts, or does not know what is revoked
				return fmt.Errorf("%v %s\n%s", err, a.Body, service.Log.Tail())
			}
			if c.status == 0 {
				if a.Status != http.StatusNotFound && a.Status != http.StatusMethodNotAllowed {
					t.Errorf("%s: %d", c.request, a.Status)
				}
				return nil
			}
			if a.Status != c.status || !strings.Contains(string(a.Body), c.body) || !strings.Contains(a.Header.Get("WWW-Authenticate"), c.header) {
				t.Errorf("%s: %d %v %s, want %d %s", c.request, a.Status, a.Header, a.Body, c.status, c.body)
			}
			return nil
		})
	}
}
