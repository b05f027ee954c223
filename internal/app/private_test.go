package app

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/store"
)

// Nothing that a replica answers, even to a superuser, notes or logs has a private key
// in it, sealed or not.
func TestNoPrivateKeyLeaves(t *testing.T) {
	for _, keys := range []config.KeyMode{config.KeysDatabase, config.KeysMemory} {
		for _, alg := range []string{"ES256", "EdDSA"} {
			t.Run(string(keys)+" "+alg, func(t *testing.T) {
				inBubble(t, func(t *testing.T, b *bubble) {
					w := b.join(func(cfg *config.Config) {
						cfg.Tokens.Keys, cfg.Tokens.Algorithm = keys, alg
						if keys == config.KeysDatabase {
							cfg.Storage.Key = strings.Repeat("00", 32)
						}
					})
					admin := w.login("admin").AccessToken
					time.Sleep(time.Second) // what is made later replaces the first key
					insist(t, w.node.parts.RotateKeys)
					insist(t, w.node.keys.Refresh)
					secrets := map[string][]byte{}
					for kid, key := range privateKeys(t, w) {
						maps.Copy(secrets, written(t, kid, key))
					}
					rows, err := w.node.parts.Store.Keys(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					for _, row := range rows {
						if (row.Sealed != nil) != (keys == "database") {
							t.Fatalf("the key %s has %d sealed bytes", row.ID, len(row.Sealed))
						}
						if row.Sealed != nil {
							maps.Copy(secrets, spellings(row.ID+", sealed", row.Sealed))
						}
					}

					search := func(where string, text []byte) {
						t.Helper()
						for what, secret := range secrets {
							if bytes.Contains(text, secret) {
								t.Errorf("%s has %s", where, what)
							}
						}
						var v any
						if json.Unmarshal(text, &v) == nil {
							noPrivateMember(t, where, v)
						}
					}
					for path, a := range w.getAll(admin) {
						search(path, a.body)
					}
					events, err := w.node.parts.Audit.Events(t.Context(), store.AuditQuery{Limit: 100})
					if err != nil || len(events) == 0 {
						t.Fatalf("the audit trail has %d events, %v", len(events), err)
					}
					text, err := json.Marshal(events)
					if err != nil {
						t.Fatal(err)
					}
					search("the audit trail", text)
					for line := range strings.Lines(w.log.String()) {
						search("the log", []byte(line))
					}
				})
			})
		}
	}
}

// getAll gets every path there is.
func (w *world) getAll(token string) map[string]answer {
	w.t.Helper()
	doc := decode[struct {
		Paths map[string]map[string]json.RawMessage
	}](w.t, w.want(w.do("GET", "/openapi.json", "", nil), 200, ""))
	answers, good := map[string]answer{}, 0
	for path := range doc.Paths {
		path = strings.NewReplacer("{id}", "admin", "{group}", "Administrators", "{claim}", "Superuser").Replace(path)
		a := w.do("GET", path, token, nil)
		if answers[path] = a; a.status == 200 {
			good++
		}
	}
	for _, path := range []string{"/api/cluster", "/api/audit", "/api/pkeys", "/metrics"} {
		if answers[path].status != 200 {
			w.t.Errorf("%s is answered %d %s", path, answers[path].status, answers[path].body)
		}
	}
	if good < 12 {
		w.t.Errorf("only %d of %d paths told anything", good, len(doc.Paths))
	}
	return answers
}

// privateKeys are those of the replica. Nobody else can ask for them, so they are read
// where they lie.
func privateKeys(t *testing.T, w *world) map[string]crypto.Signer {
	t.Helper()
	keys := map[string]crypto.Signer{}
	for it := reflect.ValueOf(w.node.keys).Elem().FieldByName("held").MapRange(); it.Next(); {
		key := it.Value().Elem().FieldByName("signer").Elem().FieldByName("key")
		keys[it.Key().String()] = *(*crypto.Signer)(unsafe.Pointer(key.UnsafeAddr()))
	}
	if len(keys) < 2 {
		t.Fatalf("there are %d keys", len(keys))
	}
	return keys
}

// written are the ways in which a private key could be written.
func written(t *testing.T, kid string, key crypto.Signer) map[string][]byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	all := spellings(kid+" in PKCS #8", der)
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		scalar, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(all, spellings("the scalar of "+kid, scalar))
	case ed25519.PrivateKey:
		maps.Copy(all, spellings("the seed of "+kid, key.Seed()))
	default:
		t.Fatalf("a key is a %T", key)
	}
	return all
}

func spellings(what string, secret []byte) map[string][]byte {
	return map[string][]byte{
		what:                  secret,
		what + " (hex)":       []byte(hex.EncodeToString(secret)),
		what + " (base64)":    []byte(base64.RawStdEncoding.EncodeToString(secret)),
		what + " (base64url)": []byte(base64.RawURLEncoding.EncodeToString(secret)),
	}
}

// noPrivateMember fails for a JWK with a private member (RFC 7518, section 6), and
// for what is called sealed.
func noPrivateMember(t *testing.T, where string, v any) {
	t.Helper()
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			noPrivateMember(t, where, one)
		}
	case map[string]any:
		for name, one := range v {
			private := v["kty"] != nil && strings.Contains(" d p q dp dq qi oth k ", " "+name+" ")
			if private || strings.EqualFold(name, "sealed") {
				t.Errorf("%s has a member %s", where, name)
			}
			noPrivateMember(t, where, one)
		}
	}
}
