package interop

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
	"github.com/lestrrat-go/jwx/v3/jwt"

	"github.com/watchword-auth/watchword"
	"github.com/watchword-auth/watchword/test/node"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// What a replica serves and signs is verified by the libraries by its URL alone, for
// each algorithm that it may be told to use.
func TestNode(t *testing.T) {
	for _, alg := range accesstoken.Algorithms() {
		t.Run(alg, func(t *testing.T) {
			n := node.Start(t, func(cfg *watchword.Config) {
				cfg.Tokens.Algorithm, cfg.Cluster.InstanceID = alg, "auth-0"
			})
			compact, set := n.Login("tester").AccessToken, n.URL+"/api/pkeys"
			t.Run("go-oidc", func(t *testing.T) { nodeByGoOIDC(t, n.URL, set, compact, alg) })
			t.Run("jwx", func(t *testing.T) { nodeByJWX(t, n.URL, set, compact, alg) })
			t.Run("PyJWT", func(t *testing.T) {
				result := runPyJWT(t, pyJWTCase{Issuer: n.URL, Audience: n.URL, URL: set, Tokens: []string{compact}})
				if result.Keys != 1 || result.Verified != 1 {
					t.Errorf("%+v", result)
				}
				result = runPyJWT(t, pyJWTCase{Issuer: n.URL, Audience: n.URL, URL: set, Tokens: []string{tampered(compact)}})
				if result.Verified != 0 || len(result.Failed) != 1 {
					t.Error("PyJWT accepts what was changed")
				}
			})
		})
	}
}

func nodeByGoOIDC(t *testing.T, issuer, set, compact, alg string) {
	ctx := oidc.ClientContext(context.Background(), http.DefaultClient)
	verifier := oidc.NewVerifier(issuer, oidc.NewRemoteKeySet(ctx, set), &oidc.Config{
		ClientID: issuer, SupportedSigningAlgs: []string{alg},
	})
	verified, err := verifier.Verify(ctx, compact)
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Username string `json:"preferred_username"`
		Log      string `json:"log"`
		ClientID string `json:"client_id"`
	}
	if err := verified.Claims(&claims); err != nil || claims.Username != "tester" || claims.Log != "r,w" || claims.ClientID == "" {
		t.Errorf("%+v, %v", claims, err)
	}
	if _, err := verifier.Verify(ctx, tampered(compact)); err == nil {
		t.Error("go-oidc accepts what was changed")
	}
}

func nodeByJWX(t *testing.T, issuer, url, compact, alg string) {
	set, err := jwk.Fetch(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	key, ok := set.Key(0)
	if !ok || set.Len() != 1 {
		t.Fatalf("jwx reads %d keys", set.Len())
	}
	verified, err := jwt.Parse([]byte(compact), jwt.WithKeySet(set), jwt.WithIssuer(issuer), jwt.WithAudience(issuer))
	if err != nil {
		t.Fatal(err)
	}
	var log string
	if err := verified.Get("log", &log); err != nil || log != "r,w" {
		t.Errorf("log is %q, %v", log, err)
	}
	if _, err := jwt.Parse([]byte(tampered(compact)), jwt.WithKeySet(set)); err == nil {
		t.Error("jwx accepts what was changed")
	}

	print, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	message, err := jws.Parse([]byte(compact))
	if err != nil {
		t.Fatal(err)
	}
	header, err := json.Marshal(message.Signatures()[0].ProtectedHeaders())
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(header, &got); err != nil {
		t.Fatal(err)
	}
	// RFC 7638, computed by the other side. The key is in the database, and of no replica.
	kid := base64.RawURLEncoding.EncodeToString(print)
	if got["kid"] != kid || got["alg"] != alg || got["typ"] != "at+jwt" {
		t.Errorf("the header is %v, and the kid should be %s", got, kid)
	}
}
