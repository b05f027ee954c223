package testenv

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Build is a way to build a program.
type Build struct {
	Dir   string   // where the go command runs, in the module of the package; empty: here
	Pkg   string   // ./cmd/this, or an import path
	Flags []string // of go build
	Env   []string // before the variables of this process
}

// Program builds the program, and returns its path, which any user may execute.
//
// To link a program takes longer than many tests of it. So all processes of one run of
// scripts/test.sh, which names a directory for it in TESTENV_BUILDS, share what is built
// in the same way. Otherwise the program is built at the path of the caller's choice.
func (b Build) Program(path string) (string, error) {
	shared := os.Getenv("TESTENV_BUILDS")
	if shared == "" {
		return path, b.at(path)
	}
	here, err := filepath.Abs(b.Dir)
	if err != nil {
		return "", err
	}
	way := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q", here, b.Pkg, b.Flags, b.Env, os.Getenv("GOFLAGS")))
	path = filepath.Join(shared, fmt.Sprintf("%s-%x", filepath.Base(filepath.Join(here, b.Pkg)), way[:6]))
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close() // lets go of it
	if err := flock(lock, unix.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	half := path + ".half" // nobody executes what is written to
	if err := b.at(half); err != nil {
		return "", err
	}
	return path, os.Rename(half, path)
}

func (b Build) at(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	cmd := exec.Command("go", append(append([]string{"build", "-o", path}, b.Flags...), b.Pkg)...)
	cmd.Dir, cmd.Env = b.Dir, append(os.Environ(), b.Env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", b.Pkg, err, out)
	}
	return nil
}
