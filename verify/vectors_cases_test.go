package verify

import (
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// The cases of each file. Their fields are described in testdata/verifier/README.md.

type vectorCase struct {
	Name string `json:"name"`
	Rule string `json:"rule"`
}

type digestCase struct {
	vectorCase
	Kind  string `json:"kind"`
	Value string `json:"value"`
	ID    string `json:"id"`
}

type keySetCase struct {
	vectorCase
	Body  string      `json:"body"`
	Pad   int         `json:"pad,omitempty"`
	Keys  []keyInASet `json:"keys"`
	Error bool        `json:"error"`
}

type keyInASet struct {
	Kid string `json:"kid"`
	Alg string `json:"alg"`
}

type ruleConfig struct {
	Issuer   string   `json:"issuer"`
	Audience []string `json:"audience"`
	Leeway   float64  `json:"leeway"`
}

type tokenCase struct {
	vectorCase
	Token    string          `json:"token"`
	Now      float64         `json:"now,omitempty"`
	Config   *ruleConfig     `json:"config,omitempty"`
	Code     string          `json:"code"`
	Later    *tokenLater     `json:"later,omitempty"`
	Claims   json.RawMessage `json:"claims,omitempty"`
	IssuedAt float64         `json:"issued_at,omitempty"`
}

// A tokenLater is what is found when the token comes again.
type tokenLater struct {
	Now    float64 `json:"now,omitempty"`
	KeySet obj     `json:"key_set,omitempty"`
	Code   string  `json:"code"`
}

type bearerCase struct {
	vectorCase
	Authorization []string `json:"authorization"`
	Token         string   `json:"token"`
	Code          string   `json:"code"`
}

type requirementCase struct {
	vectorCase
	Requirement json.RawMessage `json:"requirement"`
	Claims      obj             `json:"claims"`
	Now         float64         `json:"now"`
	Leeway      float64         `json:"leeway"`
	Code        string          `json:"code"`
	Text        string          `json:"text"`
	MaxAge      int64           `json:"max_age,omitempty"`
	ACRValues   []string        `json:"acr_values,omitempty"`
	Scope       string          `json:"scope,omitempty"`
}

type challengeCase struct {
	vectorCase
	Config  challengeConfig   `json:"config"`
	Code    string            `json:"code"`
	Detail  string            `json:"detail"`
	Again   *challengeAgain   `json:"again,omitempty"`
	Scope   string            `json:"scope,omitempty"`
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Absent  []string          `json:"absent_headers"`
	Body    obj               `json:"body"`
}

type challengeConfig struct {
	Issuer   string `json:"issuer"`
	Resource string `json:"resource,omitempty"`
}

type challengeAgain struct {
	MaxAge    int64    `json:"max_age,omitempty"`
	ACRValues []string `json:"acr_values,omitempty"`
}

type metadataCase struct {
	vectorCase
	Config metadataConfig `json:"config"`
	Error  bool           `json:"error"`
	Path   string         `json:"path,omitempty"`
	URL    string         `json:"url,omitempty"`
	Body   obj            `json:"body,omitempty"`
}

type metadataConfig struct {
	Issuer          string   `json:"issuer"`
	Resource        string   `json:"resource"`
	ResourceName    string   `json:"resource_name,omitempty"`
	ScopesSupported []string `json:"scopes_supported,omitempty"`
}

type constantCase struct {
	vectorCase
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

type eventCase struct {
	vectorCase
	Chunks []any      `json:"chunks"` // each a string, or repeated
	Events []oneEvent `json:"events"`
	Error  bool       `json:"error"`
}

type repeated struct {
	Repeat int    `json:"repeat"`
	Text   string `json:"text"`
}

type oneEvent struct {
	Event string `json:"event"`
	Data  any    `json:"data"` // a string, or repeated
}

// overTime is a case of keys_over_time.json or feed_over_time.json.
type overTime struct {
	vectorCase
	Config *timeConfig `json:"config,omitempty"`
	Steps  []step      `json:"steps"`
}

type timeConfig struct {
	MaxStaleness float64  `json:"max_staleness,omitempty"`
	OnStale      string   `json:"on_stale,omitempty"`
	Secrets      []string `json:"secrets,omitempty"`
}

// A step is one thing that happens, and what follows from it.
type step struct {
	Do   string `json:"do"`
	AtMS int64  `json:"at_ms"`

	// of an answer: a fetch of the key set, or a page
	AnsweredMS int64        `json:"answered_ms,omitempty"`
	Request    *stepRequest `json:"request,omitempty"`
	Answer     *stepAnswer  `json:"answer,omitempty"`
	NextMS     []float64    `json:"next_ms,omitempty"`
	Again      *bool        `json:"again,omitempty"`

	// of a stream
	SilenceMS int64 `json:"silence_ms,omitempty"`

	// of an event
	Event string `json:"event,omitempty"`
	Data  any    `json:"data,omitempty"`

	// of find
	Kid    string `json:"kid,omitempty"`
	Result string `json:"result,omitempty"`
	Asks   *bool  `json:"asks,omitempty"`
	Then   string `json:"then,omitempty"`

	// of check
	Token        *stepToken `json:"token,omitempty"`
	MaxStaleness float64    `json:"max_staleness,omitempty"`
	OnStale      string     `json:"on_stale,omitempty"`
	Code         *string    `json:"code,omitempty"`

	// of clock_set
	ByS int64 `json:"by_s,omitempty"`

	// what holds after the step
	Error *bool      `json:"error,omitempty"`
	Keys  *[]string  `json:"keys,omitempty"`
	State *feedState `json:"state,omitempty"`
}

type stepRequest struct {
	IfNoneMatch *string `json:"if_none_match,omitempty"`
	After       *int64  `json:"after,omitempty"`
	Wait        int     `json:"wait,omitempty"`
	LastEventID string  `json:"last_event_id,omitempty"`
}

type stepAnswer struct {
	Fails   bool              `json:"fails,omitempty"`
	Status  int               `json:"status,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    any               `json:"body,omitempty"`
	Text    string            `json:"text,omitempty"`
	Pad     int               `json:"pad,omitempty"`
}

type stepToken struct {
	JTI   string  `json:"jti,omitempty"`
	SID   string  `json:"sid,omitempty"`
	Sub   string  `json:"sub,omitempty"`
	Kid   string  `json:"kid,omitempty"`
	Epoch int64   `json:"epoch"`
	IAT   float64 `json:"iat"`
}

type feedState struct {
	Log         string `json:"log"`
	Next        int64  `json:"next"`
	ConfirmedMS *int64 `json:"confirmed_ms"`
	Entries     int    `json:"entries"`
}

func vectorFiles(s *signer) []vectorFile {
	return []vectorFile{
		digestVectors(), keySetVectors(s), tokenVectors(s), bearerVectors(), requirementVectors(s),
		challengeVectors(), metadataVectors(), eventVectors(), keysOverTime(s), feedOverTime(), constantVectors(),
	}
}

func named(name, rule string) vectorCase { return vectorCase{name, rule} }

func digest(kind, value string) string {
	sum := sha256.Sum256([]byte(kind + "\x00" + value))
	return base64url(sum[:16])
}

func digestVectors() vectorFile {
	f := vectorFile{name: "digests.json", about: "The id of an entry of the feed: base64url of the first 16 bytes of SHA-256 over the kind, a zero byte and the value (UTF-8)."}
	for _, c := range []struct{ name, kind, value string }{
		{"a token", "jti", "0d4a1f6e-52bd-4b3c-9b3a-5b0f6f7d9c01"},
		{"a session of the same name has another id", "sid", "0d4a1f6e-52bd-4b3c-9b3a-5b0f6f7d9c01"},
		{"a user of the same name has another id", "user", "0d4a1f6e-52bd-4b3c-9b3a-5b0f6f7d9c01"},
		{"a key", "kid", "auth-0-NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"},
		{"a name beyond ASCII", "user", "jürgen-日本"},
		{"a long name", "jti", strings.Repeat("long", 100)},
	} {
		f.cases = append(f.cases, digestCase{named(c.name, "docs/protocol.md, The feed, entries"), c.kind, c.value, digest(c.kind, c.value)})
	}
	return f
}

func keySetVectors(s *signer) vectorFile {
	f := vectorFile{name: "keysets.json", about: "Which keys a verifier takes from the body of a key set (pad: so many spaces follow it), or that the whole answer is refused."}
	add := func(name, rule string, body any, keys ...string) {
		c := keySetCase{vectorCase: named(name, rule), Body: s.text(body), Keys: []keyInASet{}}
		for _, k := range keys {
			kid, alg, _ := strings.Cut(k, " ")
			c.Keys = append(c.Keys, keyInASet{kid, alg})
		}
		f.cases = append(f.cases, c)
	}
	refuse := func(name, rule string, body any) {
		f.cases = append(f.cases, keySetCase{vectorCase: named(name, rule), Body: s.text(body), Keys: []keyInASet{}, Error: true})
	}
	set := func(keys ...any) obj { return obj{"keys": append([]any{}, keys...)} }
	es256, rs256, eddsa := s.jwk("es256", nil), s.jwk("rs256", nil), s.jwk("eddsa", nil)
	add("every algorithm", "RFC 7518 §3.1, RFC 8037 §3.1", set(es256, s.jwk("es384", nil), s.jwk("es512", nil), eddsa, rs256, s.jwk("ps256", nil)),
		"es256 ES256", "es384 ES384", "es512 ES512", "eddsa EdDSA", "rs256 RS256", "ps256 PS256")
	add("an empty set", "RFC 7517 §5", set())
	add("unknown members", "RFC 7517 §4, §5", obj{"keys": []any{with(es256, obj{"x5t#S256": "abc", "new": obj{"a": []any{1}}})}, "next": 1}, "es256 ES256")
	add("the same key twice", "RFC 7517 §4.5", set(es256, es256), "es256 ES256")
	add("alg is absent and the curve decides", "RFC 7517 §4.4", set(s.jwk("es384", obj{"alg": nil}), s.jwk("eddsa", obj{"alg": nil})), "es384 ES384", "eddsa EdDSA")
	add("an RSA key without alg is passed over", "RFC 8725 §3.1", set(s.jwk("rs256", obj{"alg": nil}), es256), "es256 ES256")
	add("an RSA key of another algorithm is passed over", "RFC 7517 §5", set(s.jwk("rs256", obj{"alg": "RS512"}), s.jwk("ps256", obj{"alg": "RSA-OAEP"}), es256), "es256 ES256")
	add("an unknown kty is passed over", "RFC 7517 §5", set(obj{"kty": "AKP", "kid": "pq", "alg": "ML-DSA-44", "pub": "AAAA"}, es256), "es256 ES256")
	add("an unknown curve is passed over", "RFC 7517 §5", set(s.jwk("es256", obj{"crv": "secp256k1", "alg": "ES256K"}), s.jwk("eddsa", obj{"crv": "Ed448"}), es256), "es256 ES256")
	add("an algorithm that is not the curve's is passed over", "RFC 7518 §3.4", set(s.jwk("es256", obj{"kid": "x", "alg": "ES384"}), s.jwk("eddsa", obj{"kid": "y", "alg": "ES256"}), es256), "es256 ES256")
	add("a key for encryption is passed over", "RFC 7517 §4.2", set(s.jwk("es256", obj{"use": "enc"}), eddsa), "eddsa EdDSA")
	add("a key without use", "RFC 7517 §4.2", set(s.jwk("es256", obj{"use": nil})), "es256 ES256")
	add("key_ops with verify", "RFC 7517 §4.3", set(s.jwk("es256", obj{"key_ops": []any{"verify"}})), "es256 ES256")
	add("key_ops without verify is passed over", "RFC 7517 §4.3", set(s.jwk("es256", obj{"key_ops": []any{"sign"}}), eddsa), "eddsa EdDSA")
	add("a key without kid is passed over", "RFC 7517 §4.5", set(s.jwk("es256", obj{"kid": nil}), s.jwk("es384", obj{"kid": ""}), eddsa), "eddsa EdDSA")

	refuse("no JSON", "RFC 7517 §5", raw("<html>come back later</html>"))
	refuse("an empty body", "RFC 7517 §5", raw(""))
	refuse("half a set", "RFC 7517 §5", raw(s.text(set(es256))[:100]))
	refuse("something behind the set", "RFC 7517 §5", raw(s.text(set(es256))+"{}"))
	refuse("an array", "RFC 7517 §5", raw(s.text([]any{es256})))
	refuse("null", "RFC 7517 §5", raw("null"))
	refuse("without keys", "RFC 7517 §5.1", obj{})
	refuse("keys is no array", "RFC 7517 §5.1", obj{"keys": es256})
	refuse("keys is null", "RFC 7517 §5.1", raw(`{"keys":null}`))
	refuse("keys twice", "RFC 7517 §5", raw(`{"keys":[],"keys":[`+s.text(es256)+`]}`))
	refuse("a member of a key twice", "RFC 7517 §4", raw(`{"keys":[`+strings.Replace(s.text(es256), `{`, `{"kid":"other",`, 1)+`]}`))
	refuse("a key is no object", "RFC 7517 §5.1", set(es256, "es256"))
	refuse("a key without kty", "RFC 7517 §4.1", set(s.jwk("es256", obj{"kty": nil}), eddsa))
	refuse("kid is a number", "RFC 7517 §4.5", set(s.jwk("es256", obj{"kid": 1}), eddsa))
	refuse("kid has a space", "docs/protocol.md, The key set", set(s.jwk("es256", obj{"kid": "a b"}), eddsa))
	refuse("kid is longer than 256 bytes", "docs/protocol.md, The key set", set(s.jwk("es256", obj{"kid": strings.Repeat("k", 257)}), eddsa))
	refuse("one kid for two keys", "RFC 7517 §4.5", set(es256, s.jwk("es256-other", obj{"kid": "es256"})))
	refuse("a private key", "RFC 7517 §9.2", set(es256, s.jwk("es256-other", obj{"d": "AAAA"})))
	refuse("a shared secret", "RFC 7517 §9.2", set(es256, obj{"kty": "oct", "kid": "s", "alg": "HS256", "k": "c2VjcmV0"}))
	refuse("use is a number", "RFC 7517 §4.2", set(s.jwk("es256", obj{"use": 1}), eddsa))
	refuse("key_ops is no array", "RFC 7517 §4.3", set(s.jwk("es256", obj{"key_ops": "verify"}), eddsa))
	refuse("key_ops names an operation twice", "RFC 7517 §4.3", set(s.jwk("es256", obj{"key_ops": []any{"verify", "verify"}}), eddsa))
	x, _ := es256["x"].(string)
	refuse("a coordinate with padding", "RFC 7515 §2", set(s.jwk("es256", obj{"x": x + "="}), eddsa))
	refuse("a coordinate in base64 that is not base64url", "RFC 7515 §2", set(s.jwk("es256", obj{"x": "+" + x[1:]}), eddsa))
	refuse("a coordinate that is too short", "RFC 7518 §6.2.1.2", set(s.jwk("es256", obj{"x": x[:len(x)-3]}), eddsa))
	refuse("a coordinate that is too long", "RFC 7518 §6.2.1.2", set(s.jwk("es256", obj{"x": "AAAA" + x}), eddsa))
	refuse("a point that is not on the curve", "RFC 7518 §6.2.1", set(s.jwk("es256", obj{"x": base64url([]byte(strings.Repeat("\x01", 32)))}), eddsa))
	refuse("an Ed25519 key that is too short", "RFC 8037 §2", set(es256, s.jwk("eddsa", obj{"x": "AAAA"})))
	refuse("an RSA modulus of 1024 bits", "RFC 7518 §3.3", set(es256, s.jwk("rs256", obj{"n": base64url(append([]byte{0xc1}, make([]byte, 126)...)) + "AB"})))
	refuse("an RSA modulus of more than 8192 bits", "docs/protocol.md, The key set", set(es256, s.jwk("rs256", obj{"n": base64url(odd(8200))})))
	refuse("an RSA exponent of 1", "RFC 8017 §3.1", set(es256, s.jwk("rs256", obj{"e": "AQ"})))
	refuse("an even RSA exponent", "RFC 8017 §3.1", set(es256, s.jwk("rs256", obj{"e": "AQAA"})))
	refuse("an RSA exponent with a leading zero", "RFC 7518 §2", set(es256, s.jwk("rs256", obj{"e": "AAEAAQ"})))
	f.cases = append(f.cases, keySetCase{vectorCase: named("a set of more than 1 MiB", "docs/protocol.md, The key set"), Body: s.text(set(es256)), Pad: 1 << 20, Keys: []keyInASet{}, Error: true})
	return f
}

// odd is an odd number of so many bits.
func odd(bits int) []byte {
	n := new(big.Int).SetBit(big.NewInt(1), bits-1, 1)
	return n.Bytes()
}

func tokenVectors(s *signer) vectorFile {
	f := vectorFile{
		name:  "tokens.json",
		about: "Whether a token is good: with this configuration, at this time (seconds since 1970), with this key set and these shared secrets. A case may have a time and a configuration of its own. code \"\": it is accepted, and claims are all its claims; issued_at, where given, is the time by which a revocation judges it.",
		top: obj{
			"config": ruleConfig{vectorIssuer, []string{vectorAudience}, 0}, "now": vectorNow,
			"secrets": []string{vectorSecret}, "key_set": obj{"keys": s.set},
		},
	}
	add := func(code, name, rule, token string) *tokenCase {
		c := &tokenCase{vectorCase: named(name, rule), Token: token, Code: code}
		if code == "" {
			payload, _ := decodeBase64url(strings.Split(token, ".")[1])
			c.Claims = json.RawMessage(payload)
		}
		f.cases = append(f.cases, c)
		return c
	}
	header, claims := vectorHeader("ES256", "es256"), vectorClaims()
	good := s.usual(nil)
	parts := strings.Split(good, ".")

	for _, alg := range []string{"ES256", "ES384", "ES512", "EdDSA", "RS256", "PS256"} {
		kid := strings.ToLower(alg)
		add("", "good, "+alg, "RFC 9068 §4", s.token(alg, kid, vectorHeader(alg, kid), claims))
		other := s.token(alg, kid, vectorHeader(alg, kid), with(claims, obj{"sub": "admin"}))
		mixed := strings.Join(append(strings.Split(other, ".")[:2], strings.Split(s.token(alg, kid, vectorHeader(alg, kid), claims), ".")[2]), ".")
		add("token_signature", "claims of another token, "+alg, "RFC 7515 §5.2", mixed)
		add("token_signature", "an empty signature, "+alg, "RFC 7515 §5.2", strings.Join(strings.Split(other, ".")[:2], ".")+".")
	}
	for _, alg := range []string{"HS256", "HS384", "HS512"} {
		kid := s.secretKid(alg)
		add("", "good, "+alg, "RFC 7518 §3.2", s.token(alg, "", vectorHeader(alg, kid), claims))
		add("token_signature", "an empty signature, "+alg, "RFC 7515 §5.2", strings.Join(strings.Split(s.token(alg, "", vectorHeader(alg, kid), claims), ".")[:2], ".")+".")
		add("token_algorithm", "the kid of a secret with ES256, "+alg, "RFC 8725 §3.1", s.token("ES256", "es256", vectorHeader("ES256", kid), claims))
	}
	// the algorithm
	none := base64url([]byte(s.text(vectorHeader("none", "es256")))) + "." + parts[1] + "."
	add("token_algorithm", "alg none", "RFC 8725 §3.1", none)
	add("token_algorithm", "alg None", "RFC 8725 §3.1", base64url([]byte(s.text(vectorHeader("None", "es256"))))+"."+parts[1]+".")
	add("token_algorithm", "no alg", "RFC 7515 §4.1.1", s.token("ES256", "es256", with(header, obj{"alg": nil}), claims))
	add("token_algorithm", "alg in small letters", "RFC 7515 §4.1.1", s.token("ES256", "es256", with(header, obj{"alg": "es256"}), claims))
	add("token_malformed", "alg is a number", "RFC 7515 §4.1.1", s.token("ES256", "es256", with(header, obj{"alg": 256}), claims))
	add("token_algorithm", "HS256 with the kid of a public key", "RFC 8725 §3.1", s.token("HS256", "", vectorHeader("HS256", "es256"), claims))
	add("token_algorithm", "RS256 with the key of PS256", "RFC 8725 §3.1", s.token("RS256", "rs256", vectorHeader("RS256", "ps256"), claims))
	add("token_algorithm", "PS256 with the key of RS256", "RFC 8725 §3.1", s.token("PS256", "ps256", vectorHeader("PS256", "rs256"), claims))
	add("token_algorithm", "ES384 with a key of P-256", "RFC 7518 §3.4", s.token("ES384", "es384", vectorHeader("ES384", "es256"), claims))
	add("token_algorithm", "RS512, which is not offered", "RFC 8725 §3.1", s.token("RS512", "rs256", vectorHeader("RS512", "rs256"), claims))
	add("token_signature", "signed by another key of the set", "RFC 7515 §5.2", s.token("ES256", "es256-other", header, claims))
	// the signature's form
	add("token_malformed", "the ECDSA signature with the greater s", "docs/protocol.md, The signature", strings.Join(parts[:2], ".")+"."+base64url(greaterS(s.signature("ES256", "es256", strings.Join(parts[:2], ".")))))
	add("token_signature", "an ECDSA signature of zeros", "RFC 7518 §3.4", strings.Join(parts[:2], ".")+"."+base64url(make([]byte, 64)))
	add("token_signature", "an ECDSA signature that is too long", "RFC 7518 §3.4", strings.Join(parts[:2], ".")+"."+base64url(append([]byte{0}, s.signature("ES256", "es256", strings.Join(parts[:2], "."))...)))
	rs := s.signature("ES256", "es256", strings.Join(parts[:2], "."))
	der, err := asn1.Marshal([]*big.Int{new(big.Int).SetBytes(rs[:32]), new(big.Int).SetBytes(rs[32:])})
	if err != nil {
		s.t.Fatal(err)
	}
	add("token_signature", "an ECDSA signature in ASN.1", "RFC 7518 §3.4", strings.Join(parts[:2], ".")+"."+base64url(der))
	edDSA := s.token("EdDSA", "eddsa", vectorHeader("EdDSA", "eddsa"), claims)
	input, signature := edDSA[:strings.LastIndexByte(edDSA, '.')], s.signature("EdDSA", "eddsa", edDSA[:strings.LastIndexByte(edDSA, '.')])
	add("token_signature", "an EdDSA signature whose S is not less than the order", "RFC 8032 §5.1.7", input+"."+base64url(greaterEdDSA(signature)))
	ps256 := s.token("PS256", "ps256", vectorHeader("PS256", "ps256"), claims)
	input = ps256[:strings.LastIndexByte(ps256, '.')]
	for _, length := range []int{1, 20, 222} {
		add("token_signature", fmt.Sprintf("PS256 with a salt of %d bytes", length), "RFC 7518 §3.5", input+"."+base64url(s.salted("ps256", input, length)))
	}
	// the header
	for _, kid := range []string{"__proto__", "constructor"} {
		add("token_key_unknown", "the kid "+kid, "RFC 7515 §4.1.4", s.token("ES256", "es256", vectorHeader("ES256", kid), claims))
	}
	add("token_malformed", "a byte order mark before the header", "RFC 8259 §8.1", s.token("ES256", "es256", raw("\ufeff"+s.text(header)), claims))
	add("token_key_unknown", "an unknown kid", "RFC 7515 §4.1.4", s.token("ES256", "es256", vectorHeader("ES256", "nobody"), claims))
	add("token_malformed", "no kid", "docs/protocol.md, The header", s.token("ES256", "es256", with(header, obj{"kid": nil}), claims))
	add("token_malformed", "an empty kid", "docs/protocol.md, The header", s.token("ES256", "es256", with(header, obj{"kid": ""}), claims))
	add("token_malformed", "kid is a number", "RFC 7515 §4.1.4", s.token("ES256", "es256", with(header, obj{"kid": 1}), claims))
	add("token_malformed", "kid has a line break", "docs/protocol.md, The header", s.token("ES256", "es256", with(header, obj{"kid": "a\nb"}), claims))
	add("token_malformed", "kid is longer than 256 bytes", "docs/protocol.md, The header", s.token("ES256", "es256", with(header, obj{"kid": strings.Repeat("k", 257)}), claims))
	for _, typ := range []string{"AT+JWT", "application/at+jwt"} {
		add("", "typ "+typ, "RFC 9068 §4, RFC 7515 §4.1.9", s.token("ES256", "es256", with(header, obj{"typ": typ}), claims))
	}
	for _, typ := range []string{"JWT", "", "id_token", "logout+jwt", "at+jwt "} {
		add("token_type", "typ "+s.text(typ), "RFC 9068 §4, RFC 8725 §3.11", s.token("ES256", "es256", with(header, obj{"typ": typ}), claims))
	}
	add("token_type", "no typ", "RFC 9068 §4", s.token("ES256", "es256", with(header, obj{"typ": nil}), claims))
	for _, c := range []struct {
		name  string
		value any
	}{
		{"crit", []any{"exp"}}, {"b64", false}, {"jwk", s.set[0]}, {"jku", "https://evil.example/"}, {"x5c", []any{"AAAA"}},
		{"x5u", "https://evil.example/"}, {"cty", "JWT"}, {"zip", "DEF"}, {"unknown", 1},
	} {
		add("token_malformed", "the header has "+c.name, "RFC 7515 §4.1, RFC 8725 §3.10", s.token("ES256", "es256", with(header, obj{c.name: c.value}), claims))
	}
	add("token_malformed", "alg twice", "RFC 7515 §4", s.token("ES256", "es256", raw(`{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"es256"}`), claims))
	add("token_malformed", "the header is no object", "RFC 7515 §4", s.token("ES256", "es256", raw(`["ES256"]`), claims))
	add("token_malformed", "something behind the header's object", "RFC 7515 §4", s.token("ES256", "es256", raw(s.text(header)+"{}"), claims))
	add("token_malformed", "the header is not UTF-8", "RFC 7515 §5.2", s.token("ES256", "es256", raw("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"es256\xff\"}"), claims))
	// the compact form
	for _, c := range []struct{ name, token string }{
		{"an empty token", ""}, {"two dots alone", ".."}, {"two parts", parts[0] + "." + parts[1]}, {"four parts", good + "."}, {"five parts, as a JWE has", good + ".AAAA.AAAA"},
		{"no token", "hello"},
		{"padding", parts[0] + "=." + parts[1] + "." + parts[2]},
		{"a line break in a part", parts[0] + "." + parts[1][:10] + "\n" + parts[1][10:] + "." + parts[2]},
		{"a space before", " " + good},
		{"a character that base64url does not have", parts[0] + "." + parts[1] + "." + "+" + parts[2][1:]},
		{"stray bits at the end of the signature", parts[0] + "." + parts[1] + "." + strayBits(parts[2])},
		{"a part of 4n+1 characters", parts[0] + "." + parts[1] + "." + parts[2] + "AAA"},
		{"a character beyond ASCII", good + "é"},
	} {
		add("token_malformed", c.name, "RFC 7515 §2, §7.1", c.token)
	}
	filled := func(length int) string {
		n := length - len(s.usual(obj{"x": ""}))
		n = n * 3 / 4
		for token := s.usual(obj{"x": strings.Repeat("x", n)}); ; n++ {
			next := s.usual(obj{"x": strings.Repeat("x", n+1)})
			if len(next) > length {
				return token
			}
			token = next
		}
	}
	add("", "a token of almost 8192 bytes", "docs/protocol.md, The token", filled(8192))
	add("token_malformed", "a token of more than 8192 bytes", "docs/protocol.md, The token", filled(8200))
	// the claims
	add("token_malformed", "the claims are no object", "RFC 7519 §7.2", s.token("ES256", "es256", header, raw(`[]`)))
	add("token_malformed", "the claims are cut off", "RFC 7519 §7.2", s.token("ES256", "es256", header, raw(s.text(claims)[:50])))
	add("token_malformed", "something behind the claims", "RFC 7519 §7.2", s.token("ES256", "es256", header, raw(s.text(claims)+`{"sub":"admin"}`)))
	add("token_malformed", "sub twice", "RFC 7519 §4", s.token("ES256", "es256", header, raw(strings.Replace(s.text(claims), "{", `{"sub":"admin",`, 1))))
	add("token_malformed", "a member twice, deep inside", "RFC 7519 §4", s.token("ES256", "es256", header, raw(strings.Replace(s.text(claims), "{", `{"x":[{"a":1,"a":2}],`, 1))))
	add("token_malformed", "sub twice, once with an escape", "RFC 7519 §4", s.token("ES256", "es256", header, raw(strings.Replace(s.text(claims), "{", `{"\u0073ub":"admin",`, 1))))
	add("token_malformed", "the claims are not UTF-8", "RFC 7519 §7.2", s.token("ES256", "es256", header, raw(strings.Replace(s.text(claims), "{", "{\"x\":\"\xff\",", 1))))
	add("token_malformed", "claims that are nested a thousand deep", "docs/protocol.md, The claims", s.token("ES256", "es256", header, raw(strings.Replace(s.text(claims), "{", `{"x":`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+`,`, 1))))
	add("", "claims that are nested ten deep", "docs/protocol.md, The claims", s.token("ES256", "es256", header, raw(strings.Replace(s.text(claims), "{", `{"x":`+strings.Repeat("[", 10)+strings.Repeat("]", 10)+`,`, 1))))
	add("", "other claims, escapes and white space", "RFC 7519 §4.3", s.token("ES256", "es256", header, raw(strings.Replace(s.text(claims), "{", "{\n \"name\" : \"J\\u00fcrgen \\ud83d\\ude00\", \"x\": {\"__proto__\": null, \"y\": [true, 1.5]},", 1))))
	for _, c := range []struct{ name, member string }{
		{"NaN", `"x":NaN`}, {"Infinity", `"x":-Infinity`}, {"a number with a leading zero", `"x":01`}, {"a number with a plus", `"x":+1`}, {"a number without an integer part", `"x":.5`},
		{"a comment", `/* */"x":1`}, {"an apostrophe", `'x':1`}, {"a line break in a string", "\"x\":\"a\nb\""}, {"an unknown escape", `"x":"\x41"`}, {"white space that JSON does not have", "\u00a0\"x\":1"},
		{"a form feed", "\f\"x\":1"}, {"a literal in capitals", `"x":True`}, {"two commas", `"x":1,`},
	} {
		add("token_malformed", "no JSON: "+c.name, "RFC 8259 §3, §6, §7", s.token("ES256", "es256", header, raw(strings.Replace(s.text(claims), "{", "{"+c.member+",", 1))))
	}
	add("token_malformed", "no JSON: a comma at the end", "RFC 8259 §4", s.token("ES256", "es256", header, raw(strings.TrimSuffix(s.text(claims), "}")+",}")))
	add("token_malformed", "a byte order mark before the claims", "RFC 8259 §8.1", s.token("ES256", "es256", header, raw("\ufeff"+s.text(claims))))
	for _, name := range []string{"iss", "sub", "jti", "exp", "iat"} {
		add("token_malformed", name+" is an array", "RFC 7519 §4.1", s.usual(obj{name: []any{claims[name]}}))
	}
	add("token_malformed", "aud is an object", "RFC 7519 §4.1.3", s.usual(obj{"aud": obj{"0": vectorAudience}}))
	add("token_malformed", "aud is an array in an array", "RFC 7519 §4.1.3", s.usual(obj{"aud": []any{[]any{vectorAudience}}}))
	add("token_malformed", "exp is too great for a number", "RFC 7519 §2", s.usual(obj{"exp": json.RawMessage("1e999")}))
	add("", "exp with an exponent", "RFC 8259 §6", s.usual(obj{"exp": json.RawMessage("1.8000006e9")}))
	for _, name := range []string{"iss", "sub", "aud", "jti", "iat", "exp"} {
		add("token_claim_missing", "no "+name, "RFC 9068 §2.2", s.usual(obj{name: nil}))
		add("token_malformed", name+" is null", "RFC 7519 §4.1", s.token("ES256", "es256", header, with(claims, obj{name: json.RawMessage("null")})))
	}
	add("token_claim_missing", "EXP in place of exp", "RFC 7519 §10.1.1", s.usual(obj{"exp": nil, "EXP": vectorNow + 600}))
	for _, name := range []string{"sid", "nbf", "client_id", "epoch"} {
		add("", "no "+name, "RFC 9068 §2.2", s.usual(obj{name: nil}))
	}
	for _, name := range []string{"iss", "sub", "jti", "sid", "acr"} {
		add("token_malformed", name+" is empty", "RFC 9068 §2.2", s.usual(obj{name: ""}))
		add("token_malformed", name+" is a number", "RFC 7519 §4.1", s.usual(obj{name: 1}))
	}
	for _, name := range []string{"exp", "iat", "nbf", "auth_time", "iat_exact"} {
		add("token_malformed", name+" is a string", "RFC 7519 §2", s.usual(obj{name: "1800000600"}))
		add("token_malformed", name+" is negative", "RFC 7519 §2", s.usual(obj{name: -1}))
		add("token_malformed", name+" is after the year 9999", "docs/protocol.md, The claims", s.usual(obj{name: json.RawMessage(`253402300800`)}))
		add("token_malformed", name+" is true", "RFC 7519 §2", s.usual(obj{name: true}))
	}
	for _, v := range []any{"7", -1, 1.5, true, []any{7}} {
		add("token_malformed", "epoch is "+s.text(v), "docs/protocol.md, The claims", s.usual(obj{"epoch": v}))
	}
	for _, v := range []any{"otp", []any{"pwd", ""}, []any{"pwd", 1}, obj{"otp": true}} {
		add("token_malformed", "amr is "+s.text(v), "RFC 8176 §1", s.usual(obj{"amr": v}))
	}
	add("", "with an authentication", "RFC 9068 §2.2.1", s.usual(obj{"auth_time": vectorNow - 600, "amr": []any{"pwd", "otp"}, "acr": "aal2"}))
	add("", "amr is empty", "RFC 8176 §1", s.usual(obj{"amr": []any{}}))
	add("", "scopes", "RFC 8693 §4.2", s.usual(obj{"scope": "orders:read orders:write"}))
	for _, v := range []any{"", " ", "a  b", " a", "a ", "a\tb", "a\"b", `a\b`, "ä", []any{"a"}, 1} {
		add("token_malformed", "scope is "+s.text(v), "RFC 8693 §4.2, RFC 6749 §3.3", s.usual(obj{"scope": v}))
	}
	// issuer and audience
	add("token_issuer", "another issuer", "RFC 9068 §4", s.usual(obj{"iss": "https://other.example"}))
	add("token_issuer", "the issuer with a slash", "RFC 7519 §4.1.1", s.usual(obj{"iss": vectorIssuer + "/"}))
	add("token_issuer", "the issuer in capitals", "RFC 7519 §4.1.1", s.usual(obj{"iss": "https://AUTH.example"}))
	add("", "aud is an array", "RFC 7519 §4.1.3", s.usual(obj{"aud": []any{vectorAudience}}))
	add("", "one of several aud", "RFC 7519 §4.1.3", s.usual(obj{"aud": []any{"https://other.example", vectorAudience}}))
	add("token_audience", "another aud", "RFC 9068 §4", s.usual(obj{"aud": "https://other.example"}))
	add("token_audience", "an aud that begins with it", "RFC 7519 §4.1.3", s.usual(obj{"aud": vectorAudience + ".evil.example"}))
	add("token_audience", "no aud in the array", "RFC 7519 §4.1.3", s.usual(obj{"aud": []any{}}))
	add("token_malformed", "an aud that is a number", "RFC 7519 §4.1.3", s.usual(obj{"aud": []any{vectorAudience, 1}}))
	add("token_malformed", "an aud that is empty", "RFC 7519 §4.1.3", s.usual(obj{"aud": []any{vectorAudience, ""}}))
	add("", "several audiences are accepted", "RFC 9068 §4", s.usual(obj{"aud": "https://b.example"})).Config = &ruleConfig{vectorIssuer, []string{"https://a.example", "https://b.example"}, 0}
	add("token_audience", "none of several audiences", "RFC 9068 §4", good).Config = &ruleConfig{vectorIssuer, []string{"https://a.example", "https://b.example"}, 0}
	// time
	strict, lenient := &ruleConfig{vectorIssuer, []string{vectorAudience}, 0}, &ruleConfig{vectorIssuer, []string{vectorAudience}, 30}
	at := func(code, name, rule string, now float64, config *ruleConfig, token string) *tokenCase {
		c := add(code, name, rule, token)
		c.Now, c.Config = now, config
		return c
	}
	at("", "just before exp", "RFC 7519 §4.1.4", vectorNow+599.999, strict, good)
	at("token_expired", "at exp", "RFC 7519 §4.1.4", vectorNow+600, strict, good)
	at("", "after exp, within the leeway", "RFC 7519 §4.1.4", vectorNow+629.9, lenient, good)
	at("token_expired", "after exp and the leeway", "RFC 7519 §4.1.4", vectorNow+630, lenient, good)
	later := s.usual(obj{"nbf": vectorNow + 10})
	at("token_not_yet_valid", "just before nbf", "RFC 7519 §4.1.5", vectorNow+9.9, strict, later)
	at("", "at nbf", "RFC 7519 §4.1.5", vectorNow+10, strict, later)
	at("token_not_yet_valid", "before nbf and the leeway", "RFC 7519 §4.1.5", vectorNow-20.1, lenient, later)
	at("", "before nbf, within the leeway", "RFC 7519 §4.1.5", vectorNow-20, lenient, later)
	at("", "exp with a fraction", "RFC 7519 §2", vectorNow+600.2, strict, s.usual(obj{"exp": vectorNow + 600.5}))
	at("token_expired", "after an exp with a fraction", "RFC 7519 §2", vectorNow+600.6, strict, s.usual(obj{"exp": vectorNow + 600.5}))
	add("", "iat in the future is not judged", "docs/protocol.md, Time", s.usual(obj{"iat": vectorNow + 60})).IssuedAt = vectorNow + 60
	add("", "iat_exact is when it was issued", "docs/protocol.md, Time", s.usual(obj{"iat": vectorNow - 70, "iat_exact": vectorNow - 60})).IssuedAt = vectorNow - 60
	// the same token again, which may be remembered
	const cache = "docs/protocol.md, A cache of tokens"
	add("", "it expires", cache, good).Later = &tokenLater{Now: vectorNow + 600, Code: "token_expired"}
	add("", "it does not expire", cache, good).Later = &tokenLater{Now: vectorNow + 599}
	add("", "its key leaves the key set", cache, good).Later = &tokenLater{Now: vectorNow + 10, KeySet: obj{"keys": []any{s.jwk("eddsa", nil)}}, Code: "token_key_unknown"}
	add("", "its kid names another key", cache, good).Later = &tokenLater{Now: vectorNow + 10, KeySet: obj{"keys": []any{s.jwk("es256-other", obj{"kid": "es256"})}}, Code: "token_signature"}
	add("", "its kid names a key of another algorithm", cache, good).Later = &tokenLater{Now: vectorNow + 10, KeySet: obj{"keys": []any{s.jwk("eddsa", obj{"kid": "es256"})}}, Code: "token_algorithm"}
	// the order
	add("token_signature", "a wrong signature and expired", "docs/protocol.md, The order", strings.Join(strings.Split(s.usual(obj{"exp": vectorNow - 1}), ".")[:2], ".")+"."+parts[2])
	add("token_issuer", "another issuer and expired", "docs/protocol.md, The order", s.usual(obj{"iss": "https://other.example", "exp": vectorNow - 1}))
	add("token_type", "another kind of token, from an unknown key", "docs/protocol.md, The order", s.token("ES256", "es256", obj{"alg": "ES256", "typ": "JWT", "kid": "nobody"}, claims))
	return f
}

func decodeBase64url(text string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(text) }

// greaterS is the other ECDSA signature that is as good, (r, n−s).
func greaterS(signature []byte) []byte {
	s := new(big.Int).SetBytes(signature[32:])
	other := append([]byte(nil), signature...)
	new(big.Int).Sub(elliptic.P256().Params().N, s).FillBytes(other[32:])
	return other
}

// greaterEdDSA adds the order of the group to S.
func greaterEdDSA(signature []byte) []byte {
	order, _ := new(big.Int).SetString("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed", 16)
	little := slices.Clone(signature[32:])
	slices.Reverse(little)
	big := new(big.Int).SetBytes(little)
	greater := big.Add(big, order).FillBytes(make([]byte, 32))
	slices.Reverse(greater)
	return append(slices.Clone(signature[:32]), greater...)
}

// strayBits sets the bits of the last character that belong to nothing.
func strayBits(part string) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(letters, part[len(part)-1])
	return part[:len(part)-1] + string(letters[last|1])
}

func bearerVectors() vectorFile {
	f := vectorFile{name: "bearer.json", about: "The token in the Authorization headers of a request, or the code of the refusal."}
	for _, c := range []struct {
		name, rule, token, code string
		headers                 []string
	}{
		{"a token", "RFC 6750 §2.1", "abc.def.ghi", "", []string{"Bearer abc.def.ghi"}},
		{"the scheme has no case", "RFC 9110 §11.1", "abc", "", []string{"bEARER abc"}},
		{"several spaces", "RFC 9110 §11.4", "abc", "", []string{"Bearer   abc"}},
		{"spaces and tabs around", "RFC 9110 §5.5", "abc", "", []string{" \tBearer abc \t"}},
		{"a space within stays and is refused later", "RFC 6750 §2.1", "abc def", "", []string{"Bearer abc def"}},
		{"no header", "RFC 6750 §3.1", "", "token_missing", []string{}},
		{"an empty header", "RFC 6750 §3.1", "", "token_missing", []string{""}},
		{"another scheme", "RFC 6750 §3.1", "", "token_missing", []string{"Basic dTpw"}},
		{"a scheme that begins with it", "RFC 6750 §2.1", "", "token_missing", []string{"BearerX abc"}},
		{"no token", "RFC 6750 §3.1", "", "token_missing", []string{"Bearer "}},
		{"the scheme alone", "RFC 6750 §3.1", "", "token_missing", []string{"Bearer"}},
		{"a tab between", "RFC 9110 §11.4", "", "token_missing", []string{"Bearer\tabc"}},
		{"a no-break space between", "RFC 9110 §11.4", "", "token_missing", []string{"Bearer\u00a0abc"}},
		{"a no-break space is no space", "RFC 9110 §5.5", "abc\u00a0", "", []string{"Bearer abc\u00a0"}},
		{"the token alone", "RFC 6750 §2.1", "", "token_missing", []string{"abc.def.ghi"}},
		{"two headers", "RFC 6750 §3.1", "", "invalid_request", []string{"Bearer abc", "Bearer def"}},
		{"the same header twice", "RFC 6750 §3.1", "", "invalid_request", []string{"Bearer abc", "Bearer abc"}},
		{"two headers of two schemes", "RFC 6750 §3.1", "", "invalid_request", []string{"Basic dTpw", "Bearer abc"}},
	} {
		f.cases = append(f.cases, bearerCase{named(c.name, c.rule), c.headers, c.token, c.code})
	}
	return f
}

func requirementVectors(s *signer) vectorFile {
	f := vectorFile{name: "requirements.json", about: "Whether the claims of a good token meet the requirement of a route at a time. text is what the requirement says. If the code is reauthentication_required, max_age and acr_values say how."}
	add := func(code, name, rule, text string, requirement any, change obj) *requirementCase {
		c := &requirementCase{vectorCase: named(name, rule), Requirement: json.RawMessage(s.text(requirement)), Claims: with(vectorClaims(), change), Now: vectorNow, Code: code, Text: text}
		f.cases = append(f.cases, c)
		return c
	}
	claim := func(name, value string) obj { return obj{"claim": []any{name, value}} }
	const rights = "docs/protocol.md, Requirements"
	add("", "a claim", rights, "ship=acc", claim("ship", "acc"), obj{"ship": "acc"})
	add("", "one value of several", rights, "log=w", claim("log", "w"), obj{"log": "r,w"})
	add("", "several values of several", rights, "log=r,w", claim("log", "r,w"), obj{"log": "w,x,r"})
	add("forbidden", "one of the values is lacking", rights, "log=r,w", claim("log", "r,w"), obj{"log": "r"})
	add("forbidden", "no claim", rights, "ship=acc", claim("ship", "acc"), nil)
	add("forbidden", "another value", rights, "ship=acc", claim("ship", "acc"), obj{"ship": "access"})
	add("forbidden", "another case", rights, "ship=acc", claim("ship", "acc"), obj{"ship": "ACC"})
	add("forbidden", "a space is part of a value", rights, "log=w", claim("log", "w"), obj{"log": "r, w"})
	add("forbidden", "an empty value is never met", rights, "ship=", claim("ship", ""), obj{"ship": ""})
	add("forbidden", "a claim that is a number", rights, "ship=1", claim("ship", "1"), obj{"ship": 1})
	add("forbidden", "a claim that is an array", rights, "ship=acc", claim("ship", "acc"), obj{"ship": []any{"acc"}})
	add("forbidden", "a name that every object of JavaScript has", rights, "constructor=acc", claim("constructor", "acc"), nil)
	a, b := claim("a", "1"), claim("b", "1")
	add("", "any, the second", rights, "a=1 or b=1", obj{"any": []any{a, b}}, obj{"b": "1"})
	add("forbidden", "any, none", rights, "a=1 or b=1", obj{"any": []any{a, b}}, nil)
	add("forbidden", "any of nothing", rights, "nobody may", obj{"any": []any{}}, nil)
	add("", "all", rights, "a=1 and b=1", obj{"all": []any{a, b}}, obj{"a": "1", "b": "1"})
	add("forbidden", "all but one", rights, "a=1 and b=1", obj{"all": []any{a, b}}, obj{"a": "1"})
	add("", "all of nothing", rights, "any valid token", obj{"all": []any{}}, nil)
	add("", "any within all", rights, "a=1 and (log=r or log=w)", obj{"all": []any{a, obj{"any": []any{claim("log", "r"), claim("log", "w")}}}}, obj{"a": "1", "log": "w"})
	add("forbidden", "all within any", rights, "(a=1 and b=1) or log=w", obj{"any": []any{obj{"all": []any{a, b}}, claim("log", "w")}}, obj{"a": "1"})
	add("", "any of one has no parentheses", rights, "a=1 and b=1", obj{"any": []any{obj{"all": []any{a, b}}}}, obj{"a": "1", "b": "1"})

	const stepUp = "RFC 9470 §3, RFC 9068 §2.2.1"
	again := func(name, text string, requirement any, change obj, maxAge int64, acr ...string) *requirementCase {
		c := add("reauthentication_required", name, stepUp, text, requirement, change)
		c.MaxAge, c.ACRValues = maxAge, acr
		return c
	}
	fresh := obj{"fresh_auth": 300}
	add("", "authenticated just now", stepUp, "auth_time within 5m0s", fresh, obj{"auth_time": vectorNow})
	add("", "authenticated at the bound", stepUp, "auth_time within 5m0s", fresh, obj{"auth_time": vectorNow - 300})
	again("authenticated before the bound", "auth_time within 5m0s", fresh, obj{"auth_time": vectorNow - 301}, 300)
	again("no auth_time", "auth_time within 5m0s", fresh, nil, 300)
	again("auth_time in the future", "auth_time within 5m0s", fresh, obj{"auth_time": vectorNow + 1}, 300)
	add("", "auth_time before the bound, within the leeway", stepUp, "auth_time within 5m0s", fresh, obj{"auth_time": vectorNow - 310}).Leeway = 10
	add("", "auth_time in the future, within the leeway", stepUp, "auth_time within 5m0s", fresh, obj{"auth_time": vectorNow + 10}).Leeway = 10
	add("", "auth_time in the future, within what nbf is dated back", stepUp, "auth_time within 5m0s", fresh, obj{"auth_time": vectorNow + 10, "iat": vectorNow + 10, "nbf": vectorNow})
	again("auth_time further in the future than nbf is dated back", "auth_time within 5m0s", fresh, obj{"auth_time": vectorNow + 11, "iat": vectorNow + 10, "nbf": vectorNow}, 300)
	add("forbidden", "fresh within nothing", stepUp, "auth_time within 0s", obj{"fresh_auth": 0}, obj{"auth_time": vectorNow})
	add("", "a method", "RFC 8176 §2", "amr=otp or amr=hwk", obj{"amr": []any{"otp", "hwk"}}, obj{"amr": []any{"pwd", "otp"}})
	again("no such method", "amr=otp or amr=hwk", obj{"amr": []any{"otp", "hwk"}}, obj{"amr": []any{"pwd"}}, 0)
	again("no amr", "amr=otp", obj{"amr": []any{"otp"}}, nil, 0)
	add("forbidden", "amr of nothing", stepUp, "nobody may", obj{"amr": []any{}}, obj{"amr": []any{"otp"}})
	add("", "an acr", stepUp, "acr=aal2 or acr=aal3", obj{"acr": []any{"aal2", "aal3"}}, obj{"acr": "aal3"})
	again("another acr", "acr=aal2 or acr=aal3", obj{"acr": []any{"aal2", "aal3"}}, obj{"acr": "aal1"}, 0, "aal2", "aal3")
	again("no acr", "acr=aal2", obj{"acr": []any{"aal2"}}, nil, 0, "aal2")
	add("forbidden", "acr of nothing", stepUp, "nobody may", obj{"acr": []any{}}, obj{"acr": "aal2"})
	again("the claim is there and the authentication is not", "a=1 and acr=aal2", obj{"all": []any{a, obj{"acr": []any{"aal2"}}}}, obj{"a": "1"}, 0, "aal2")
	add("forbidden", "neither the claim nor the authentication", stepUp, "a=1 and acr=aal2", obj{"all": []any{a, obj{"acr": []any{"aal2"}}}}, nil)
	again("an authentication would do in place of the claim", "a=1 or acr=aal2", obj{"any": []any{a, obj{"acr": []any{"aal2"}}}}, nil, 0, "aal2")
	again("the stricter max_age and what both acr allow", "auth_time within 5m0s and auth_time within 1m0s and (acr=aal2 or acr=aal3) and acr=aal3",
		obj{"all": []any{fresh, obj{"fresh_auth": 60}, obj{"acr": []any{"aal2", "aal3"}}, obj{"acr": []any{"aal3"}}}}, nil, 60, "aal3")
	again("what is met is named all the same", "auth_time within 5m0s and acr=aal2", obj{"all": []any{fresh, obj{"acr": []any{"aal2"}}}}, obj{"auth_time": vectorNow}, 300, "aal2")

	const scopes = "RFC 6750 §3.1, RFC 8693 §4.2"
	scope := func(names ...any) obj { return obj{"scope": append([]any{}, names...)} }
	unscoped := func(name, text string, requirement any, change obj, scope string) {
		add("forbidden", name, scopes, text, requirement, change).Scope = scope
	}
	add("", "a scope", scopes, "scope=r", scope("r"), obj{"scope": "w r"})
	add("", "several scopes", scopes, "scope=r and scope=w", scope("r", "w"), obj{"scope": "w x r"})
	add("forbidden", "scope of nothing", scopes, "nobody may", scope(), obj{"scope": "r"})
	add("forbidden", "a scope with a space is none", scopes, "nobody may", scope("r w"), obj{"scope": "r w"})
	unscoped("one scope is lacking, and all are named", "scope=r and scope=w", scope("r", "w"), obj{"scope": "r"}, "r w")
	unscoped("a scope that begins with it", "scope=r", scope("r"), obj{"scope": "read"}, "r")
	unscoped("no scope", "scope=r", scope("r"), nil, "r")
	unscoped("a claim that is there and a scope that is not", "a=1 and scope=r", obj{"all": []any{a, scope("r")}}, obj{"a": "1"}, "r")
	unscoped("the scopes of all parts, each once", "scope=r and scope=w and scope=r and scope=x", obj{"all": []any{scope("r", "w"), scope("r", "x")}}, obj{"scope": "w"}, "r w x")
	unscoped("of any, the first that scopes would do for", "scope=r or scope=w", obj{"any": []any{scope("r"), scope("w")}}, nil, "r")
	unscoped("a scope would do in place of the claim", "a=1 or scope=r", obj{"any": []any{a, scope("r")}}, nil, "r")
	add("forbidden", "neither the claim nor the scope", scopes, "a=1 and scope=r", obj{"all": []any{a, scope("r")}}, nil)
	again("an authentication is better than a scope", "scope=r or acr=aal2", obj{"any": []any{scope("r"), obj{"acr": []any{"aal2"}}}}, nil, 0, "aal2")
	again("neither the scope nor the authentication", "scope=r and acr=aal2", obj{"all": []any{scope("r"), obj{"acr": []any{"aal2"}}}}, nil, 0, "aal2").Scope = "r"
	again("the scope is there and the authentication is not", "scope=r and acr=aal2", obj{"all": []any{scope("r"), obj{"acr": []any{"aal2"}}}}, obj{"scope": "r"}, 0, "aal2")
	return f
}

func challengeVectors() vectorFile {
	f := vectorFile{name: "challenges.json", about: "The answer of a resource server that refuses a request with this code and detail. headers are exact; absent_headers are not there; body is the JSON object of the answer."}
	titles := map[int]string{400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 503: "Service Unavailable"}
	add := func(name, rule, code string, status int, challenge string) *challengeCase {
		c := &challengeCase{vectorCase: named(name, rule), Config: challengeConfig{Issuer: vectorIssuer}, Code: code, Detail: "why " + code + " <b>", Status: status}
		c.Headers = map[string]string{"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
		if status == 503 {
			c.Headers["Retry-After"], c.Absent = "1", []string{"WWW-Authenticate"}
		} else {
			c.Headers["WWW-Authenticate"], c.Absent = challenge, []string{"Retry-After"}
		}
		c.Body = obj{"type": "about:blank", "title": titles[status], "status": status, "detail": c.Detail, "code": code}
		f.cases = append(f.cases, c)
		return c
	}
	const realm = `Bearer realm="` + vectorIssuer + `"`
	add("no token", "RFC 6750 §3.1", "token_missing", 401, realm)
	add("several tokens", "RFC 6750 §3.1", "invalid_request", 400, realm+`, error="invalid_request", error_description="invalid_request"`)
	for _, code := range []string{"token_malformed", "token_type", "token_algorithm", "token_key_unknown", "token_signature", "token_claim_missing", "token_issuer", "token_audience", "token_expired", "token_not_yet_valid", "token_revoked"} {
		add(code, "RFC 6750 §3.1", code, 401, realm+`, error="invalid_token", error_description="`+code+`"`)
	}
	add("a right is lacking", "RFC 6750 §3.1", "forbidden", 403, realm+`, error="insufficient_scope", error_description="forbidden"`)
	const stepUp = `, error="insufficient_user_authentication", error_description="reauthentication_required"`
	add("authenticate again", "RFC 9470 §3", "reauthentication_required", 401, realm+stepUp)
	again := func(name, parameters string, a challengeAgain) {
		add(name, "RFC 9470 §3", "reauthentication_required", 401, realm+stepUp+parameters).Again = &a
	}
	again("authenticate again within a time", `, max_age="300"`, challengeAgain{MaxAge: 300})
	again("authenticate again with an acr", `, acr_values="aal2 aal3"`, challengeAgain{ACRValues: []string{"aal2", "aal3"}})
	again("both", `, max_age="60", acr_values="aal2"`, challengeAgain{60, []string{"aal2"}})
	again("an acr that a header cannot hold is left out", `, acr_values="aal2"`, challengeAgain{ACRValues: []string{"a b", `a"b`, `a\b`, "a\r\nb", "ä", "", "aal2"}})
	add("scopes are lacking", "RFC 6750 §3", "forbidden", 403, realm+`, error="insufficient_scope", error_description="forbidden", scope="r w"`).Scope = "r w"
	both := add("scopes and an authentication are lacking", "RFC 9470 §3", "reauthentication_required", 401, realm+stepUp+`, max_age="60", acr_values="aal2", scope="r w"`)
	both.Again, both.Scope = &challengeAgain{60, []string{"aal2"}}, "r w"
	const resource, where = "https://api.example/v1", `, resource_metadata="https://api.example/.well-known/oauth-protected-resource/v1"`
	add("no token, with metadata", "RFC 9728 §5.1", "token_missing", 401, realm+where).Config.Resource = resource
	add("token_expired, with metadata", "RFC 9728 §5.1", "token_expired", 401, realm+`, error="invalid_token", error_description="token_expired"`+where).Config.Resource = resource
	all := add("everything at once", "RFC 9728 §5.1", "reauthentication_required", 401, realm+stepUp+`, max_age="60", acr_values="aal2", scope="r w"`+where)
	all.Config.Resource, all.Again, all.Scope = resource, both.Again, "r w"
	add("it is not known what was revoked, with metadata", "RFC 9110 §10.2.3", "revocation_stale", 503, "").Config.Resource = resource
	add("it is not known what was revoked", "RFC 9110 §10.2.3", "revocation_stale", 503, "")
	add("it is not known which keys there are", "RFC 9110 §10.2.3", "key_set_unavailable", 503, "")
	return f
}

func metadataVectors() vectorFile {
	f := vectorFile{name: "metadata.json", about: "The metadata of a protected resource: under which path of its host they are, the URL that challenges name, and the JSON object. error: such a configuration is refused."}
	add := func(name, path, url string, c metadataConfig, more obj) {
		c.Issuer = vectorIssuer
		body := with(obj{"resource": c.Resource, "authorization_servers": []any{vectorIssuer}, "bearer_methods_supported": []any{"header"}}, more)
		f.cases = append(f.cases, metadataCase{named(name, "RFC 9728 §2, §3.1"), c, false, path, url, body})
	}
	const wellKnown = "/.well-known/oauth-protected-resource"
	add("no path", wellKnown, "https://api.example"+wellKnown, metadataConfig{Resource: "https://api.example"}, nil)
	add("a slash alone", wellKnown, "https://api.example"+wellKnown, metadataConfig{Resource: "https://api.example/"}, nil)
	add("a path", wellKnown+"/v1/orders", "https://api.example"+wellKnown+"/v1/orders", metadataConfig{Resource: "https://api.example/v1/orders"}, nil)
	add("a path with a slash at its end", wellKnown+"/v1/", "https://api.example"+wellKnown+"/v1/", metadataConfig{Resource: "https://api.example/v1/"}, nil)
	add("a port and a query", wellKnown+"/v1", "https://api.example:8443"+wellKnown+"/v1?tenant=a", metadataConfig{Resource: "https://api.example:8443/v1?tenant=a"}, nil)
	add("the machine itself, without TLS", wellKnown, "http://127.0.0.1:8080"+wellKnown, metadataConfig{Resource: "http://127.0.0.1:8080"}, nil)
	add("a name and scopes", wellKnown, "https://api.example"+wellKnown, metadataConfig{Resource: "https://api.example", ResourceName: "Orders", ScopesSupported: []string{"r", "w"}}, obj{"resource_name": "Orders", "scopes_supported": []any{"r", "w"}})
	for _, c := range []struct{ name, resource string }{
		{"no URL", "api"}, {"without TLS", "http://api.example"}, {"a fragment", "https://api.example/#x"}, {"no host", "https:///v1"},
		{"a user", "https://u@api.example"}, {"a quote", `https://api.example/"x`}, {"a dot segment", "https://api.example/a/../b"},
	} {
		f.cases = append(f.cases, metadataCase{vectorCase: named("refused: "+c.name, "RFC 9728 §1.2"), Config: metadataConfig{Issuer: vectorIssuer, Resource: c.resource}, Error: true})
	}
	f.cases = append(f.cases, metadataCase{vectorCase: named("refused: a scope with a space", "RFC 6749 §3.3"), Config: metadataConfig{Issuer: vectorIssuer, Resource: "https://api.example", ScopesSupported: []string{"a b"}}, Error: true})
	return f
}

func constantVectors() vectorFile {
	f := vectorFile{name: "constants.json", about: "The constants of the protocol. Their reasons are in docs/protocol.md."}
	for _, c := range []struct {
		name  string
		value float64
		unit  string
	}{
		{"token_length", 8 << 10, "bytes"}, {"kid_length", 256, "bytes"}, {"key_set_length", 1 << 20, "bytes"},
		{"rsa_bits_least", 2048, "bits"}, {"rsa_bits_most", 8192, "bits"}, {"leeway_most", 300, "s"},
		{"key_life_default", 30, "s"}, {"key_life_least", 1, "s"}, {"key_life_stale", 5, "s"}, {"key_life_most", 3600, "s"},
		{"key_cooldown", 5, "s"}, {"key_timeout", 5, "s"}, {"key_retry_first", 1, "s"}, {"key_retry_most", 30, "s"},
		{"unknown_kid_kept", 60, "s"}, {"unknown_kids", 1024, ""}, {"key_outage", 86_400, "s"},
		{"max_staleness_default", 10, "s"}, {"max_staleness_least", 3, "s"},
		{"page_limit", 10_000, ""}, {"page_length", 16 << 20, "bytes"}, {"page_timeout", 5, "s"}, {"patience_least", 0.5, "s"},
		{"wait_most", 20, "s"}, {"poll_every", 1, "s"}, {"page_retry_first", 0.5, "s"}, {"page_retry_most", 3, "s"}, {"reattach_most", 0.1, "s"},
		{"event_length", 64 << 10, "bytes"}, {"stream_life_most", 600, "s"}, {"stream_lag", 2, "s"},
		{"without_stream", 60, "s"}, {"without_stream_most", 900, "s"}, {"clock_drift", 0.05, "s"}, {"expired_kept", 600, "s"},
	} {
		f.cases = append(f.cases, constantCase{named(c.name, "docs/protocol.md, Constants"), c.value, c.unit})
	}
	return f
}

func eventVectors() vectorFile {
	f := vectorFile{name: "events.json", about: "The events of a text/event-stream that comes in these pieces. A piece may be a text that is repeated. error: the reader gives the stream up before its end."}
	add := func(name string, fails bool, chunks []any, events ...oneEvent) {
		if events == nil {
			events = []oneEvent{}
		}
		f.cases = append(f.cases, eventCase{named(name, "WHATWG HTML §9.2.6"), chunks, events, fails})
	}
	text := func(chunks ...any) []any { return chunks }
	add("an event", false, text("event: head\ndata: {\"a\":1}\n\n"), oneEvent{"head", `{"a":1}`})
	add("two events", false, text("event: a\ndata: 1\n\nevent: b\ndata: 2\n\n"), oneEvent{"a", "1"}, oneEvent{"b", "2"})
	add("in pieces", false, text("ev", "ent: he", "ad\nda", "ta: {", "}\n", "\n", "event: b\ndata: 2\n\n"), oneEvent{"head", "{}"}, oneEvent{"b", "2"})
	add("a character in two pieces of bytes is put together", false, text("event: a\ndata: ü日\n\n"), oneEvent{"a", "ü日"})
	add("lines that end in CR LF", false, text("event: a\r\ndata: 1\r", "\n\r\n"), oneEvent{"a", "1"})
	add("no space behind the colon", false, text("event:a\ndata:1\n\n"), oneEvent{"a", "1"})
	add("one space is taken away", false, text("event: a\ndata:  1\n\n"), oneEvent{"a", " 1"})
	add("comments and unknown fields", false, text(": hello\nid: x:1\nretry: 1000\nother: x\nevent: a\n:\ndata: 1\n\n"), oneEvent{"a", "1"})
	add("several lines of data", false, text("event: a\ndata: 1\ndata: 2\n\n"), oneEvent{"a", "1\n2"})
	add("the data comes first", false, text("data: 1\nevent: a\n\n"), oneEvent{"a", "1"})
	add("an event without data is none, and its name is forgotten", false, text("event: a\n\ndata: 1\n\n"), oneEvent{"", "1"})
	add("the name of an event does not stay", false, text("event: a\ndata: 1\n\ndata: 2\n\n"), oneEvent{"a", "1"}, oneEvent{"", "2"})
	add("empty lines", false, text("\n\n\nevent: a\ndata: 1\n\n\n\n"), oneEvent{"a", "1"})
	add("an event that is cut off", false, text("event: a\ndata: 1\n\nevent: b\ndata: 2\n"), oneEvent{"a", "1"})
	add("a colon in the value", false, text("event: a\ndata: a: b\n\n"), oneEvent{"a", "a: b"})
	add("a long line", false, text("event: a\n", "data: ", repeated{60_000, "x"}, "\n\n"), oneEvent{"a", repeated{60_000, "x"}})
	add("a line that is too long", true, text("event: a\ndata: 1\n\ndata: ", repeated{70_000, "x"}, "\n\n"), oneEvent{"a", "1"})
	add("a line that never ends", true, text(repeated{2_000, strings.Repeat("x", 100)}))
	add("an event of too many lines", true, text("event: a\n", repeated{1_000, "data: " + strings.Repeat("x", 100) + "\n"}))
	return f
}
