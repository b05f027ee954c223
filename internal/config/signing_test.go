package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// Secrets that are good, each of another length.
const (
	s32 = "0123456789abcdef0123456789abcdef"
	s48 = "1123456789abcdef" + s32
	s64 = s32 + "2123456789abcdef2123456789abcdef"
)

func TestSigningSettingsThatCannotWork(t *testing.T) {
	const server = "database: {url: 'postgres://h/db'}, storage: {key: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}"
	for _, tt := range []struct{ name, yaml, want string }{
		{"no secret", "tokens: {keys: secret}",
			`tokens.secret: tokens.keys is secret, and tokens are signed with it; make one with "openssl rand -hex 32" and give it to all replicas (AUTH_JWT_SECRET)`},
		{"former secrets alone", "tokens: {keys: secret, algorithm: HS512, previous_secrets: [" + s32 + "]}",
			`tokens.secret: tokens.keys is secret, and tokens are signed with it; make one with "openssl rand -hex 64" and give it to all replicas (AUTH_JWT_SECRET)`},
		{"a short secret", "tokens: {keys: secret, secret: " + s32[1:] + "}",
			`tokens.secret: it has 31 bytes, and HS256 needs 32 at least; make one with "openssl rand -hex 32"`},
		{"a secret that is short for HS384", "tokens: {keys: secret, algorithm: HS384, secret: " + s48[1:] + "}",
			`tokens.secret: it has 47 bytes, and HS384 needs 48 at least; make one with "openssl rand -hex 48"`},
		{"a secret that is short for HS512", "tokens: {keys: secret, algorithm: HS512, secret: " + s64[1:] + "}",
			`tokens.secret: it has 63 bytes, and HS512 needs 64 at least; make one with "openssl rand -hex 64"`},
		{"a short secret that signs nothing", "tokens: {secret: short}",
			`tokens.secret: it has 5 bytes, and needs 32 at least; make one with "openssl rand -hex 32"`},
		{"a secret that signs nothing and is short by a byte", "tokens: {secret: " + s32[1:] + "}",
			`tokens.secret: it has 31 bytes, and needs 32 at least; make one with "openssl rand -hex 32"`},
		{"a short former secret", "tokens: {previous_secrets: [" + s32 + ", short@2030-01-01]}",
			`tokens.previous_secrets: number 2 cannot be used: it has 5 bytes, and needs 32 at least; make one with "openssl rand -hex 32"`},
		{"a secret with a comma", "tokens: {secret: '" + s32 + "," + s32 + "'}",
			`tokens.secret: a secret has no comma, no @, no line break, and no space at an end; make one with "openssl rand -hex 32"`},
		{"a secret with an @", "tokens: {secret: '" + s32 + "@2030-01-01'}",
			`tokens.secret: a secret has no comma, no @, no line break, and no space at an end; make one with "openssl rand -hex 32"`},
		{"a secret with a space", "tokens: {secret: '" + s32 + " '}",
			`tokens.secret: a secret has no comma, no @, no line break, and no space at an end; make one with "openssl rand -hex 32"`},
		{"a secret of two lines", "tokens: {secret: \"" + s32 + "\\n" + s32 + "\"}",
			`tokens.secret: a secret has no comma, no @, no line break, and no space at an end; make one with "openssl rand -hex 32"`},
		{"a former secret with a comma", "tokens: {previous_secrets: ['" + s32 + "," + s32 + "']}",
			`tokens.previous_secrets: number 1 cannot be used: a secret has no comma, no @, no line break, and no space at an end; make one with "openssl rand -hex 32"`},
		{"a placeholder", "tokens: {keys: secret, secret: Change-Me-please-0123456789-0123456789}",
			`tokens.secret: it is a placeholder, which everybody can guess; make one with "openssl rand -hex 32"`},
		{"a former placeholder", "tokens: {previous_secrets: [<your_jwt_secret>-0123456789-0123456789]}",
			`tokens.previous_secrets: number 1 cannot be used: it is a placeholder, which everybody can guess; make one with "openssl rand -hex 32"`},
		{"a former secret twice", "tokens: {previous_secrets: [" + s32 + ", " + s48 + ", " + s32 + "@2030-01-01]}",
			"tokens.previous_secrets: number 3 is number 1 again; leave one of them out"},
		{"an end that is no moment", "tokens: {previous_secrets: [" + s32 + "@2030-13-01]}",
			"tokens.previous_secrets: number 1 cannot be used: what follows the @ is no moment such as 2026-12-31T00:00:00Z, and no day such as 2026-12-31"},
		{"an empty end", "tokens: {previous_secrets: [" + s32 + "@]}",
			"tokens.previous_secrets: number 1 cannot be used: what follows the @ is no moment such as 2026-12-31T00:00:00Z, and no day such as 2026-12-31"},
		{"two ends", "tokens: {previous_secrets: [" + s32 + "@2030-01-01@2031-01-01]}",
			"tokens.previous_secrets: number 1 cannot be used: what follows the @ is no moment such as 2026-12-31T00:00:00Z, and no day such as 2026-12-31"},
		{"HS256 without a secret", "tokens: {algorithm: HS256}",
			"tokens.algorithm: HS256 signs with a secret, and tokens.keys is database; set tokens.keys to secret, or take one of ES256, ES384, ES512, EdDSA, RS256, PS256"},
		{"HS512 in an HSM", "{tokens: {keys: pkcs11, algorithm: HS512, pkcs11: {library: a, pin: '1'}}, " + server + "}",
			"tokens.algorithm: HS512 signs with a secret, and tokens.keys is pkcs11; set tokens.keys to secret, or take one of ES256, ES384, ES512, EdDSA, RS256, PS256"},
		{"EdDSA with a secret", "tokens: {keys: secret, algorithm: EdDSA, secret: " + s32 + "}",
			"tokens.algorithm: tokens.keys is secret, and EdDSA signs with a key pair; take HS256, HS384 or HS512, or another value of tokens.keys"},
		{"a list with a secret", "tokens: {keys: secret, secret: " + s32 + ", algorithms: [HS256]}",
			"tokens.algorithms: tokens.keys is secret, with which there is one algorithm; write it as tokens.algorithm, and leave out the list"},
		{"HS256 in the list", "tokens: {algorithms: [ES256, HS256]}",
			`tokens.algorithms: "HS256" is not one of ES256, ES384, ES512, EdDSA, RS256, PS256`},
		{"an unknown one in the list", "tokens: {algorithms: [es256]}",
			`tokens.algorithms: "es256" is not one of ES256, ES384, ES512, EdDSA, RS256, PS256`},
		{"one twice", "tokens: {algorithms: [ES256, RS256, ES256]}", "tokens.algorithms: ES256 is there twice; leave one out"},
		{"one RSA key for two algorithms in an HSM", "tokens: {keys: pkcs11, algorithms: [PS256, ES256, RS256], pkcs11: {library: a, pin: '1'}}",
			"tokens.algorithms: RS256 and PS256 would share an RSA key, with tokens.keys pkcs11, and a key has one algorithm; leave one of them out"},
		{"one RSA key for two algorithms at a signer", "tokens: {keys: remote, algorithms: [RS256, PS256], remote: {url: 'https://vault'}}",
			"tokens.algorithms: RS256 and PS256 would share an RSA key, with tokens.keys remote, and a key has one algorithm; leave one of them out"},
		{"another first one", "tokens: {algorithm: RS256, algorithms: [ES256, RS256]}",
			"tokens.algorithms: its first one signs, which is ES256, and tokens.algorithm is RS256; leave out tokens.algorithm"},
		{"peers may not do the second one", "{cluster: {algorithms: [ES256]}, tokens: {algorithms: [ES256, RS256]}}",
			"cluster.algorithms: the replicas' own algorithm is not among them (tokens.algorithms RS256); add it"},
		{"published for too long", "tokens: {key_publish_ahead: 91m}",
			"tokens.key_publish_ahead: it is longer than half of tokens.key_duration (3h), so that a key could not sign for as long; make it shorter, or tokens.key_duration longer"},
		{"no library", "tokens: {keys: pkcs11, pkcs11: {pin: '1234'}}",
			"tokens.pkcs11.library: tokens.keys is pkcs11, and the HSM is reached by its PKCS #11 library; name the file (CRYPTOKI_LIB)"},
		{"no PIN", "tokens: {keys: pkcs11, pkcs11: {library: /lib/hsm.so}}",
			"tokens.pkcs11.pin: tokens.keys is pkcs11, and the HSM signs for those who have the user's PIN; set it (PKCS11_PIN, or PKCS11_PIN_FILE)"},
		{"no label", "tokens: {keys: pkcs11, pkcs11: {library: /lib/hsm.so, pin: '1234', key: ''}}",
			"tokens.pkcs11.key: it is the label of the signing keys on the token; set it, or leave it at its default"},
		{"no sessions", "tokens: {pkcs11: {sessions: 0}}", "tokens.pkcs11.sessions: it must be from 1 to 1024"},
		{"an HSM without a storage key", "{tokens: {keys: pkcs11, pkcs11: {library: a, pin: '1'}}, database: {url: 'mysql://h/db'}}",
			`storage.key: what the database says of the signing keys is authenticated under it, with tokens.keys pkcs11; make one with "openssl rand -base64 32"`},
		{"a signer without a storage key", "{tokens: {keys: remote, remote: {url: 'https://vault'}}, database: {url: 'postgres://h/db'}}",
			`storage.key: what the database says of the signing keys is authenticated under it, with tokens.keys remote; make one with "openssl rand -base64 32"`},
		{"no URL", "tokens: {keys: remote}",
			"tokens.remote.url: tokens.keys is remote, and the signer is reached at it; write https://host:port"},
		{"no URL of HTTP", "tokens: {remote: {url: 'vault:8200'}}", `tokens.remote.url: "vault:8200" is not an http or https URL`},
		{"a token in the URL", "tokens: {remote: {url: 'https://u:hvs.token@vault:8200'}}", "tokens.remote.url: it has only scheme, host, port and path"},
		{"in the clear", "tokens: {remote: {url: 'http://vault:8200'}}",
			"tokens.remote.url: the signer is on another machine, and its token would cross the network in the clear; use https"},
		{"certificates without TLS", "tokens: {remote: {url: 'http://127.0.0.1:8200', ca_file: a}}",
			"tokens.remote.url: certificates are set (tokens.remote.ca_file, cert_file), and it does not say TLS; write https://host:port"},
		{"an unknown signer", "tokens: {remote: {kind: kms}}", `watchword.yaml:1: tokens.remote.kind: "kms" is not one of transit, http`},
		{"a certificate without its key", "tokens: {remote: {cert_file: a}}",
			"tokens.remote.key_file: a certificate and its key go together; set both or neither"},
		{"a key without its certificate", "tokens: {remote: {key_file: a}}",
			"tokens.remote.cert_file: a certificate and its key go together; set both or neither"},
		{"a key's name with a slash", "tokens: {remote: {key: a/../b}}",
			`tokens.remote.key: "a/../b" is not a name of up to 128 letters, digits, ".", "_" and "-"`},
		{"a mount that leads elsewhere", "tokens: {remote: {mount: transit/../sys}}",
			`tokens.remote.mount: "transit/../sys" is not a path such as transit or team/transit`},
		{"no time for an answer", "tokens: {remote: {timeout: 0s}}", "tokens.remote.timeout: it must be longer than 0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := loadText(tt.yaml)
			if err == nil {
				t.Fatal("it was accepted")
			}
			if got := err.Error(); got != tt.want && !strings.HasSuffix(got, ": "+tt.want) || strings.Contains(got, "\n") {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			for _, secret := range []string{s32[2:30], "hvs.token", "12345678"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error has the secret: %v", err)
				}
			}
		})
	}
	for _, yaml := range []string{
		"tokens: {keys: secret, secret: " + s32 + "}",
		"tokens: {keys: secret, algorithm: ES256, secret: " + s32 + "}",
		"tokens: {keys: secret, algorithm: HS384, secret: " + s48 + ", previous_secrets: [" + s32 + "]}",
		"tokens: {keys: secret, algorithm: HS512, secret: " + s64 + "}",
		"tokens: {keys: secret, secret: 'a passphrase with spaces and more than 32 bytes'}",
		"{cluster: {algorithms: [ES256]}, tokens: {keys: secret, secret: " + s32 + "}}",
		"tokens: {algorithm: RS256, algorithms: [RS256, ES256]}",
		"tokens: {algorithms: [RS256, PS256]}",
		"tokens: {keys: pkcs11, algorithms: [ES256, PS256], pkcs11: {library: a, pin: '1'}}",
		"tokens: {key_publish_ahead: 90m}",
		"tokens: {key_publish_ahead: 0s}",
		"tokens: {key_duration: 30m}",
		"tokens: {keys: pkcs11, pkcs11: {library: a, pin: '1'}}",
		"{tokens: {keys: pkcs11, algorithm: EdDSA, pkcs11: {library: a, pin: '1'}}, " + server + "}",
		"{tokens: {keys: pkcs11, pkcs11: {library: a, pin: '1'}}, database: {url: 'postgres://h/db'}, cluster: {enabled: true, secret: " + s32 + "}}",
		"tokens: {keys: remote, remote: {kind: http, url: 'http://localhost:1'}}",
		"tokens: {keys: remote, remote: {url: 'http://[::1]:1/'}}",
		"{tokens: {keys: remote, remote: {url: 'https://vault:8200', ca_file: a, cert_file: b, key_file: c}}, " + server + "}",
	} {
		if _, err := loadText(yaml); err != nil {
			t.Errorf("%s: %v", yaml, err)
		}
	}
}

func TestSigningAlgorithms(t *testing.T) {
	for yaml, want := range map[string][]string{
		"":                                    {"ES256"},
		"tokens: {algorithm: RS256}":          {"RS256"},
		"tokens: {algorithms: [EdDSA]}":       {"EdDSA"},
		"tokens: {algorithms: [RS256,ES256]}": {"RS256", "ES256"},
		"tokens: {keys: secret, secret: " + s64 + "}":                   {"HS256"},
		"tokens: {keys: secret, algorithm: HS384, secret: " + s64 + "}": {"HS384"},
	} {
		c, err := loadText(yaml)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.SigningAlgorithms(); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", yaml, got, want)
		}
	}
}

func TestPublishAhead(t *testing.T) {
	for yaml, want := range map[string]time.Duration{
		"":                                20 * time.Minute,
		"tokens: {key_duration: 40m}":     20 * time.Minute,
		"tokens: {key_duration: 30m}":     15 * time.Minute,
		"tokens: {key_publish_ahead: 5s}": 5 * time.Second,
		"tokens: {key_duration: 30m, key_publish_ahead: 20m}": 15 * time.Minute, // the default, though it was written
		"tokens: {key_duration: 24h, key_publish_ahead: 12h}": 12 * time.Hour,
	} {
		c, err := loadText(yaml)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.PublishAhead(); got != want {
			t.Errorf("%s: %v, want %v", yaml, got, want)
		}
	}
}

func TestSharedSecrets(t *testing.T) {
	end := time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)
	c, err := loadText("", "AUTH_JWT_SECRET="+s32, "AUTH_JWT_SECRET_PREVIOUS= "+s48+"@2030-01-02T01:00:00+01:00 ,"+s32+","+s64+"@2030-01-02")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.SharedSecrets(), []SharedSecret{{Text: s32}, {s48, end}, {s64, end}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := new(Config).SharedSecrets(); got != nil {
		t.Errorf("%v, want none", got)
	}
}

// A file of former secrets has them line by line, as people write and append to it.
func TestFormerSecretsFromAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "previous")
	for content, want := range map[string][]SharedSecret{
		s32 + "\n": {{Text: s32}},
		"\xef\xbb\xbf" + s32 + "\r\n" + s48 + "\r\n": {{Text: s32}, {Text: s48}},
		s32 + "," + s48:               {{Text: s32}, {Text: s48}},
		s32 + "@2030-01-02\n\n" + s48: {{s32, time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)}, {Text: s48}},
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := loadText("", "AUTH_JWT_SECRET_PREVIOUS_FILE="+path)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.SharedSecrets(); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, want %v", content, got, want)
		}
	}
}

// Of secrets, only the ends are shown.
func TestSigningSecretsAreMasked(t *testing.T) {
	before, err := loadText("tokens: {secret: "+s32+", previous_secrets: ["+s48+", "+s64+"@2030-01-02]}", "PKCS11_PIN=271828", "AUTH_SIGNER_TOKEN=hvs.token")
	if err != nil {
		t.Fatal(err)
	}
	var printed strings.Builder
	if err := before.Print(&printed); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(printed.String(), "********@2030-01-02T00:00:00Z") {
		t.Errorf("the end is not shown:\n%s", printed.String())
	}
	after, err := loadText("")
	if err != nil {
		t.Fatal(err)
	}
	shown := printed.String()
	live := 0
	for _, c := range before.Changes(after) {
		shown += c.Old + c.New
		if c.Live {
			live++
		}
	}
	if live != 4 {
		t.Errorf("%d settings are taken over by a running replica, want the two of secrets, the PIN and the token", live)
	}
	for _, secret := range []string{s32[1:20], s48[1:20], "271828", "hvs.token"} {
		if strings.Contains(shown, secret) {
			t.Errorf("%s is shown:\n%s", secret, shown)
		}
	}
}

func TestSigningWarnings(t *testing.T) {
	const key = "cluster: {enabled: true, secret: " + s32 + "}, database: {url: 'postgres://h/db'}"
	for _, tt := range []struct{ yaml, want string }{
		{"{" + key + "}", "tokens.keys is memory: a replica that starts takes tokens.key_set_max_age"},
		{"{" + key + ", storage: {key: " + s64 + "}, tokens: {keys: database}}", ""},
		{"tokens: {key_duration: 30m}", "tokens.key_publish_ahead is shortened to 15m"},
		{"tokens: {key_duration: 30m, key_publish_ahead: 10m}", ""},
		{"tokens: {secret: " + s32 + "}", "tokens.secret is set, but tokens.keys is database: tokens of the secret are accepted"},
		{"tokens: {previous_secrets: [" + s32 + "]}", "tokens.secret is set, but tokens.keys is database"},
		{"tokens: {keys: secret, secret: " + s32 + "}", ""},
		{"tokens: {keys: secret, secret: " + s32 + ", previous_secrets: [" + s48 + "@2099-01-01]}", ""},
		{"tokens: {keys: secret, secret: " + s32 + ", previous_secrets: [" + s48 + "@2020-01-01]}", "tokens.previous_secrets: number 1 ended at 2020-01-01T00:00:00Z"},
		{"tokens: {keys: secret, secret: " + s32 + ", previous_secrets: [" + s32 + "]}", "tokens.previous_secrets has tokens.secret itself as number 1"},
		{"tokens: {keys: secret, secret: " + strings.Repeat("x", 40) + "}", "tokens.secret or one of tokens.previous_secrets is one character again and again"},
		{"{tokens: {keys: secret, secret: " + s32 + "}, cluster: {secret: " + s32 + "}}", "tokens.secret or one of tokens.previous_secrets is the same as cluster.secret or a storage key"},
		{"{tokens: {keys: secret, secret: " + s64 + "}, storage: {previous_keys: [" + s64 + "]}}", "tokens.secret or one of tokens.previous_secrets is the same as cluster.secret or a storage key"},
		{"tokens: {pkcs11: {library: /lib/hsm.so}}", "tokens.pkcs11 is set (CRYPTOKI_LIB, PKCS11_PIN), but tokens.keys is database"},
		{"tokens: {remote: {url: 'https://vault'}}", "tokens.remote is set, but tokens.keys is database"},
	} {
		c, err := loadText(tt.yaml)
		if err != nil {
			t.Fatal(err)
		}
		w := c.Warnings()
		if tt.want == "" && len(w) > 0 || tt.want != "" && (len(w) != 1 || !strings.HasPrefix(w[0], tt.want)) {
			t.Errorf("%s: %q", tt.yaml, w)
		}
		if strings.Contains(strings.Join(w, " "), s32) {
			t.Errorf("a warning has the secret: %q", w)
		}
	}
}
