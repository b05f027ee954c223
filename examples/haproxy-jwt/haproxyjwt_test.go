// Package haproxyjwt tests that a real HAProxy, with this configuration and the keys that the
// script fetches, lets no request pass without a token that it has verified.
package haproxyjwt

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
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

	"github.com/golang-jwt/jwt/v5"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/test/node"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

//go:embed haproxy.cfg
var cfg string

// A proxied is an application behind HAProxy, and the directory of its keys.
type proxied struct {
	auth, dir, url string
}

// start fetches the keys of an issuer and starts HAProxy.
func start(t *testing.T, auth string) *proxied {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(r.Header)
	}))
	t.Cleanup(app.Close)
	dir, err := os.MkdirTemp("", "haproxy-jwt-") // not t.TempDir, which only one user can read
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil { // HAProxy writes its pid
		t.Fatal(err)
	}
	p := &proxied{auth: auth, dir: dir}
	p.fetch(t, "true")
	here := strings.NewReplacer("127.0.0.1:8000", "LISTEN", "http://127.0.0.1:8080", auth, "127.0.0.1:9000", app.Listener.Addr().String(), "/etc/haproxy/watchword", dir)
	p.url = testenv.StartProxy(t, map[string]string{"haproxy.cfg": here.Replace(cfg)},
		"haproxy", "-W", "-db", "-p", dir+"/pid", "-f", "DIR/haproxy.cfg", "-f", dir+"/keys.cfg").URL
	return p
}

// fetch runs the script, which then runs a command.
func (p *proxied) fetch(t *testing.T, command string) {
	t.Helper()
	if out, err := p.run(command); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func (p *proxied) run(command string) ([]byte, error) {
	return exec.Command("./watchword-keys.sh", p.auth, p.dir, "sh", "-c", command, "reload", p.dir).CombinedOutput()
}

// reload has HAProxy read its configuration and the keys again.
const reload = `kill -USR2 "$(cat "$1/pid")"`

// ask sends a request with headers, and returns the status and the headers that the application saw.
func (p *proxied) ask(t *testing.T, header ...string) (int, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header[header[i]] = append(r.Header[header[i]], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var seen http.Header
	if res.StatusCode == http.StatusOK {
		if err := json.NewDecoder(res.Body).Decode(&seen); err != nil {
			t.Fatal(err)
		}
	}
	return res.StatusCode, seen
}

func (p *proxied) status(t *testing.T, compact string) int {
	t.Helper()
	status, _ := p.ask(t, "Authorization", "Bearer "+compact)
	return status
}

// await waits until the answer to a token has the status: HAProxy reads its files again.
func (p *proxied) await(t *testing.T, compact string, want int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		got := p.status(t, compact)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the token is answered %d, want %d", got, want)
		}
	}
}

// An issuer serves keys by the routes of a replica, and signs what no replica would.
type issuer struct {
	t       *testing.T
	url     string
	signers map[string]*token.Signer
	private map[string]crypto.Signer

	mu  sync.Mutex
	set *accesstoken.KeySet
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{t: t, signers: map[string]*token.Signer{}, private: map[string]crypto.Signer{}}
	mux := http.NewServeMux()
	keys := &httpapi.KeySets{Keys: func() *accesstoken.KeySet {
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.set
	}}
	keys.Mount(httpkit.NewAPI(mux, "test", nil, httpkit.Proxies{}, nil))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	i.url = server.URL
	return i
}

// key makes a key whose kid has a suffix, and returns the kid.
func (i *issuer) key(alg, suffix string) string {
	i.t.Helper()
	private, err := token.GenerateKey(rand.Reader, alg)
	if err != nil {
		i.t.Fatal(err)
	}
	kid := "auth-0-" + alg + suffix
	i.private[kid] = private
	if i.signers[kid], err = token.NewSigner(kid, alg, private); err != nil {
		i.t.Fatal(err)
	}
	return kid
}

// publish makes the keys the key set.
func (i *issuer) publish(kids ...string) {
	i.t.Helper()
	var keys []accesstoken.Key
	for _, kid := range kids {
		keys = append(keys, i.signers[kid].Public())
	}
	set, err := accesstoken.NewKeySet(keys...)
	if err != nil {
		i.t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.set = set
}

// sign signs a token of a user who may use the ship's account.
func (i *issuer) sign(kid string, change func(*token.Access)) string {
	i.t.Helper()
	now := time.Now()
	a := token.Access{
		ClientID: token.FirstParty, Issuer: i.url, Subject: "user-1", Audience: []string{i.url}, ID: rand.Text(), SessionID: "session-1",
		IssuedAt: now, NotBefore: now.Add(-5 * time.Second), ExpiresAt: now.Add(time.Hour), User: map[string]string{"ship": "acc,fuel"},
	}
	if change != nil {
		change(&a)
	}
	compact, err := i.signers[kid].Sign(a)
	if err != nil {
		i.t.Fatal(err)
	}
	return compact
}

// with returns a token with another header, under the signature that sign makes.
func with(compact, header string, sign func(input string) []byte) string {
	return signed(encoded([]byte(header))+"."+strings.Split(compact, ".")[1], sign)
}

// claiming returns a token in which some claims are others, as JSON; an empty one is left out.
func claiming(t *testing.T, compact string, sign func(input string) []byte, claims ...string) string {
	t.Helper()
	parts := strings.Split(compact, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(payload, &all); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(claims); i += 2 {
		if all[claims[i]] = json.RawMessage(claims[i+1]); claims[i+1] == "" {
			delete(all, claims[i])
		}
	}
	if payload, err = json.Marshal(all); err != nil {
		t.Fatal(err)
	}
	return signed(parts[0]+"."+encoded(payload), sign)
}

func signed(input string, sign func(input string) []byte) string {
	return input + "." + encoded(sign(input))
}

func encoded(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

func TestHAProxyVerifies(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	es, rs, stranger := i.key("ES256", ""), i.key("RS256", ""), i.key("ES256", "-other")
	i.publish(es, i.key("ES512", ""), i.key("EdDSA", ""), i.key("PS256", ""), rs)
	p := start(t, i.url)

	for _, kid := range []string{es, rs, "auth-0-ES512"} {
		status, seen := p.ask(t, "Authorization", "Bearer "+i.sign(kid, nil), "X-Auth-Subject", "root", "x_auth_subject", "root", "X-Auth-Claim-Admin", "all")
		if subject := seen["X-Auth-Subject"]; status != 200 || len(subject) != 1 || subject[0] != "user-1" {
			t.Errorf("%s: %d, and the subject is %q", kid, status, subject)
		}
		for name := range seen {
			if plain := strings.ReplaceAll(strings.ToLower(name), "_", "-"); strings.HasPrefix(plain, "x-auth-") && name != "X-Auth-Subject" {
				t.Errorf("%s: %s arrives from the client", kid, name)
			}
		}
	}
	if got := p.status(t, i.sign(es, func(a *token.Access) { a.User = map[string]string{"ship": "access"} })); got != 403 {
		t.Errorf("without the claim: %d, want 403", got)
	}

	now, good := time.Now(), i.sign(es, nil)
	mac := func(secret string) func(string) []byte {
		return func(input string) []byte {
			h := hmac.New(sha256.New, []byte(secret))
			h.Write([]byte(input))
			return h.Sum(nil)
		}
	}
	file := filepath.Join(p.dir, es+".watchword.pem")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	header := func(alg, kid string) string { return fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"at+jwt"}`, alg, kid) }
	signature := strings.Split(good, ".")[2]
	forge, own := es256(t, i.private[stranger]), es256(t, i.private[es])
	if got := p.status(t, with(good, header("ES256", es), own)); got != 200 {
		t.Fatalf("a header that the test has written: %d", got)
	}
	bad := map[string]string{
		"another issuer":                         i.sign(es, func(a *token.Access) { a.Issuer = "https://other.example.com" }),
		"a longer issuer":                        i.sign(es, func(a *token.Access) { a.Issuer += "/" }),
		"another audience":                       i.sign(es, func(a *token.Access) { a.Audience = []string{"https://other.example.com"} }),
		"expired":                                i.sign(es, func(a *token.Access) { a.IssuedAt, a.ExpiresAt = now.Add(-time.Hour), now.Add(-time.Second) }),
		"not yet":                                i.sign(es, func(a *token.Access) { a.NotBefore = now.Add(time.Minute) }),
		"without nbf":                            i.sign(es, func(a *token.Access) { a.NotBefore = time.Time{} }),
		"a key that is not there":                i.sign(stranger, nil),
		"EdDSA, which HAProxy does not know":     i.sign("auth-0-EdDSA", nil),
		"PS256, which HAProxy 2.6 does not know": i.sign("auth-0-PS256", nil),
		"a stranger's signature under our kid":   with(good, header("ES256", es), forge),
		"a stranger's under the kid of RS256":    with(good, header("ES256", rs), forge),
		"HS256 with the name of the file":        with(good, header("HS256", es), mac(file)),
		"HS256 with the text of the file":        with(good, header("HS256", es), mac(string(text))),
		"HS256 with the whole entry of the map":  with(good, header("HS256", es), mac("ES256 "+file)),
		"HS256 without a secret":                 with(good, header("HS256", "none"), mac("")),
		"none":                                   with(good, header("none", es), func(string) []byte { return nil }),
		"none, without a kid":                    with(good, `{"alg":"none","typ":"at+jwt"}`, func(string) []byte { return nil }),
		"a file for a kid":                       with(good, header("ES256", file), func(string) []byte { return []byte(signature) }),
		"a kid that climbs":                      with(good, header("ES256", "../"+es), func(string) []byte { return []byte(signature) }),
		"another type":                           with(good, fmt.Sprintf(`{"alg":"ES256","kid":%q,"typ":"JWT"}`, es), own),
		"without a type":                         with(good, fmt.Sprintf(`{"alg":"ES256","kid":%q}`, es), own),
		"no signature":                           strings.TrimSuffix(good, signature),
		"two parts":                              strings.TrimSuffix(good, "."+signature),
		"four parts":                             good + ".x",
		"one bit":                                flipped(good),
		"empty":                                  "",
		"nonsense":                               "x",
	}
	if got := p.status(t, claiming(t, good, own, "jti", `"x"`)); got != 200 {
		t.Fatalf("claims that the test has written: %d", got)
	}
	for _, claim := range [][2]string{
		{"exp", ""}, {"exp", "-1"}, {"exp", `"-1"`}, {"exp", "-9007199254740990"}, {"exp", "0"}, {"exp", "null"}, {"exp", "true"}, {"exp", "[9999999999]"}, {"exp", "99999999999999999999"},
		{"nbf", "null"}, {"nbf", "[1]"}, {"nbf", "-1"}, {"nbf", "99999999999999999999"},
		{"aud", ""}, {"aud", `{"x":"` + i.url + `"}`}, {"iss", `["` + i.url + `"]`}, {"iss", ""},
		{"sub", ""}, {"sub", `""`}, {"sub", "null"}, {"sub", `["root"]`}, {"sub", `{"id":"root"}`},
	} {
		bad[claim[0]+" "+claim[1]] = claiming(t, good, own, claim[0], claim[1])
	}
	for name, compact := range bad {
		if got := p.status(t, compact); got != 401 {
			t.Errorf("%s: %d, want 401", name, got)
		}
	}
	for name, headers := range map[string][]string{
		"no header":    nil,
		"two headers":  {"Authorization", "Bearer " + good, "Authorization", "Bearer " + good},
		"a good first": {"Authorization", "Bearer " + good, "authorization", "Bearer x"},
		"a bad first":  {"Authorization", "Bearer x", "authorization", "Bearer " + good},
		"Basic":        {"Authorization", "Basic " + good},
		"two values":   {"Authorization", "Bearer " + good + ", Bearer x"},
		"a good last":  {"Authorization", "Bearer x, Bearer " + good},
		"a comma":      {"Authorization", "Bearer " + good + ","},
	} {
		if got, _ := p.ask(t, headers...); got != 401 {
			t.Errorf("%s: %d, want 401", name, got)
		}
	}
	for _, claim := range []string{`["acc"]`, `{"acc":"acc"}`, `"x\nacc"`, "true"} {
		if got := p.status(t, claiming(t, good, own, "ship", claim, "other", `{"ship":"acc"}`)); got != 403 {
			t.Errorf("with the claim %s: %d, want 403", claim, got)
		}
	}
	for value, want := range map[string]string{"x-auth-subject": "", "close, X-Auth-Subject": "", "x-other": "x-other"} {
		status, seen := p.ask(t, "Authorization", "Bearer "+good, "Connection", value)
		if status != 200 || seen.Get("Connection") != want || seen.Get("X-Auth-Subject") != "user-1" {
			t.Errorf("Connection: %s: %d, %q arrives, want %q", value, status, seen.Get("Connection"), want)
		}
	}
	if _, seen := p.ask(t, "Authorization", "Bearer "+claiming(t, good, own, "sub", `"a\r\nX-Auth-Admin: 1"`)); len(seen["X-Auth-Subject"]) != 1 || seen["X-Auth-Admin"] != nil {
		t.Errorf("a user's id that is two lines arrives as %q", seen)
	}
	if got := p.status(t, good); got != 200 {
		t.Errorf("the good one: %d", got)
	}
}

// es256 signs as JWS has it.
func es256(t *testing.T, private crypto.Signer) func(input string) []byte {
	return func(input string) []byte {
		signature, err := jwt.SigningMethodES256.Sign(input, private)
		if err != nil {
			t.Fatal(err)
		}
		return signature
	}
}

// The keys follow those of the issuer: one that is published verifies before it signs, and one that
// is gone verifies nothing. While the issuer is away or answers nonsense, nothing changes.
func TestKeysFollow(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	first, second := i.key("ES256", "-1"), i.key("ES256", "-2")
	i.publish(first)
	p := start(t, i.url)
	old, next := i.sign(first, nil), i.sign(second, nil)
	if a, b := p.status(t, old), p.status(t, next); a != 200 || b != 401 {
		t.Fatalf("the tokens are answered %d and %d, want 200 and 401", a, b)
	}
	files := func() (names []string) {
		entries, err := os.ReadDir(p.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "pid" {
				names = append(names, e.Name())
			}
		}
		return names
	}
	expect := func(want ...string) {
		t.Helper()
		want = append(want, "keys.cfg", "keys.map")
		slices.Sort(want)
		if got := files(); !slices.Equal(got, want) {
			t.Errorf("the directory has %q, want %q", got, want)
		}
	}
	expect(first + ".watchword.pem")
	p.fetch(t, "exit 1") // nothing is new, so HAProxy is not reloaded

	// A reload that failed is tried again.
	i.publish(first, second)
	if _, err := p.run("exit 1"); err == nil {
		t.Error("the failed reload is no error")
	}
	p.fetch(t, reload)
	p.await(t, next, 200)
	if got := p.status(t, old); got != 200 {
		t.Errorf("the former key's token: %d", got)
	}
	expect(first+".watchword.pem", second+".watchword.pem")

	i.publish(second)
	p.fetch(t, reload)
	p.await(t, old, 401)
	if got := p.status(t, next); got != 200 {
		t.Errorf("the next key's token: %d", got)
	}
	expect(second + ".watchword.pem")

	// What the script cannot use changes nothing, and is an error.
	for name, bad := range map[string]http.HandlerFunc{
		"away":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"nonsense": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "no JSON") },
		"no key":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) },
		"other keys": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[{"alg":"EdDSA","kid":"x"}]}`)
		},
		"no PEM": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[{"alg":"ES256","kid":"x"}]}`)
		},
		"kids that are no names": keySetOf("../../x", "/x", ".x", "..", "", "x y", "x\ty", "x\n", "x\ny", "x\rs", "x\x00", "x ES256,str(y)", "x#", "x$y", "x'y", `x"y`, "x;y", "é",
			strings.Repeat("x", 201), "x\" \nfrontend y\n\tbind :1\n"),
		"kids that are no texts": keySetOf(nil, true, []string{"x"}),
		"a kid that is a number": keySetOf(1),
	} {
		server := httptest.NewServer(bad)
		broken := *p
		broken.auth = server.URL
		if out, err := broken.run("touch " + p.dir + "/was-reloaded"); err == nil {
			t.Errorf("%s: no error: %s", name, out)
		}
		server.Close()
		expect(second + ".watchword.pem")
	}
	if got := p.status(t, next); got != 200 {
		t.Errorf("in the end: %d", got)
	}

	// Neither does a second run at the same time. Files of others are left alone.
	other := filepath.Join(p.dir, "site.pem")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	i.publish(second, i.key("ES256", "-3"))
	p.fetch(t, fmt.Sprintf("! ./watchword-keys.sh %s %s touch %s/was-reloaded", p.auth, p.dir, p.dir))
	expect("auth-0-ES256-3.watchword.pem", second+".watchword.pem", "site.pem")
}

// keySetOf answers with a set of keys with these kids, and with a PEM for each kid.
func keySetOf(kids ...any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/pkeys" {
			_, _ = io.WriteString(w, "-----BEGIN PUBLIC KEY-----\n")
			return
		}
		var keys []map[string]any
		for _, kid := range kids {
			keys = append(keys, map[string]any{"alg": "ES256", "kid": kid})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": keys})
	}
}

// With a real replica: its keys, its tokens, and what HAProxy does not learn, or only from the script.
func TestHAProxyAndAReplica(t *testing.T) {
	t.Parallel()
	n := node.Start(t)
	p := start(t, n.URL)
	tester := n.Login("tester")
	if got := p.status(t, tester.AccessToken); got != 200 {
		t.Fatalf("a token of the replica: %d", got)
	}
	if got := p.status(t, n.Login("admin").AccessToken); got != 403 {
		t.Errorf("without the claim: %d", got)
	}
	n.Logout(tester.AccessToken)
	n.Do("GET", "/api/verify", tester.AccessToken, "", http.StatusUnauthorized)
	if got := p.status(t, tester.AccessToken); got != 200 {
		t.Errorf("README.md says that HAProxy takes a token after the logout, but it answers %d", got)
	}

	var set httpapi.JWKS
	if err := json.Unmarshal([]byte(n.Do("GET", "/api/pkeys", "", "", http.StatusOK)), &set); err != nil {
		t.Fatal(err)
	}
	for _, key := range set.Keys {
		n.Do("POST", "/api/revocations", n.Login("admin").AccessToken, `{"kid":"`+key.KeyID+`"}`, http.StatusOK)
	}
	deadline := time.Now().Add(time.Minute)
	for out, err := p.run(reload); err != nil; out, err = p.run(reload) { // until the replica has another key
		if time.Now().After(deadline) {
			t.Fatalf("%v: %s", err, out)
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.await(t, tester.AccessToken, 401)
	p.await(t, n.Login("tester").AccessToken, 200)
}

// flipped returns a token with another bit in its payload.
func flipped(compact string) string {
	parts := strings.Split(compact, ".")
	payload := []byte(parts[1])
	payload[10] ^= 1
	parts[1] = string(payload)
	return strings.Join(parts, ".")
}
