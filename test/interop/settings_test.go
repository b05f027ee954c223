package interop

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	gojwt "github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
	"github.com/lestrrat-go/jwx/v3/jwt"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A settingsCase is what the programs stacks/settings.* read. They print, for each library, what
// was wrong with each of the tokens; it is empty where the token was accepted.
type settingsCase struct {
	Issuer   string `json:"issuer"`
	Audience string `json:"audience"`
	// Plain and Secure are where the key set is: a key of each algorithm.
	Plain  string            `json:"plain"`
	Secure string            `json:"secure"`
	Tokens map[string]string `json:"tokens"`
}

// otherwise is what a library does otherwise than it should, and why.
var otherwise = map[string]string{
	"aws-jwt-verify another algorithm": "it takes what the alg of the key says",
	"jwx another algorithm":            "the same",
	"OPA early by 4 s":                 "it has no leeway; our tokens need none, because nbf and iat are dated back",
}

// TestSettings has each library verify with the settings that docs/resource-servers.md shows.
func TestSettings(t *testing.T) {
	c := newStackCase(t)
	const es256 = accesstoken.ES256
	at := func(d time.Duration) func(*token.Access) {
		return func(a *token.Access) {
			a.IssuedAt = a.IssuedAt.Add(d)
			a.NotBefore, a.ExpiresAt = a.IssuedAt, a.IssuedAt.Add(time.Hour)
		}
	}
	good := c.sign(es256, es256, nil)
	public, err := token.PublicPEM(c.public[es256])
	if err != nil {
		t.Fatal(err)
	}
	early := func() string { return c.sign(es256, es256, at(4*time.Second)) }
	s := settingsCase{
		Issuer: c.Issuer, Audience: c.Audience, Plain: c.Base + "/keys/mixed", Secure: c.Secure + "/keys/mixed",
		Tokens: map[string]string{
			"good": good, "early by 4 s": early(),
			"early by 10 min": c.sign(es256, es256, at(10*time.Minute)), "late by 10 min": c.sign(es256, es256, at(-70*time.Minute)),
			"another signature": c.Tampered, "another issuer": c.Foreign, "another audience": c.Elsewhere, "an unknown key": c.Next,
			"another algorithm":       c.sign(accesstoken.RS256, accesstoken.RS256, nil),
			"another type":            reheaded(t, good, `{"alg":"ES256","kid":"ES256","typ":"JWT"}`, signature(t, gojwt.SigningMethodES256, c.private[es256])),
			"no algorithm":            reheaded(t, good, `{"alg":"none","kid":"ES256","typ":"at+jwt"}`, func(string) []byte { return nil }),
			"a MAC by the public key": reheaded(t, good, `{"alg":"HS256","kid":"ES256","typ":"at+jwt"}`, signature(t, gojwt.SigningMethodHS256, public)),
		},
	}
	results := make(map[string]map[string]string)
	for name, library := range goSettings {
		results[name] = make(map[string]string)
		verify := library(s.Issuer, s.Audience, s.Plain)
		for what, compact := range s.Tokens {
			results[name][what] = ""
			if what == "early by 4 s" {
				compact = early() // the one before is not early for long, and a library without leeway refuses it
			}
			if err := verify(compact); err != nil {
				results[name][what] = err.Error()
			}
		}
	}
	var mu sync.Mutex
	t.Run("programs", func(t *testing.T) {
		for _, p := range [][]string{{"node", "stacks/settings.mjs"}, {python, "stacks/settings.py"}, {"perl", "stacks/settings.pl"}, {"ruby", "stacks/settings.rb"}} {
			t.Run(p[0], func(t *testing.T) {
				t.Parallel()
				input, err := json.Marshal(s)
				if err != nil {
					t.Fatal(err)
				}
				file := filepath.Join(t.TempDir(), "case.json")
				if err := os.WriteFile(file, input, 0o600); err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command(p[0], p[1], file)
				cmd.Stderr = os.Stderr
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("%v: %v; `make tools` installs what it needs", p, err)
				}
				var some map[string]map[string]string
				if err := json.Unmarshal(out, &some); err != nil {
					t.Fatalf("%v: %v: %s", p, err, out)
				}
				mu.Lock()
				defer mu.Unlock()
				maps.Copy(results, some)
			})
		}
	})
	for name, result := range results {
		if len(result) != len(s.Tokens) {
			t.Errorf("%s has tried %d tokens of %d", name, len(result), len(s.Tokens))
		}
		for what, wrong := range result {
			accepted := wrong == ""
			want := what == "good" || what == "early by 4 s"
			if _, ok := otherwise[name+" "+what]; ok {
				want = !want
			}
			if accepted != want {
				t.Errorf("%s: the token that is %q is accepted: %v, want %v: %s", name, what, accepted, want, wrong)
			}
		}
	}
	shown := shownSettings(t)
	for name := range documented(t) {
		if _, ok := results[name]; !ok && name != "hono" { // which verifies none of our tokens
			t.Errorf("the settings of %s are not tried", name)
		}
		if shown[name] == "" {
			t.Errorf("docs/resource-servers.md does not show the settings of %s", name)
		} else if name != "hono" && !checksType.MatchString(shown[name]) {
			t.Errorf("docs/resource-servers.md does not show how %s refuses what is no access token", name)
		}
	}
}

// A block of docs/resource-servers.md, and the file and the library of which it is.
var block = regexp.MustCompile("(?s)<!-- held by test/interop/(\\S+): ([^\n]+) -->\n```\\w+\n(.*?)```")

// checksType finds how a type other than at+jwt is refused: by itself, or by a rule of the library.
var checksType = regexp.MustCompile(`at\+jwt|strict: true|validateJwtAccessToken`)

// shownSettings returns the settings that docs/resource-servers.md shows, by library. Each block has to
// be a part of the file that it is said to be of, but for the indentation.
func shownSettings(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile("../../docs/resource-servers.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{
		"hono": regexp.MustCompile(`\| hono \|.*`).FindString(string(page)),
		"OPA":  regexp.MustCompile("`header.typ == \"at\\+jwt\"`").FindString(string(page)),
	}
	for _, b := range block.FindAllStringSubmatch(string(page), -1) {
		file, err := os.ReadFile(b[1])
		if err != nil {
			t.Error(err)
			continue
		}
		if flat := unindented(b[3]); flat == "" || !strings.Contains(unindented(string(file)), flat) {
			t.Errorf("%s has not, for %s:\n%s", b[1], b[2], b[3])
		}
		shown[b[2]] += b[3]
	}
	return shown
}

func unindented(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}

// reheaded returns a token with another header, and what sign makes of it.
func reheaded(t *testing.T, compact, header string, sign func(input string) []byte) string {
	t.Helper()
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + strings.Split(compact, ".")[1]
	return input + "." + base64.RawURLEncoding.EncodeToString(sign(input))
}

// signature returns what signs the input of a token.
func signature(t *testing.T, method gojwt.SigningMethod, key any) func(input string) []byte {
	return func(input string) []byte {
		signature, err := method.Sign(input, key)
		if err != nil {
			t.Fatal(err)
		}
		return signature
	}
}

var errNoAccessToken = errors.New("no access token")

// goSettings are the settings of the libraries for Go, by name.
var goSettings = map[string]func(issuer, audience, keySetURL string) verifier{
	"golang-jwt, keyfunc": func(issuer, audience, keySetURL string) verifier {
		keys, err := keyfunc.NewDefault([]string{keySetURL})
		return func(compact string) error {
			if err != nil {
				return err
			}
			t, err := gojwt.Parse(compact, keys.Keyfunc, gojwt.WithValidMethods([]string{"ES256"}), gojwt.WithIssuer(issuer),
				gojwt.WithAudience(audience), gojwt.WithExpirationRequired(), gojwt.WithLeeway(5*time.Second))
			if err == nil && t.Header["typ"] != "at+jwt" {
				err = errNoAccessToken
			}
			return err
		}
	},
	"go-oidc": func(issuer, audience, keySetURL string) verifier {
		keys := oidc.NewRemoteKeySet(context.Background(), keySetURL)
		v := oidc.NewVerifier(issuer, keys, &oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{"ES256"}})
		return func(compact string) error {
			_, err := v.Verify(context.Background(), compact)
			if err == nil && typeOf(compact) != "at+jwt" {
				err = errNoAccessToken
			}
			return err
		}
	},
	"jwx": func(issuer, audience, keySetURL string) verifier {
		set, err := jwk.Fetch(context.Background(), keySetURL)
		return func(compact string) error {
			if err != nil {
				return err
			}
			_, err := jwt.Parse([]byte(compact), jwt.WithKeySet(set), jwt.WithIssuer(issuer), jwt.WithAudience(audience),
				jwt.WithRequiredClaim("exp"), jwt.WithAcceptableSkew(5*time.Second))
			if err == nil && typeOf(compact) != "at+jwt" {
				err = errNoAccessToken
			}
			return err
		}
	},
	"OPA": func(issuer, audience, keySetURL string) verifier {
		return func(compact string) error {
			answer, err := http.Get(keySetURL)
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			set, err := io.ReadAll(answer.Body)
			if err != nil {
				return err
			}
			settings := ast.NewObject(
				ast.Item(ast.StringTerm("cert"), ast.StringTerm(string(set))),
				ast.Item(ast.StringTerm("alg"), ast.StringTerm("ES256")),
				ast.Item(ast.StringTerm("iss"), ast.StringTerm(issuer)),
				ast.Item(ast.StringTerm("aud"), ast.StringTerm(audience)),
				ast.Item(ast.StringTerm("time"), ast.IntNumberTerm(int(time.Now().UnixNano()))),
			)
			verify := topdown.GetBuiltin(ast.JWTDecodeVerify.Name)
			return verify(topdown.BuiltinContext{Context: context.Background()}, []*ast.Term{ast.StringTerm(compact), ast.NewTerm(settings)}, func(result *ast.Term) error {
				if !result.Get(ast.IntNumberTerm(0)).Equal(ast.BooleanTerm(true)) {
					return fmt.Errorf("not valid: %v", result)
				}
				if typ := result.Get(ast.IntNumberTerm(1)).Get(ast.StringTerm("typ")); typ == nil || !typ.Equal(ast.StringTerm("at+jwt")) {
					return errNoAccessToken
				}
				return nil
			})
		}
	},
}

// typeOf returns the typ of a token whose signature has been verified.
func typeOf(compact string) string {
	message, err := jws.Parse([]byte(compact))
	if err != nil || len(message.Signatures()) != 1 {
		return ""
	}
	typ, _ := message.Signatures()[0].ProtectedHeaders().Type()
	return typ
}
