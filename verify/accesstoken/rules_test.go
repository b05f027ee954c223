package accesstoken_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

func TestEveryAlgorithmIsAccepted(t *testing.T) {
	for _, alg := range accesstoken.Algorithms() {
		compact := signRaw(t, pairs()[alg], alg, marshal(t, header(alg)), marshal(t, claims()))
		tok, err := rules.Check(compact, now, find)
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		if tok.KeyID != alg || tok.Issuer != issuer || tok.Subject != "user-1" || tok.ID != "token-1" ||
			tok.SessionID != "session-1" || tok.Epoch != 7 || len(tok.Audience) != 1 || tok.Audience[0] != audience ||
			!tok.IssuedAt.Equal(now) || !tok.NotBefore.Equal(now) || !tok.ExpiresAt.Equal(now.Add(time.Hour)) {
			t.Errorf("%s: read as %+v", alg, tok)
		}
		if tok.Claim("log") != "r,w" || !tok.HasValue("log", "w") || tok.HasValue("log", "r,w") || tok.HasValue("log", "") ||
			tok.HasValue("none", "") || tok.Claim("exp") != "" {
			t.Errorf("%s: claims read as %v", alg, tok.Claims())
		}
		if tok.Payload() != marshal(t, claims()) {
			t.Errorf("%s: the payload is %s", alg, tok.Payload())
		}
	}
}

func TestHeaderSpellings(t *testing.T) {
	for _, typ := range []string{"at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"} {
		if _, err := rules.Check(sign(t, with(header("ES256"), "typ", typ), claims()), now, find); err != nil {
			t.Errorf("typ %s: %v", typ, err)
		}
	}
}

// TestRefused is the list of what is not an access token, one by one. Each is
// signed rightly unless its name says otherwise.
func TestRefused(t *testing.T) {
	h, c := header("ES256"), claims()
	good := sign(t, h, c)
	part := strings.Split(good, ".")
	signature, err := base64.RawURLEncoding.DecodeString(part[2])
	if err != nil {
		t.Fatal(err)
	}
	resigned := func(signature []byte) string { return part[0] + "." + part[1] + "." + encode(signature) }
	raw := func(header, payload string) string {
		return signRaw(t, pairs()["ES256"], "ES256", header, payload)
	}
	type refusal struct {
		name    string
		compact string
		want    *accesstoken.Error
	}
	cases := []refusal{
		// Shape.
		{"empty", "", accesstoken.ErrMalformed},
		{"one part", part[0], accesstoken.ErrMalformed},
		{"two parts", part[0] + "." + part[1], accesstoken.ErrMalformed},
		{"four parts", good + ".", accesstoken.ErrMalformed},
		{"five parts, as an encrypted token has", good + "..", accesstoken.ErrMalformed},
		{"huge", signRaw(t, pairs()["ES256"], "ES256", marshal(t, h), marshal(t, with(c, "pad", strings.Repeat("x", 8<<10)))), accesstoken.ErrMalformed},
		{"padded base64 in the header", part[0] + "=." + part[1] + "." + part[2], accesstoken.ErrMalformed},
		{"padded base64 in the payload", part[0] + "." + part[1] + "==." + part[2], accesstoken.ErrMalformed},
		{"padded base64 in the signature", good + "==", accesstoken.ErrMalformed},
		{"line break in the signature", good[:len(good)-4] + "\n" + good[len(good)-4:], accesstoken.ErrMalformed},
		{"carriage return in the header", good[:4] + "\r" + good[4:], accesstoken.ErrMalformed},
		{"space behind", good + " ", accesstoken.ErrMalformed},
		{"standard alphabet instead of the URL's", part[0] + "." + part[1] + "." + strings.NewReplacer("-", "+", "_", "/").Replace(part[2]) + "+/", accesstoken.ErrMalformed},
		{"stray bits in the last character", strayBits(good), accesstoken.ErrMalformed},
		{"JSON serialization", marshal(t, object{"payload": part[1], "protected": part[0], "signature": part[2]}), accesstoken.ErrMalformed},

		// Algorithm.
		{"alg none without signature", encode([]byte(`{"alg":"none","typ":"at+jwt","kid":"ES256"}`)) + "." + part[1] + ".", accesstoken.ErrAlgorithm},
		{"alg None", raw(marshal(t, with(h, "alg", "None")), marshal(t, c)), accesstoken.ErrAlgorithm},
		{"alg missing", raw(marshal(t, with(h, "alg", nil)), marshal(t, c)), accesstoken.ErrAlgorithm},
		{"alg in lower case", raw(marshal(t, with(h, "alg", "es256")), marshal(t, c)), accesstoken.ErrAlgorithm},
		{"alg is not a string", raw(marshal(t, with(h, "alg", 256)), marshal(t, c)), accesstoken.ErrMalformed},
		{"HS256 with the public key as secret", hs256(t, "RS256"), accesstoken.ErrAlgorithm},
		{"HS256 with the coordinates as secret", hs256(t, "ES256"), accesstoken.ErrAlgorithm},
		{"RS384, which exists but is not ours", signRaw(t, pairs()["RS256"], "RS384", marshal(t, with(header("RS256"), "alg", "RS384")), marshal(t, c)), accesstoken.ErrAlgorithm},
		{"alg of another key", signRaw(t, pairs()["ES256"], "ES256", marshal(t, with(h, "kid", "EdDSA")), marshal(t, c)), accesstoken.ErrAlgorithm},
		{"PS256 with the RS256 key, which is the same RSA key", signRaw(t, pairs()["PS256"], "PS256", marshal(t, object{"alg": "PS256", "typ": "at+jwt", "kid": "RS256"}), marshal(t, c)), accesstoken.ErrAlgorithm},

		// Key.
		{"kid missing", raw(marshal(t, with(h, "kid", nil)), marshal(t, c)), accesstoken.ErrMalformed},
		{"kid empty", raw(marshal(t, with(h, "kid", "")), marshal(t, c)), accesstoken.ErrMalformed},
		{"kid is not a string", raw(marshal(t, with(h, "kid", 1)), marshal(t, c)), accesstoken.ErrMalformed},
		{"kid with a line break", raw(marshal(t, with(h, "kid", "ES256\n")), marshal(t, c)), accesstoken.ErrMalformed},
		{"kid huge", raw(marshal(t, with(h, "kid", strings.Repeat("k", 257))), marshal(t, c)), accesstoken.ErrMalformed},
		{"kid unknown", raw(marshal(t, with(h, "kid", "nobody")), marshal(t, c)), accesstoken.ErrUnknownKey},
		{"kid of another key of the same algorithm", raw(marshal(t, with(h, "kid", "other")), marshal(t, c)), accesstoken.ErrSignature},

		// Header members that bring a key of their own, or change how to read it.
		{"embedded jwk", raw(marshal(t, with(h, "jwk", pairs()["ES256"].Key)), marshal(t, c)), accesstoken.ErrMalformed},
		{"jku", raw(marshal(t, with(h, "jku", "https://evil.example/keys")), marshal(t, c)), accesstoken.ErrMalformed},
		{"x5c", raw(marshal(t, with(h, "x5c", []string{"MII"})), marshal(t, c)), accesstoken.ErrMalformed},
		{"x5u", raw(marshal(t, with(h, "x5u", "https://evil.example/cert")), marshal(t, c)), accesstoken.ErrMalformed},
		{"unknown crit", raw(marshal(t, with(with(h, "crit", []string{"x"}), "x", 1)), marshal(t, c)), accesstoken.ErrMalformed},
		{"empty crit", raw(marshal(t, with(h, "crit", []string{})), marshal(t, c)), accesstoken.ErrMalformed},
		{"b64", raw(marshal(t, with(with(h, "crit", []string{"b64"}), "b64", false)), marshal(t, c)), accesstoken.ErrMalformed},
		{"cty, a nested token", raw(marshal(t, with(h, "cty", "JWT")), marshal(t, c)), accesstoken.ErrMalformed},
		{"zip", raw(marshal(t, with(h, "zip", "DEF")), marshal(t, c)), accesstoken.ErrMalformed},
		{"upper-case KID beside kid", raw(marshal(t, with(h, "KID", "other")), marshal(t, c)), accesstoken.ErrMalformed},
		{"kid twice", raw(`{"alg":"ES256","typ":"at+jwt","kid":"other","kid":"ES256"}`, marshal(t, c)), accesstoken.ErrMalformed},
		{"alg twice, once in escapes", raw(`{"alg":"ES256","\u0061lg":"none","typ":"at+jwt","kid":"ES256"}`, marshal(t, c)), accesstoken.ErrMalformed},
		{"header is an array", raw(`["ES256"]`, marshal(t, c)), accesstoken.ErrMalformed},
		{"header is not JSON", raw(`alg=ES256`, marshal(t, c)), accesstoken.ErrMalformed},
		{"something behind the header", raw(marshal(t, h)+"{}", marshal(t, c)), accesstoken.ErrMalformed},

		// Type.
		{"typ missing", raw(marshal(t, with(h, "typ", nil)), marshal(t, c)), accesstoken.ErrType},
		{"typ JWT", raw(marshal(t, with(h, "typ", "JWT")), marshal(t, c)), accesstoken.ErrType},
		{"typ of a refresh token", raw(marshal(t, with(h, "typ", "rt+jwt")), marshal(t, c)), accesstoken.ErrType},
		{"typ of a logout token", raw(marshal(t, with(h, "typ", "logout+jwt")), marshal(t, c)), accesstoken.ErrType},
		{"typ of a security event", raw(marshal(t, with(h, "typ", "secevent+jwt")), marshal(t, c)), accesstoken.ErrType},
		{"typ is not a string", raw(marshal(t, with(h, "typ", []string{"at+jwt"})), marshal(t, c)), accesstoken.ErrMalformed},

		// Signature.
		{"signature missing", part[0] + "." + part[1] + ".", accesstoken.ErrSignature},
		{"signature changed", resigned(flip(signature)), accesstoken.ErrSignature},
		{"signature one byte short", resigned(signature[:63]), accesstoken.ErrSignature},
		{"signature with a zero behind", resigned(append(append([]byte{}, signature...), 0)), accesstoken.ErrSignature},
		{"signature of 96 bytes, as ES384 has", resigned(append(append([]byte{}, signature...), make([]byte, 32)...)), accesstoken.ErrSignature},
		{"signature as ASN.1", asn1Signed(t, part[0]+"."+part[1]), accesstoken.ErrSignature},
		{"signature of zeros (CVE-2022-21449)", resigned(make([]byte, 64)), accesstoken.ErrSignature},
		{"s + n in the place of s", resigned(plusN(signature)), accesstoken.ErrSignature},
		{"payload changed", part[0] + "." + encode([]byte(marshal(t, with(c, "sub", "root")))) + "." + part[2], accesstoken.ErrSignature},
		{"header changed", encode([]byte(`{"kid":"ES256","alg":"ES256","typ":"at+jwt"}`)) + "." + part[1] + "." + part[2], accesstoken.ErrSignature},

		// Claims.
		{"payload is not JSON", raw(marshal(t, h), "sub=root"), accesstoken.ErrMalformed},
		{"payload is null", raw(marshal(t, h), "null"), accesstoken.ErrMalformed},
		{"payload is empty", raw(marshal(t, h), ""), accesstoken.ErrMalformed},
		{"payload is not UTF-8", raw(marshal(t, h), "{\"sub\":\"\xff\"}"), accesstoken.ErrMalformed},
		{"sub twice", raw(marshal(t, h), strings.Replace(marshal(t, c), "{", `{"sub":"root",`, 1)), accesstoken.ErrMalformed},
		{"a member twice further in", raw(marshal(t, h), strings.Replace(marshal(t, c), "{", `{"x":[{"a":1,"a":2}],`, 1)), accesstoken.ErrMalformed},
		{"nested too deep", raw(marshal(t, h), strings.Replace(marshal(t, c), "{", `{"x":`+strings.Repeat("[", 99)+strings.Repeat("]", 99)+",", 1)), accesstoken.ErrMalformed},
		{"iss missing", sign(t, h, with(c, "iss", nil)), accesstoken.ErrMissingClaim},
		{"sub missing", sign(t, h, with(c, "sub", nil)), accesstoken.ErrMissingClaim},
		{"aud missing", sign(t, h, with(c, "aud", nil)), accesstoken.ErrMissingClaim},
		{"jti missing", sign(t, h, with(c, "jti", nil)), accesstoken.ErrMissingClaim},
		{"iat missing", sign(t, h, with(c, "iat", nil)), accesstoken.ErrMissingClaim},
		{"exp missing", sign(t, h, with(c, "exp", nil)), accesstoken.ErrMissingClaim},
		{"EXP in upper case instead of exp", sign(t, h, with(with(c, "exp", nil), "EXP", now.Add(time.Hour).Unix())), accesstoken.ErrMissingClaim},
		{"Iss instead of iss", sign(t, h, with(with(c, "iss", nil), "Iss", issuer)), accesstoken.ErrMissingClaim},
		{"sub empty", sign(t, h, with(c, "sub", "")), accesstoken.ErrMalformed},
		{"sub is a number", sign(t, h, with(c, "sub", 1)), accesstoken.ErrMalformed},
		{"sid is a number", sign(t, h, with(c, "sid", 1)), accesstoken.ErrMalformed},
		{"exp is a string", sign(t, h, with(c, "exp", "2000000000")), accesstoken.ErrMalformed},
		{"exp is null", raw(marshal(t, h), `{"exp":null}`), accesstoken.ErrMissingClaim},
		{"exp beyond all time", raw(marshal(t, h), strings.Replace(marshal(t, with(c, "exp", nil)), "{", `{"exp":1e400,`, 1)), accesstoken.ErrMalformed},
		{"exp that overflows int64", raw(marshal(t, h), strings.Replace(marshal(t, with(c, "exp", nil)), "{", `{"exp":9223372036854775808,`, 1)), accesstoken.ErrMalformed},
		{"exp negative", sign(t, h, with(c, "exp", -1)), accesstoken.ErrMalformed},
		{"epoch is a fraction", sign(t, h, with(c, "epoch", 1.5)), accesstoken.ErrMalformed},
		{"epoch negative", sign(t, h, with(c, "epoch", -1)), accesstoken.ErrMalformed},
		{"epoch is a string", sign(t, h, with(c, "epoch", "7")), accesstoken.ErrMalformed},
		{"aud is an object", sign(t, h, with(c, "aud", object{audience: true})), accesstoken.ErrMalformed},
		{"aud holds a number", sign(t, h, with(c, "aud", []any{audience, 1})), accesstoken.ErrMalformed},
		{"aud is empty", sign(t, h, with(c, "aud", []string{})), accesstoken.ErrAudience},
		{"aud is another", sign(t, h, with(c, "aud", "https://other.example")), accesstoken.ErrAudience},
		{"aud only begins like ours", sign(t, h, with(c, "aud", audience+".evil.example")), accesstoken.ErrAudience},
		{"iss is another", sign(t, h, with(c, "iss", "https://evil.example")), accesstoken.ErrIssuer},
		{"iss with a slash behind", sign(t, h, with(c, "iss", issuer+"/")), accesstoken.ErrIssuer},
		{"expired at this second", sign(t, h, with(c, "exp", now.Unix())), accesstoken.ErrExpired},
		{"expired long ago", sign(t, h, with(c, "exp", 1)), accesstoken.ErrExpired},
		{"not valid yet", sign(t, h, with(c, "nbf", now.Add(time.Second).Unix())), accesstoken.ErrNotYetValid},
	}
	if _, err := rules.Check(good, now, find); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tok, err := rules.Check(c.compact, now, find)
			if !errors.Is(err, c.want) || tok != nil {
				t.Fatalf("got %v, %v, want %v", tok, err, c.want.Code)
			}
			in := rules.Inspect(c.compact, now, find)
			if len(in.Faults) == 0 || !errors.Is(in.Faults[0], c.want) {
				t.Errorf("Inspect begins with %v, want %v", in.Faults, c.want.Code)
			}
		})
	}
	if !t.Failed() {
		t.Logf("summary: %d forged or malformed access tokens, none accepted", len(cases))
	}
}

// strayBits spells the same signature otherwise: 64 bytes leave 4 bits unused.
func strayBits(compact string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, compact[len(compact)-1])
	return compact[:len(compact)-1] + alphabet[last+1:last+2]
}

func flip(b []byte) []byte {
	b = append([]byte{}, b...)
	b[40] ^= 1
	return b
}

// plusN gives (r, s+n) at whatever length that has.
func plusN(signature []byte) []byte {
	n := pairs()["ES256"].Public.(*ecdsa.PublicKey).Params().N
	s := new(big.Int).SetBytes(signature[32:])
	return append(append([]byte{}, signature[:32]...), s.Add(s, n).Bytes()...)
}

func asn1Signed(t *testing.T, input string) string {
	t.Helper()
	h := jwt.SigningMethodES256.Hash.New()
	h.Write([]byte(input))
	signature, err := pairs()["ES256"].private.Sign(nil, h.Sum(nil), jwt.SigningMethodES256.Hash)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + encode(signature)
}

// hs256 is the old confusion: an HMAC whose secret is what everybody knows.
func hs256(t *testing.T, kid string) string {
	t.Helper()
	secret, err := x509.MarshalPKIXPublicKey(pairs()[kid].Public)
	if err != nil {
		t.Fatal(err)
	}
	input := encode([]byte(marshal(t, with(header(kid), "alg", "HS256")))) + "." + encode([]byte(marshal(t, claims())))
	signature, err := jwt.SigningMethodHS256.Sign(input, secret)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + encode(signature)
}

func TestTimes(t *testing.T) {
	lenient := *rules
	lenient.Leeway = 30 * time.Second
	at := func(name string, d time.Duration) string {
		return sign(t, header("ES256"), with(claims(), name, now.Add(d).Unix()))
	}
	for _, c := range []struct {
		name    string
		compact string
		rules   *accesstoken.Rules
		want    error
	}{
		{"last second", at("exp", time.Second), rules, nil},
		{"within the leeway", at("exp", -29*time.Second), &lenient, nil},
		{"at the end of the leeway", at("exp", -30*time.Second), &lenient, accesstoken.ErrExpired},
		{"nbf now", at("nbf", 0), rules, nil},
		{"nbf within the leeway", at("nbf", 30*time.Second), &lenient, nil},
		{"nbf beyond the leeway", at("nbf", 31*time.Second), &lenient, accesstoken.ErrNotYetValid},
		{"iat ahead, from a replica whose clock is", at("iat", time.Minute), rules, nil},
		{"no nbf", sign(t, header("ES256"), with(claims(), "nbf", nil)), rules, nil},
		{"exp with a fraction, not over", sign(t, header("ES256"), with(claims(), "exp", float64(now.Unix())+0.5)), rules, nil},
	} {
		if _, err := c.rules.Check(c.compact, now, find); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestRulesThatSayNothingAcceptNothing(t *testing.T) {
	good := sign(t, header("ES256"), claims())
	for name, c := range map[string]struct {
		rules accesstoken.Rules
		want  error
	}{
		"no issuer":     {accesstoken.Rules{Audience: []string{audience}}, accesstoken.ErrIssuer},
		"no audience":   {accesstoken.Rules{Issuer: issuer}, accesstoken.ErrAudience},
		"no algorithms": {accesstoken.Rules{Issuer: issuer, Audience: []string{audience}, Algorithms: []string{}}, accesstoken.ErrAlgorithm},
		"others":        {accesstoken.Rules{Issuer: issuer, Audience: []string{audience}, Algorithms: []string{"EdDSA", "HS256", "none"}}, accesstoken.ErrAlgorithm},
		"shorter":       {accesstoken.Rules{Issuer: issuer, Audience: []string{audience}, MaxLength: len(good) - 1}, accesstoken.ErrMalformed},
	} {
		if _, err := c.rules.Check(good, now, find); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	listed := accesstoken.Rules{Issuer: issuer, Audience: []string{"x", audience}, Algorithms: []string{"ES256"}, MaxLength: len(good)}
	if _, err := listed.Check(good, now, find); err != nil {
		t.Errorf("listed: %v", err)
	}
	if _, err := listed.Check(sign(t, header("ES256"), with(claims(), "aud", []string{"y", "x"})), now, find); err != nil {
		t.Errorf("one of two audiences: %v", err)
	}
}

// TestKeyLookup: an outage is distinguished from an unknown key, and no key is
// looked up before the rest of the header is right.
func TestKeyLookup(t *testing.T) {
	good := sign(t, header("ES256"), claims())
	outage := errors.New("the registry does not answer")
	_, err := rules.Check(good, now, func(string) (accesstoken.Key, error) { return accesstoken.Key{}, outage })
	if err != outage {
		t.Errorf("an outage became %v", err)
	}
	_, err = rules.Check(good, now, func(string) (accesstoken.Key, error) { return pairs()["other"].Key, nil })
	if !errors.Is(err, accesstoken.ErrUnknownKey) {
		t.Errorf("a key of another name: %v", err)
	}
	_, err = rules.Check(good, now, func(kid string) (accesstoken.Key, error) {
		return accesstoken.Key{ID: kid, Algorithm: "ES256"}, nil
	})
	if !errors.Is(err, accesstoken.ErrSignature) {
		t.Errorf("a Key without a public key: %v", err)
	}
	for name, compact := range map[string]string{
		"none": signRaw(t, pairs()["ES256"], "ES256", marshal(t, with(header("ES256"), "alg", "none")), "{}"),
		"typ":  sign(t, with(header("ES256"), "typ", "JWT"), claims()),
		"jwk":  sign(t, with(header("ES256"), "jwk", object{}), claims()),
	} {
		_, err := rules.Check(compact, now, func(string) (accesstoken.Key, error) {
			t.Errorf("%s: the key was asked for", name)
			return accesstoken.Key{}, accesstoken.ErrUnknownKey
		})
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestPSSSaltLength: RFC 7518 §3.5 fixes the salt at the length of the hash.
func TestPSSSaltLength(t *testing.T) {
	long := *jwt.SigningMethodPS256
	options := *long.Options
	options.SaltLength = 20
	long.Options = &options
	input := encode([]byte(marshal(t, header("PS256")))) + "." + encode([]byte(marshal(t, claims())))
	signature, err := long.Sign(input, pairs()["PS256"].private)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rules.Check(input+"."+encode(signature), now, find); !errors.Is(err, accesstoken.ErrSignature) {
		t.Errorf("a salt of 20 bytes: %v", err)
	}
}

func TestErrorsSayNothingOfTheToken(t *testing.T) {
	compact := sign(t, header("ES256"), with(claims(), "exp", now.Add(-time.Hour).Unix()))
	_, err := rules.Check(compact, now, find)
	for _, secret := range append(strings.Split(compact, "."), "user-1", "session-1", "token-1") {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%q contains %q", err, secret)
		}
	}
	if got := err.Error(); got != "token_expired: the token expired at 2026-03-01T11:00:00Z" {
		t.Errorf("got %q", got)
	}
}

// A handler that changes a token's claims changes its own copy.
func TestClaimsAreACopy(t *testing.T) {
	tok, err := rules.Check(sign(t, header("ES256"), with(claims(), "list", []any{"a", map[string]any{"deep": "b"}})), now, find)
	if err != nil {
		t.Fatal(err)
	}
	mine := tok.Claims()
	mine["log"] = "all"
	list := mine["list"].([]any)
	list[0] = "changed"
	list[1].(map[string]any)["deep"] = "changed"
	got, _ := json.Marshal(tok.Claims()["list"])
	if tok.Claim("log") != "r,w" || string(got) != `["a",{"deep":"b"}]` {
		t.Errorf("the token has become %q, %s", tok.Claim("log"), got)
	}
}

// Recheck says of a token at any moment what Check says.
func TestRecheckIsCheck(t *testing.T) {
	compact := sign(t, header("ES256"), claims())
	tok, err := rules.Check(compact, now, find)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []*accesstoken.Rules{rules, {Issuer: "https://other.example", Audience: rules.Audience}, {Issuer: rules.Issuer, Audience: []string{"other"}}} {
		for at := now.Add(-time.Minute); at.Before(now.Add(2 * time.Hour)); at = at.Add(time.Minute) {
			_, want := other.Check(compact, at, find)
			if got := other.Recheck(tok, at); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("at %v: Recheck says %v, Check %v", at, got, want)
			}
		}
	}
}
