package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// The answer to a verification is the token's payload, as encoding/json writes it.
func TestVerifyAnswersThePayload(t *testing.T) {
	w := replica.New(t, nil)
	w.User("tester", "path=<a&b>", "where=Köln")
	access := w.Login("tester").AccessToken
	body := w.Want(w.Do("GET", "/api/verify", access, nil), 200, "").Body
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(access, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(w.Verify(access))
	if err != nil {
		t.Fatal(err)
	}
	if string(body) != string(payload) || string(body) != string(again) {
		t.Errorf("answered %s\npayload  %s\nagain    %s", body, payload, again)
	}
}

func TestLoginVerifyRenewLogout(t *testing.T) {
	w := replica.New(t, nil)
	id := w.User("tester", "log=r", "log=w", "ship=acc")

	grant := w.Login("Tester") // names are compared folded
	if grant.TokenType != "Bearer" || grant.ExpiresIn != 1800 || grant.RefreshToken == "" || grant.SessionID == "" {
		t.Errorf("the grant is %+v", grant)
	}
	claims := w.Verify(grant.AccessToken)
	for name, want := range map[string]any{
		"iss": "https://auth.example.com", "aud": "https://auth.example.com", "sub": id, "sid": grant.SessionID,
		"log": "r,w", "ship": "acc", "preferred_username": "tester", "name": "Travis Ester", "email": "tester@example.com",
	} {
		if claims[name] != want {
			t.Errorf("claim %s is %v, want %v", name, claims[name], want)
		}
	}

	renewed := kit.Decode[httpapi.Grant](t, w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 200, ""))
	if renewed.SessionID != grant.SessionID || renewed.AccessToken == grant.AccessToken || renewed.RefreshToken == grant.RefreshToken {
		t.Errorf("the renewal %+v is not a new pair of the same session", renewed)
	}
	w.Verify(grant.AccessToken) // an older token of the session is still good
	w.Want(w.Do("POST", "/api/logout", renewed.AccessToken, nil), 204, "")
	for _, token := range []string{grant.AccessToken, renewed.AccessToken} {
		w.Want(w.Do("GET", "/api/verify", token, nil), 401, "token_revoked")
	}
	w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: renewed.RefreshToken}), 401, "invalid_refresh_token")
	w.Want(w.Do("POST", "/auth/logout", w.Login("tester").AccessToken, nil), 204, "")
}

func TestWrongCredentialsAllLookAlike(t *testing.T) {
	w := replica.New(t, nil)
	id := w.User("tester")
	w.User("asleep")
	w.Want(w.Do("PATCH", "/api/users/asleep", w.Login("admin").AccessToken, map[string]any{"disabled": true}), 200, "")
	w.Verify(w.Login("tester").AccessToken)

	var bodies []string
	for _, in := range []httpapi.LoginRequest{
		{Username: "tester", Password: "wrong"}, {Username: "nobody", Password: kit.Password}, {Username: "asleep", Password: kit.Password},
		{Username: id, Password: kit.Password}, {Username: "te\u0000ster", Password: kit.Password}, {Username: "tester", Password: strings.Repeat("x", 5000)},
	} {
		a := w.Want(w.Do("POST", "/api/login", "", in), 401, "invalid_credentials")
		bodies = append(bodies, string(a.Body))
		if got := a.Header.Get("WWW-Authenticate"); got != `Bearer realm="watchword"` {
			t.Errorf("WWW-Authenticate is %q", got)
		}
	}
	for _, b := range bodies {
		if b != bodies[0] {
			t.Errorf("%s differs from %s", b, bodies[0])
		}
	}
}

func TestOneTokenIsNotAnother(t *testing.T) {
	w := replica.New(t, nil)
	grant := w.Login("admin")
	w.Want(w.Do("GET", "/api/verify", grant.RefreshToken, nil), 401, "invalid_token")
	w.Want(w.Do("GET", "/api/verify", grant.SessionID, nil), 401, "invalid_token")
	w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.AccessToken}), 401, "invalid_refresh_token")
	w.Want(w.Do("GET", "/api/verify", "", nil), 401, "token_missing")
	w.Want(w.Do("GET", "/api/verify?access_token="+grant.AccessToken, "", nil), 401, "token_missing")
}

func TestReplayedRefreshTokenRevokesTheFamily(t *testing.T) {
	var ahead atomic.Int64 // of the replica's clock
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	w := replica.NewWith(t, replica.Options{Now: now}, func(cfg *config.Config) {
		cfg.Tokens.RenewGrace, cfg.Revocation.MaxStaleness = time.Minute, 10*time.Minute
	})
	thief := w.Login("admin")
	renew := func(token string) kit.Answer {
		return w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: token})
	}
	honest := kit.Decode[httpapi.Grant](t, w.Want(renew(thief.RefreshToken), 200, ""))
	again := kit.Decode[httpapi.Grant](t, w.Want(renew(thief.RefreshToken), 200, ""))
	if again.RefreshToken != honest.RefreshToken {
		t.Error("inside the grace period the successor differs")
	}
	honest = kit.Decode[httpapi.Grant](t, w.Want(renew(honest.RefreshToken), 200, "")) // so it is used
	ahead.Store(int64(w.Config.Tokens.RenewGrace + time.Second))
	w.Want(renew(thief.RefreshToken), 401, "refresh_token_replayed")
	w.Want(renew(honest.RefreshToken), 401, "invalid_refresh_token")
	for _, g := range []httpapi.Grant{thief, honest, again} {
		w.Want(w.Do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
	}
	w.Verify(w.Login("admin").AccessToken) // another session of the same user is untouched
}

func TestAUserWhoIsGoneCannotRenew(t *testing.T) {
	w := replica.New(t, nil)
	admin := w.Login("admin").AccessToken
	for name, end := range map[string]func(user string){
		"deleted": func(user string) { w.Want(w.Do("DELETE", "/api/users/"+user, admin, nil), 204, "") },
		"disabled": func(user string) {
			w.Want(w.Do("PATCH", "/api/users/"+user, admin, map[string]any{"disabled": true}), 200, "")
		},
		"another password": func(user string) {
			w.Want(w.Do("PATCH", "/api/users/"+user, admin, map[string]any{"password": "another long password"}), 200, "")
		},
		"signed out": func(user string) {
			w.Want(w.Do("DELETE", "/api/users/"+user+"/sessions", admin, nil), 204, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			user := strings.ReplaceAll(name, " ", "-")
			w.User(user)
			grant := w.Login(user)
			end(user)
			w.Want(w.Do("GET", "/api/verify", grant.AccessToken, nil), 401, "token_revoked")
			w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 401, "invalid_refresh_token")
		})
	}
}

// A right that was taken away is in no token that is accepted, and in none that
// is issued; the session goes on.
func TestRightTakenAway(t *testing.T) {
	w := replica.New(t, nil)
	w.User("tester", "log=r")
	grant, admin := w.Login("tester"), w.Login("admin").AccessToken
	w.Want(w.Do("DELETE", "/api/users/tester/groups/of%20tester", admin, nil), 204, "")
	w.Want(w.Do("GET", "/api/verify", grant.AccessToken, nil), 401, "token_revoked")
	renewed := kit.Decode[httpapi.Grant](t, w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 200, ""))
	if claims := w.Verify(renewed.AccessToken); claims["log"] != nil {
		t.Errorf("the new token still has %v", claims["log"])
	}
}

func TestRevoke(t *testing.T) {
	w := replica.New(t, nil)
	id := w.User("tester")
	w.User("other")
	revoke := func(token string, body map[string]any) kit.Answer {
		return w.Do("POST", "/api/revocations", token, body)
	}
	revoked := func(tokens ...string) {
		t.Helper()
		for _, token := range tokens {
			w.Want(w.Do("GET", "/api/verify", token, nil), 401, "token_revoked")
		}
	}
	admin := w.Login("admin")
	other := w.Login("other")

	t.Run("own token by jti", func(t *testing.T) {
		g := w.Login("tester")
		w.Want(revoke(g.AccessToken, map[string]any{"jti": w.Verify(g.AccessToken)["jti"]}), 200, "")
		revoked(g.AccessToken)
	})
	t.Run("own other token, whole", func(t *testing.T) {
		a, b := w.Login("tester"), w.Login("tester")
		w.Want(revoke(a.AccessToken, map[string]any{"token": b.AccessToken}), 200, "")
		revoked(b.AccessToken)
		w.Verify(a.AccessToken)
	})
	t.Run("own other session", func(t *testing.T) {
		a, b := w.Login("tester"), w.Login("tester")
		w.Want(revoke(a.AccessToken, map[string]any{"session_id": b.SessionID}), 200, "")
		revoked(b.AccessToken)
		w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: b.RefreshToken}), 401, "invalid_refresh_token")
		w.Verify(a.AccessToken)
	})
	t.Run("everything of oneself, and a new login at once", func(t *testing.T) {
		a, b := w.Login("tester"), w.Login("tester")
		w.Want(revoke(a.AccessToken, map[string]any{"user": id}), 200, "")
		revoked(a.AccessToken, b.AccessToken)
		w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: b.RefreshToken}), 401, "invalid_refresh_token")
		w.Verify(w.Login("tester").AccessToken) // in the same second
	})
	t.Run("issued before now is until now", func(t *testing.T) {
		a := w.Login("tester")
		w.Want(revoke(a.AccessToken, map[string]any{"user": id, "issued_before": time.Now().Unix()}), 200, "")
		revoked(a.AccessToken)
		w.Verify(w.Login("tester").AccessToken)
	})
	t.Run("issued before a moment that is past", func(t *testing.T) {
		a := w.Login("tester")
		w.Want(revoke(a.AccessToken, map[string]any{"user": id, "issued_before": time.Now().Add(-time.Hour).Format(time.RFC3339)}), 200, "")
		w.Verify(a.AccessToken)
	})
	t.Run("issued before a moment to come", func(t *testing.T) {
		w.Want(revoke(w.Login("tester").AccessToken, map[string]any{"user": id, "issued_before": time.Now().Add(time.Hour).Unix()}), 422, "issued_before_in_future")
	})
	t.Run("what belongs to others", func(t *testing.T) {
		mine := w.Login("tester").AccessToken
		for _, body := range []map[string]any{
			{"token": other.AccessToken}, {"jti": w.Verify(other.AccessToken)["jti"]}, {"session_id": other.SessionID},
			{"user": "other"}, {"user": w.Verify(admin.AccessToken)["sub"]}, {"kid": "any"},
		} {
			w.Want(revoke(mine, body), 403, "permission_missing")
		}
		w.Verify(other.AccessToken)
	})
	t.Run("another's session, by an administrator who knows its id alone", func(t *testing.T) {
		g := w.Login("tester")
		w.Want(revoke(admin.AccessToken, map[string]any{"session_id": g.SessionID}), 200, "")
		revoked(g.AccessToken)
		w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 401, "invalid_refresh_token")
	})
	t.Run("another's session, however its id is written", func(t *testing.T) {
		for _, write := range []func(string) string{
			strings.ToUpper,
			func(id string) string { return strings.ReplaceAll(id, "-", "") },
			func(id string) string { return "urn:uuid:" + id },
		} {
			g := w.Login("tester")
			w.Want(revoke(admin.AccessToken, map[string]any{"session_id": write(g.SessionID)}), 200, "")
			revoked(g.AccessToken)
		}
	})
	t.Run("ids that nothing of ours has", func(t *testing.T) {
		g, before := w.Login("tester"), w.Head()
		jti := w.Verify(g.AccessToken)["jti"].(string)
		for _, body := range []map[string]any{
			{"jti": "a"}, {"jti": strings.ToUpper(jti) + "A"}, {"jti": jti + "=="}, {"jti": jti[:21]}, {"jti": jti[:21] + "_"}, {"jti": jti + "\n"}, {"jti": g.SessionID},
			{"session_id": "a"}, {"session_id": jti}, {"session_id": g.SessionID + "0"}, {"session_id": " " + g.SessionID},
		} {
			w.Want(revoke(admin.AccessToken, body), 422, "invalid_request")
		}
		if w.Head() != before {
			t.Error("it is in the log")
		}
		w.Verify(g.AccessToken)
	})
	t.Run("another user by name", func(t *testing.T) {
		g := w.Login("tester")
		w.Want(revoke(admin.AccessToken, map[string]any{"user": "TESTER"}), 200, "")
		revoked(g.AccessToken)
	})
	t.Run("nonsense", func(t *testing.T) {
		for _, body := range []map[string]any{{}, {"jti": "a", "user": "b"}, {"jti": "a", "issued_before": 1}, {"token": "a.b.c"}} {
			if a := revoke(admin.AccessToken, body); a.Status != 422 {
				t.Errorf("%v: %d %s", body, a.Status, a.Body)
			}
		}
		w.Want(revoke(admin.AccessToken, map[string]any{"user": "nobody"}), 404, "user_not_found")
		w.Want(revoke(admin.AccessToken, map[string]any{"kid": "nothing"}), 404, "unknown_key")
		w.Want(revoke("", map[string]any{"jti": "a"}), 401, "token_missing")
	})
	t.Run("a delegate with the claim, but not from the stronger", func(t *testing.T) {
		w.User("warden", "admin=revoke")
		warden, g := w.Login("warden").AccessToken, w.Login("tester")
		w.Want(revoke(warden, map[string]any{"user": "tester"}), 200, "")
		revoked(g.AccessToken)
		w.Want(revoke(warden, map[string]any{"user": "admin"}), 403, "beyond_own_rights")
		w.Want(revoke(warden, map[string]any{"token": admin.AccessToken}), 403, "beyond_own_rights")
		w.Want(revoke(warden, map[string]any{"session_id": admin.SessionID}), 403, "beyond_own_rights")
		w.Want(revoke(warden, map[string]any{"jti": w.Verify(admin.AccessToken)["jti"]}), 403, "permission_missing")
		w.Verify(admin.AccessToken)
	})
	t.Run("a delegate, from the weaker, by a session and by no id whose owner is not known", func(t *testing.T) {
		warden, g := w.Login("warden").AccessToken, w.Login("tester")
		w.Want(revoke(warden, map[string]any{"jti": w.Verify(g.AccessToken)["jti"]}), 403, "permission_missing")
		w.Want(revoke(warden, map[string]any{"session_id": uuid.NewString()}), 403, "permission_missing")
		w.Verify(g.AccessToken)
		w.Want(revoke(warden, map[string]any{"session_id": g.SessionID}), 200, "")
		revoked(g.AccessToken)
		sessions := w.Want(w.Do("GET", "/api/users/tester/sessions", admin.AccessToken, nil), 200, "")
		if strings.Contains(string(sessions.Body), g.SessionID) {
			t.Error("the revoked session is still listed")
		}
	})
	t.Run("by id alone, whose owner is not known, by a superuser", func(t *testing.T) {
		g := w.Login("tester")
		w.Want(revoke(admin.AccessToken, map[string]any{"jti": w.Verify(g.AccessToken)["jti"]}), 200, "")
		revoked(g.AccessToken)
		w.Want(revoke(admin.AccessToken, map[string]any{"session_id": uuid.NewString()}), 200, "")
	})
	t.Run("a signing key", func(t *testing.T) {
		before := w.Login("tester")
		kid := w.KeyIDs()[0]
		w.Want(revoke(admin.AccessToken, map[string]any{"kid": kid}), 200, "")
		revoked(before.AccessToken)
		if got := w.KeyIDs(); len(got) != 1 || got[0] == kid {
			t.Errorf("the key set has %v; %s was revoked", got, kid)
		}
		w.Verify(w.Login("tester").AccessToken)
	})
}

// Once a logout was answered 2xx the token is accepted in no request, however many run at the
// same time.
func TestNoVerificationSucceedsAfterLogout(t *testing.T) {
	w := replica.New(t, nil)
	w.User("tester")
	rounds := 2
	if kit.Soak() {
		rounds = 20
	}
	for range rounds {
		grant := w.Login("tester")
		var loggedOut atomic.Bool
		var late atomic.Int64
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					after := loggedOut.Load() // before the request: it counts only if it began after the answer
					rec := httptest.NewRecorder()
					w.Replica.Handler().ServeHTTP(rec, verifyRequest(grant.AccessToken))
					if after && rec.Code != http.StatusUnauthorized {
						late.Add(1)
					}
				}
			})
		}
		w.Want(w.Do("POST", "/api/logout", grant.AccessToken, nil), 204, "")
		loggedOut.Store(true)
		for range 5 {
			w.Want(w.Do("GET", "/api/verify", grant.AccessToken, nil), 401, "token_revoked")
		}
		close(stop)
		wg.Wait()
		if n := late.Load(); n > 0 {
			t.Errorf("%d verifications succeeded after the logout was answered", n)
		}
	}
}

func verifyRequest(token string) *http.Request {
	r := httptest.NewRequest("GET", "/api/verify", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func TestRestart(t *testing.T) {
	w := replica.New(t, nil)
	w.User("tester")
	kept, ended := w.Login("tester"), w.Login("tester")
	w.Want(w.Do("POST", "/api/logout", ended.AccessToken, nil), 204, "")
	before := fmt.Sprint(w.KeyIDs())

	w.Restart()
	if after := fmt.Sprint(w.KeyIDs()); after != before {
		t.Errorf("the keys are %s, were %s", after, before)
	}
	w.Verify(kept.AccessToken)
	w.Want(w.Do("GET", "/api/verify", ended.AccessToken, nil), 401, "token_revoked")
	w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: kept.RefreshToken}), 200, "")
	w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: ended.RefreshToken}), 401, "invalid_refresh_token")
}

func TestEveryAlgorithm(t *testing.T) {
	for _, alg := range []string{"ES384", "ES512", "EdDSA", "RS256", "PS256"} { // all other tests are of ES256
		t.Run(alg, func(t *testing.T) {
			w := replica.New(t, func(c *config.Config) { c.Tokens.Algorithm = alg })
			w.Verify(w.Login("admin").AccessToken)
			a := w.Do("GET", "/.well-known/jwks.json", "", nil)
			keys := kit.Decode[httpapi.JWKS](t, a).Keys
			if len(keys) != 1 || keys[0].Algorithm != alg || strings.Contains(string(a.Body), `"d":`) {
				t.Errorf("the key set is %s", a.Body)
			}
		})
	}
}

func TestNothingSecretInTheLog(t *testing.T) {
	w := replica.New(t, nil)
	w.User("tester")
	grant := w.Login("tester")
	renewed := kit.Decode[httpapi.Grant](t, w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}))
	w.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "hunter2-typed-as-name", Password: "wrong"})
	w.Do("GET", "/api/verify", "garbage-token", nil)
	w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: "wwr_garbage"})
	w.Do("PATCH", "/api/users/tester", w.Login("admin").AccessToken, map[string]any{"password": "the new long password"})
	w.Do("PATCH", "/api/users/tester", w.Login("admin").AccessToken, `{"password": ["the new long password"]}`)
	w.Do("POST", "/api/logout", renewed.AccessToken, nil)
	log := w.Log.String()
	if !strings.Contains(log, "/api/login") {
		t.Fatalf("the log has no requests: %s", log)
	}
	for _, secret := range []string{
		kit.Password, "the new long password", "hunter2-typed-as-name", "garbage-token", "wwr_garbage", "$argon2id",
		grant.AccessToken, grant.RefreshToken, renewed.AccessToken, renewed.RefreshToken,
		strings.Split(grant.AccessToken, ".")[2],
	} {
		if strings.Contains(log, secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}

// A user with more claims than a token has room for is refused with that reason. The attempt
// begins no session and spends no refresh token.
func TestTooManyClaimsForAToken(t *testing.T) {
	w := replica.New(t, nil)
	w.User("tester", "log=r")
	grant := w.Login("tester")
	claims := kit.Overload(t, w.Parts().Store, "tester")
	for range 3 {
		w.Want(w.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "tester", Password: kit.Password}), 403, "claims_too_large")
		w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 403, "claims_too_large")
	}
	sessions := kit.Decode[httpapi.SessionList](t, w.Want(w.Do("GET", "/api/sessions", grant.AccessToken, nil), 200, "")).Sessions
	if len(sessions) != 1 || !sessions[0].RenewedAt.Equal(sessions[0].CreatedAt.Time) {
		t.Errorf("%+v", sessions)
	}
	for _, one := range claims {
		if err := w.Parts().Store.DeleteClaim(t.Context(), one); err != nil {
			t.Fatal(err)
		}
	}
	w.Want(w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 200, "")
}
