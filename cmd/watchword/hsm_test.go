//go:build pkcs11 && cgo

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// TestHSMScripts runs the scripts in testdata/hsm with a token of SoftHSM.
func TestHSMScripts(t *testing.T) {
	h := testenv.StartSoftHSM(t, "signing")
	runScripts(t, "testdata/hsm", "", "CRYPTOKI_LIB="+h.Library, "PKCS11_PIN="+h.PIN, "WATCHWORD_TOKENS_PKCS11_TOKEN=signing",
		"SOFTHSM2_CONF="+os.Getenv("SOFTHSM2_CONF"))
}

// A build without the tag, and one with it and without cgo, says in one sentence that it has no
// HSM support. The package of HSMs is the only one that the tag changes, so that the others
// need not be built twice.
func TestBuildWithoutHSM(t *testing.T) {
	const changed = "github.com/watchword-auth/watchword/internal/keysource/hsm"
	run := func(env string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Env = append(os.Environ(), env)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("go %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if out := run("", "test", "-tags=", "-v", "-count=1", "-run=^TestOpenWithoutSupport$", changed); !strings.Contains(out, "--- PASS: TestOpenWithoutSupport") {
		t.Errorf("the test did not run:\n%s", out)
	}
	const files = "-f={{.ImportPath}} {{.GoFiles}}"
	if out := run("CGO_ENABLED=0", "list", "-tags=pkcs11", files, changed); out != changed+" [doc.go hsm.go without.go]\n" {
		t.Errorf("without cgo: %s", out)
	}
	with := strings.Split(run("", "list", "-tags=pkcs11", files, "../../..."), "\n")
	for i, line := range strings.Split(run("", "list", "-tags=", files, "../../..."), "\n") {
		if i >= len(with) || line != with[i] && !strings.HasPrefix(line, changed+" ") {
			t.Errorf("the tag changes %s", line)
		}
	}
}
