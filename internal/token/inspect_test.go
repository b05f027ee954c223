package token_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// remake gives the token with other members in its header and payload; the
// signature stays, and so is wrong.
func remake(t *testing.T, compact string, header, claims map[string]any) string {
	t.Helper()
	part := strings.Split(compact, ".")
	for i, change := range []map[string]any{header, claims} {
		b, err := base64.RawURLEncoding.DecodeString(part[i])
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		for name, v := range change {
			if m[name] = v; v == nil {
				delete(m, name)
			}
		}
		if b, err = json.Marshal(m); err != nil {
			t.Fatal(err)
		}
		part[i] = base64.RawURLEncoding.EncodeToString(b)
	}
	return strings.Join(part, ".")
}

func TestInspect(t *testing.T) {
	s, _ := newSigner(t, accesstoken.ES256)
	set, err := accesstoken.NewKeySet(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	now := now.Truncate(time.Second)
	good, err := s.Sign(someClaims(now))
	if err != nil {
		t.Fatal(err)
	}
	type members = map[string]any
	wrong := "The signature is wrong: the token was changed, or signed with another key."
	for name, c := range map[string]struct {
		compact string
		at      time.Time
		want    []string
	}{
		"a good one": {good, now, nil},
		"copied with what stands around it": {" bearer " + good + "\n", now, []string{
			"There is white space around the token, which does not belong to it.",
			`The word "Bearer" stands before the token; it belongs to the Authorization header.`}},
		"copied with its header": {"authorization: Bearer  " + good, now, []string{
			"The name of the Authorization header stands before the token.",
			`The word "Bearer" stands before the token; it belongs to the Authorization header.`}},
		"expired": {good, now.Add(31 * time.Minute), []string{
			"The token expired at 2026-03-01T12:30:00Z. (1m0s ago.)"}},
		"not valid yet": {good, now.Add(-3 * time.Second), []string{
			"The token is not valid before 2026-03-01T12:00:00Z. (3s from now; perhaps the clocks differ.)"}},
		"changed": {remake(t, good, nil, members{"sub": "root"}), now, []string{wrong}},
		"nothing": {" ", now, []string{
			"There is white space around the token, which does not belong to it.",
			"There is nothing to inspect.",
			"The token does not have three parts separated by dots."}},
		"a refresh token": {"lYxWmZ1yHqk3vQ5dT8nB2g", now, []string{
			"It has no dots, so it is not an access token; it may be a refresh token or a session id, which only the server can read.",
			"The token does not have three parts separated by dots."}},
		"an encrypted token": {"a.b.c.d.e", now, []string{
			"It has five parts, so it is an encrypted token (JWE, RFC 7516); Watchword issues none.",
			"The token does not have three parts separated by dots."}},
		"a changed last character": {good[:len(good)-1] + string(good[len(good)-1]+1), now, []string{
			"A part of the token ends in bits that belong to nothing: it was changed or cut off."}},
		"padding": {good + "==", now, []string{
			"A part of the token is not base64url without padding."}},
		"everything at once": {
			remake(t, good, members{"alg": "none", "typ": "JWT", "jwk": members{}},
				members{"iss": "https://evil.example", "aud": "x", "exp": nil, "sub": nil, "jti": 7}),
			now, []string{
				`The token's header has the member "jwk", which an access token does not have.`,
				`typ is "JWT", and an access token has "at+jwt" (RFC 9068): this may be an ID token, or a token of another system.`,
				`The token's signature algorithm is not accepted. (alg is "none".)`,
				"The token lacks the claim sub.",
				"The token's jti is not a string with something in it.",
				"The token lacks the claim exp.",
				`iss is "https://evil.example", and expected is "https://auth.example.com".`,
				`aud is "x", and expected is one of ["https://api.example.com"].`}},
		"a key that is gone": {remake(t, good, members{"kid": "old"}, nil), now, []string{
			`The key set has no key with the kid "old": the key was removed, or the token comes from another deployment.`}},
		"nothing that can be read": {"e30.bnVsbA.", now, []string{
			`typ is missing, and an access token has "at+jwt" (RFC 9068): this may be an ID token, or a token of another system.`,
			"The token's signature algorithm is not accepted. (alg is missing.)",
			"The token's claims cannot be read."}},
		"registered claims missing": {remake(t, good, nil, members{"iss": nil, "aud": nil}), now, []string{
			wrong, "The token lacks the claim iss.", "The token lacks the claim aud."}},
	} {
		r := token.Inspect(c.compact, c.at, set.Find, rules)
		if !slices.Equal(r.Findings, c.want) || r.Valid != (len(c.want) == 0) {
			t.Errorf("%s: valid %v\n  %s\nwant\n  %s", name, r.Valid, strings.Join(r.Findings, "\n  "), strings.Join(c.want, "\n  "))
		}
	}
	r := token.Inspect(good, now, set.Find, rules)
	if r.Header["kid"] != s.KeyID() || r.Claims["log"] != "r,w" {
		t.Errorf("header %v, claims %v", r.Header, r.Claims)
	}
	r = token.Inspect(good, now, func(string) (accesstoken.Key, error) {
		return accesstoken.Key{}, errors.New("no answer from the server")
	}, rules)
	if len(r.Findings) != 1 || r.Findings[0] != "The key could not be looked up, so the signature is neither right nor wrong: no answer from the server." {
		t.Errorf("an outage: %q", r.Findings)
	}
}
