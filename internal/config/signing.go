package config

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

const (
	defaultAlgorithm = accesstoken.ES256
	// defaultPublishAhead is as long as the verifiers of the field keep a key set: meshes fetch
	// it every 20 minutes.
	defaultPublishAhead = 20 * time.Minute
)

// hmacs are the algorithms of signing secrets, each with the least length of a secret, in
// bytes (RFC 7518 §3.2).
var hmacs = []struct {
	algorithm string
	least     int
}{{"HS256", 32}, {"HS384", 48}, {"HS512", 64}}

// leastSecret returns how many bytes a secret for an algorithm has at least, or 0 if the
// algorithm takes no secret.
func leastSecret(algorithm string) int {
	for _, h := range hmacs {
		if h.algorithm == algorithm {
			return h.least
		}
	}
	return 0
}

// keyPairs returns the algorithms that are none of a secret's.
func keyPairs() []string {
	return slices.DeleteFunc(accesstoken.Algorithms(), func(name string) bool { return leastSecret(name) > 0 })
}

func isKeyPair(algorithm string) bool { return slices.Contains(keyPairs(), algorithm) }

// KeysIn returns tokens.keys, with auto resolved.
func (c *Config) KeysIn() KeyMode {
	switch {
	case c.Tokens.Keys != KeysAuto:
		return c.Tokens.Keys
	case c.Cluster.Enabled:
		return KeysMemory
	default:
		return KeysDatabase
	}
}

// SigningAlgorithms returns the signature algorithms for which there are keys. The first one
// signs by default. With a signing secret there is one.
func (c *Config) SigningAlgorithms() []string {
	switch {
	case c.KeysIn() == KeysSecret && c.Tokens.Algorithm == defaultAlgorithm:
		return []string{hmacs[0].algorithm}
	case c.KeysIn() == KeysSecret || len(c.Tokens.Algorithms) == 0:
		return []string{c.Tokens.Algorithm}
	default:
		return slices.Clone(c.Tokens.Algorithms)
	}
}

// PublishAhead returns how long a key that follows another one is in the key set before it
// signs: tokens.key_publish_ahead, or for its default at most half of tokens.key_duration.
func (c *Config) PublishAhead() time.Duration {
	if c.Tokens.KeyPublishAhead == defaultPublishAhead {
		return min(defaultPublishAhead, c.Tokens.KeyDuration/2)
	}
	return c.Tokens.KeyPublishAhead
}

// A SharedSecret is a signing secret that all replicas share.
type SharedSecret struct {
	Text string
	End  time.Time // tokens of it are accepted until then; zero: without end
}

// SharedSecrets returns tokens.secret, if it is set, and after it tokens.previous_secrets
// without the present one. Only with tokens.keys secret does the first one sign.
func (c *Config) SharedSecrets() []SharedSecret {
	var list []SharedSecret
	if c.Tokens.Secret != "" {
		list = append(list, SharedSecret{Text: c.Tokens.Secret})
	}
	for _, text := range c.Tokens.PreviousSecrets {
		if s, err := parseDated(text); err == nil && s.Text != c.Tokens.Secret { // Validate has refused the others
			list = append(list, s)
		}
	}
	return list
}

var errEnd = errors.New("what follows the @ is no moment such as 2026-12-31T00:00:00Z, and no day such as 2026-12-31")

// parseDated reads a secret and the moment at which it ends, if one follows. Its errors do
// not repeat the text.
func parseDated(text string) (SharedSecret, error) {
	secret, end, found := strings.Cut(text, "@")
	if !found {
		return SharedSecret{Text: secret}, nil
	}
	at, err := time.Parse(time.RFC3339, end)
	if err != nil {
		at, err = time.Parse(time.DateOnly, end)
	}
	if err != nil {
		return SharedSecret{}, errEnd
	}
	return SharedSecret{secret, at.UTC()}, nil
}

// maskDated masks the secrets of a list, and leaves their ends.
func maskDated(text string) string {
	items := strings.Split(text, ",")
	for i, item := range items {
		s, err := parseDated(item)
		items[i] = mask
		if err == nil && !s.End.IsZero() {
			items[i] += "@" + s.End.Format(time.RFC3339)
		}
	}
	return strings.Join(items, ",")
}

// maxPreviousSecrets bounds what every replica announces to the others.
const maxPreviousSecrets = 10

// maxSessions bounds the sessions on an HSM. More than its processors make it no faster.
const maxSessions = 1024

// makeSecret says how a secret of a length is made.
func makeSecret(bytes int) string {
	return fmt.Sprintf("make one with \"openssl rand -hex %d\"", bytes)
}

// algorithmSetting returns the setting that names the algorithms.
func (c *Config) algorithmSetting() string {
	if len(c.Tokens.Algorithms) > 0 && c.KeysIn() != KeysSecret {
		return "tokens.algorithms"
	}
	return "tokens.algorithm"
}

func (c *Config) validateSigning(v *validator) {
	c.validateAlgorithms(v)
	c.validateSecrets(v)
	c.Tokens.PKCS11.validate(v, c.KeysIn() == KeysPKCS11)
	c.Tokens.Remote.validate(v, c.KeysIn() == KeysRemote)
}

func (c *Config) validateAlgorithms(v *validator) {
	t, secret := &c.Tokens, c.KeysIn() == KeysSecret
	switch isHMAC := leastSecret(t.Algorithm) > 0; {
	case isHMAC && !secret:
		v.problem("tokens.algorithm", "%s signs with a secret, and tokens.keys is %s; set tokens.keys to secret, or take one of %s", t.Algorithm, c.KeysIn(), strings.Join(keyPairs(), ", "))
	case !isHMAC && secret && t.Algorithm != defaultAlgorithm:
		v.problem("tokens.algorithm", "tokens.keys is secret, and %s signs with a key pair; take HS256, HS384 or HS512, or another value of tokens.keys", t.Algorithm)
	}
	if len(t.Algorithms) == 0 {
		return
	}
	if secret {
		v.problem("tokens.algorithms", "tokens.keys is secret, with which there is one algorithm; write it as tokens.algorithm, and leave out the list")
		return
	}
	if keys := c.KeysIn(); (keys == KeysPKCS11 || keys == KeysRemote) && slices.Contains(t.Algorithms, accesstoken.RS256) && slices.Contains(t.Algorithms, accesstoken.PS256) {
		// One RSA key serves both, and would have one kid for two algorithms.
		v.problem("tokens.algorithms", "RS256 and PS256 would share an RSA key, with tokens.keys %s, and a key has one algorithm; leave one of them out", keys)
	}
	for i, name := range t.Algorithms {
		switch {
		case !isKeyPair(name):
			v.problem("tokens.algorithms", "%q is not one of %s", name, strings.Join(keyPairs(), ", "))
		case slices.Contains(t.Algorithms[:i], name):
			v.problem("tokens.algorithms", "%s is there twice; leave one out", name)
		}
	}
	if t.Algorithm != defaultAlgorithm && t.Algorithm != t.Algorithms[0] {
		v.problem("tokens.algorithms", "its first one signs, which is %s, and tokens.algorithm is %s; leave out tokens.algorithm", t.Algorithms[0], t.Algorithm)
	}
}

func (c *Config) validateSecrets(v *validator) {
	t := &c.Tokens
	least := hmacs[0].least
	if c.KeysIn() == KeysSecret {
		algorithm := c.SigningAlgorithms()[0]
		least = max(least, leastSecret(algorithm))
		if t.Secret == "" {
			v.problem("tokens.secret", "tokens.keys is secret, and tokens are signed with it; %s and give it to all replicas (AUTH_JWT_SECRET)", makeSecret(least))
		} else if n := len(t.Secret); n < least {
			v.problem("tokens.secret", "it has %d bytes, and %s needs %d at least; %s", n, algorithm, least, makeSecret(least))
			return
		}
	}
	if t.Secret != "" {
		if err := c.checkSecret(t.Secret); err != nil {
			v.problem("tokens.secret", "%v", err)
		}
	}
	if n := len(t.PreviousSecrets); n > maxPreviousSecrets {
		v.problem("tokens.previous_secrets", "there are %d, and may be %d; leave out those whose tokens have expired", n, maxPreviousSecrets)
		return
	}
	seen := map[string]int{}
	for i, text := range t.PreviousSecrets {
		s, err := parseDated(text)
		if err == nil {
			err = c.checkSecret(s.Text)
		}
		if err != nil {
			v.problem("tokens.previous_secrets", "number %d cannot be used: %v", i+1, err)
			continue
		}
		if first := seen[s.Text]; first > 0 {
			v.problem("tokens.previous_secrets", "number %d is number %d again; leave one of them out", i+1, first)
			continue
		}
		seen[s.Text] = i + 1
	}
}

// checkSecret returns why a text cannot be a signing secret, if it cannot. It does not repeat
// the text.
func (c *Config) checkSecret(text string) error {
	least := hmacs[0].least
	switch {
	case len(text) < least:
		return fmt.Errorf("it has %d bytes, and needs %d at least; %s", len(text), least, makeSecret(least))
	case strings.ContainsAny(text, ",@\r\n") || strings.TrimSpace(text) != text:
		// In a list of former secrets it would be another one, or two.
		return fmt.Errorf("a secret has no comma, no @, no line break, and no space at an end; %s", makeSecret(least))
	case isPlaceholder(text):
		return fmt.Errorf("it is a placeholder, which everybody can guess; %s", makeSecret(least))
	}
	return nil
}

// placeholders begin what examples have in place of a secret, without what is no letter.
var placeholders = []string{"changeme", "changethis", "replaceme", "replacethis", "replacewith", "placeholder", "yoursecret", "yourjwtsecret"}

// isPlaceholder reports whether a text is what examples have in place of a secret.
func isPlaceholder(text string) bool {
	letters := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, text)
	return slices.ContainsFunc(placeholders, func(p string) bool { return strings.HasPrefix(letters, p) })
}

func (p *PKCS11) validate(v *validator, used bool) {
	if p.Sessions < 1 || p.Sessions > maxSessions {
		v.problem("tokens.pkcs11.sessions", "it must be from 1 to %d", maxSessions)
	}
	if !used {
		return
	}
	if p.Library == "" {
		v.problem("tokens.pkcs11.library", "tokens.keys is pkcs11, and the HSM is reached by its PKCS #11 library; name the file (CRYPTOKI_LIB)")
	}
	if p.PIN == "" {
		v.problem("tokens.pkcs11.pin", "tokens.keys is pkcs11, and the HSM signs for those who have the user's PIN; set it (PKCS11_PIN, or PKCS11_PIN_FILE)")
	}
	if p.Key == "" {
		v.problem("tokens.pkcs11.key", "it is the label of the signing keys on the token; set it, or leave it at its default")
	}
}

var (
	remoteKey   = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$`)
	remoteMount = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$`)
)

func (r *Remote) validate(v *validator, used bool) {
	v.positive("tokens.remote.timeout", r.Timeout)
	if !remoteKey.MatchString(r.Key) {
		v.problem("tokens.remote.key", "%q is not a name of up to 128 letters, digits, \".\", \"_\" and \"-\"", r.Key)
	}
	if !remoteMount.MatchString(r.Mount) {
		v.problem("tokens.remote.mount", "%q is not a path such as transit or team/transit", r.Mount)
	}
	if (r.CertFile == "") != (r.KeyFile == "") {
		missing := "tokens.remote.cert_file"
		if r.KeyFile == "" {
			missing = "tokens.remote.key_file"
		}
		v.problem(missing, "a certificate and its key go together; set both or neither")
	}
	if r.URL == "" {
		if used {
			v.problem("tokens.remote.url", "tokens.keys is remote, and the signer is reached at it; write https://host:port")
		}
		return
	}
	if err := checkHTTPURL(r.URL); err != nil {
		v.problem("tokens.remote.url", "%v", err)
		return
	}
	u, err := url.Parse(r.URL)
	switch {
	case err != nil: // checkHTTPURL has parsed it
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		v.problem("tokens.remote.url", "the signer is on another machine, and its token would cross the network in the clear; use https")
	case u.Scheme == "http" && (r.CAFile != "" || r.CertFile != ""):
		v.problem("tokens.remote.url", "certificates are set (tokens.remote.ca_file, cert_file), and it does not say TLS; write https://host:port")
	}
}

// signingWarnings returns sentences about settings of signing keys that work, but are
// probably not meant, or that the operator should know.
func (c *Config) signingWarnings(now time.Time) []string {
	var list []string
	t, keys := &c.Tokens, c.KeysIn()
	if keys == KeysMemory && c.Cluster.Enabled {
		list = append(list, "tokens.keys is memory: a replica that starts takes tokens.key_set_max_age until it is ready, and verifiers that keep a key set for longer may refuse its first tokens; choose database if replicas restart often or such verifiers are in use (docs/signing-keys.md)")
	}
	if ahead := c.PublishAhead(); ahead < t.KeyPublishAhead && keys != KeysSecret {
		list = append(list, fmt.Sprintf("tokens.key_publish_ahead is shortened to %s, half of tokens.key_duration: verifiers that keep a key set for longer refuse the tokens of a new key for a while; make tokens.key_duration %s or more", formatDuration(ahead), formatDuration(2*t.KeyPublishAhead)))
	}
	if keys != KeysSecret && len(c.SharedSecrets()) > 0 {
		list = append(list, fmt.Sprintf("tokens.secret is set, but tokens.keys is %s: tokens of the secret are accepted, and it signs none; remove it, and tokens.previous_secrets, when the last of them has expired (tokens.token_duration after the last replica changed)", keys))
	}
	for _, s := range c.SharedSecrets() {
		switch {
		case strings.Trim(s.Text, s.Text[:1]) == "":
			list = append(list, "tokens.secret or one of tokens.previous_secrets is one character again and again, which can be guessed: "+makeSecret(hmacs[0].least))
		case s.Text == c.Cluster.Secret, s.Text == c.Storage.Key, slices.Contains(c.Storage.PreviousKeys, s.Text):
			// Resource servers may have the secret.
			list = append(list, "tokens.secret or one of tokens.previous_secrets is the same as cluster.secret or a storage key: a service that verifies tokens with it could act as a replica, or open the database; "+makeSecret(hmacs[0].least))
		}
	}
	for i, text := range t.PreviousSecrets {
		switch s, err := parseDated(text); {
		case err != nil: // Validate has refused it
		case s.Text == t.Secret:
			list = append(list, fmt.Sprintf("tokens.previous_secrets has tokens.secret itself as number %d: the secret has not been changed yet, and an end does not count for it", i+1))
		case !s.End.IsZero() && !now.Before(s.End):
			list = append(list, fmt.Sprintf("tokens.previous_secrets: number %d ended at %s, and its tokens are refused; remove it", i+1, s.End.Format(time.RFC3339)))
		}
	}
	if keys != KeysPKCS11 && t.PKCS11.Library+t.PKCS11.PIN != "" {
		list = append(list, fmt.Sprintf("tokens.pkcs11 is set (CRYPTOKI_LIB, PKCS11_PIN), but tokens.keys is %s: the HSM is not used", keys))
	}
	if keys != KeysRemote && t.Remote.URL+t.Remote.Token != "" {
		list = append(list, fmt.Sprintf("tokens.remote is set, but tokens.keys is %s: the signer is not used", keys))
	}
	return list
}
