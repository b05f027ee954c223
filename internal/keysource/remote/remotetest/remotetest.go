// Package remotetest starts remote signers as processes, for tests: the signer of
// examples/remote-signer, and the transit engine of HashiCorp Vault (test/transit).
package remotetest

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/watchword-auth/watchword/internal/keysource/remote"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/token"
)

// Token is the token that the signers want.
const Token = "s.watchwordTestToken"

// A process is a signer that runs.
type process struct {
	t       testing.TB
	command func(address string) *exec.Cmd
	address string
	cmd     *exec.Cmd
	ended   chan struct{}
	log     *testenv.Log
}

// build builds a program of this repository, in a module of its own or not.
func build(t testing.TB, module, pkg string) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	b := testenv.Build{
		Dir: filepath.Join(filepath.Dir(here), "../../../..", module),
		Pkg: pkg,
		// The flags of other modules in test.sh, with which most of it is in the cache. The race
		// detector and the versions of the module under test are none of its business.
		Env: []string{"GOFLAGS=-gcflags=all=-dwarf=false -ldflags=-s", "GOWORK=off"},
	}
	binary, err := b.Program(filepath.Join(t.TempDir(), "signer"))
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// Start starts the signer, again at the same address.
func (p *process) Start() {
	p.t.Helper()
	address := p.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	p.cmd = p.command(address)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out := &output{log: p.log, from: len(p.log.String()), line: make(chan string, 1)}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// Pdeathsig ends a process with the thread that started it.
	started := make(chan error)
	cmd, ended := p.cmd, make(chan struct{})
	p.ended = ended
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		p.t.Fatal(err)
	}
	select {
	case line := <-out.line:
		fields := strings.Fields(line)
		p.address = fields[len(fields)-1]
	case <-ended:
		p.t.Fatalf("the signer does not start: %s", p.log)
	}
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
}

// An output goes to a log, and gives away its first line, which ends with the address.
type output struct {
	log  *testenv.Log
	from int // the length of the log before
	line chan string
	told bool
}

func (o *output) Write(data []byte) (int, error) {
	if _, err := o.log.Write(data); err != nil || o.told {
		return len(data), err
	}
	if line, _, whole := strings.Cut(o.log.String()[o.from:], "\n"); whole {
		o.told = true
		o.line <- line
	}
	return len(data), nil
}

// Kill is kill -9.
func (p *process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// A Signer is a process of examples/remote-signer.
type Signer struct {
	process
	dir    string
	config remote.Config
}

// StartSigner starts a signer with a key "1-ALG" for each of the algorithms.
// With mutual TLS clients show a certificate beside the token.
func StartSigner(t testing.TB, mutualTLS bool, algorithms ...string) *Signer {
	t.Helper()
	s := &Signer{dir: t.TempDir(), config: remote.Config{
		Kind: remote.HTTP, Token: func() (string, error) { return Token, nil },
	}}
	for _, algorithm := range algorithms {
		s.AddKey(t, "1-"+strings.ToLower(algorithm), algorithm)
	}
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(Token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-keys", s.dir, "-token-file", tokenFile}
	if mutualTLS {
		cert, key := testenv.SelfSigned(t, "127.0.0.1")
		clientCert, clientKey := testenv.SelfSigned(t, "watchword")
		args = append(args, "-cert", cert, "-key", key, "-client-ca", clientCert)
		s.config.CAFile, s.config.CertFile, s.config.KeyFile = cert, clientCert, clientKey
	}
	binary := build(t, ".", "./examples/remote-signer")
	s.process = process{t: t, log: &testenv.Log{}, command: func(address string) *exec.Cmd {
		return exec.Command(binary, append(args, "-address", address)...)
	}}
	s.Start()
	return s
}

// AddKey makes a key.
func (s *Signer) AddKey(t testing.TB, kid, algorithm string) {
	t.Helper()
	private, err := token.GenerateKey(rand.Reader, algorithm)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, kid+".pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Config is for a client of the signer.
func (s *Signer) Config() remote.Config {
	c := s.config
	c.URL = "http://" + s.address
	if c.CAFile != "" {
		c.URL = "https://" + s.address
	}
	return c
}

// A Vault is the transit engine as a process, mounted at "transit".
type Vault struct{ process }

// StartVault starts it without a key. What it has is lost when it is killed.
func StartVault(t testing.TB) *Vault {
	t.Helper()
	binary := build(t, "test/transit", ".")
	v := &Vault{process{t: t, log: &testenv.Log{}, command: func(address string) *exec.Cmd {
		cmd := exec.Command(binary)
		cmd.Env = []string{"TRANSIT_ADDRESS=" + address, "TRANSIT_TOKEN=" + Token}
		return cmd
	}}}
	v.Start()
	return v
}

// Config is for a client with transit keys of these names, with commas between them.
func (v *Vault) Config(keys string) remote.Config {
	return remote.Config{Kind: remote.Transit, URL: "http://" + v.address, Key: keys, Token: func() (string, error) { return Token, nil }}
}

// Write is what `vault write PATH` does: "transit/keys/NAME" with a type makes a key,
// "transit/keys/NAME/rotate" a version, and "sys/seal" seals.
func (v *Vault) Write(path string, values map[string]any) error {
	return v.request("POST", path, values)
}

// Delete is what `vault delete PATH` does.
func (v *Vault) Delete(path string) error { return v.request("DELETE", path, nil) }

func (v *Vault) request(method, path string, values map[string]any) error {
	body, err := json.Marshal(values)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, "http://"+v.address+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Token", Token)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode > 299 {
		answer, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %d %s", path, resp.StatusCode, answer)
	}
	return nil
}
