package accesstoken_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// shared is long enough for each algorithm.
const shared = "a secret that three replicas and one resource server of the tests share"

func secretKey(t testing.TB, text, alg string) accesstoken.Key {
	t.Helper()
	k, err := accesstoken.NewSecretKey(text, alg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// mac makes a token whose header and claims are what the test says, with golang-jwt's HMAC.
func mac(t testing.TB, method, kid string, secret []byte) string {
	t.Helper()
	input := encode([]byte(marshal(t, object{"alg": method, "typ": "at+jwt", "kid": kid}))) + "." + encode([]byte(marshal(t, claims())))
	signature, err := jwt.GetSigningMethod(method).Sign(input, secret)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + encode(signature)
}

// findWith knows the pairs, and keys with secrets.
func findWith(keys ...accesstoken.Key) func(kid string) (accesstoken.Key, error) {
	return func(kid string) (accesstoken.Key, error) {
		if i := slices.IndexFunc(keys, func(k accesstoken.Key) bool { return k.ID == kid }); i >= 0 {
			return keys[i], nil
		}
		return find(kid)
	}
}

func TestTokensOfASecret(t *testing.T) {
	for _, alg := range accesstoken.SecretAlgorithms() {
		k := secretKey(t, shared, alg)
		token := mac(t, alg, k.ID, []byte(shared))
		got, err := rules.Check(token, now, findWith(k))
		if err != nil || got.KeyID != k.ID || got.Subject != "user-1" {
			t.Errorf("%s: %+v, %v", alg, got, err)
		}
		if _, err := rules.Check(token, now, find); !errors.Is(err, accesstoken.ErrUnknownKey) {
			t.Errorf("%s, where there is no secret: %v", alg, err)
		}
		if _, err := rules.Check(mac(t, alg, k.ID, []byte(shared+".")), now, findWith(k)); !errors.Is(err, accesstoken.ErrSignature) {
			t.Errorf("%s, of another secret: %v", alg, err)
		}
		only := *rules
		only.Algorithms = accesstoken.Algorithms()
		if _, err := only.Check(token, now, findWith(k)); !errors.Is(err, accesstoken.ErrAlgorithm) {
			t.Errorf("%s, where only public keys are accepted: %v", alg, err)
		}
	}
}

// RFC 7515 appendix A.1, whose key is a secret of 64 bytes in a JWK.
func TestExampleOfTheRFCWithASecret(t *testing.T) {
	text, err := jwt.NewParser().DecodeSegment("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
	if err != nil {
		t.Fatal(err)
	}
	const compact = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + joe + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	payload, err := secretKey(t, string(text), accesstoken.HS256).VerifySignature(compact)
	if err != nil || !bytes.HasPrefix(payload, []byte(`{"iss":"joe"`)) {
		t.Errorf("%q, %v", payload, err)
	}
	if _, err := secretKey(t, string(text), accesstoken.HS512).VerifySignature(compact); !errors.Is(err, accesstoken.ErrAlgorithm) {
		t.Errorf("with the key of HS512: %v", err)
	}
}

// An algorithm belongs to a key: a public key never becomes a secret, nor a secret a public
// key.
func TestAlgorithmsAreNotConfused(t *testing.T) {
	var keys []accesstoken.Key
	for _, alg := range accesstoken.SecretAlgorithms() {
		keys = append(keys, secretKey(t, shared, alg))
	}
	find, tried := findWith(keys...), 0
	refused := func(name, compact string, want error) {
		t.Helper()
		tried++
		if _, err := rules.Check(compact, now, find); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if in := rules.Inspect(compact, now, find); len(in.Faults) == 0 {
			t.Errorf("%s: Inspect finds nothing", name)
		}
	}
	for kid, p := range pairs() {
		der, err := x509.MarshalPKIXPublicKey(p.Public)
		if err != nil {
			t.Fatal(err)
		}
		jwk := marshal(t, p.Key)
		set, err := accesstoken.NewKeySet(p.Key)
		if err != nil {
			t.Fatal(err)
		}
		for name, known := range map[string]string{
			"DER": string(der), "PEM": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
			"PEM without its last line break": strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))),
			"JWK":                             jwk, "key set": marshal(t, set), "thumbprint": p.Thumbprint(), "kid": kid, "nothing": "",
		} {
			for _, method := range accesstoken.SecretAlgorithms() {
				refused(method+" by the "+name+" of "+kid, mac(t, method, kid, []byte(known)), accesstoken.ErrAlgorithm)
			}
		}
		// The other way: a good signature by a public key, which names the key of the secret.
		for _, k := range keys {
			h := object{"alg": p.Algorithm, "typ": "at+jwt", "kid": k.ID}
			refused(p.Algorithm+" with the kid of "+k.Algorithm, signRaw(t, p, p.Algorithm, marshal(t, h), marshal(t, claims())), accesstoken.ErrAlgorithm)
			h["alg"] = k.Algorithm
			refused(k.Algorithm+" signed with "+p.Algorithm, signRaw(t, p, p.Algorithm, marshal(t, h), marshal(t, claims())), accesstoken.ErrSignature)
		}
	}
	for _, k := range keys {
		for _, other := range keys {
			if k.ID != other.ID {
				refused(k.Algorithm+" with the kid of "+other.Algorithm, mac(t, k.Algorithm, other.ID, []byte(shared)), accesstoken.ErrAlgorithm)
			}
		}
		good := mac(t, k.Algorithm, k.ID, []byte(shared))
		part := strings.Split(good, ".")
		signature, err := jwt.NewParser().DecodeSegment(part[2])
		if err != nil {
			t.Fatal(err)
		}
		cut := part[0] + "." + part[1] + "."
		for n := range signature {
			refused(fmt.Sprintf("%s cut to %d bytes", k.Algorithm, n), cut+encode(signature[:n]), accesstoken.ErrSignature)
		}
		refused(k.Algorithm+" with a byte more", cut+encode(append(bytes.Clone(signature), 0)), accesstoken.ErrSignature)
		refused(k.Algorithm+" twice", cut+encode(append(bytes.Clone(signature), signature...)), accesstoken.ErrSignature)
		for _, none := range []string{"none", "None", "", "hs256", "HS1", "HS256 "} {
			header := encode([]byte(marshal(t, object{"alg": none, "typ": "at+jwt", "kid": k.ID})))
			refused("alg "+none, header+"."+part[1]+".", accesstoken.ErrAlgorithm)
			refused("alg "+none+" with the MAC", header+"."+part[1]+"."+part[2], accesstoken.ErrAlgorithm)
		}
	}
	t.Logf("summary: %d tokens that confuse algorithms, none accepted", tried)
}

// No one bit of a token with a MAC may be another.
func TestEveryChangedBitOfAMACIsFound(t *testing.T) {
	k := secretKey(t, shared, accesstoken.HS256)
	good := mac(t, k.Algorithm, k.ID, []byte(shared))
	for i := range good {
		for bit := range 8 {
			changed := []byte(good)
			changed[i] ^= 1 << bit
			if _, err := rules.Check(string(changed), now, findWith(k)); err == nil {
				t.Fatalf("bit %d of byte %d: accepted", bit, i)
			}
		}
	}
}

func TestNewSecretKeyRefuses(t *testing.T) {
	for alg, least := range map[string]int{accesstoken.HS256: 32, accesstoken.HS384: 48, accesstoken.HS512: 64} {
		if got := accesstoken.MinSecretLength(alg); got != least {
			t.Errorf("%s: at least %d bytes", alg, got)
		}
		if _, err := accesstoken.NewSecretKey(strings.Repeat("x", least-1), alg); err == nil || strings.Contains(err.Error(), "xxx") {
			t.Errorf("%s with a byte too few: %v", alg, err)
		}
		secretKey(t, strings.Repeat("x", least), alg)
	}
	for _, alg := range append(accesstoken.Algorithms(), "none", "", "hs256", "HS128") {
		if _, err := accesstoken.NewSecretKey(shared, alg); err == nil || accesstoken.MinSecretLength(alg) != 0 {
			t.Errorf("a secret for %q", alg)
		}
	}
	for length, want := range map[int]int{0: 0, 31: 0, 32: 1, 47: 1, 48: 2, 63: 2, 64: 3, 1000: 3} {
		keys, err := accesstoken.SecretKeys(strings.Repeat("x", length))
		if len(keys) != want || (err == nil) != (want > 0) {
			t.Errorf("%d bytes: %d keys, %v", length, len(keys), err)
		}
		for i, k := range keys {
			if k.Algorithm != accesstoken.SecretAlgorithms()[i] || !k.HasSecret() {
				t.Errorf("%d bytes: key %d is of %s", length, i, k.Algorithm)
			}
		}
	}
}

// A caller that changes the fields of a Key gets no other use of its secret.
func TestAKeyIsNotBent(t *testing.T) {
	k := secretKey(t, shared[:32], accesstoken.HS256)
	longer, both, public := k, k, k
	longer.Algorithm = accesstoken.HS512
	both.Public = pairs()["ES256"].Public
	public.Algorithm = accesstoken.ES256
	for name, bent := range map[string]accesstoken.Key{"too short for its algorithm": longer, "with a public key, too": both, "of a public algorithm": public} {
		compact := encode([]byte(marshal(t, object{"alg": bent.Algorithm, "typ": "at+jwt", "kid": bent.ID}))) + "." + encode([]byte(marshal(t, claims())))
		if m, ok := jwt.GetSigningMethod(bent.Algorithm).(*jwt.SigningMethodHMAC); ok {
			signature, err := m.Sign(compact, []byte(shared[:32]))
			if err != nil {
				t.Fatal(err)
			}
			compact += "." + encode(signature)
		} else {
			compact += "." + encode(make([]byte, 64))
		}
		if _, err := rules.Check(compact, now, findWith(bent)); !errors.Is(err, accesstoken.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The kid is what the documentation says, so that others can compute it, and says which of
// secret and algorithm differ.
func TestKidOfASecret(t *testing.T) {
	m := hmac.New(sha256.New, []byte(shared))
	m.Write([]byte("watchword signing secret 1: HS256"))
	if got, want := secretKey(t, shared, accesstoken.HS256).ID, encode(m.Sum(nil)[:16]); got != want || len(got) != 22 {
		t.Errorf("the kid is %s, want %s", got, want)
	}
	kids := map[string]bool{}
	for _, text := range []string{shared, shared + "\n", " " + shared, strings.ToUpper(shared)} {
		for _, alg := range accesstoken.SecretAlgorithms() {
			kids[secretKey(t, text, alg).ID] = true
		}
	}
	if len(kids) != 12 {
		t.Errorf("12 keys have %d kids", len(kids))
	}
}

func TestSecretsAreEqual(t *testing.T) {
	k := secretKey(t, shared, accesstoken.HS256)
	other := secretKey(t, shared[:40]+"X"+shared[41:], accesstoken.HS256)
	for name, c := range map[string]struct {
		a, b accesstoken.Key
		want bool
	}{
		"itself":                {k, k, true},
		"made twice":            {k, secretKey(t, shared, accesstoken.HS256), true},
		"another secret":        {k, other, false},
		"a longer one":          {k, secretKey(t, shared+".", accesstoken.HS256), false},
		"another algorithm":     {k, secretKey(t, shared, accesstoken.HS384), false},
		"a public key":          {k, pairs()["ES256"].Key, false},
		"no key":                {k, accesstoken.Key{}, false},
		"a key without its own": {k, accesstoken.Key{ID: k.ID, Algorithm: k.Algorithm}, false},
	} {
		if c.a.Equal(c.b) != c.want || c.b.Equal(c.a) != c.want {
			t.Errorf("%s: equal is not %v", name, c.want)
		}
	}
}

// A key with a secret is not published, and nothing that prints it shows the secret.
func TestASecretIsNotShown(t *testing.T) {
	k := secretKey(t, shared, accesstoken.HS256)
	if data, err := json.Marshal(k); err == nil {
		t.Errorf("it has the JSON %s", data)
	}
	if data, err := json.Marshal(map[string]any{"key": &k}); err == nil {
		t.Errorf("it has the JSON %s", data)
	}
	if got := k.Thumbprint(); got != "" {
		t.Errorf("it has the thumbprint %s", got)
	}
	if _, err := accesstoken.NewKeySet(pairs()["ES256"].Key, k); err == nil {
		t.Error("it is in a key set")
	}
	var printed bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{k, &k, []accesstoken.Key{k}, []*accesstoken.Key{&k}, struct{ Key accesstoken.Key }{k}, map[string]accesstoken.Key{"k": k}} {
			fmt.Fprintf(&printed, verb+"\n", v)
		}
	}
	slog.New(slog.NewTextHandler(&printed, nil)).Info("a key", "key", k, "pointer", &k)
	slog.New(slog.NewJSONHandler(&printed, nil)).Info("a key", "key", k, "pointer", &k)
	for _, alg := range []string{"none", accesstoken.ES256, accesstoken.HS512} {
		_, err := accesstoken.NewSecretKey(shared[:40], alg)
		fmt.Fprintln(&printed, err)
	}
	for _, form := range []string{shared[:12], fmt.Sprintf("%x", shared[:12]), fmt.Sprintf("%X", shared[:12]), encode([]byte(shared[:12])), fmt.Sprint([]byte(shared[:6])), fmt.Sprintf("%#v", []byte(shared[:6]))} {
		if form = strings.Trim(form, "[]{}"); strings.Contains(printed.String(), form) {
			t.Errorf("it is shown as %s", form)
		}
	}
}

// A key set never brings a secret.
func TestAServedSecretIsNotBelieved(t *testing.T) {
	k := secretKey(t, shared, accesstoken.HS256)
	good := strings.TrimSuffix(strings.TrimPrefix(marshal(t, pairs()["ES256"].Key), "{"), "}")
	for name, set := range map[string]string{
		"oct":                 `{"kty":"oct","kid":"` + k.ID + `","alg":"HS256","k":"` + encode([]byte(shared)) + `"}`,
		"oct without k":       `{"kty":"oct","kid":"` + k.ID + `","alg":"HS256"}`,
		"EC with alg HS256":   `{` + strings.NewReplacer(`"ES256"`, `"HS256"`).Replace(good) + `}`,
		"RSA with alg HS256":  strings.Replace(marshal(t, pairs()["RS256"].Key), `"alg":"RS256"`, `"alg":"HS256"`, 1),
		"a good one besides":  `{` + good + `},{"kty":"oct","kid":"` + k.ID + `","alg":"HS256","k":"` + encode([]byte(shared)) + `"}`,
		"a good one with a k": `{` + good + `,"k":"` + encode([]byte(shared)) + `"}`,
	} {
		parsed, _ := accesstoken.ParseKeySet([]byte(`{"keys":[` + set + `]}`)) // nil if it is refused as a whole
		for _, found := range parsed.Keys() {
			if found.HasSecret() || accesstoken.MinSecretLength(found.Algorithm) != 0 {
				t.Errorf("%s: the key %q of %s is believed", name, found.ID, found.Algorithm)
			}
		}
		for _, kid := range []string{k.ID, "ES256", "RS256"} {
			if _, err := rules.Check(mac(t, "HS256", kid, []byte(shared)), now, parsed.Find); err == nil {
				t.Errorf("%s: a token is accepted", name)
			}
		}
	}
	for _, alg := range accesstoken.Algorithms() {
		if slices.Contains(accesstoken.SecretAlgorithms(), alg) {
			t.Errorf("%s is one of public keys", alg)
		}
	}
}
