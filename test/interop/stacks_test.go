package interop

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	gojwt "github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A stackCase is what the programs of stacks/ read.
type stackCase struct {
	// Base and Secure are where the key sets are: /keys/ALGORITHM, one key alone;
	// /keys/mixed, one key of each algorithm; /keys/rotating/NAME, a key of ES256, and after
	// a look at /rotate/NAME a second one.
	Base       string            `json:"base"`
	Secure     string            `json:"secure"`
	Issuer     string            `json:"issuer"`
	Audience   string            `json:"audience"`
	Algorithms []string          `json:"algorithms"`
	Tokens     map[string]string `json:"tokens"` // by algorithm
	Next       string            `json:"next"`   // of the key that comes later
	// Of ES256: its times are 20 s ahead, it has expired 20 s ago, one bit is another one, it
	// is of another issuer, it is for another audience.
	Early     string `json:"early"`
	Late      string `json:"late"`
	Tampered  string `json:"tampered"`
	Foreign   string `json:"foreign"`
	Elsewhere string `json:"elsewhere"`

	early, late func() string // make Early and Late

	// sign signs a token with the key that has a kid, and private and public are the keys.
	sign    func(kid, alg string, change func(*token.Access)) string
	private map[string]crypto.Signer
	public  map[string]accesstoken.Key
}

// A stackResult is what a library made of the tokens. Each text is what was wrong; it is
// empty where the token was accepted.
type stackResult struct {
	Version      string
	Alone, Mixed map[string]string // by algorithm
	// Before is for a token of a set's first key, Unknown for one of a key that is not there,
	// and Next for the same as soon as it is there.
	Before, Unknown, Next                     string
	Early, Late, Tampered, Foreign, Elsewhere string
}

// row is the result as a line of docs/algorithms.md.
func (r stackResult) row(name string) string {
	mark := func(wrong string) string {
		if wrong == "" {
			return "yes"
		}
		return "no"
	}
	cells := []string{name, r.Version}
	for _, alg := range accesstoken.Algorithms() {
		switch {
		case r.Alone[alg] == "" && r.Mixed[alg] == "":
			cells = append(cells, "yes")
		case r.Alone[alg] == "":
			cells = append(cells, "alone")
		default:
			cells = append(cells, "no")
		}
	}
	cells = append(cells, mark(r.Next), mark(r.Early), mark(r.Late))
	return "| " + strings.Join(cells, " | ") + " |"
}

// TestStacks has libraries verify our tokens with no other settings than the issuer, the
// audience and the address of the key set. What they take is what docs/algorithms.md says.
func TestStacks(t *testing.T) {
	c := newStackCase(t)
	rows := documented(t)
	results := make(map[string]stackResult)
	distributed := make(map[string]bool) // by the distribution, which has its own versions
	var mu sync.Mutex
	t.Run("programs", func(t *testing.T) {
		for _, p := range [][]string{{"node", "stacks/verify.mjs"}, {python, "stacks/verify.py"}, {"perl", "stacks/verify.pl"}, {"ruby", "stacks/verify.rb"}} {
			t.Run(p[0], func(t *testing.T) {
				t.Parallel()
				some := runStacks(t, c, p...)
				mu.Lock()
				defer mu.Unlock()
				maps.Copy(results, some)
				for name := range some {
					distributed[name] = p[0] != "node"
				}
			})
		}
	})
	for name, library := range goStacks {
		r := tryStack(c, name, library)
		r.Version = versionOf(t, name)
		results[name] = r
	}
	for _, name := range slices.Sorted(maps.Keys(results)) {
		r := results[name]
		t.Run(name, func(t *testing.T) {
			if r.Before != r.Alone[accesstoken.ES256] {
				t.Errorf("the first key of a set that will change: %q, and alone: %q", r.Before, r.Alone[accesstoken.ES256])
			}
			for what, wrong := range map[string]string{
				"an unknown key": r.Unknown, "another signature": r.Tampered, "another issuer": r.Foreign, "another audience": r.Elsewhere,
			} {
				if wrong == "" {
					t.Errorf("a token with %s is accepted", what)
				}
			}
			if want, ok := rows[name]; !ok || !sameRow(want, r.row(name), distributed[name]) {
				t.Errorf("docs/algorithms.md says\n%s, and it should be\n%s\n%+v", want, r.row(name), r)
			}
			delete(rows, name)
		})
	}
	if len(rows) > 0 {
		t.Errorf("nobody has tried %v", slices.Sorted(maps.Keys(rows)))
	}
}

// documented are the rows of the table that this test holds, by name.
func documented(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/algorithms.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "<!-- held by test/interop: TestStacks -->\n")
	table, _, ok := strings.Cut(table, "\n\n")
	if !ok {
		t.Fatal("docs/algorithms.md has no table")
	}
	rows := make(map[string]string)
	for _, line := range strings.Split(table, "\n")[2:] {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		rows[name] = line
	}
	return rows
}

// sameRow reports whether two rows are the same, perhaps but for the version.
func sameRow(a, b string, butVersion bool) bool {
	one, two := strings.Split(a, "|"), strings.Split(b, "|")
	const version = 2
	if butVersion && len(one) == len(two) {
		one[version] = two[version]
	}
	return slices.Equal(one, two)
}

func newStackCase(t *testing.T) stackCase {
	t.Helper()
	c := stackCase{
		Issuer: issuer, Audience: issuer, Algorithms: accesstoken.Algorithms(), Tokens: make(map[string]string),
		private: make(map[string]crypto.Signer), public: make(map[string]accesstoken.Key),
	}
	now := time.Now()
	signers := make(map[string]*token.Signer)
	sign := func(kid, alg string, change func(*token.Access)) string {
		s := signers[kid]
		if s == nil {
			private, err := token.GenerateKey(rand.Reader, alg)
			if err != nil {
				t.Fatal(err)
			}
			if s, err = token.NewSigner(kid, alg, private); err != nil {
				t.Fatal(err)
			}
			signers[kid], c.private[kid], c.public[kid] = s, private, s.Public()
		}
		id, err := token.NewID(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		// As a replica does it without any setting: the audience is the issuer.
		a := token.Access{
			AMR: []string{"mfa", "otp", "pwd"}, ACR: "aal2",
			ClientID: token.FirstParty, Issuer: issuer, Subject: "user-1", Audience: []string{issuer}, ID: id, SessionID: "session-1",
			IssuedAt: now, NotBefore: now.Add(-5 * time.Second), ExpiresAt: now.Add(time.Hour),
			User: map[string]string{"name": "Ada Lovelace", "log": "r,w"},
		}
		if change != nil {
			change(&a)
		}
		compact, err := s.Sign(a)
		if err != nil {
			t.Fatal(err)
		}
		return compact
	}
	c.sign = sign
	for _, alg := range c.Algorithms {
		c.Tokens[alg] = sign(alg, alg, nil)
	}
	const es256 = accesstoken.ES256
	c.Next = sign("next", es256, nil)
	c.Tampered = tampered(c.Tokens[es256])
	c.Foreign = sign(es256, es256, func(a *token.Access) { a.Issuer = "https://other.example.com" })
	c.Elsewhere = sign(es256, es256, func(a *token.Access) { a.Audience = []string{"https://other.example.com"} })
	// These are made when they are used: the one is not early for long, and the other grows later.
	c.early = func() string {
		ahead := time.Now().Add(20 * time.Second)
		return sign(es256, es256, func(a *token.Access) { a.IssuedAt, a.NotBefore = ahead, ahead })
	}
	c.late = func() string {
		ended := time.Now().Add(-20 * time.Second)
		return sign(es256, es256, func(a *token.Access) {
			a.IssuedAt, a.NotBefore, a.ExpiresAt = ended.Add(-time.Hour), ended.Add(-time.Hour), ended
		})
	}

	set := func(kids ...string) []byte {
		var keys []accesstoken.Key
		for _, kid := range kids {
			keys = append(keys, signers[kid].Public())
		}
		s, err := accesstoken.NewKeySet(keys...)
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var rotated sync.Map
	mux := http.NewServeMux()
	serve := func(pattern string, keys func(*http.Request) []byte) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/jwk-set+json")
			w.Header().Set("Cache-Control", "public, max-age=60")
			_, _ = w.Write(keys(r))
		})
	}
	for _, alg := range c.Algorithms {
		serve("GET /keys/"+alg, func(*http.Request) []byte { return set(alg) })
	}
	serve("GET /keys/mixed", func(*http.Request) []byte { return set(c.Algorithms...) })
	serve("GET /keys/rotating/{name}", func(r *http.Request) []byte {
		if _, ok := rotated.Load(r.PathValue("name")); ok {
			return set(es256, "next")
		}
		return set(es256)
	})
	mux.HandleFunc("GET /rotate/{name}", func(_ http.ResponseWriter, r *http.Request) { rotated.Store(r.PathValue("name"), true) })
	plain, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	c.Base, c.Secure = plain.URL, secure.URL
	cert := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NODE_EXTRA_CA_CERTS", cert)
	t.Setenv("no_proxy", "127.0.0.1")
	return c
}

// runStacks runs a program that tries libraries.
func runStacks(t *testing.T, c stackCase, command ...string) (results map[string]stackResult) {
	t.Helper()
	c.Early, c.Late = c.early(), c.late()
	input, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "case.json")
	if err := os.WriteFile(file, input, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command[0], append(command[1:], file)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v; `make tools` installs what it needs", command, err)
	}
	if err := json.Unmarshal(out, &results); err != nil {
		t.Fatalf("%v: %v: %s", command, err, out)
	}
	return results
}

// A verifier returns what is wrong with a token.
type verifier func(compact string) error

// goStacks make verifiers for the key set at an address.
var goStacks = map[string]func(c stackCase, url string) verifier{
	"go-oidc": func(c stackCase, url string) verifier {
		keys := oidc.NewRemoteKeySet(context.Background(), url)
		v := oidc.NewVerifier(c.Issuer, keys, &oidc.Config{ClientID: c.Audience, SupportedSigningAlgs: c.Algorithms})
		return func(compact string) error {
			_, err := v.Verify(context.Background(), compact)
			return err
		}
	},
	"golang-jwt, keyfunc": func(c stackCase, url string) verifier {
		keys, err := keyfunc.NewDefault([]string{url})
		return func(compact string) error {
			if err != nil {
				return err
			}
			_, err := gojwt.Parse(compact, keys.Keyfunc, gojwt.WithIssuer(c.Issuer), gojwt.WithAudience(c.Audience), gojwt.WithValidMethods(c.Algorithms))
			return err
		}
	},
	"jwx": func(c stackCase, url string) verifier {
		return func(compact string) error {
			set, err := jwk.Fetch(context.Background(), url)
			if err != nil {
				return err
			}
			_, err = jwt.Parse([]byte(compact), jwt.WithKeySet(set), jwt.WithIssuer(c.Issuer), jwt.WithAudience(c.Audience))
			return err
		}
	},
	"OPA": func(c stackCase, url string) verifier {
		return func(compact string) error {
			answer, err := http.Get(url)
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			set, err := io.ReadAll(answer.Body)
			if err != nil {
				return err
			}
			// The function itself: a policy that calls it needs OPA's compiler, which takes a
			// minute to build.
			settings := ast.NewObject(
				ast.Item(ast.StringTerm("cert"), ast.StringTerm(string(set))),
				ast.Item(ast.StringTerm("iss"), ast.StringTerm(c.Issuer)),
				ast.Item(ast.StringTerm("aud"), ast.StringTerm(c.Audience)),
				ast.Item(ast.StringTerm("time"), ast.IntNumberTerm(int(time.Now().UnixNano()))),
			)
			verify := topdown.GetBuiltin(ast.JWTDecodeVerify.Name)
			err = verify(topdown.BuiltinContext{Context: context.Background()}, []*ast.Term{ast.StringTerm(compact), ast.NewTerm(settings)}, func(result *ast.Term) error {
				if !result.Get(ast.IntNumberTerm(0)).Equal(ast.BooleanTerm(true)) {
					return fmt.Errorf("not valid: %v", result)
				}
				return nil
			})
			if err != nil {
				return err
			}
			return nil
		}
	},
}

// tryStack does in Go what the programs of stacks/ do.
func tryStack(c stackCase, name string, library func(stackCase, string) verifier) stackResult {
	attempt := func(v verifier, compact string) string {
		if err := v(compact); err != nil {
			return err.Error()
		}
		return ""
	}
	r := stackResult{Alone: make(map[string]string), Mixed: make(map[string]string)}
	for _, alg := range c.Algorithms {
		r.Alone[alg] = attempt(library(c, c.Base+"/keys/"+alg), c.Tokens[alg])
		r.Mixed[alg] = attempt(library(c, c.Base+"/keys/mixed"), c.Tokens[alg])
	}
	rotating := strings.NewReplacer(",", "", " ", "").Replace(name)
	v := library(c, c.Base+"/keys/rotating/"+rotating)
	r.Before, r.Unknown = attempt(v, c.Tokens[accesstoken.ES256]), attempt(v, c.Next)
	if answer, err := http.Get(c.Base + "/rotate/" + rotating); err == nil {
		answer.Body.Close()
	}
	r.Next = attempt(v, c.Next)
	one := library(c, c.Base+"/keys/"+accesstoken.ES256)
	r.Early, r.Late, r.Tampered, r.Foreign, r.Elsewhere = attempt(one, c.early()), attempt(one, c.late()), attempt(one, c.Tampered), attempt(one, c.Foreign), attempt(one, c.Elsewhere)
	return r
}

// versionOf returns the versions of the modules of a stack.
func versionOf(t *testing.T, name string) string {
	t.Helper()
	modules := map[string][]string{
		"go-oidc": {"github.com/coreos/go-oidc/v3"}, "golang-jwt, keyfunc": {"github.com/golang-jwt/jwt/v5", "github.com/MicahParks/keyfunc/v3"},
		"jwx": {"github.com/lestrrat-go/jwx/v3"}, "OPA": {"github.com/open-policy-agent/opa"},
	}[name]
	out, err := exec.Command("go", append([]string{"list", "-m", "-f", "{{.Version}}"}, modules...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(strings.Join(strings.Fields(string(out)), ", "), "v", "")
}
