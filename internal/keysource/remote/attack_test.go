package remote_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/keysource/remote"
	"github.com/watchword-auth/watchword/internal/keysource/remote/remotetest"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A fake is a signer of the kind http with one ES256 key, that answers a request to sign with
// what a test wants.
type fake struct {
	*httptest.Server
	key  crypto.Signer
	sign http.HandlerFunc
}

func startFake(t *testing.T) *fake {
	t.Helper()
	private, err := token.GenerateKey(rand.Reader, accesstoken.ES256)
	if err != nil {
		t.Fatal(err)
	}
	public, err := accesstoken.NewKey("k", accesstoken.ES256, private.Public())
	if err != nil {
		t.Fatal(err)
	}
	set, err := accesstoken.NewKeySet(public)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{key: private}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keys" {
			_ = json.NewEncoder(w).Encode(set)
			return
		}
		f.sign(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

// signed makes the right answer to a request to sign.
func (f *fake) signed(t *testing.T, body io.Reader) []byte {
	var request struct{ Digest string }
	if err := json.NewDecoder(body).Decode(&request); err != nil {
		t.Error(err)
	}
	digest, err := base64.RawURLEncoding.DecodeString(request.Digest)
	if err != nil {
		t.Error(err)
	}
	signature, err := f.key.Sign(rand.Reader, digest, crypto.SHA256)
	if err != nil {
		t.Error(err)
	}
	return signature
}

func (f *fake) config() remote.Config {
	return remote.Config{Kind: remote.HTTP, URL: f.URL, Token: func() (string, error) { return remotetest.Token, nil }}
}

var digest = bytes.Repeat([]byte{7}, 32)

// A signature that the key has not made is not used, whatever the signer says.
func TestALyingSigner(t *testing.T) {
	f := startFake(t)
	other, err := token.GenerateKey(rand.Reader, accesstoken.ES256)
	if err != nil {
		t.Fatal(err)
	}
	kept := keys(t, keeper(t, f.config()), accesstoken.ES256, 1)[0]
	answer := func(signature []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]string{"signature": base64.RawURLEncoding.EncodeToString(signature)})
		}
	}
	sign := func(key crypto.Signer, digest []byte) []byte {
		signature, err := key.Sign(rand.Reader, digest, crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		return signature
	}
	for name, signature := range map[string][]byte{
		"of another key": sign(other, digest), "of another digest": sign(f.key, make([]byte, 32)),
		"followed by more": append(sign(f.key, digest), 0), "of zeros": make([]byte, 64),
	} {
		f.sign = answer(signature)
		got, err := kept.Sign(nil, digest, crypto.SHA256)
		says(t, err, "a signature that its public key does not verify", false)
		if got != nil {
			t.Errorf("a signature %s is used", name)
		}
	}
	f.sign = func(w http.ResponseWriter, r *http.Request) { answer(f.signed(t, r.Body))(w, r) }
	if _, err := kept.Sign(nil, digest, crypto.SHA256); err != nil {
		t.Error(err)
	}
}

// An error says whether it may pass, and never has the token in it, also if the signer
// repeats it.
func TestErrors(t *testing.T) {
	f := startFake(t)
	k := keeper(t, f.config())
	kept := keys(t, k, accesstoken.ES256, 1)[0]
	echo := `{"error": "no: ` + remotetest.Token + `"}`
	for _, c := range []struct {
		status  int
		body    string
		says    string
		mayPass bool
	}{
		{200, `{}`, "no signature", false},
		{200, `{"signature": "++"}`, "no signature", false},
		{200, "<html>", "is not of the form", false},
		{200, "", "is not of the form", false},
		{200, strings.Repeat(" ", accesstoken.MaxKeySetLength+1), "is longer than", false},
		{204, "", "answers 204", false},
		{301, "", "where Watchword does not follow", false},
		{307, "", "where Watchword does not follow", false},
		{400, echo, "answers 400: no: …", false},
		{401, echo, "its token or certificate is missing, has expired, or lacks the right, and it answers 401: no: …", false},
		{403, `{"errors": ["permission", "denied"]}`, "403: permission denied", false},
		{404, "nothing", "answers 404", false},
		{408, "", "answers 408", true},
		{429, echo, "answers 429: no: …", true},
		{500, "<html>", "answers 500", true},
		{502, "", "answers 502", true},
		{503, `{"errors":["Vault is sealed"]}`, "503: Vault is sealed", true},
		{503, `{"error":"one\nline\u001b ` + strings.Repeat("x", 5000) + `"}`, "503: one line xxx", true},
	} {
		f.sign = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		}
		_, err := kept.Sign(nil, digest, crypto.SHA256)
		says(t, err, c.says, c.mayPass)
		if len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%d: %q", c.status, err)
		}
		says(t, k.Ping(t.Context()), c.says, c.mayPass)
	}

	for _, token := range []string{"", " \n", "two words", remotetest.Token + "\x00", "ü"} {
		cfg := f.config()
		cfg.Token = func() (string, error) { return token, nil }
		_, err := keeper(t, cfg).Keys(t.Context(), accesstoken.ES256)
		says(t, err, "token is empty, or has characters", true)
	}
	cfg := f.config()
	cfg.Token = func() (string, error) { return "", os.ErrNotExist }
	_, err := keeper(t, cfg).Keys(t.Context(), accesstoken.ES256)
	says(t, err, "the remote signer's token: file does not exist", true)
}

// The token goes to no other server.
func TestNoRedirect(t *testing.T) {
	var got atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	defer elsewhere.Close()
	f := startFake(t)
	kept := keys(t, keeper(t, f.config()), accesstoken.ES256, 1)[0]
	for _, status := range []int{301, 302, 303, 307, 308} {
		f.sign = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, status) }
		_, err := kept.Sign(nil, digest, crypto.SHA256)
		says(t, err, "where Watchword does not follow", false)
	}
	if n := got.Load(); n > 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

// What the signer lists is checked.
func TestKeysThatCannotBeUsed(t *testing.T) {
	f := startFake(t)
	public, err := accesstoken.NewKey("k", accesstoken.ES256, f.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(public)
	if err != nil {
		t.Fatal(err)
	}
	other := httptest.NewServer(nil)
	defer other.Close()
	cfg := f.config()
	cfg.URL = other.URL
	k := keeper(t, cfg)
	for body, want := range map[string]string{
		`[]`:             "the keys of the remote signer",
		`{"keys": [7]}`:  "is not an object",
		`{"keys": []}`:   "has no key for ES256",
		`{"keys": [{}]}`: "has no kty",
		`{"keys": [` + strings.Replace(string(jwk), `"kid":"k"`, `"kid":"`+strings.Repeat("k", 129)+`"`, 1) + `]}`: "a name of more than 128 characters",
		`{"keys": [` + strings.Replace(string(jwk), `"kid":"k"`, `"kid":"k k"`, 1) + `]}`:                          "an id is printable ASCII",
		`{"keys": [` + strings.Replace(string(jwk), `"kid":"k"`, `"kid":"k","d":"AAAA"`, 1) + `]}`:                 "private",
	} {
		other.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		_, err := k.Keys(t.Context(), accesstoken.ES256)
		says(t, err, want, false)
	}
}

// A signer that hangs costs the timeout, and Close ends what waits.
func TestTheSignerHangs(t *testing.T) {
	f := startFake(t)
	arrived := make(chan struct{}, 10)
	f.sign = func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body) // so that the end of the connection is noticed
		arrived <- struct{}{}
		<-r.Context().Done()
	}
	cfg := f.config()
	cfg.Timeout = 50 * time.Millisecond
	k, err := remote.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	cfg.Timeout = time.Hour
	patient, err := remote.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var kept keysource.Kept
	for { // a busy machine may take longer than the timeout for this
		list, err := k.Keys(ctx, accesstoken.ES256)
		if err == nil {
			kept = list[0]
			break
		}
		if !errors.Is(err, keysource.ErrKeeperAway) || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	_, err = kept.Sign(nil, digest, crypto.SHA256)
	says(t, err, "cannot be reached", true)

	waits := keys(t, patient, accesstoken.ES256, 1)[0]
	for len(arrived) > 0 {
		<-arrived
	}
	ended := make(chan error, 1)
	go func() {
		_, err := waits.Sign(nil, digest, crypto.SHA256)
		ended <- err
	}()
	<-arrived
	if err := patient.Close(); err != nil {
		t.Error(err)
	}
	says(t, <-ended, "cannot be reached", true)
}

// A signer that has closed an idle connection costs no login: each of its connections has one
// answer, and ends when the next request comes.
func TestAnIdleConnectionBreaks(t *testing.T) {
	f := startFake(t)
	f.sign = func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"signature": base64.RawURLEncoding.EncodeToString(f.signed(t, r.Body))})
	}
	var seen sync.Map // of connections
	next := f.Config.Handler
	f.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, again := seen.LoadOrStore(r.RemoteAddr, true); again {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.Close()
			return
		}
		next.ServeHTTP(w, r)
	})
	kept := keys(t, keeper(t, f.config()), accesstoken.ES256, 1)[0]
	for range 5 {
		if _, err := kept.Sign(nil, digest, crypto.SHA256); err != nil {
			t.Error(err)
		}
	}
}

// New refuses settings by which tokens could be forged, and those that make no sense.
func TestSettings(t *testing.T) {
	cert, key := testenv.SelfSigned(t, "127.0.0.1")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := remote.Config{Kind: remote.Transit, URL: "https://vault.example.com:8200/", Key: "watchword"}
	for _, c := range []struct {
		change func(*remote.Config)
		says   string // empty: it is accepted
	}{
		{func(*remote.Config) {}, ""},
		{func(c *remote.Config) { c.URL = "http://[::1]:8200" }, ""},
		{func(c *remote.Config) { c.URL = "http://localhost:8200" }, ""},
		{func(c *remote.Config) { c.Mount, c.Key = "/team/transit/", "a, b.c-d" }, ""},
		{func(c *remote.Config) { c.CAFile, c.CertFile, c.KeyFile = cert, cert, key }, ""},
		{func(c *remote.Config) { c.Kind = "pkcs11" }, `is "pkcs11"`},
		{func(c *remote.Config) { c.URL = "http://vault.example.com:8200" }, "is not https"},
		{func(c *remote.Config) { c.URL = "http://127.0.0.1.example.com" }, "is not https"},
		{func(c *remote.Config) { c.URL = "http://0.0.0.0:8200" }, "is not https"},
		{func(c *remote.Config) { c.URL = "" }, "not an http or https URL"},
		{func(c *remote.Config) { c.URL = "vault:8200" }, "not an http or https URL"},
		{func(c *remote.Config) { c.URL = "unix:///run/vault" }, "not an http or https URL"},
		{func(c *remote.Config) { c.URL = "https://u:" + remotetest.Token + "@v" }, "has a user"},
		{func(c *remote.Config) { c.URL = "https://v/%zz" + remotetest.Token }, "not an http or https URL"},
		{func(c *remote.Config) { c.URL = "https://v/?a" }, "a query"},
		{func(c *remote.Config) { c.Key = "" }, "a transit key has a name"},
		{func(c *remote.Config) { c.Key = "a/../../sys/seal" }, "a transit key has a name"},
		{func(c *remote.Config) { c.Key = "a," }, "a transit key has a name"},
		{func(c *remote.Config) { c.Key = strings.Repeat("k", 200) }, "a transit key has a name"},
		{func(c *remote.Config) { c.Mount = "../sys" }, "mount"},
		{func(c *remote.Config) { c.Mount = "a?b" }, "mount"},
		{func(c *remote.Config) { c.CertFile = cert }, "together or not at all"},
		{func(c *remote.Config) { c.CAFile = empty }, "has no certificate"},
		{func(c *remote.Config) { c.CAFile = "/none" }, "no such file"},
		{func(c *remote.Config) { c.CertFile, c.KeyFile = cert, empty }, "client certificate"},
		{func(c *remote.Config) { c.URL, c.CAFile = "http://127.0.0.1", cert }, "its URL is not https"},
		{func(c *remote.Config) { c.Timeout = -1 }, "negative"},
	} {
		cfg := good
		c.change(&cfg)
		k, err := remote.New(cfg)
		if c.says != "" {
			says(t, err, c.says, false)
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		_ = k.Close()
	}

	// Another authority's certificate is not believed.
	s := remotetest.StartSigner(t, true, accesstoken.ES256)
	cfg := s.Config()
	cfg.CAFile = ""
	_, err := keeper(t, cfg).Keys(t.Context(), accesstoken.ES256)
	says(t, err, "certificate is not trusted", false)
	cfg = s.Config()
	cfg.CertFile, cfg.KeyFile = "", ""
	_, err = keeper(t, cfg).Keys(t.Context(), accesstoken.ES256)
	says(t, err, "certificate", true)
}
