package process

import (
	"debug/buildinfo"
	"go/version"
	"os"
	"regexp"
	"testing"
)

// The binary is built by the toolchain that go.mod names or a later one: an older one has
// known holes in its standard library. Where GOTOOLCHAIN is local the go command ignores
// go.mod, so the Makefile sets it.
func TestToolchain(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?m)^toolchain (go\S+)$`).FindSubmatch(mod)
	if named == nil {
		t.Fatal("go.mod names no toolchain")
	}
	info, err := buildinfo.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	if want := string(named[1]); version.Compare(info.GoVersion, want) < 0 {
		t.Errorf("it is built by %s, and go.mod names %s; run the tests by make, or set GOTOOLCHAIN=%s", info.GoVersion, want, want)
	}
}
