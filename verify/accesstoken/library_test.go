package accesstoken_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// library checks a token with the parser of golang-jwt, with the strictest of its
// options that are about what an access token of ours must be.
func library(compact string) error {
	parser := jwt.NewParser(jwt.WithValidMethods(accesstoken.Algorithms()), jwt.WithIssuer(issuer), jwt.WithAudience(audience),
		jwt.WithExpirationRequired(), jwt.WithNotBeforeRequired(), jwt.WithStrictDecoding(), jwt.WithJSONNumber(),
		jwt.WithTimeFunc(func() time.Time { return now }))
	_, err := parser.Parse(compact, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		k, err := find(kid)
		return k.Public, err
	})
	return err
}

// These are the reasons why a token is read by code of ours: the library, which could
// read it, accepts each of these, and Check refuses it. If one of them is refused by a
// later version, docs/design/why-our-own-parser.md has to say so.
func TestWhatALibraryAccepts(t *testing.T) {
	h, c := header("ES256"), claims()
	raw := func(header, payload string) string {
		return signRaw(t, pairs()["ES256"], "ES256", header, payload)
	}
	twice := func(o object, name, first string) string { // a member, and the same again
		return `{"` + name + `":` + first + "," + strings.TrimPrefix(marshal(t, o), "{")
	}
	for _, one := range []struct{ name, compact string }{
		{"another type of token", sign(t, with(h, "typ", "logout+jwt"), c)},
		{"no type", sign(t, with(h, "typ", nil), c)},
		{"an unknown critical extension", sign(t, with(with(h, "crit", []string{"x"}), "x", 1), c)},
		{"a payload that is not base64", sign(t, with(with(h, "crit", []string{"b64"}), "b64", false), c)},
		{"a URL for its own key", sign(t, with(h, "jku", "https://evil.example/keys"), c)},
		{"a header member twice", raw(twice(h, "typ", `"JWT"`), marshal(t, c))},
		{"two subjects", raw(marshal(t, h), twice(c, "sub", `"root"`))},
		{"two of a claim of the user's", raw(marshal(t, h), twice(c, "log", `"r,w,admin"`))},
		{"text that is not UTF-8", raw(marshal(t, h), strings.Replace(marshal(t, c), "user-1", "user-\xff", 1))},
		{"JSON nested a thousand deep", raw(marshal(t, h), twice(c, "deep", strings.Repeat("[", 1000)+strings.Repeat("]", 1000)))},
		{"no subject", sign(t, h, with(c, "sub", nil))},
		{"no id", sign(t, h, with(c, "jti", nil))},
		{"a number for a subject", sign(t, h, with(c, "sub", 7))},
	} {
		if err := library(one.compact); err != nil {
			t.Errorf("%s: the library refuses it, too: %v", one.name, err)
		}
		if _, err := rules.Check(one.compact, now, find); err == nil {
			t.Errorf("%s: accepted", one.name)
		}
	}
	good := sign(t, h, c)
	if err := library(good); err != nil {
		t.Errorf("the library refuses a token that is good: %v", err)
	}
}

// BenchmarkCheck holds Check against the parser of golang-jwt, both with the signature
// that golang-jwt verifies, in turns.
func BenchmarkCheck(b *testing.B) {
	compact := sign(b, header("ES256"), claims())
	inTurns(b, "library", func() error { return library(compact) }, "ours", func() error {
		_, err := rules.Check(compact, now, find)
		return err
	})
}

// BenchmarkClaims reads a payload with encoding/json, and as Check does but for the
// signature, in turns.
func BenchmarkClaims(b *testing.B) {
	payload := marshal(b, claims())
	inTurns(b, "library", func() error {
		var m map[string]any
		d := json.NewDecoder(strings.NewReader(payload))
		d.UseNumber()
		return d.Decode(&m)
	}, "ours", func() error { return accesstoken.DecodeObject(payload) })
}

// inTurns reports the medians of two functions and their ratio.
func inTurns(b *testing.B, first string, one func() error, second string, other func() error) {
	const calls = 50 // at a time, so that the clock is of no weight
	var ones, others []time.Duration
	timed := func(f func() error) time.Duration {
		began := time.Now()
		for range calls {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(began) / calls
	}
	for b.Loop() {
		ones, others = append(ones, timed(one)), append(others, timed(other))
	}
	slices.Sort(ones)
	slices.Sort(others)
	a, z := ones[len(ones)/2], others[len(others)/2]
	b.ReportMetric(float64(a.Nanoseconds()), first+"-ns")
	b.ReportMetric(float64(z.Nanoseconds()), second+"-ns")
	b.ReportMetric(float64(z)/float64(a), "x-"+first)
	b.ReportMetric(0, "ns/op") // of both together: means nothing
}
