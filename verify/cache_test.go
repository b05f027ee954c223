package verify_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

func TestARememberedTokenIsRefusedWhenItIsRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, nil)
		for name, revoke := range map[string]func(){
			"token":   func() { f.issuer.Revoke(revoked.Token, "token") },
			"session": func() { f.issuer.Revoke(revoked.Session, "session-session") },
			"user":    func() { f.issuer.RevokeUser("user", 1) },
		} {
			token := f.issuer.Sign(name, map[string]any{"jti": name})
			for range 3 {
				expect(t, v, token, nil)
			}
			revoke()
			settle()
			expect(t, v, token, verify.ErrRevoked)
		}
		key := f.issuer.Token("key", nil)
		expect(t, v, key, nil)
		f.issuer.Revoke(revoked.Key, "key-1")
		settle()
		expect(t, v, key, verify.ErrRevoked)
	})
}

func TestARememberedTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, func(c *verify.Config) { c.Leeway = 2 * time.Second })
		token := f.issuer.Sign("u", map[string]any{"exp": time.Now().Add(time.Minute).Unix()})
		expect(t, v, token, nil)
		time.Sleep(62*time.Second - time.Nanosecond)
		expect(t, v, token, nil)
		time.Sleep(time.Nanosecond)
		expect(t, v, token, accesstoken.ErrExpired)
		if n := v.Cached(); n != 0 {
			t.Errorf("%d tokens are remembered", n)
		}
	})
}

func TestARememberedTokenGoesWithItsKey(t *testing.T) {
	for name, c := range map[string]struct {
		keys func(t *testing.T) http.HandlerFunc
		want error
	}{
		"another set": {func(t *testing.T) http.HandlerFunc {
			other := verifytest.NewAt(t, "https://auth.example")
			other.Rotate()
			return withoutFirstKey(other)
		}, accesstoken.ErrUnknownKey},
		"another key of that name": {func(t *testing.T) http.HandlerFunc {
			return verifytest.NewAt(t, "https://auth.example").ServeHTTP
		}, accesstoken.ErrSignature},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFront(t)
				v := start(t, f, nil)
				token := f.issuer.Token("u", nil)
				expect(t, v, token, nil)
				f.onlyKeys(c.keys(t))
				time.Sleep(40 * time.Second) // the set is fetched again
				expect(t, v, token, c.want)
				if n := v.Cached(); n != 0 {
					t.Errorf("%d tokens are remembered", n)
				}
			})
		})
	}
}

// A set to which a key was added leaves what is remembered as it is.
func TestARememberedTokenStaysWhenAKeyIsAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, nil)
		token := f.issuer.Token("u", nil)
		expect(t, v, token, nil)
		f.issuer.Rotate()
		time.Sleep(40 * time.Second)
		expect(t, v, token, nil)
		if s := v.Status(); s.Keys != 2 || v.Cached() != 1 {
			t.Errorf("%d keys, %d tokens are remembered", s.Keys, v.Cached())
		}
	})
}

// What one request does to its token is nothing to the next.
func TestARememberedTokenCannotBePoisoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, nil)
		token := f.issuer.Sign("u", map[string]any{"ship": "acc", "jti": "token-1", "aud": []string{verifytest.Audience, "there"}})
		steal := verify.That("", func(tok *accesstoken.Token) bool {
			tok.Subject, tok.ID, tok.Epoch, tok.Audience[1] = "root", "other", 99, "elsewhere"
			tok.ExpiresAt = tok.ExpiresAt.Add(time.Hour)
			tok.Claims()["ship"] = "all"
			return true
		})
		for range 3 {
			got, err := v.Verify(t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			if got.Subject != "u" || got.ID != "token-1" || got.Epoch != 0 || got.Audience[1] != "there" ||
				time.Until(got.ExpiresAt) != 30*time.Minute || got.Claim("ship") != "acc" {
				t.Errorf("the token has become %+v", got)
			}
			if _, err := v.Verify(t.Context(), token, steal); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Nothing but the very token is taken for it.
func TestNoOtherTokenPassesForARememberedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, func(c *verify.Config) { c.WithoutRevocations = true })
		token := f.issuer.Token("u", nil)
		expect(t, v, token, nil)
		for i := range len(token) {
			changed := []byte(token)
			changed[i] ^= 1
			if _, err := v.Verify(t.Context(), string(changed)); err == nil {
				t.Errorf("a token is accepted whose byte %d was changed", i)
			}
		}
		for _, other := range []string{token[:len(token)-1], token + "A", token + ".", " " + token} {
			if _, err := v.Verify(t.Context(), other); err == nil {
				t.Errorf("%q is accepted", other)
			}
		}
		if n := v.Cached(); n != 1 {
			t.Errorf("%d tokens are remembered, of one good one", n)
		}
		expect(t, v, token, nil)
	})
}

func TestTheCacheIsBounded(t *testing.T) {
	issuer := verifytest.New(t)
	for _, c := range []struct{ size, most int }{{-1, 0}, {1, 32}, {64, 64}, {100, 128}} {
		cfg := issuer.Config()
		cfg.CacheSize = c.size
		v, err := verify.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		for i := range 500 {
			expect(t, v, issuer.Token(fmt.Sprint(i), nil), nil)
		}
		if n := cached(v, c.size); n > c.most || n < c.most/4 {
			t.Errorf("of 500 tokens, %d are remembered with a size of %d", n, c.size)
		}
	}
}

func cached(v *verify.Verifier, size int) int {
	if size < 0 {
		return 0 // there is no cache at all
	}
	return v.Cached()
}

// Whatever happens to keys, tokens and time, a Verifier says the same with and
// without its cache.
func TestTheCacheChangesNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		with := start(t, f, func(c *verify.Config) { c.CacheSize = 8 })
		without := start(t, f, func(c *verify.Config) { c.CacheSize = -1 })
		other := verifytest.NewAt(t, "https://auth.example")
		random := rand.New(rand.NewPCG(1, 2))
		var tokens []string
		verdicts := map[string]int{}
		// A user's new tokens bear the new epoch, as those of a server do. Otherwise some would
		// outlive the revocation, which each Verifier forgets at a moment of its own.
		var epochs [9]int64
		steps := 400
		if soak() {
			steps = 5000
		}
		for step := range steps {
			switch random.IntN(12) {
			case 0, 1:
				life := []int{1, 20, 90, 600}[random.IntN(4)]
				user := random.IntN(len(epochs))
				tokens = append(tokens, f.issuer.Sign(fmt.Sprint("user-", user), map[string]any{
					"epoch": epochs[user],
					"exp":   time.Now().Add(time.Duration(life) * time.Second).Unix(), "nbf": time.Now().Unix() + int64(random.IntN(10)-6),
				}))
			case 2:
				f.issuer.Revoke(revoked.Token, fmt.Sprint("token-", random.IntN(len(tokens)+1)))
			case 3:
				if random.IntN(20) == 0 {
					user := random.IntN(len(epochs))
					epochs[user]++
					f.issuer.RevokeUser(fmt.Sprint("user-", user), epochs[user])
				}
			case 4:
				if random.IntN(30) == 0 {
					f.issuer.Rotate()
					other.Rotate()
					time.Sleep(time.Minute) // until both have fetched it
				}
			case 5:
				switch random.IntN(20) {
				case 0:
					f.onlyKeys(other.ServeHTTP) // keys of the same names
					time.Sleep(time.Minute)
				case 1:
					f.answer(nil)
					time.Sleep(time.Minute)
				}
			case 6:
				time.Sleep(time.Duration(random.IntN(20_000)) * time.Millisecond)
			}
			settle()
			for i := max(0, len(tokens)-8); i < len(tokens); i++ {
				a, b := verdict(with, tokens[i]), verdict(without, tokens[i])
				if verdicts[b]++; a != b {
					t.Fatalf("step %d, token %d: %s with the cache, %s without", step, i, a, b)
				}
			}
		}
		for _, want := range []string{"accepted", verify.ErrRevoked.Code, accesstoken.ErrExpired.Code, accesstoken.ErrNotYetValid.Code, accesstoken.ErrSignature.Code} {
			if verdicts[want] < 10 {
				t.Errorf("%s was said only %d times; this shows little: %v", want, verdicts[want], verdicts)
			}
		}
	})
}

// verdict is one for all that may be said of a key that is not there: that depends
// on when one asked for it.
func verdict(v *verify.Verifier, token string) string {
	_, err := v.Verify(context.Background(), token)
	e := &accesstoken.Error{}
	switch {
	case errors.Is(err, verify.ErrKeysUnavailable):
		return accesstoken.ErrUnknownKey.Code
	case errors.As(err, &e):
		return e.Code
	}
	return "accepted"
}

func TestTheCacheInUseByMany(t *testing.T) {
	issuer := verifytest.New(t)
	cfg := issuer.Config()
	cfg.CacheSize = 32
	v, err := verify.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var tokens []string
	for i := range 100 {
		tokens = append(tokens, issuer.Sign("u", map[string]any{"jti": fmt.Sprint(i)}))
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 300 {
				i := rand.IntN(len(tokens))
				got, err := v.Verify(t.Context(), tokens[i])
				if err != nil && !errors.Is(err, verify.ErrRevoked) {
					t.Errorf("token %d: %v", i, err)
				}
				if err == nil && got.ID != fmt.Sprint(i) {
					t.Errorf("token %d came back as %s", i, got.ID)
				}
			}
		})
	}
	for i := range 50 {
		issuer.Revoke(revoked.Token, fmt.Sprint(i))
	}
	wg.Wait()
}

// withoutFirstKey serves an issuer's keys but for key-1.
func withoutFirstKey(i *verifytest.Issuer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		i.ServeHTTP(renamed{w}, r)
	}
}

type renamed struct{ http.ResponseWriter }

func (r renamed) Write(p []byte) (int, error) {
	return r.ResponseWriter.Write(bytes.ReplaceAll(p, []byte(`"key-1"`), []byte(`"key-9"`)))
}

// A repeated token beside one that is checked anew, and beside the signature
// alone.
func BenchmarkVerify(b *testing.B) {
	issuer := verifytest.New(b)
	for i := range 1000 {
		issuer.Revoke(revoked.Token, fmt.Sprint("gone-", i))
		issuer.Revoke(revoked.Session, fmt.Sprint("gone-", i))
		issuer.RevokeUser(fmt.Sprint("gone-", i), 1)
	}
	issuer.Revoke(revoked.Key, "gone")
	token := issuer.Sign("0190163d-8694-739b-aea5-966c26f8ad90", map[string]any{
		"jti": "0190163d-8694-739b-aea5-966c26f8ad92", "sid": "0190163d-8694-739b-aea5-966c26f8ad91",
		"preferred_username": "tester", "name": "Travis Ester", "email": "tester@example.com", "ship": "acc,bill", "log": "r,w",
	})
	verifier := func(size int) func() error {
		cfg := issuer.Config()
		cfg.CacheSize = size
		v, err := verify.New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(v.Close)
		return func() error { _, err := v.Verify(b.Context(), token); return err }
	}
	signature, anew, repeated := bareCheck(b, issuer, token), verifier(-1), verifier(0)
	for b.Loop() {
		var took [3][]float64
		for range 31 { // in turns
			for i, f := range []func() error{signature, anew, repeated} {
				took[i] = append(took[i], each(b, []int{20, 20, 1000}[i], f))
			}
		}
		for i := range took {
			slices.Sort(took[i])
		}
		b.ReportMetric(took[0][15], "signature-ns")
		b.ReportMetric(took[1][15], "anew-ns")
		b.ReportMetric(took[2][15], "repeated-ns")
		b.ReportMetric(took[2][0], "repeated-least-ns")
		b.ReportMetric(took[1][15]/took[0][15], "anew/signature")
		b.ReportMetric(took[2][15]/took[0][15], "repeated/signature")
		b.ReportMetric(0, "ns/op")
	}
}

// each is what one of n calls takes, in nanoseconds.
func each(b *testing.B, n int, f func() error) float64 {
	began := time.Now()
	for range n {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
	return float64(time.Since(began)) / float64(n)
}

// bareCheck verifies the token's signature, and does nothing else.
func bareCheck(b *testing.B, issuer *verifytest.Issuer, token string) func() error {
	w := httptest.NewRecorder()
	issuer.ServeHTTP(w, httptest.NewRequest("GET", "/api/pkeys", nil))
	set, err := accesstoken.ParseKeySet(w.Body.Bytes())
	if err != nil {
		b.Fatal(err)
	}
	public := set.Keys()[0].Public
	at := strings.LastIndexByte(token, '.')
	signature, err := base64.RawURLEncoding.DecodeString(token[at+1:])
	if err != nil {
		b.Fatal(err)
	}
	return func() error { return jwt.SigningMethodES256.Verify(token[:at], signature, public) }
}
