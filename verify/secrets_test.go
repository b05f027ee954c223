package verify_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

const (
	present = "the present secret, which the replicas and a few resource servers have"
	former  = "the former secret of the replicas"
)

// signWith signs a token as a replica with the secret does, and returns the kid, too.
func signWith(t testing.TB, f *front, secret, alg, subject string) (compact, kid string) {
	t.Helper()
	s, err := token.NewSecretSigner(secret, alg)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	compact, err = s.Sign(token.Access{
		Issuer: f.issuer.URL, Audience: []string{verifytest.Audience}, Subject: subject, ClientID: token.FirstParty,
		ID: "jti-" + subject, SessionID: "session-" + subject, IssuedAt: now, NotBefore: now, ExpiresAt: now.Add(30 * time.Minute),
		User: map[string]string{"log": "r"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return compact, s.KeyID()
}

// refuse expects that there is no key for the token, whether or not that is known.
func refuse(t *testing.T, v *verify.Verifier, compact string) {
	t.Helper()
	if _, err := v.Verify(t.Context(), compact); !errors.Is(err, accesstoken.ErrUnknownKey) && !errors.Is(err, verify.ErrKeysUnavailable) {
		t.Errorf("Verify gives %v, want no key", err)
	}
}

func empty(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "public, max-age=30")
	_, _ = w.Write([]byte(`{"keys":[]}`))
}

// A deployment with a secret publishes no key. Its tokens are verified all the same, by the
// present secret and the former one; revocations count.
func TestSharedSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		f.onlyKeys(empty)
		var log bytes.Buffer
		v := start(t, f, func(cfg *verify.Config) {
			cfg.Secrets = []string{present, former}
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		tokens := map[string]string{}
		for _, alg := range accesstoken.SecretAlgorithms() {
			tokens[alg], _ = signWith(t, f, present, alg, alg)
		}
		tokens["former"], _ = signWith(t, f, former, "HS256", "former")
		for range 2 { // the second time from memory
			for _, compact := range tokens {
				expect(t, v, compact, nil)
			}
		}
		time.Sleep(5 * time.Minute)
		if fetches := f.keys.Load(); fetches < 10 || fetches > 13 {
			t.Errorf("%d fetches of an empty key set in 5 minutes, which may be kept for 30 s", fetches)
		}
		if log.Len() > 0 || !v.Status().Fresh || v.Status().Keys != 0 {
			t.Errorf("status %+v, log: %s", v.Status(), log.String())
		}
		fresh, _ := signWith(t, f, present, "HS256", "u")
		expect(t, v, fresh, nil)
		unknown, _ := signWith(t, f, "a secret that this resource server does not have", "HS256", "u")
		refuse(t, v, unknown)
		f.issuer.Revoke(revoked.Session, "session-u")
		settle()
		expect(t, v, fresh, verify.ErrRevoked)
	})
}

// The revocation of a secret has an entry for each of its keys: it is good for no algorithm, and
// the other secret goes on.
func TestARevokedSecretIsRevokedWithEachAlgorithm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		f.onlyKeys(empty)
		v := start(t, f, func(cfg *verify.Config) { cfg.Secrets = []string{present, former} })
		for _, alg := range accesstoken.SecretAlgorithms() {
			_, kid := signWith(t, f, present, alg, "u")
			f.issuer.Revoke(revoked.Key, kid)
		}
		settle()
		for _, alg := range accesstoken.SecretAlgorithms() {
			forged, _ := signWith(t, f, present, alg, "root")
			expect(t, v, forged, verify.ErrRevoked)
		}
		other, _ := signWith(t, f, former, "HS256", "u")
		expect(t, v, other, nil)
	})
}

// With a secret, keys of a key set count as before; a key set cannot put one in the place of a
// secret's, and no key set is needed for a secret.
func TestSecretsBesideAKeySet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		compact, kid := signWith(t, f, present, "HS256", "u")
		v := start(t, f, func(cfg *verify.Config) { cfg.Secrets, cfg.WithoutRevocations = []string{present}, true })
		expect(t, v, compact, nil)
		expect(t, v, f.issuer.Token("u", nil), nil)

		// A set in which the secret's kid names a public key, or that gives the secret away.
		f.onlyKeys(func(w http.ResponseWriter, r *http.Request) {
			own := httptest.NewRecorder()
			f.issuer.ServeHTTP(own, r)
			_, _ = w.Write(bytes.ReplaceAll(own.Body.Bytes(), []byte(`"key-1"`), []byte(`"`+kid+`"`)))
		})
		time.Sleep(time.Minute)
		expect(t, v, compact, nil)
		header, rest, _ := strings.Cut(f.issuer.Token("u", nil), ".")
		expect(t, v, encodeHeader(`{"alg":"ES256","kid":"`+kid+`","typ":"at+jwt"}`)+"."+rest, accesstoken.ErrAlgorithm)
		refuse(t, v, header+"."+rest)

		f.onlyKeys(fail)
		time.Sleep(25 * time.Hour)
		later, _ := signWith(t, f, present, "HS256", "u")
		expect(t, v, later, nil)
	})
}

// Without a secret, none is believed: not the public key as one, not one that is served.
func TestWithoutASecretNoMACIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		compact, kid := signWith(t, f, present, "HS256", "root")
		v := start(t, f, nil)
		expect(t, v, f.issuer.Token("u", nil), nil)
		expect(t, v, compact, verify.ErrKeysUnavailable) // it fetched a moment ago
		f.onlyKeys(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprintf(w, `{"keys":[{"kty":"oct","kid":%q,"alg":"HS256"}]}`, kid)
		})
		time.Sleep(time.Minute)
		refuse(t, v, compact)
		expect(t, v, f.issuer.Token("u", nil), nil) // the last good set stays
	})
}

func TestSecretsThatAreRefused(t *testing.T) {
	f := newFront(t)
	for name, secrets := range map[string][]string{
		"empty":     {""},
		"31 bytes":  {present[:31]},
		"a former":  {present, former[:31]},
		"twice":     {present, former, present},
		"twice, 32": {present[:32], present[:32]},
	} {
		cfg := f.issuer.Config()
		cfg.Secrets = secrets
		if v, err := verify.New(cfg); err == nil {
			v.Close()
			t.Errorf("%s: taken", name)
		} else if strings.Contains(err.Error(), present[:8]) {
			t.Errorf("%s: the secret is shown: %v", name, err)
		}
	}
	v := start(t, f, func(cfg *verify.Config) { cfg.Secrets = []string{present} })
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		if strings.Contains(fmt.Sprintf(verb, v), present[:8]) {
			t.Errorf("%s shows the secret", verb)
		}
	}
}

func TestRequireWithASecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		f.onlyKeys(empty)
		v := start(t, f, func(cfg *verify.Config) { cfg.Secrets = []string{present} })
		good, kid := signWith(t, f, present, "HS256", "u")
		answer := func(c verify.Condition) int {
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", "Bearer "+good)
			v.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), c).ServeHTTP(w, r)
			return w.Code
		}
		if code := answer(verify.Claim("log", "r")); code != http.StatusOK {
			t.Errorf("a good token: %d", code)
		}
		if code := answer(verify.Claim("log", "w")); code != http.StatusForbidden {
			t.Errorf("without the claim: %d", code)
		}
		f.issuer.Revoke(revoked.Key, kid)
		settle()
		if code := answer(verify.Claim("log", "r")); code != http.StatusUnauthorized {
			t.Errorf("after the secret was revoked: %d", code)
		}
	})
}

func encodeHeader(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
