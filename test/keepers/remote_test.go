package keepers

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keysource/remote"
	"github.com/watchword-auth/watchword/internal/keysource/remote/remotetest"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// atSigner has a replica sign with the keys of a remote signer.
func atSigner(rc remote.Config) func(*config.Config) {
	return func(cfg *config.Config) {
		r := &cfg.Tokens.Remote
		cfg.Tokens.Keys, cfg.Tokens.KeySetMaxAge = config.KeysRemote, time.Second
		cfg.Sessions.MaxPerUser = 0 // the load must end no session of the test
		r.Kind, r.URL, r.Token = config.RemoteKind(rc.Kind), rc.URL, remotetest.Token
		if rc.Key != "" {
			r.Key = rc.Key
		}
	}
}

// isDown waits until logins fail because of the signer, and fails the test unless the probes say
// so and a token is verified all the same.
func isDown(w *replica.World, token string) {
	w.T.Helper()
	kit.Eventually(w.T, func() error { return loginFails(&w.Client, "signer_unavailable") })
	w.WantBackend("remote", "failed")
	if a := w.Do("GET", "/readyz", "", nil); a.Status != 503 || !strings.Contains(string(a.Body), "the remote signer does not answer") {
		w.T.Errorf("/readyz: %d %s", a.Status, a.Body)
	}
	w.Accepts(token)
}

// isUp waits until a login gets a token of the key, for 3 seconds at most where a login takes none.
func isUp(w *replica.World, kid string) {
	w.T.Helper()
	began := time.Now()
	kit.Eventually(w.T, func() error { return signsWith(&w.Client, kid) })
	kit.Within(w.T, "it signs again", time.Since(began), 3*time.Second, func() { _ = signsWith(&w.Client, kid) })
	w.WantBackend("remote", "ok")
	w.IsReady()
}

// Three replicas sign with one key of a remote signer. When it is killed, logins fail and
// nothing else; when it runs again, they sign. A key that is made meanwhile follows.
func TestReplicasShareAKeyOfASigner(t *testing.T) {
	t.Parallel()
	s := remotetest.StartSigner(t, false, accesstoken.ES256)
	database := testenv.Postgres(t)
	var all []*replica.World
	var clients []*kit.Client
	for range 3 {
		w := replica.Join(t, database, atSigner(s.Config()))
		all, clients = append(all, w), append(clients, &w.Client)
	}
	kit.SameKeySet(t, 1, clients...)
	first := clients[0].KeyIDs()[0]
	if strings.HasPrefix(first, all[0].Config.Cluster.InstanceID+"-") && all[0].Config.Cluster.InstanceID != "" {
		t.Errorf("the kid names a replica: %s", first)
	}
	load := startKeeperLoad(t, all...)
	tokens := make([]string, len(all))
	for i, w := range all {
		tokens[i] = w.Login("admin").AccessToken
		for _, other := range all {
			other.Accepts(tokens[i])
		}
	}
	s.Kill()
	for i, w := range all {
		isDown(w, tokens[i])
	}
	s.Start()
	for _, w := range all {
		isUp(w, first)
	}

	s.AddKey(t, "2-es256", accesstoken.ES256)
	if err := all[0].Parts().RotateKeysAtOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, w := range all {
		kit.Eventually(t, func() error {
			if signsWith(&w.Client, first) == nil {
				return errStillFirst
			}
			return nil
		})
	}
	load.expect(t, "503 signer_unavailable")
	kit.SameKeySet(t, 2, clients...)
}

// A signer that lies, or that refuses a token, makes no login wrong: it fails, until the signer
// is right again or there is another token.
func TestSignerThatCannotBeTrusted(t *testing.T) {
	t.Parallel()
	s := remotetest.StartSigner(t, false, accesstoken.ES256)
	real, err := url.Parse(s.Config().URL)
	if err != nil {
		t.Fatal(err)
	}
	var lies atomic.Bool
	var expired atomic.Pointer[string] // a token that is refused
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(real)
		r.Out.Header.Set("Authorization", "Bearer "+remotetest.Token)
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch old := expired.Load(); {
		case old != nil && r.Header.Get("Authorization") == "Bearer "+*old:
			http.Error(w, `{"error":"permission denied"}`, http.StatusForbidden)
		case lies.Load() && r.Method == "POST":
			// One that is of the right form.
			json.NewEncoder(w).Encode(map[string]string{"signature": "MEUCIQDJ0hHqk0oUqUoCr1wxq6v5Q6l5Pfo0s8v7Zz2mWg9n6QIgYb0r2iC2b0iM2r7v6o0m5b4n3c2x1z0a9s8d7f6g5h4"})
		default:
			proxy.ServeHTTP(w, r)
		}
	}))
	defer front.Close()
	rc := s.Config()
	rc.URL = front.URL
	w := replica.New(t, atSigner(rc))
	grant := w.Login("admin")
	kid := kit.KeyID(t, grant.AccessToken)
	load := startKeeperLoad(t, w)

	lies.Store(true)
	isDown(w, grant.AccessToken)
	_, a := w.Renew(grant.RefreshToken)
	w.Want(a, 503, "signer_unavailable")
	lies.Store(false)
	isUp(w, kid)
	_, a = w.Renew(grant.RefreshToken) // the one that failed has not spent it
	w.Want(a, 200, "")

	old := remotetest.Token
	expired.Store(&old)
	isDown(w, grant.AccessToken)
	renewed := *w.Config
	renewed.Tokens.Remote.Token = "s.renewed"
	w.Replica.(*app.Node).Reload(&renewed)
	isUp(w, kid)
	load.expect(t, "503 signer_unavailable")
	for _, secret := range []string{old, "s.renewed"} {
		if strings.Contains(w.Log.String(), secret) {
			t.Errorf("the token %s stands in the log", secret)
		}
	}
}

// A replica that starts before its signer waits for it. What waiting does not mend ends the
// start with one sentence.
func TestStartsBeforeTheSigner(t *testing.T) {
	t.Parallel()
	s := remotetest.StartSigner(t, false, accesstoken.ES256)
	rc := s.Config()
	refusesToStart(t, "another token", "token or certificate is missing, has expired, or lacks the right", atSigner(rc), func(cfg *config.Config) { cfg.Tokens.Remote.Token = "s.another" })
	refusesToStart(t, "another algorithm", "RS256", atSigner(rc), func(cfg *config.Config) { cfg.Tokens.Algorithm = accesstoken.RS256 })
	s.Kill()
	cfg := kit.Config(t)
	atSigner(rc)(cfg)
	cfg.Complete()
	log := &testenv.Log{}
	started := make(chan error, 1)
	go func() {
		n, err := app.New(t.Context(), app.Options{Config: cfg, Version: "test", Logger: slog.New(slog.NewJSONHandler(log, nil))})
		if err == nil {
			err = n.Close()
		}
		started <- err
	}()
	kit.Await(t, "the start to wait", func() bool { return strings.Contains(log.String(), "this server cannot start yet") }, log.Tail)
	s.Start()
	if err := <-started; err != nil {
		t.Error(err)
	}
}

// Vault's transit engine signs; its next version follows; while it is sealed or its token has
// expired, logins fail and nothing else.
func TestVault(t *testing.T) {
	t.Parallel()
	v := remotetest.StartVault(t)
	if err := v.Write("transit/keys/watchword", map[string]any{"type": "ecdsa-p256"}); err != nil {
		t.Fatal(err)
	}
	w := replica.New(t, atSigner(v.Config("watchword")))
	first := w.Login("admin").AccessToken
	load := startKeeperLoad(t, w)
	if err := v.Write("transit/keys/watchword/rotate", nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Parts().RotateKeysAtOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	kit.Eventually(t, func() error {
		if signsWith(&w.Client, kit.KeyID(t, first)) == nil {
			return errStillFirst
		}
		return nil
	})
	second := w.Login("admin").AccessToken
	w.Accepts(first)
	w.Accepts(second)

	other := *w.Config
	other.Tokens.Remote.Token = "s.expired"
	w.Replica.(*app.Node).Reload(&other)
	isDown(w, second)
	renewed := *w.Config
	w.Replica.(*app.Node).Reload(&renewed)
	isUp(w, kit.KeyID(t, second))

	if err := v.Write("sys/seal", nil); err != nil {
		t.Fatal(err)
	}
	isDown(w, second)
	load.expect(t, "503 signer_unavailable")
}
