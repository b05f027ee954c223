package app

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A fakeSigner is a remote signer of the kind http in the process of the test, with one ES256 key.
type fakeSigner struct {
	*httptest.Server
	away atomic.Bool // it answers no request for a signature
}

// signerToken is the token that the signer wants.
const signerToken = "canary-E-the-token-for-the-signer"

func newSigner(t *testing.T) *fakeSigner {
	t.Helper()
	private, err := token.GenerateKey(rand.Reader, accesstoken.ES256)
	if err != nil {
		t.Fatal(err)
	}
	public, err := accesstoken.NewKey("1", accesstoken.ES256, private.Public())
	if err != nil {
		t.Fatal(err)
	}
	set, err := accesstoken.NewKeySet(public)
	if err != nil {
		t.Fatal(err)
	}
	s := &fakeSigner{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(set)
	})
	mux.HandleFunc("POST /sign", func(w http.ResponseWriter, r *http.Request) {
		var asked struct{ Digest string }
		digest, err := []byte(nil), json.NewDecoder(r.Body).Decode(&asked)
		if err == nil {
			digest, err = base64.RawURLEncoding.DecodeString(asked.Digest)
		}
		if err != nil || s.away.Load() || r.Header.Get("Authorization") != "Bearer "+signerToken {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		signature, err := private.(*ecdsa.PrivateKey).Sign(rand.Reader, digest, crypto.SHA256)
		if err != nil {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"signature": base64.RawURLEncoding.EncodeToString(signature)})
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// use configures the signer as the source of keys.
func (s *fakeSigner) use(cfg *config.Config) {
	cfg.Tokens.Keys, cfg.Tokens.Remote.Kind, cfg.Tokens.Remote.URL, cfg.Tokens.Remote.Token = config.KeysRemote, config.RemoteHTTP, s.URL, signerToken
}
