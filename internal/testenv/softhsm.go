package testenv

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A SoftHSM is an HSM in software: a directory with tokens, and a library that uses them.
type SoftHSM struct {
	Library string
	Dir     string // of the tokens
	PIN     string // of the user of each token
}

// StartSoftHSM makes a SoftHSM for this test, with a token for each label. SoftHSM finds its tokens by
// an environment variable, which is set for this process and those that it starts: such tests
// are not parallel.
func StartSoftHSM(t testing.TB, labels ...string) *SoftHSM {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/*/softhsm/libsofthsm2.so")
	if len(found) == 0 {
		t.Fatal("testenv: SoftHSM is not installed: run `make tools`")
	}
	dir := t.TempDir()
	h := &SoftHSM{Library: found[0], Dir: filepath.Join(dir, "tokens"), PIN: rand.Text()[:12]}
	if err := os.Mkdir(h.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s\nlog.level = ERROR\n", h.Dir), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	for _, label := range labels {
		h.Init(t, label)
	}
	return h
}

// Init makes one more token.
func (h *SoftHSM) Init(t testing.TB, label string) {
	t.Helper()
	h.run(t, "softhsm2-util", "--init-token", "--free", "--label", label, "--pin", h.PIN, "--so-pin", rand.Text()[:12])
}

// Tool runs pkcs11-tool as the user of a token, and returns what it prints.
func (h *SoftHSM) Tool(t testing.TB, label string, args ...string) string {
	t.Helper()
	return h.run(t, "pkcs11-tool", append([]string{"--module", h.Library, "--token-label", label, "--login", "--pin", h.PIN}, args...)...)
}

func (h *SoftHSM) run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("testenv: %s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
