package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestRequired(t *testing.T) {
	long := strings.Repeat("n", 65)
	for text, want := range map[string]Required{
		"never":                      {Mode: RequiredNever},
		"when-enrolled":              {Mode: RequiredWhenEnrolled},
		"always":                     {Mode: RequiredAlways},
		"claims:[admin]":             {RequiredClaims, []ClaimPattern{{"admin", ""}}},
		"claims:[a, b=c]":            {RequiredClaims, []ClaimPattern{{"a", ""}, {"b", "c"}}},
		"claims:[a,b=c d,b=x=y]":     {RequiredClaims, []ClaimPattern{{"a", ""}, {"b", "c d"}, {"b", "x=y"}}},
		"claims:[ x]y , admin=all ]": {RequiredClaims, []ClaimPattern{{"x]y", ""}, {"admin", "all"}}},
	} {
		fromFile, err := loadText("mfa:\n  required: " + text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		fromEnv, err := loadText("", "WATCHWORD_MFA_REQUIRED="+text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for _, c := range []*Config{fromFile, fromEnv} {
			if !reflect.DeepEqual(c.MFA.Required, want) {
				t.Errorf("%s was read as %+v", text, c.MFA.Required)
			}
		}
		again, err := loadText(unmasked(t, fromFile))
		if err != nil || !reflect.DeepEqual(again.MFA.Required, want) {
			t.Errorf("%s was printed and read as %+v, %v", text, again, err)
		}
	}
	const forms = " is not never, when-enrolled, always, or claims:[…]"
	const list = "; did you mean claims:[NAME, NAME=VALUE]?"
	for text, want := range map[string]string{
		"":                                  `""` + forms,
		"xyzzy xyzzy xyzzy":                 `"xyzzy xyzzy xyzzy"` + forms,
		"Always":                            `"Always"` + forms + "; did you mean always?",
		"when_enrolled":                     `"when_enrolled"` + forms + "; did you mean when-enrolled?",
		"claim":                             `"claim"` + forms + list,
		"claims":                            `"claims"` + forms + list,
		"claims:admin":                      `"claims:admin"` + forms + list,
		"claims:[admin":                     `"claims:[admin"` + forms + list,
		"claims: [admin]":                   `"claims: [admin]"` + forms + list,
		"claims:[]":                         "claims:[] names nobody; write when-enrolled, or name a claim",
		"claims:[ ]":                        "claims:[] names nobody; write when-enrolled, or name a claim",
		"claims:[a,]":                       `"" cannot be the name of a claim: a claim's name has 1 to 64 ASCII characters, without white space, commas, quotes or backslashes`,
		"claims:[a b]":                      `"a b" cannot be the name of a claim: a claim's name has 1 to 64 ASCII characters, without white space, commas, quotes or backslashes`,
		"claims:[" + long + "]":             `"` + long + `" cannot be the name of a claim: a claim's name has 1 to 64 ASCII characters, without white space, commas, quotes or backslashes`,
		"claims:[=c]":                       `"" cannot be the name of a claim: a claim's name has 1 to 64 ASCII characters, without white space, commas, quotes or backslashes`,
		"claims:[SUB]":                      `"SUB" cannot be the name of a claim: this name has a meaning of its own in a token; take another`,
		"claims:[preferred_username=alice]": `"preferred_username" cannot be the name of a claim: this name has a meaning of its own in a token; take another`,
		"claims:[a=]":                       `"" cannot be the value of a: a claim's value has 1 to 128 bytes, no comma, no control character and no space at either end`,
		"claims:[a= b]":                     `" b" cannot be the value of a: a claim's value has 1 to 128 bytes, no comma, no control character and no space at either end`,
	} {
		_, err := loadText("", "WATCHWORD_MFA_REQUIRED="+text)
		expect(t, err, "WATCHWORD_MFA_REQUIRED: mfa.required: "+want)
	}
	if _, err := loadText("mfa: {required: [always]}"); err == nil {
		t.Error("a list of words was read")
	}
	for _, r := range []Required{{}, {Mode: RequiredClaims}, {Mode: "sometimes"}} { // made by hand
		c := Default()
		c.MFA.Required = r
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), "mfa.required: ") {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func TestValidateMFA(t *testing.T) {
	const together = "; set mfa.passkeys.rp_id and mfa.passkeys.origins to what belongs together"
	const both = "; set mfa.passkeys.rp_id and mfa.passkeys.origins"
	for yaml, want := range map[string]string{
		"mfa: {remember_device: 2161h}":                       "mfa.remember_device: it is longer than 90 days (2160h); make it shorter",
		"mfa: {issuer_name: 'a:b'}":                           `mfa.issuer_name: "a:b" has a colon, which ends the name in authenticator apps`,
		"mfa: {issuer_name: ' a'}":                            `mfa.issuer_name: " a" has characters that are not printed, or a space at an end`,
		`mfa: {issuer_name: "a\nb"}`:                          `mfa.issuer_name: "a\nb" has characters that are not printed, or a space at an end`,
		"mfa: {issuer_name: " + strings.Repeat("n", 65) + "}": "mfa.issuer_name: it has 65 bytes, and may have 64",

		"mfa: {passkeys: {rp_id: 'https://example.com', origins: ['https://example.com']}}": `mfa.passkeys.rp_id: "https://example.com" is not a domain such as example.com: lower-case letters (others than ASCII written as xn--…), digits, hyphens and dots, without scheme and port`,
		"mfa: {passkeys: {rp_id: 'localhost:8080', origins: ['http://localhost:8080']}}":    `mfa.passkeys.rp_id: "localhost:8080" is not a domain such as example.com: lower-case letters (others than ASCII written as xn--…), digits, hyphens and dots, without scheme and port`,
		"mfa: {passkeys: {rp_id: Example.com, origins: ['https://example.com']}}":           `mfa.passkeys.rp_id: "Example.com" is not a domain such as example.com: lower-case letters (others than ASCII written as xn--…), digits, hyphens and dots, without scheme and port`,
		"mfa: {passkeys: {rp_id: example.com., origins: ['https://example.com.']}}":         `mfa.passkeys.rp_id: "example.com." is not a domain, and browsers make no passkeys for IP addresses`,
		"mfa: {passkeys: {rp_id: 192.0.2.1, origins: ['https://192.0.2.1']}}":               `mfa.passkeys.rp_id: "192.0.2.1" is not a domain, and browsers make no passkeys for IP addresses`,
		"mfa: {passkeys: {rp_id: '::1', origins: ['https://[::1]']}}":                       `mfa.passkeys.rp_id: "::1" is not a domain, and browsers make no passkeys for IP addresses`,

		"mfa: {passkeys: {rp_id: example.com, origins: ['*']}}":                              `mfa.passkeys.origins: "*" is not an origin, such as https://app.example.com`,
		"mfa: {passkeys: {rp_id: example.com, origins: [example.com]}}":                      `mfa.passkeys.origins: "example.com" is not an origin, such as https://app.example.com`,
		"mfa: {passkeys: {rp_id: example.com, origins: ['https://example.com/']}}":           `mfa.passkeys.origins: "https://example.com/" is not what browsers send; write "https://example.com"`,
		"mfa: {passkeys: {rp_id: example.com, origins: ['http://example.com']}}":             `mfa.passkeys.origins: "http://example.com": browsers have passkeys over https alone, or over http on localhost`,
		"mfa: {passkeys: {rp_id: example.com, origins: ['http://127.0.0.1:8080']}}":          `mfa.passkeys.origins: "http://127.0.0.1:8080": browsers have passkeys over https alone, or over http on localhost`,
		"mfa: {passkeys: {rp_id: example.com, origins: ['https://badexample.com']}}":         "mfa.passkeys.origins: browsers refuse passkeys for example.com on https://badexample.com, which is neither that domain nor below it" + together,
		"mfa: {passkeys: {rp_id: a.example.com, origins: ['https://example.com']}}":          "mfa.passkeys.origins: browsers refuse passkeys for a.example.com on https://example.com, which is neither that domain nor below it" + together,
		"mfa: {passkeys: {rp_id: example.com}}":                                              `mfa.passkeys.origins: browsers make passkeys over https alone, or on localhost, and users reach http://127.0.0.1:8080` + both,
		"mfa: {passkeys: {origins: ['https://example.com']}}":                                `mfa.passkeys.rp_id: browsers make passkeys for names, and "127.0.0.1" is none` + both,
		"{tokens: {issuer: 'https://auth.a.org'}, mfa: {passkeys: {rp_id: b.org}}}":          "mfa.passkeys.origins: browsers refuse passkeys for b.org on https://auth.a.org, which is neither that domain nor below it" + together,
		"{tokens: {issuer: 'https://a.org'}, mfa: {passkeys: {origins: ['https://b.org']}}}": "mfa.passkeys.rp_id: browsers refuse passkeys for a.org on https://b.org, which is neither that domain nor below it" + together,
	} {
		_, err := loadText(yaml)
		if err == nil {
			t.Errorf("%s: accepted, want %s", yaml, want)
		} else if got := strings.TrimPrefix(err.Error(), "watchword.yaml:1: "); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", yaml, got, want)
		}
	}
	c := Default()
	c.MFA.RememberDevice = -time.Second
	if err := c.Validate(); err == nil || err.Error() != "mfa.remember_device: it may not be negative" {
		t.Errorf("a negative time: %v", err)
	}
}

// What an authenticator app and a browser are given follows from the issuer. No issuer that
// worked before there were factors ends the start: it leaves passkeys off.
func TestRelyingParty(t *testing.T) {
	for _, tt := range []struct {
		yaml, name, id, origins, why string
	}{
		{"", "127.0.0.1", "", "", `browsers make passkeys for names, and "127.0.0.1" is none`},
		{"server: {address: ':8080'}", "localhost", "localhost", "http://localhost:8080", ""},
		{"tokens: {issuer: 'https://Auth.Example.com:443/base'}", "Auth.Example.com", "auth.example.com", "https://auth.example.com", ""},
		{"tokens: {issuer: 'https://auth.example.com:8443'}", "auth.example.com", "auth.example.com", "https://auth.example.com:8443", ""},
		{"{server: {public_url: 'https://auth.example.com'}, tokens: {issuer: watchword}}", "auth.example.com", "auth.example.com", "https://auth.example.com", ""},
		{"{server: {public_url: 'https://auth.example.com'}, tokens: {issuer: 'urn:x:y'}}", "auth.example.com", "auth.example.com", "https://auth.example.com", ""},
		{"server: {public_url: 'http://auth.example.com'}", "auth.example.com", "", "", "browsers make passkeys over https alone, or on localhost, and users reach http://auth.example.com"},
		{"server: {public_url: 'https://192.0.2.1'}", "192.0.2.1", "", "", `browsers make passkeys for names, and "192.0.2.1" is none`},
		{"server: {public_url: 'https://[2001:db8::1]'}", "Watchword", "", "", `browsers make passkeys for names, and "2001:db8::1" is none`},
		{"server: {public_url: 'https://auth_1'}", "auth_1", "", "", `browsers make passkeys for names, and "auth_1" is none`},
		{"{server: {public_url: 'https://auth.example.com'}, mfa: {issuer_name: Example, passkeys: {rp_id: example.com}}}", "Example", "example.com", "https://auth.example.com", ""},
		{"{server: {public_url: 'https://example.com'}, mfa: {passkeys: {origins: ['https://app.example.com', 'https://example.com']}}}", "example.com", "example.com", "https://app.example.com,https://example.com", ""},
		{"mfa: {passkeys: {rp_id: localhost, origins: ['http://app.localhost:5173']}}", "127.0.0.1", "localhost", "http://app.localhost:5173", ""},
		{"mfa: {passkeys: {rp_id: xn--bcher-kva.example, origins: ['https://xn--bcher-kva.example']}}", "127.0.0.1", "xn--bcher-kva.example", "https://xn--bcher-kva.example", ""},
	} {
		c, err := loadText(tt.yaml)
		if err != nil {
			t.Errorf("%s: %v", tt.yaml, err)
			continue
		}
		id, origins := c.RelyingParty()
		why, _, _ := strings.Cut(c.WhyNoPasskeys(), "; set ")
		if got := c.AuthenticatorName(); got != tt.name || id != tt.id || strings.Join(origins, ",") != tt.origins || why != tt.why {
			t.Errorf("%s: %q, %q, %q, %q", tt.yaml, got, id, origins, why)
		}
	}
}
