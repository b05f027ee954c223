package token_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/golang-jwt/jwt/v5"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 999_999_999, time.UTC)

func check(t testing.TB, s *token.Signer, compact string) *accesstoken.Token {
	t.Helper()
	set, err := accesstoken.NewKeySet(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	tok, err := rules.Check(compact, now, set.Find)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestSignedTokensAreAccepted(t *testing.T) {
	for _, alg := range accesstoken.Algorithms() {
		s, _ := newSigner(t, alg)
		if s.Algorithm() != alg || s.KeyID() != "auth-0-"+alg || s.Public().ID != s.KeyID() {
			t.Errorf("%s: the signer is %s, %s", alg, s.KeyID(), s.Algorithm())
		}
		compact, err := s.Sign(someClaims(now))
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		tok := check(t, s, compact)
		if tok.KeyID != s.KeyID() || tok.Subject != someClaims(now).Subject || tok.ID != someClaims(now).ID ||
			tok.SessionID != someClaims(now).SessionID || tok.Epoch != 3 ||
			!slices.Equal(tok.AMR, someClaims(now).AMR) || tok.ACR != "aal2" || tok.Claim("log") != "r,w" || tok.Claim("email") != "ada@example.com" {
			t.Errorf("%s: read as %+v", alg, tok)
		}
		// Times lose their fraction: the token never lives longer than said.
		if want := now.Truncate(time.Second); !tok.IssuedAt.Equal(want) || !tok.NotBefore.Equal(want) || !tok.ExpiresAt.Equal(want.Add(30*time.Minute)) {
			t.Errorf("%s: the times are %v, %v, %v", alg, tok.IssuedAt, tok.NotBefore, tok.ExpiresAt)
		}
	}
}

// TestWireForm: header and payload, byte by byte, of a key that signs in one way
// only.
func TestWireForm(t *testing.T) {
	s, _ := newSigner(t, accesstoken.EdDSA)
	c := someClaims(now)
	compact, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Sign(c)
	if err != nil || again != compact {
		t.Errorf("the same claims gave another token: %v", err)
	}
	part := strings.Split(compact, ".")
	for i, want := range []string{
		`{"alg":"EdDSA","kid":"auth-0-EdDSA","typ":"at+jwt"}`,
		`{"acr":"aal2","amr":["mfa","otp","pwd"],"aud":"https://api.example.com","auth_time":1772366340,"client_id":"watchword","email":"ada@example.com","epoch":3,"exp":1772368200,"iat":1772366400,` +
			`"iss":"https://auth.example.com","jti":"pO3s4rJt0Tqv7c1zQmZ2Yg","log":"r,w","name":"Ada Lovelace","nbf":1772366400,` +
			`"preferred_username":"ada","sid":"b1f3f0c47d5f4f9c","sub":"0198c8c4-2f5e-7a63-9f3e-6b1d2f0c9a11"}`,
	} {
		got, err := base64.RawURLEncoding.DecodeString(part[i])
		if err != nil || string(got) != want {
			t.Errorf("part %d is %s, %v\nwant %s", i, got, err, want)
		}
	}
	c.NotBefore = c.IssuedAt.Add(-5 * time.Second)
	if compact, err = s.Sign(c); err != nil {
		t.Fatal(err)
	}
	tok := check(t, s, compact)
	if part := tok.Payload(); !strings.Contains(part, `"exp":1772368200,"iat":1772366395,"iat_exact":1772366400,`) || !strings.Contains(part, `"nbf":1772366395,`) ||
		!tok.IssuedAt.Equal(c.IssuedAt.Truncate(time.Second)) {
		t.Errorf("dated back: %s, issued at %v", part, tok.IssuedAt)
	}
	c.Audience = append(c.Audience, "https://two.example.com")
	c.SessionID, c.NotBefore, c.AuthTime, c.AMR, c.ACR = "", time.Time{}, time.Time{}, nil, ""
	compact, err = s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	tok = check(t, s, compact)
	claims := tok.Claims()
	if list, ok := claims["aud"].([]any); !ok || len(list) != 2 || len(tok.Audience) != 2 {
		t.Errorf("two audiences became %v", claims["aud"])
	}
	for _, name := range []string{"sid", "nbf", "auth_time", "amr", "acr"} {
		if _, ok := claims[name]; ok {
			t.Errorf("an empty %s was written", name)
		}
	}
}

// otherKind is a token of a kind that the signer does not know.
type otherKind struct{ token.Access }

func (otherKind) Kind() token.Kind { return "other" }

func TestSignRefuses(t *testing.T) {
	s, _ := newSigner(t, accesstoken.EdDSA)
	for name, change := range map[string]func(c *token.Access){
		"no issuer":         func(c *token.Access) { c.Issuer = "" },
		"no subject":        func(c *token.Access) { c.Subject = "" },
		"no id":             func(c *token.Access) { c.ID = "" },
		"no client":         func(c *token.Access) { c.ClientID = "" },
		"no audience":       func(c *token.Access) { c.Audience = nil },
		"an empty audience": func(c *token.Access) { c.Audience = []string{""} },
		"no iat":            func(c *token.Access) { c.IssuedAt = time.Time{} },
		"no exp":            func(c *token.Access) { c.ExpiresAt = time.Time{} },
		"exp at iat":        func(c *token.Access) { c.ExpiresAt = c.IssuedAt },
		"exp in the second of iat": func(c *token.Access) {
			c.IssuedAt = c.IssuedAt.Truncate(time.Second)
			c.ExpiresAt = c.IssuedAt.Add(time.Second - 1)
		},
		"an empty method":   func(c *token.Access) { c.AMR = []string{"pwd", ""} },
		"method not UTF-8":  func(c *token.Access) { c.AMR = []string{"pwd\xff"} },
		"acr not UTF-8":     func(c *token.Access) { c.ACR = "\xff" },
		"amr as a claim":    func(c *token.Access) { c.User["amr"] = "otp" },
		"AMR as a claim":    func(c *token.Access) { c.User["AMR"] = "otp" },
		"acr as a claim":    func(c *token.Access) { c.User["acr"] = "aal2" },
		"a negative epoch":  func(c *token.Access) { c.Epoch = -1 },
		"sub as a claim":    func(c *token.Access) { c.User["sub"] = "root" },
		"EXP as a claim":    func(c *token.Access) { c.User["EXP"] = "9999999999" },
		"epoch as a claim":  func(c *token.Access) { c.User["epoch"] = "9" },
		"iat_exact as one":  func(c *token.Access) { c.User["iat_exact"] = "9" },
		"a name in quotes":  func(c *token.Access) { c.User[`x","sub":"root`] = "1" },
		"an empty name":     func(c *token.Access) { c.User[""] = "1" },
		"long s for s":      func(c *token.Access) { c.User["ſub"] = "root" },
		"value not UTF-8":   func(c *token.Access) { c.User["x"] = "\xff" },
		"issuer not UTF-8":  func(c *token.Access) { c.Issuer = "\xff" },
		"subject not UTF-8": func(c *token.Access) { c.Subject = "\xff" },
	} {
		c := someClaims(now)
		change(&c)
		if compact, err := s.Sign(c); err == nil {
			t.Errorf("%s: signed %s", name, compact)
		}
	}
	if compact, err := s.Sign(otherKind{someClaims(now)}); err == nil {
		t.Errorf("a kind that there is not: signed %s", compact)
	}
	c := someClaims(now)
	c.User["much"] = strings.Repeat("x", accesstoken.DefaultMaxLength)
	if _, err := s.Sign(c); !errors.Is(err, token.ErrTooLong) {
		t.Errorf("a token that nobody accepts: %v", err)
	}
}

// TestWhatIsSignedIsWhatIsRead: any claims that Sign takes come back the same,
// and a token with one byte changed does not come back.
func TestWhatIsSignedIsWhatIsRead(t *testing.T) {
	s, _ := newSigner(t, accesstoken.EdDSA)
	text := rapid.StringN(1, 20, -1)
	rapid.Check(t, func(rt *rapid.T) {
		c := token.Access{ClientID: token.FirstParty,
			Issuer: issuer, Subject: text.Draw(rt, "sub"), Audience: append(rapid.SliceOfN(text, 0, 3).Draw(rt, "aud"), audience),
			ID: text.Draw(rt, "jti"), SessionID: rapid.StringN(0, 20, -1).Draw(rt, "sid"), Epoch: rapid.Int64Min(0).Draw(rt, "epoch"),
			IssuedAt:  now.Add(-time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(rt, "age"))),
			ExpiresAt: now.Add(time.Second + time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(rt, "life"))),
			User:      rapid.MapOfN(rapid.StringMatching(`x_[!#-+\--\[\]-~]{0,20}`), rapid.String(), 0, 5).Draw(rt, "user"),
		}
		compact, err := s.Sign(c)
		if err != nil {
			rt.Fatalf("%+v: %v", c, err)
		}
		tok := check(t, s, compact)
		if tok.Subject != c.Subject || tok.ID != c.ID || tok.SessionID != c.SessionID || tok.Epoch != c.Epoch ||
			strings.Join(tok.Audience, "\x00") != strings.Join(c.Audience, "\x00") ||
			tok.ExpiresAt.Unix() != c.ExpiresAt.Unix() || tok.ExpiresAt.After(c.ExpiresAt) || tok.IssuedAt.Unix() != c.IssuedAt.Unix() {
			rt.Fatalf("%+v was read as %+v", c, tok)
		}
		for name, value := range c.User {
			if tok.Claim(name) != value {
				rt.Fatalf("%q was read as %q", value, tok.Claim(name))
			}
		}
		at := rapid.IntRange(0, len(compact)-1).Draw(rt, "at")
		changed := compact[:at] + string(rapid.ByteRange(' ', '~').Draw(rt, "byte")) + compact[at+1:]
		if changed == compact {
			return
		}
		set, err := accesstoken.NewKeySet(s.Public())
		if err != nil {
			rt.Fatal(err)
		}
		if _, err := rules.Check(changed, now, set.Find); err == nil {
			rt.Fatalf("accepted %s, signed was %s", changed, compact)
		}
	})
}

// An hsm is a key that lives elsewhere: it shows only what crypto.Signer does,
// and may answer nonsense.
type hsm struct {
	key    crypto.Signer
	answer func(signature []byte) ([]byte, error)
}

func (h hsm) Public() crypto.PublicKey { return h.key.Public() }

func (h hsm) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := h.key.Sign(random, digest, opts)
	if err != nil || h.answer == nil {
		return signature, err
	}
	return h.answer(signature)
}

func TestKeysThatLiveElsewhere(t *testing.T) {
	for _, alg := range accesstoken.Algorithms() {
		key, err := token.GenerateKey(rand.Reader, alg)
		if err != nil {
			t.Fatal(err)
		}
		s, err := token.NewSigner("hsm", alg, hsm{key: key})
		if err != nil {
			t.Fatal(err)
		}
		compact, err := s.Sign(someClaims(now))
		if err != nil {
			t.Fatal(err)
		}
		check(t, s, compact)
	}
}

func TestAnHSMThatAnswersNonsense(t *testing.T) {
	key, err := token.GenerateKey(rand.Reader, accesstoken.ES256)
	if err != nil {
		t.Fatal(err)
	}
	gone := errors.New("the HSM is gone")
	pairOf := func(r, s *big.Int) ([]byte, error) { return asn1.Marshal(struct{ R, S *big.Int }{r, s}) }
	huge := new(big.Int).Lsh(big.NewInt(1), 256)
	for name, answer := range map[string]func([]byte) ([]byte, error){
		"an error":         func([]byte) ([]byte, error) { return nil, gone },
		"nothing":          func([]byte) ([]byte, error) { return nil, nil },
		"no ASN.1":         func([]byte) ([]byte, error) { return make([]byte, 64), nil },
		"something behind": func(s []byte) ([]byte, error) { return append(s, 0), nil },
		"zeros":            func([]byte) ([]byte, error) { return pairOf(new(big.Int), new(big.Int)) },
		"a negative r":     func([]byte) ([]byte, error) { return pairOf(big.NewInt(-1), big.NewInt(1)) },
		"an r too large":   func([]byte) ([]byte, error) { return pairOf(huge, big.NewInt(1)) },
		"an s too large":   func([]byte) ([]byte, error) { return pairOf(big.NewInt(1), huge) },
	} {
		s, err := token.NewSigner("hsm", accesstoken.ES256, hsm{key, answer})
		if err != nil {
			t.Fatal(err)
		}
		if compact, err := s.Sign(someClaims(now)); err == nil || name == "an error" && !errors.Is(err, gone) {
			t.Errorf("%s: %s, %v", name, compact, err)
		}
	}
	// Small r and s are rare and right: they keep their length.
	s, err := token.NewSigner("hsm", accesstoken.ES256, hsm{key, func([]byte) ([]byte, error) { return pairOf(big.NewInt(1), big.NewInt(2)) }})
	if err != nil {
		t.Fatal(err)
	}
	compact, err := s.Sign(someClaims(now))
	if err != nil {
		t.Fatal(err)
	}
	if b := signatureOf(t, compact); len(b) != 64 || b[31] != 1 || b[63] != 2 {
		t.Errorf("r = 1, s = 2 became %x", b)
	}
}

func TestNewSignerRefuses(t *testing.T) {
	es256, err := token.GenerateKey(rand.Reader, accesstoken.ES256)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		kid, alg string
		key      crypto.Signer
	}{
		"another curve":     {"k", accesstoken.ES384, es256},
		"another kind":      {"k", accesstoken.RS256, es256},
		"unknown algorithm": {"k", "HS256", es256},
		"no kid":            {"", accesstoken.ES256, es256},
		"RSA of 1024 bits":  {"k", accesstoken.RS256, small},
	} {
		if _, err := token.NewSigner(c.kid, c.alg, c.key); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := token.GenerateKey(rand.Reader, "HS256"); err == nil {
		t.Error("made a key for HS256")
	}
}

func TestNewID(t *testing.T) {
	a, err := token.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := token.NewID(rand.Reader)
	if err != nil || a == b || len(a) != 22 {
		t.Errorf("%q, %q, %v", a, b, err)
	}
	if id, err := token.NewID(strings.NewReader("too short")); err == nil {
		t.Errorf("made %q of too little randomness", id)
	}
}

func TestClaimNames(t *testing.T) {
	for _, name := range []string{"log", "x-admin", "roles", "groups", "entitlements", "https://example.com/level", "S", "subject", strings.Repeat("n", 64)} {
		if err := token.CheckClaimName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for code, names := range map[string][]string{
		"claim_name_reserved": {
			"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "ISS", "Sub", "eXp", "sid", "SID", "epoch", "iat_exact", "cnf", "act", "may_act", "scope", "Scope",
			"client_id", "active", "token_type", "username", "auth_time", "acr", "amr", "azp", "nonce", "email", "Email_Verified", "name",
			"preferred_username", "_claim_names", "authorization_details", "kid", "alg",
		},
		"claim_name_invalid": {
			"", " ", "a b", "a\tb", "a\nb", "a\x00b", "a\x7fb", "a,b", `a"b`, `a\b`, "ſub", "\u212Aid", "größe", "\xff", strings.Repeat("n", 65),
		},
	} {
		for _, name := range names {
			var e *problem.Error
			if err := token.CheckClaimName(name); !errors.As(err, &e) || e.Code != code || e.Kind != problem.Invalid {
				t.Errorf("%q: %v, want %s", name, err, code)
			}
		}
	}
	// What user_info may use and a claim may not.
	for _, name := range []string{"preferred_username", "email", "name", "username"} {
		if token.Reserved(name) {
			t.Errorf("%q is reserved even for user_info", name)
		}
	}
}

// TestReservedNamesCoverWhatIsWritten: no member that Sign writes of itself can
// be taken by a user's claim.
func TestReservedNamesCoverWhatIsWritten(t *testing.T) {
	s, _ := newSigner(t, accesstoken.EdDSA)
	c := someClaims(now)
	c.User = nil
	compact, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(compact, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal(payload, &members); err != nil || len(members) != 13 {
		t.Fatalf("%s: %v", payload, err)
	}
	for name := range members {
		if !token.Reserved(name) || !token.Reserved(strings.ToUpper(name)) {
			t.Errorf("%q can be taken by a claim", name)
		}
	}
}

const secret = "a secret that the replicas of a deployment and its resource servers share"

func newSecretSigner(t testing.TB, alg string) *token.Signer {
	t.Helper()
	s, err := token.NewSecretSigner(secret, alg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTokensWithASecret(t *testing.T) {
	for _, alg := range accesstoken.SecretAlgorithms() {
		s := newSecretSigner(t, alg)
		key, err := accesstoken.NewSecretKey(secret, alg)
		if err != nil || s.Algorithm() != alg || s.KeyID() != key.ID || !s.Public().Equal(key) {
			t.Fatalf("%s: the signer is %s, %s, %v", alg, s.KeyID(), s.Algorithm(), err)
		}
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for range 25 {
					compact, err := s.Sign(someClaims(now))
					if err != nil {
						t.Error(err)
						return
					}
					// As another library sees it.
					seen, err := jwt.Parse(compact, func(h *jwt.Token) (any, error) { return []byte(secret), nil },
						jwt.WithValidMethods([]string{alg}), jwt.WithoutClaimsValidation())
					if err != nil || seen.Header["kid"] != key.ID || seen.Header["typ"] != "at+jwt" || len(seen.Header) != 3 {
						t.Errorf("%s: read as %+v, %v", alg, seen, err)
					}
					if got, err := rules.Check(compact, now, func(string) (accesstoken.Key, error) { return key, nil }); err != nil || got.Subject != someClaims(now).Subject {
						t.Errorf("%s: %+v, %v", alg, got, err)
					}
				}
			})
		}
		group.Wait()
		long := someClaims(now)
		long.User = map[string]string{"role": strings.Repeat("x", accesstoken.DefaultMaxLength)}
		if _, err := s.Sign(long); !errors.Is(err, token.ErrTooLong) {
			t.Errorf("%s: claims that are too long: %v", alg, err)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
			if printed := fmt.Sprintf(verb+verb, s, *s); strings.Contains(printed, secret[:12]) || strings.Contains(printed, fmt.Sprint([]byte(secret[:6]))[1:20]) {
				t.Errorf("%s shows the secret", verb)
			}
		}
	}
	for _, alg := range []string{accesstoken.ES256, "none", ""} {
		if _, err := token.NewSecretSigner(secret, alg); err == nil {
			t.Errorf("a secret for %q", alg)
		}
	}
	if _, err := token.NewSecretSigner(secret[:63], accesstoken.HS512); err == nil || strings.Contains(err.Error(), secret[:12]) {
		t.Errorf("a secret that is too short: %v", err)
	}
}

// A MAC costs about a microsecond, so what a token costs besides must not grow unseen: the
// claims, the token in bytes and as a string, and the MAC.
func TestASecretAllocatesNothingNeedless(t *testing.T) {
	s := newSecretSigner(t, accesstoken.HS256)
	c := someClaims(now)
	// The least of many: with the race detector a pool loses some of what it has.
	least := func(f func() error) float64 {
		fewest := math.Inf(1)
		for range 100 {
			fewest = min(fewest, testing.AllocsPerRun(1, func() {
				if err := f(); err != nil {
					t.Fatal(err)
				}
			}))
		}
		return fewest
	}
	claims := least(func() error { _, err := c.Encode(); return err })
	all := least(func() error { _, err := s.Sign(c); return err })
	if all > claims+4 {
		t.Errorf("%v allocations, %v of them for the claims", all, claims)
	}
}
