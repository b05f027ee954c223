package verify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// A front stands between a Verifier and an issuer, without a network, so that
// simulated time can pass. It counts requests and lets a test answer instead.
type front struct {
	issuer  *verifytest.Issuer
	keys    atomic.Int64
	pages   atomic.Int64
	streams atomic.Int64
	// instead answers a request in place of the issuer, if it is not nil.
	instead atomic.Pointer[http.HandlerFunc]
	// broken ends the answers that are under way.
	broken atomic.Pointer[breaker]
}

type breaker struct {
	context.Context
	cancel context.CancelFunc
}

func newBreaker() *breaker {
	ctx, cancel := context.WithCancel(context.Background())
	return &breaker{ctx, cancel}
}

func newFront(t *testing.T) *front {
	f := &front{issuer: verifytest.NewAt(t, "https://auth.example")}
	f.broken.Store(newBreaker())
	return f
}

func (f *front) answer(h http.HandlerFunc) { f.instead.Store(&h) }

// onlyKeys has the key set answered by h, and the rest by the issuer.
func (f *front) onlyKeys(h http.HandlerFunc) {
	f.answer(func(w http.ResponseWriter, r *http.Request) {
		if isKeys(r) {
			h(w, r)
		} else {
			f.issuer.ServeHTTP(w, r)
		}
	})
}

// onlyFeed has the feed answered by h, and the rest by the issuer.
func (f *front) onlyFeed(h http.HandlerFunc) {
	f.answer(func(w http.ResponseWriter, r *http.Request) {
		if isKeys(r) {
			f.issuer.ServeHTTP(w, r)
		} else {
			h(w, r)
		}
	})
}

func isKeys(r *http.Request) bool   { return strings.HasSuffix(r.URL.Path, "jwks.json") }
func isStream(r *http.Request) bool { return r.Header.Get("Accept") == "text/event-stream" }

func fail(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "no", http.StatusInternalServerError)
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case isKeys(r):
		f.keys.Add(1)
	case isStream(r):
		f.streams.Add(1)
	default:
		f.pages.Add(1)
	}
	if h := f.instead.Load(); h != nil && *h != nil {
		(*h)(w, r)
		return
	}
	f.issuer.ServeHTTP(w, r)
}

// RoundTrip runs the handler in a goroutine and pipes its answer. A handler that panics
// with http.ErrAbortHandler resets the connection.
func (f *front) RoundTrip(r *http.Request) (*http.Response, error) {
	body, pipe := io.Pipe()
	w := &answer{header: http.Header{}, body: pipe, ready: make(chan struct{})}
	reset := make(chan struct{})
	go func() {
		defer func() {
			switch cause := recover(); cause {
			case nil:
			case http.ErrAbortHandler:
				pipe.CloseWithError(syscall.ECONNRESET)
				close(reset)
			default:
				panic(cause)
			}
		}()
		f.ServeHTTP(w, r)
		w.WriteHeader(http.StatusOK)
		pipe.Close()
	}()
	stopLeft := context.AfterFunc(r.Context(), func() { body.CloseWithError(r.Context().Err()) })
	stopBroken := context.AfterFunc(f.broken.Load(), func() { body.CloseWithError(io.ErrUnexpectedEOF) })
	stop := func() bool { return stopLeft() && stopBroken() }
	select {
	case <-w.ready:
		return &http.Response{
			StatusCode: w.status, Status: http.StatusText(w.status), Header: w.header.Clone(), Request: r,
			Body: &answerBody{body, stop},
		}, nil
	case <-reset:
		return nil, syscall.ECONNRESET
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

type answer struct {
	header http.Header
	status int
	once   sync.Once
	ready  chan struct{}
	body   *io.PipeWriter
}

func (a *answer) Header() http.Header { return a.header }
func (a *answer) Flush()              {}
func (a *answer) WriteHeader(status int) {
	a.once.Do(func() { a.status = status; close(a.ready) })
}
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

type answerBody struct {
	*io.PipeReader
	stop func() bool
}

func (b *answerBody) Close() error { b.stop(); return b.PipeReader.Close() }

func start(t *testing.T, f *front, change func(*verify.Config)) *verify.Verifier {
	t.Helper()
	cfg := f.issuer.Config()
	cfg.HTTPClient = &http.Client{Transport: f}
	cfg.Logger = slog.New(slog.DiscardHandler)
	if change != nil {
		change(&cfg)
	}
	v, err := verify.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func expect(t *testing.T, v *verify.Verifier, token string, want error) {
	t.Helper()
	_, err := v.Verify(t.Context(), token)
	if !errors.Is(err, want) || want == nil && err != nil {
		t.Errorf("Verify gives %v, want %v", err, want)
	}
}

func TestVerify(t *testing.T) {
	issuer := verifytest.New(t)
	v, err := verify.New(issuer.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	got, err := v.Verify(t.Context(), issuer.Token("u1", map[string]string{"log": "r,w"}))
	if err != nil || got.Subject != "u1" || !got.HasValue("log", "w") {
		t.Errorf("Verify gives %+v, %v", got, err)
	}
	expect(t, v, issuer.Sign("u1", map[string]any{"exp": time.Now().Add(-time.Second).Unix()}), accesstoken.ErrExpired)
	expect(t, v, issuer.Sign("u1", map[string]any{"aud": "https://other.example"}), accesstoken.ErrAudience)
	expect(t, v, issuer.Sign("u1", map[string]any{"iss": "https://other.example"}), accesstoken.ErrIssuer)
	expect(t, v, issuer.Sign("u1", map[string]any{"jti": nil}), accesstoken.ErrMissingClaim)
	expect(t, v, verifytest.New(t).Token("u1", nil), accesstoken.ErrSignature) // another's key-1
	if s := v.Status(); s.Keys != 1 || !s.Fresh || s.Confirmed.IsZero() {
		t.Errorf("status is %+v", s)
	}
}

func TestEveryKindOfRevocationArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, nil)
		tokens := map[string]string{}
		for _, sub := range []string{"by-jti", "by-sid", "by-user", "by-kid"} {
			tokens[sub] = f.issuer.Sign(sub, map[string]any{"jti": "jti-" + sub})
			expect(t, v, tokens[sub], nil)
		}
		f.issuer.Revoke(revoked.Token, "jti-by-jti")
		f.issuer.Revoke(revoked.Session, "session-by-sid")
		f.issuer.RevokeUser("by-user", 1)
		settle()
		for sub, want := range map[string]error{"by-jti": verify.ErrRevoked, "by-sid": verify.ErrRevoked, "by-user": verify.ErrRevoked, "by-kid": nil} {
			expect(t, v, tokens[sub], want)
		}
		expect(t, v, f.issuer.Sign("by-user", map[string]any{"epoch": 1}), nil)
		f.issuer.Rotate()
		f.issuer.Revoke(revoked.Key, "key-1")
		settle()
		expect(t, v, tokens["by-kid"], verify.ErrRevoked)
		time.Sleep(5 * time.Second) // the cooldown: the first set is younger than the new key
		expect(t, v, f.issuer.Token("good", nil), nil)
	})
}

// One fetch for each max-age, a little before it is over. The defect: a timer with
// the sign reversed made 33,000 fetches in 2 s; another client fetched every five
// minutes, whatever max-age said.
func TestTheKeySetIsFetchedBeforeItIsTooOld(t *testing.T) {
	for _, c := range []struct {
		header      string
		least, most int64 // in an hour
	}{
		{"public, max-age=30, stale-if-error=86400", 3600 / 30, 3600/27 + 1},
		{"MAX-AGE=600", 3600 / 600, 3600/540 + 1},
		{"", 3600 / 30, 3600/27 + 1},
		{"max-age=31536000", 1, 2},
		{"max-age=2", 3600 / 2, 3600*10/18 + 1}, // a new key may sign after that
		{"max-age=0", 3600 / 5, 3600*10/45 + 1},
		{"no-store", 3600 / 5, 3600*10/45 + 1},
		{"max-age=-5", 3600 / 30, 3600/27 + 1},
		{"max-age=99999999999999999999", 3600 / 30, 3600/27 + 1},
		{"max-age=9223372036", 1, 2},
	} {
		t.Run(c.header, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFront(t)
				f.onlyKeys(func(w http.ResponseWriter, r *http.Request) {
					f.issuer.ServeHTTP(overrideCacheControl{w, c.header}, r)
				})
				v := start(t, f, func(c *verify.Config) { c.WithoutRevocations = true })
				expect(t, v, f.issuer.Token("u", nil), nil)
				time.Sleep(time.Hour)
				if n := f.keys.Load(); n < c.least || n > c.most {
					t.Errorf("%d fetches in an hour, want %d to %d", n, c.least, c.most)
				}
			})
		})
	}
}

type overrideCacheControl struct {
	http.ResponseWriter
	value string
}

func (o overrideCacheControl) Write(p []byte) (int, error) {
	o.Header().Del("Cache-Control")
	if o.value != "" {
		o.Header().Set("Cache-Control", o.value)
	}
	return o.ResponseWriter.Write(p)
}

// The defect: one 500 answer emptied the key set.
func TestBadAnswersChangeNothing(t *testing.T) {
	text := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); io.WriteString(w, body) }
	}
	w := httptest.NewRecorder()
	verifytest.NewAt(t, "").ServeHTTP(w, httptest.NewRequest("GET", "/api/pkeys", nil))
	another := w.Body.String()
	long := `{"keys":[],"x":"` + strings.Repeat("x", accesstoken.MaxKeySetLength) + `"}`
	longOnes := 0
	for name, h := range map[string]http.HandlerFunc{
		"500":               fail,
		"500 with an empty": text(500, `{"keys":[]}`),
		"500 with another":  text(500, another),
		"203 with another":  text(203, another),
		"204":               text(204, ""),
		"404":               text(404, "{}"),
		"no body":           text(200, ""),
		"an empty set":      text(200, `{"keys":[]}`),
		"no set":            text(200, `{}`),
		"only others' keys": text(200, `{"keys":[{"kty":"oct","k":"AAAA","kid":"key-1"}]}`),
		"garbage":           text(200, `<html>come back later</html>`),
		"half a set":        text(200, `{"keys":[{"kty":"EC"`),
		"too large": func(w http.ResponseWriter, r *http.Request) {
			if longOnes++; longOnes > 5 { // it is dear to send
				fail(w, r)
				return
			}
			text(200, long)(w, r)
		},
		"304 unasked": text(304, ""),
		"never":       func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFront(t)
				v := start(t, f, func(c *verify.Config) { c.WithoutRevocations = true })
				expect(t, v, f.issuer.Token("u", nil), nil)
				f.onlyKeys(h)
				before := f.keys.Load()
				time.Sleep(time.Hour)
				expect(t, v, f.issuer.Token("u", nil), nil)
				if n := f.keys.Load() - before; n < 3600/40 || n > 3600/15+10 {
					t.Errorf("%d fetches in an hour of failures", n)
				}
				f.answer(nil)
				f.issuer.Rotate()
				time.Sleep(time.Minute)
				expect(t, v, f.issuer.Token("u", nil), nil)
			})
		})
	}
}

// The defect: random kids wiped the cache, or caused a fetch each, or locked out
// everybody.
func TestRandomKeyIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, func(c *verify.Config) { c.WithoutRevocations = true })
		good := f.issuer.Token("u", nil)
		expect(t, v, good, nil)
		_, rest, _ := strings.Cut(good, ".")
		before := f.keys.Load()
		unknown, unavailable := 0, 0
		flood := func(seconds int) {
			for s := range seconds {
				for i := range 100 {
					kid := fmt.Sprintf("%d-%d-%d", seconds, s, i)
					_, err := v.Verify(t.Context(), header(kid)+"."+rest)
					switch {
					case errors.Is(err, accesstoken.ErrUnknownKey):
						unknown++
					case errors.Is(err, verify.ErrKeysUnavailable):
						unavailable++
					default:
						t.Fatalf("kid %s: %v", kid, err)
					}
				}
				expect(t, v, good, nil)
				time.Sleep(time.Second)
			}
		}
		flood(120)
		if n := f.keys.Load() - before; n > 2*12+2*4 {
			t.Errorf("%d fetches in two minutes of random kids", n)
		}
		if unknown == 0 || unavailable == 0 {
			t.Errorf("%d were unknown, %d unavailable", unknown, unavailable)
		}
		// A new key is found in the midst of it.
		f.issuer.Rotate()
		next := f.issuer.Token("u", nil)
		flood(6)
		expect(t, v, next, nil)
	})
}

func header(kid string) string {
	h, _ := json.Marshal(map[string]string{"alg": "ES256", "typ": "at+jwt", "kid": kid})
	return encode(h)
}

// However many kids are invented while one fetch is under way, only so many are
// remembered.
func TestUnknownKeyIDsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, func(c *verify.Config) { c.WithoutRevocations = true })
		good := f.issuer.Token("u", nil)
		expect(t, v, good, nil)
		time.Sleep(6 * time.Second)
		f.onlyKeys(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			f.issuer.ServeHTTP(w, r)
		})
		_, rest, _ := strings.Cut(good, ".")
		var wg sync.WaitGroup
		for i := range 3000 {
			wg.Go(func() { expect(t, v, header(fmt.Sprint(i))+"."+rest, accesstoken.ErrUnknownKey) })
		}
		wg.Wait()
		if n := v.Unknown(); n == 0 || n > 1024 {
			t.Errorf("%d are remembered", n)
		}
		expect(t, v, good, nil)
	})
}

func TestAKidIsLookedUpOnceAndNotAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, func(c *verify.Config) { c.WithoutRevocations = true })
		good := f.issuer.Token("u", nil)
		expect(t, v, good, nil)
		time.Sleep(6 * time.Second) // the cooldown is over
		before := f.keys.Load()
		f.issuer.Rotate()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { expect(t, v, f.issuer.Token("u", nil), nil) }) // at once, with one fetch
		}
		wg.Wait()
		if n := f.keys.Load() - before; n != 1 {
			t.Errorf("%d fetches for one new key", n)
		}
		_, rest, _ := strings.Cut(good, ".")
		time.Sleep(6 * time.Second)
		before = f.keys.Load()
		for range 5 {
			expect(t, v, header("gone")+"."+rest, accesstoken.ErrUnknownKey)
			time.Sleep(time.Second)
		}
		if n := f.keys.Load() - before; n != 1 {
			t.Errorf("%d fetches for one key that does not exist", n)
		}
		// When it cannot be asked, nothing is said against the token.
		f.onlyKeys(fail)
		time.Sleep(time.Minute)
		expect(t, v, header("other")+"."+rest, verify.ErrKeysUnavailable)
	})
}

// The defect: 100 cold requests made 89 fetches.
func TestColdRequestsMakeOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		f.onlyKeys(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			f.issuer.ServeHTTP(w, r)
		})
		v := start(t, f, nil)
		token := f.issuer.Token("u", nil)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { expect(t, v, token, nil) })
		}
		wg.Wait()
		if n := f.keys.Load(); n != 1 {
			t.Errorf("%d fetches for 100 cold requests", n)
		}
	})
}

func TestAServerThatHangsDelaysNoRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		f.answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		v := start(t, f, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		_, err := v.Verify(ctx, f.issuer.Token("u", nil))
		if !errors.Is(err, verify.ErrKeysUnavailable) || time.Since(begun) != time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		_, err = v.Verify(t.Context(), f.issuer.Token("u", nil))
		if !errors.Is(err, verify.ErrKeysUnavailable) || time.Since(begun) > 5*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		f.answer(nil)
		time.Sleep(10 * time.Second)
		expect(t, v, f.issuer.Token("u", nil), nil)
	})
}

func TestAfterCloseNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		f.answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		v := start(t, f, nil)
		done := make(chan error)
		go func() { _, err := v.Verify(t.Context(), f.issuer.Token("u", nil)); done <- err }()
		synctest.Wait()
		v.Close()
		if err := <-done; !errors.Is(err, verify.ErrKeysUnavailable) {
			t.Errorf("a verification during Close: %v", err)
		}
		expect(t, v, f.issuer.Token("u", nil), verify.ErrKeysUnavailable)
	})
}

func TestTheKeySetIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		var full atomic.Int64
		f.onlyKeys(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"v1"`)
			if r.Header.Get("If-None-Match") == `"v1"` {
				w.Header().Set("Cache-Control", "max-age=60")
				w.WriteHeader(http.StatusNotModified)
				return
			}
			full.Add(1)
			f.issuer.ServeHTTP(w, r)
		})
		v := start(t, f, nil)
		time.Sleep(10 * time.Minute)
		expect(t, v, f.issuer.Token("u", nil), nil)
		if n, all := full.Load(), f.keys.Load(); n != 1 || all < 10 || all > 18 {
			t.Errorf("sent %d times in %d requests", n, all)
		}
	})
}

func TestConfigThatCannotWork(t *testing.T) {
	for name, cfg := range map[string]verify.Config{
		"nothing":            {},
		"no issuer":          {Audience: []string{"a"}},
		"no issuer, but URL": {Audience: []string{"a"}, KeySetURL: "https://a/k", RevocationsURL: "https://a/r"},
		"issuer no URL":      {Issuer: "auth.example", Audience: []string{"a"}},
		"file":               {Issuer: "file:///etc", Audience: []string{"a"}},
		"quote":              {Issuer: `https://a"b`, Audience: []string{"a"}},
		"another header":     {Issuer: "a\r\nX-Evil: 1", KeySetURL: "https://a/k", RevocationsURL: "https://a/r"},
		"too strict":         {Issuer: "https://auth.example", Audience: []string{"a"}, MaxStaleness: time.Second},
		"leeway":             {Issuer: "https://auth.example", Audience: []string{"a"}, Leeway: verify.MaxLeeway + 1},
		"no leeway":          {Issuer: "https://auth.example", Audience: []string{"a"}, Leeway: -1},
		"client":             {Issuer: "https://auth.example", Audience: []string{"a"}, HTTPClient: &http.Client{Timeout: time.Second}},
	} {
		if v, err := verify.New(cfg); err == nil {
			v.Close()
			t.Errorf("%s: a Verifier was made", name)
		}
	}
}

// Resource servers get no more than the standard library and golang-jwt.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".", "./accesstoken", "./revoked", "./verifytest").Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.FieldsSeq(string(out)) {
		if path != "github.com/golang-jwt/jwt/v5" && !strings.HasPrefix(path, "github.com/watchword-auth/watchword/verify") {
			t.Errorf("verify depends on %s", path)
		}
	}
	if !strings.Contains(string(out), "verify/accesstoken") {
		t.Errorf("go list printed %q", out)
	}
}

func TestRequire(t *testing.T) {
	issuer := verifytest.New(t)
	v, err := verify.New(issuer.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	token := issuer.Token("u1", map[string]string{"ship": "acc,bill", "log": "r"})
	gone := issuer.Sign("u2", map[string]any{"jti": "gone"})
	issuer.Revoke(revoked.Token, "gone")
	for deadline := time.Now().Add(5 * time.Second); v.Status().Revocations == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	realm := `Bearer realm="` + issuer.URL + `"`
	for _, c := range []struct {
		name          string
		authorization []string
		conditions    []verify.Condition
		status        int
		code          string
		challenge     string
	}{
		{"a good token", []string{"Bearer " + token}, nil, 200, "", ""},
		{"any case", []string{"bearer  " + token}, nil, 200, "", ""},
		{"none", nil, nil, 401, "token_missing", realm},
		{"basic", []string{"Basic dTpw"}, nil, 401, "token_missing", realm},
		{"empty", []string{"Bearer "}, nil, 401, "token_missing", realm},
		{"two", []string{"Bearer " + token, "Bearer " + token}, nil, 400, "invalid_request", realm + `, error="invalid_request", error_description="invalid_request"`},
		{"garbage", []string{"Bearer x"}, nil, 401, "token_malformed", realm + `, error="invalid_token", error_description="token_malformed"`},
		{"revoked", []string{"Bearer " + gone}, nil, 401, "token_revoked", realm + `, error="invalid_token", error_description="token_revoked"`},
		{"claim", []string{"Bearer " + token}, []verify.Condition{verify.Claim("ship", "bill")}, 200, "", ""},
		{"the list itself", []string{"Bearer " + token}, []verify.Condition{verify.Claim("ship", "acc,bill")}, 200, "", ""},
		{"a longer list", []string{"Bearer " + token}, []verify.Condition{verify.Claim("ship", "acc,sail")}, 403, "forbidden", realm + `, error="insufficient_scope", error_description="forbidden"`},
		{"part of a value", []string{"Bearer " + token}, []verify.Condition{verify.Claim("ship", "ac")}, 403, "forbidden", realm + `, error="insufficient_scope", error_description="forbidden"`},
		{"both", []string{"Bearer " + token}, []verify.Condition{verify.Claim("ship", "acc"), verify.Claim("log", "w")}, 403, "forbidden", realm + `, error="insufficient_scope", error_description="forbidden"`},
		{"any", []string{"Bearer " + token}, []verify.Condition{verify.Any(verify.Claim("log", "w"), verify.Claim("ship", "acc"))}, 200, "", ""},
		{"any of none", []string{"Bearer " + token}, []verify.Condition{verify.Any()}, 403, "forbidden", realm + `, error="insufficient_scope", error_description="forbidden"`},
		{"all", []string{"Bearer " + token}, []verify.Condition{verify.All(verify.Claim("log", "r"), verify.Claim("ship", "acc"))}, 200, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := v.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tok, ok := verify.FromContext(r.Context()); !ok || tok.Subject != "u1" {
					t.Errorf("the context holds %+v", tok)
				}
			}), c.conditions...)
			r := httptest.NewRequest("GET", "/", nil)
			r.Header["Authorization"] = c.authorization
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.status || w.Header().Get("WWW-Authenticate") != c.challenge {
				t.Errorf("answers %d, %q, want %d, %q", w.Code, w.Header().Get("WWW-Authenticate"), c.status, c.challenge)
			}
			if c.status == 200 {
				return
			}
			var p struct {
				Type, Title, Detail, Code string
				Status                    int
			}
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Code != c.code || p.Status != c.status || p.Detail == "" ||
				p.Type != "about:blank" || p.Title != http.StatusText(c.status) || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("problem is %s, %v", w.Body, err)
			}
		})
	}
	if _, ok := verify.FromContext(t.Context()); ok {
		t.Error("a context without a token has one")
	}
}

func TestRequireAnswers503WhenItDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		f.answer(fail)
		v := start(t, f, nil)
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+f.issuer.Token("u", nil))
		w := httptest.NewRecorder()
		v.Require(http.NotFoundHandler()).ServeHTTP(w, r)
		if w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "key_set_unavailable") {
			t.Errorf("answers %d, %v, %s", w.Code, w.Header(), w.Body)
		}
	})
}
