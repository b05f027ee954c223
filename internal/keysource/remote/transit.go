package remote

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

var (
	// What may be in a path as it is. Vault allows the same in the name of a key.
	mountForm = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?(/[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?)*$`)
	keyForm   = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)
)

// transitTypes are the types of transit keys that sign for an algorithm.
var transitTypes = map[string][]string{
	accesstoken.ES256: {"ecdsa-p256"},
	accesstoken.ES384: {"ecdsa-p384"},
	accesstoken.ES512: {"ecdsa-p521"},
	accesstoken.EdDSA: {"ed25519"},
	accesstoken.RS256: {"rsa-2048", "rsa-3072", "rsa-4096"},
	accesstoken.PS256: {"rsa-2048", "rsa-3072", "rsa-4096"},
}

// transit is the signer of the kind transit.
type transit struct {
	client *client
	mount  string
	keys   []string
}

func newTransit(c *client, mount, names string) (*transit, error) {
	t := &transit{client: c, mount: strings.Trim(mount, "/")}
	if !mountForm.MatchString(t.mount) {
		return nil, fmt.Errorf("the mount of the transit engine is not a path: %q", mount)
	}
	for name := range strings.SplitSeq(names, ",") {
		name = strings.TrimSpace(name)
		// The slash, the longest version and the rest of a Ref come after it.
		if !keyForm.MatchString(name) || len(name) > maxKeyID-11 {
			return nil, fmt.Errorf("a transit key has a name of letters, digits, \"_\", \"-\" and \".\", and not %q", name)
		}
		t.keys = append(t.keys, name)
	}
	c.header = func(h http.Header, token string) { h.Set("X-Vault-Token", token) }
	return t, nil
}

// transitKey is what the engine says about a key.
type transitKey struct {
	Data struct {
		Type       string `json:"type"`
		Derived    bool   `json:"derived"`
		MinSigning int    `json:"min_encryption_version"` // it holds for signatures, too; 0: none
		// Keys are the versions from min_decryption_version on. Of a symmetric key they are
		// numbers.
		Keys map[string]any `json:"keys"`
	} `json:"data"`
}

// list implements signer.
func (t *transit) list(ctx context.Context, algorithm string) ([]key, error) {
	var keys []key
	var others []string
	for _, name := range t.keys {
		var found transitKey
		err := t.client.do(ctx, "GET", "/v1/"+t.mount+"/keys/"+name, nil, &found)
		var refusal *refusal
		switch {
		case errors.As(err, &refusal) && refusal.status == http.StatusNotFound:
			return nil, fmt.Errorf("there is no transit key %s under %s: make one, for instance by \"vault write -f %s/keys/%s type=%s\": %w",
				name, t.mount, t.mount, name, transitTypes[algorithm][0], err)
		case err != nil:
			return nil, fmt.Errorf("the transit key %s: %w", name, err)
		}
		if !slices.Contains(transitTypes[algorithm], found.Data.Type) {
			others = append(others, fmt.Sprintf("%s is of the type %.40q", name, found.Data.Type))
			continue
		}
		if found.Data.Derived {
			return nil, fmt.Errorf("the transit key %s is derived: it is one key for each context, and not one key", name)
		}
		versions, err := t.versions(name, algorithm, found)
		if err != nil {
			return nil, err
		}
		keys = append(keys, versions...)
	}
	switch {
	case len(keys) > 0:
		return keys, nil
	case len(others) > 0:
		return nil, fmt.Errorf("no transit key is for %s, which wants the type %s: %s",
			algorithm, strings.Join(transitTypes[algorithm], " or "), strings.Join(others, ", "))
	}
	return nil, fmt.Errorf("the transit key %s has no version that may sign: its min_encryption_version is too high", t.keys[0])
}

// versions returns the versions of a key that may sign, the oldest first.
func (t *transit) versions(name, algorithm string, found transitKey) ([]key, error) {
	byNumber := map[int]any{}
	for text, v := range found.Data.Keys {
		number, err := strconv.Atoi(text)
		if err != nil || number < 1 {
			return nil, fmt.Errorf("the transit key %s has a version that is no number: %.20q", name, text)
		}
		if number >= found.Data.MinSigning {
			byNumber[number] = v
		}
	}
	var keys []key
	for _, number := range slices.Sorted(maps.Keys(byNumber)) {
		members, _ := byNumber[number].(map[string]any)
		text, _ := members["public_key"].(string)
		public, err := transitPublic(text)
		if err != nil {
			return nil, fmt.Errorf("version %d of the transit key %s: %w", number, name, err)
		}
		k, err := newKey(name+"/"+strconv.Itoa(number), algorithm, public, number)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// transitPublic reads a public key: PEM, or for Ed25519 the 32 bytes in base64.
func transitPublic(text string) (crypto.PublicKey, error) {
	if block, _ := pem.Decode([]byte(text)); block != nil {
		return x509.ParsePKIXPublicKey(block.Bytes)
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, errors.New("its public key is neither PEM nor 32 bytes in base64")
	}
	return ed25519.PublicKey(raw), nil
}

// sign implements signer.
func (t *transit) sign(ctx context.Context, k key, input []byte) ([]byte, error) {
	request := map[string]any{
		"input":       base64.StdEncoding.EncodeToString(input),
		"key_version": k.version,
	}
	switch k.Algorithm {
	case accesstoken.EdDSA: // with prehashed it would be Ed25519ph
	case accesstoken.RS256:
		request["signature_algorithm"] = "pkcs1v15"
	case accesstoken.PS256:
		request["signature_algorithm"], request["salt_length"] = "pss", "hash"
	default:
		request["marshaling_algorithm"] = "asn1"
	}
	if hash := hashOf(k.Algorithm); hash != 0 {
		request["prehashed"], request["hash_algorithm"] = true, fmt.Sprintf("sha2-%d", 8*hash.Size())
	}
	var answer struct {
		Data struct {
			Signature string `json:"signature"`
		} `json:"data"`
	}
	name, _, _ := strings.Cut(k.ID, "/")
	if err := t.client.do(ctx, "POST", "/v1/"+t.mount+"/sign/"+name, request, &answer); err != nil {
		return nil, err
	}
	// The form is vault:v3:BASE64. What stands before the signature can be configured.
	text := answer.Data.Signature
	signature, err := base64.StdEncoding.DecodeString(text[strings.LastIndexByte(text, ':')+1:])
	if err != nil || len(signature) == 0 {
		return nil, errors.New("the signer's answer has no signature in base64")
	}
	return signature, nil
}
