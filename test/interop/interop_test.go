package interop

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"

	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

const (
	issuer   = "https://auth.example.com"
	audience = "https://api.example.com"
)

// freshKeys is how many P-256 keys are tried: about one in 128 has a coordinate
// that begins with a zero byte, which is what goes wrong elsewhere. They come in
// sets of 500, because jwx reads no set of more than 1000.
const (
	freshKeys  = 3000
	keysPerSet = 500
)

// An issue is tokens, one for each key of a set, and the set as it is served.
type issue struct {
	keys   []byte
	set    *accesstoken.KeySet
	tokens []string
}

// issueTokens makes one key and one token for each algorithm named.
func issueTokens(t *testing.T, algorithms []string) issue {
	t.Helper()
	var is issue
	var keys []accesstoken.Key
	now := time.Now()
	for i, alg := range algorithms {
		private, err := token.GenerateKey(rand.Reader, alg)
		if err != nil {
			t.Fatal(err)
		}
		s, err := token.NewSigner(fmt.Sprintf("auth-%d-%s", i, alg), alg, private)
		if err != nil {
			t.Fatal(err)
		}
		id, err := token.NewID(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		compact, err := s.Sign(token.Access{ClientID: token.FirstParty, AMR: []string{"mfa", "otp", "pwd"}, ACR: "aal2",
			Issuer: issuer, Subject: "user-1", Audience: []string{audience}, ID: id, SessionID: "session-1",
			IssuedAt: now, NotBefore: now, ExpiresAt: now.Add(time.Hour),
			User: map[string]string{"name": "Ada Lovelace", "log": "r,w"},
		})
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, s.Public())
		is.tokens = append(is.tokens, compact)
	}
	var err error
	if is.set, err = accesstoken.NewKeySet(keys...); err != nil {
		t.Fatal(err)
	}
	if is.keys, err = json.Marshal(is.set); err != nil {
		t.Fatal(err)
	}
	return is
}

// cases are every algorithm once, and many fresh keys of the default one.
func cases(t *testing.T) map[string]issue {
	t.Helper()
	all := map[string]issue{"every algorithm": issueTokens(t, accesstoken.Algorithms())}
	for i := range freshKeys / keysPerSet {
		name := fmt.Sprintf("fresh P-256 %d", i+1)
		all[name] = issueTokens(t, slices.Repeat([]string{accesstoken.ES256}, keysPerSet))
	}
	return all
}

func TestGoOIDC(t *testing.T) {
	for name, is := range cases(t) {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Write(is.keys)
			}))
			defer server.Close()
			ctx := oidc.ClientContext(context.Background(), server.Client())
			verifier := oidc.NewVerifier(issuer, oidc.NewRemoteKeySet(ctx, server.URL), &oidc.Config{
				ClientID: audience, SupportedSigningAlgs: accesstoken.Algorithms(),
			})
			for _, compact := range is.tokens {
				verified, err := verifier.Verify(ctx, compact)
				if err != nil || verified.Subject != "user-1" {
					t.Errorf("%s: %v", compact, err)
				}
			}
			if _, err := verifier.Verify(ctx, tampered(is.tokens[0])); err == nil {
				t.Errorf("go-oidc accepts what was changed: %s", tampered(is.tokens[0]))
			}
			t.Logf("go-oidc took %d tokens of %d keys", len(is.tokens), is.set.Len())
		})
	}
}

func TestJWX(t *testing.T) {
	for name, is := range cases(t) {
		t.Run(name, func(t *testing.T) {
			set, err := jwk.Parse(is.keys)
			if err != nil {
				t.Fatal(err)
			}
			if set.Len() != len(is.tokens) {
				t.Fatalf("jwx reads %d keys, not %d", set.Len(), len(is.tokens))
			}
			for i, compact := range is.tokens {
				verified, err := jwt.Parse([]byte(compact), jwt.WithKeySet(set), jwt.WithIssuer(issuer), jwt.WithAudience(audience))
				if err != nil {
					t.Errorf("%s: %v", compact, err)
					continue
				}
				var log string
				if err := verified.Get("log", &log); err != nil || log != "r,w" {
					t.Errorf("%s: log is %q, %v", compact, log, err)
				}
				theirs, _ := set.Key(i)
				print, err := theirs.Thumbprint(crypto.SHA256)
				if ours := is.set.Keys()[i].Thumbprint(); err != nil || base64.RawURLEncoding.EncodeToString(print) != ours {
					t.Errorf("the thumbprint is %x, %v, and ours %s", print, err, ours)
				}
			}
			if _, err := jwt.Parse([]byte(tampered(is.tokens[0])), jwt.WithKeySet(set)); err == nil {
				t.Errorf("jwx accepts what was changed: %s", tampered(is.tokens[0]))
			}
			t.Logf("jwx took %d tokens of %d keys", len(is.tokens), set.Len())
		})
	}
}

// python is the distribution's, which has PyJWT in a package.
const python = "/usr/bin/python3"

func TestPyJWT(t *testing.T) {
	if out, err := exec.Command(python, "-c", "import jwt, cryptography").CombinedOutput(); err != nil {
		t.Fatalf("PyJWT is missing; `make tools` installs it (python3-jwt, python3-cryptography): %v\n%s", err, out)
	}
	for name, is := range cases(t) {
		t.Run(name, func(t *testing.T) {
			result := runPyJWT(t, pyJWTCase{Issuer: issuer, Audience: audience, Keys: is.keys, Tokens: is.tokens})
			if result.Keys != is.set.Len() || result.Verified != len(is.tokens) || len(result.Failed) > 0 {
				t.Errorf("PyJWT took %d tokens of %d, %d keys; the others: %q", result.Verified, len(is.tokens), result.Keys, result.Failed)
			}
			t.Logf("PyJWT took %d tokens of %d keys", result.Verified, result.Keys)
			changed := []string{tampered(is.tokens[0])}
			result = runPyJWT(t, pyJWTCase{Issuer: issuer, Audience: audience, Keys: is.keys, Tokens: changed})
			if result.Verified != 0 || len(result.Failed) != 1 {
				t.Errorf("PyJWT accepts what was changed: %s", changed[0])
			}
		})
	}
}

// A pyJWTCase is what verify.py reads.
type pyJWTCase struct {
	Issuer   string          `json:"issuer"`
	Audience string          `json:"audience"`
	Keys     json.RawMessage `json:"keys,omitempty"`
	URL      string          `json:"url,omitempty"` // of the key set, instead of Keys
	Tokens   []string        `json:"tokens"`
}

type pyJWTResult struct {
	Keys, Verified int
	Failed         []string
}

func runPyJWT(t *testing.T, one pyJWTCase) (result pyJWTResult) {
	t.Helper()
	input, err := json.Marshal(one)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "case.json")
	if err := os.WriteFile(file, input, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "verify.py", file)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return result
}

// tampered changes one bit in the middle of the signature.
func tampered(compact string) string {
	b := []byte(compact)
	if i := len(b) - 20; b[i] == 'A' {
		b[i] = 'B'
	} else {
		b[i] = 'A'
	}
	return string(b)
}
