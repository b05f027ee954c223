package app

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/store"
)

// The answer to a verification is the token's payload, as encoding/json writes it.
func TestVerifyAnswersThePayload(t *testing.T) {
	w := newWorld(t, nil)
	w.user("tester", "path=<a&b>", "where=Köln")
	access := w.login("tester").AccessToken
	body := w.want(w.do("GET", "/api/verify", access, nil), 200, "").body
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(access, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(w.verify(access))
	if err != nil {
		t.Fatal(err)
	}
	if string(body) != string(payload) || string(body) != string(again) {
		t.Errorf("answered %s\npayload  %s\nagain    %s", body, payload, again)
	}
}

func TestLoginVerifyRenewLogout(t *testing.T) {
	w := newWorld(t, nil)
	id := w.user("tester", "log=r", "log=w", "ship=acc")

	grant := w.login("Tester") // names are compared folded
	if grant.TokenType != "Bearer" || grant.ExpiresIn != 1800 || grant.RefreshToken == "" || grant.SessionID == "" {
		t.Errorf("the grant is %+v", grant)
	}
	claims := w.verify(grant.AccessToken)
	for name, want := range map[string]any{
		"iss": "https://auth.example.com", "aud": "https://auth.example.com", "sub": id, "sid": grant.SessionID,
		"log": "r,w", "ship": "acc", "preferred_username": "tester", "name": "Travis Ester", "email": "tester@example.com",
	} {
		if claims[name] != want {
			t.Errorf("claim %s is %v, want %v", name, claims[name], want)
		}
	}

	renewed := decode[httpapi.Grant](t, w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 200, ""))
	if renewed.SessionID != grant.SessionID || renewed.AccessToken == grant.AccessToken || renewed.RefreshToken == grant.RefreshToken {
		t.Errorf("the renewal %+v is not a new pair of the same session", renewed)
	}
	w.verify(grant.AccessToken) // an older token of the session is still good
	w.want(w.do("POST", "/api/logout", renewed.AccessToken, nil), 204, "")
	for _, token := range []string{grant.AccessToken, renewed.AccessToken} {
		w.want(w.do("GET", "/api/verify", token, nil), 401, "token_revoked")
	}
	w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: renewed.RefreshToken}), 401, "invalid_refresh_token")
	w.want(w.do("POST", "/auth/logout", w.login("tester").AccessToken, nil), 204, "")
}

func TestWrongCredentialsAllLookAlike(t *testing.T) {
	w := newWorld(t, nil)
	id := w.user("tester")
	w.user("asleep")
	w.want(w.do("PATCH", "/api/users/asleep", w.login("admin").AccessToken, map[string]any{"disabled": true}), 200, "")
	w.verify(w.login("tester").AccessToken)

	var bodies []string
	for _, in := range []httpapi.LoginRequest{
		{Username: "tester", Password: "wrong"}, {Username: "nobody", Password: password}, {Username: "asleep", Password: password},
		{Username: id, Password: password}, {Username: "te\u0000ster", Password: password}, {Username: "tester", Password: strings.Repeat("x", 5000)},
	} {
		a := w.want(w.do("POST", "/api/login", "", in), 401, "invalid_credentials")
		bodies = append(bodies, string(a.body))
		if got := a.header.Get("WWW-Authenticate"); got != `Bearer realm="watchword"` {
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
	w := newWorld(t, nil)
	grant := w.login("admin")
	w.want(w.do("GET", "/api/verify", grant.RefreshToken, nil), 401, "invalid_token")
	w.want(w.do("GET", "/api/verify", grant.SessionID, nil), 401, "invalid_token")
	w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.AccessToken}), 401, "invalid_refresh_token")
	w.want(w.do("GET", "/api/verify", "", nil), 401, "token_missing")
	w.want(w.do("GET", "/api/verify?access_token="+grant.AccessToken, "", nil), 401, "token_missing")
}

// A token ends with its exp, and in a cluster, whose clocks may differ, that much later.
func TestTokenEndsInTime(t *testing.T) {
	brief := func(c *config.Config) { c.Tokens.TokenDuration = 3 * time.Second }
	check := func(t *testing.T, w *world, forgive time.Duration) {
		token := w.login("admin").AccessToken
		end := w.expiry(token).Add(forgive)
		time.Sleep(time.Until(end) - time.Nanosecond)
		w.verify(token)
		time.Sleep(time.Nanosecond)
		w.want(w.do("GET", "/api/verify", token, nil), 401, "token_expired")
	}
	t.Run("alone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { check(t, newQuietWorld(t, brief), 0) })
	})
	t.Run("in a cluster", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) { check(t, b.join(brief), operator.Leeway) })
	})
}

func TestReplayedRefreshTokenTakesTheFamilyBack(t *testing.T) {
	var ahead atomic.Int64 // of the replica's clock
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	cfg := testConfig(t)
	cfg.Tokens.RenewGrace, cfg.Revocation.MaxStaleness = time.Minute, 10*time.Minute
	cfg.Complete()
	w := &world{t: t, cfg: cfg, now: now, log: &logBuffer{}}
	w.start()
	t.Cleanup(w.stop)
	thief := w.login("admin")
	renew := func(token string) answer {
		return w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: token})
	}
	honest := decode[httpapi.Grant](t, w.want(renew(thief.RefreshToken), 200, ""))
	again := decode[httpapi.Grant](t, w.want(renew(thief.RefreshToken), 200, ""))
	if again.RefreshToken != honest.RefreshToken {
		t.Error("inside the grace period the successor differs")
	}
	ahead.Store(int64(cfg.Tokens.RenewGrace + time.Second))
	w.want(renew(thief.RefreshToken), 401, "refresh_token_replayed")
	w.want(renew(honest.RefreshToken), 401, "invalid_refresh_token")
	for _, g := range []httpapi.Grant{thief, honest, again} {
		w.want(w.do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
	}
	w.verify(w.login("admin").AccessToken) // another session of the same user is untouched
}

func TestWhoIsGoneCannotRenew(t *testing.T) {
	w := newWorld(t, nil)
	admin := w.login("admin").AccessToken
	for name, end := range map[string]func(user string){
		"deleted": func(user string) { w.want(w.do("DELETE", "/api/users/"+user, admin, nil), 204, "") },
		"disabled": func(user string) {
			w.want(w.do("PATCH", "/api/users/"+user, admin, map[string]any{"disabled": true}), 200, "")
		},
		"another password": func(user string) {
			w.want(w.do("PATCH", "/api/users/"+user, admin, map[string]any{"password": "another long password"}), 200, "")
		},
		"signed out": func(user string) {
			w.want(w.do("DELETE", "/api/users/"+user+"/sessions", admin, nil), 204, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			user := strings.ReplaceAll(name, " ", "-")
			w.user(user)
			grant := w.login(user)
			end(user)
			w.want(w.do("GET", "/api/verify", grant.AccessToken, nil), 401, "token_revoked")
			w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 401, "invalid_refresh_token")
		})
	}
}

// A right that was taken away is in no token that is accepted, and in none that
// is issued; the session goes on.
func TestRightTakenAway(t *testing.T) {
	w := newWorld(t, nil)
	w.user("tester", "log=r")
	grant, admin := w.login("tester"), w.login("admin").AccessToken
	w.want(w.do("DELETE", "/api/users/tester/groups/of%20tester", admin, nil), 204, "")
	w.want(w.do("GET", "/api/verify", grant.AccessToken, nil), 401, "token_revoked")
	renewed := decode[httpapi.Grant](t, w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 200, ""))
	if claims := w.verify(renewed.AccessToken); claims["log"] != nil {
		t.Errorf("the new token still has %v", claims["log"])
	}
}

func TestTakeBack(t *testing.T) {
	w := newWorld(t, nil)
	id := w.user("tester")
	w.user("other")
	take := func(token string, body map[string]any) answer { return w.do("POST", "/api/revocations", token, body) }
	revoked := func(tokens ...string) {
		t.Helper()
		for _, token := range tokens {
			w.want(w.do("GET", "/api/verify", token, nil), 401, "token_revoked")
		}
	}
	admin := w.login("admin")
	other := w.login("other")

	t.Run("own token by jti", func(t *testing.T) {
		g := w.login("tester")
		w.want(take(g.AccessToken, map[string]any{"jti": w.verify(g.AccessToken)["jti"]}), 200, "")
		revoked(g.AccessToken)
	})
	t.Run("own other token, whole", func(t *testing.T) {
		a, b := w.login("tester"), w.login("tester")
		w.want(take(a.AccessToken, map[string]any{"token": b.AccessToken}), 200, "")
		revoked(b.AccessToken)
		w.verify(a.AccessToken)
	})
	t.Run("own other session", func(t *testing.T) {
		a, b := w.login("tester"), w.login("tester")
		w.want(take(a.AccessToken, map[string]any{"session_id": b.SessionID}), 200, "")
		revoked(b.AccessToken)
		w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: b.RefreshToken}), 401, "invalid_refresh_token")
		w.verify(a.AccessToken)
	})
	t.Run("everything of oneself, and a new login at once", func(t *testing.T) {
		a, b := w.login("tester"), w.login("tester")
		w.want(take(a.AccessToken, map[string]any{"user": id}), 200, "")
		revoked(a.AccessToken, b.AccessToken)
		w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: b.RefreshToken}), 401, "invalid_refresh_token")
		w.verify(w.login("tester").AccessToken) // in the same second
	})
	t.Run("issued before now is until now", func(t *testing.T) {
		a := w.login("tester")
		w.want(take(a.AccessToken, map[string]any{"user": id, "issued_before": time.Now().Unix()}), 200, "")
		revoked(a.AccessToken)
		w.verify(w.login("tester").AccessToken)
	})
	t.Run("issued before a moment that is past", func(t *testing.T) {
		a := w.login("tester")
		w.want(take(a.AccessToken, map[string]any{"user": id, "issued_before": time.Now().Add(-time.Hour).Format(time.RFC3339)}), 200, "")
		w.verify(a.AccessToken)
	})
	t.Run("issued before a moment to come", func(t *testing.T) {
		w.want(take(w.login("tester").AccessToken, map[string]any{"user": id, "issued_before": time.Now().Add(time.Hour).Unix()}), 422, "issued_before_in_future")
	})
	t.Run("what belongs to others", func(t *testing.T) {
		mine := w.login("tester").AccessToken
		for _, body := range []map[string]any{
			{"token": other.AccessToken}, {"jti": w.verify(other.AccessToken)["jti"]}, {"session_id": other.SessionID},
			{"user": "other"}, {"user": w.verify(admin.AccessToken)["sub"]}, {"kid": "any"},
		} {
			w.want(take(mine, body), 403, "permission_missing")
		}
		w.verify(other.AccessToken)
	})
	t.Run("another's session, by an administrator who knows its id alone", func(t *testing.T) {
		g := w.login("tester")
		w.want(take(admin.AccessToken, map[string]any{"session_id": g.SessionID}), 200, "")
		revoked(g.AccessToken)
		w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 401, "invalid_refresh_token")
	})
	t.Run("another's session, however its id is written", func(t *testing.T) {
		for _, write := range []func(string) string{
			strings.ToUpper,
			func(id string) string { return strings.ReplaceAll(id, "-", "") },
			func(id string) string { return "urn:uuid:" + id },
		} {
			g := w.login("tester")
			w.want(take(admin.AccessToken, map[string]any{"session_id": write(g.SessionID)}), 200, "")
			revoked(g.AccessToken)
		}
	})
	t.Run("ids that nothing of ours has", func(t *testing.T) {
		g, before := w.login("tester"), w.head()
		jti := w.verify(g.AccessToken)["jti"].(string)
		for _, body := range []map[string]any{
			{"jti": "a"}, {"jti": strings.ToUpper(jti) + "A"}, {"jti": jti + "=="}, {"jti": jti[:21]}, {"jti": jti[:21] + "_"}, {"jti": jti + "\n"}, {"jti": g.SessionID},
			{"session_id": "a"}, {"session_id": jti}, {"session_id": g.SessionID + "0"}, {"session_id": " " + g.SessionID},
		} {
			w.want(take(admin.AccessToken, body), 422, "invalid_request")
		}
		if w.head() != before {
			t.Error("it is in the log")
		}
		w.verify(g.AccessToken)
	})
	t.Run("another user by name", func(t *testing.T) {
		g := w.login("tester")
		w.want(take(admin.AccessToken, map[string]any{"user": "TESTER"}), 200, "")
		revoked(g.AccessToken)
	})
	t.Run("nonsense", func(t *testing.T) {
		for _, body := range []map[string]any{{}, {"jti": "a", "user": "b"}, {"jti": "a", "issued_before": 1}, {"token": "a.b.c"}} {
			if a := take(admin.AccessToken, body); a.status != 422 {
				t.Errorf("%v: %d %s", body, a.status, a.body)
			}
		}
		w.want(take(admin.AccessToken, map[string]any{"user": "nobody"}), 404, "user_not_found")
		w.want(take(admin.AccessToken, map[string]any{"kid": "nothing"}), 404, "unknown_key")
		w.want(take("", map[string]any{"jti": "a"}), 401, "token_missing")
	})
	t.Run("a delegate with the claim, but not from the stronger", func(t *testing.T) {
		w.user("warden", "admin=revoke")
		warden, g := w.login("warden").AccessToken, w.login("tester")
		w.want(take(warden, map[string]any{"user": "tester"}), 200, "")
		revoked(g.AccessToken)
		w.want(take(warden, map[string]any{"user": "admin"}), 403, "beyond_own_rights")
		w.want(take(warden, map[string]any{"token": admin.AccessToken}), 403, "beyond_own_rights")
		w.want(take(warden, map[string]any{"session_id": admin.SessionID}), 403, "beyond_own_rights")
		w.want(take(warden, map[string]any{"jti": w.verify(admin.AccessToken)["jti"]}), 403, "permission_missing")
		w.verify(admin.AccessToken)
	})
	t.Run("a delegate, from the weaker by session and not by what tells no owner", func(t *testing.T) {
		warden, g := w.login("warden").AccessToken, w.login("tester")
		w.want(take(warden, map[string]any{"jti": w.verify(g.AccessToken)["jti"]}), 403, "permission_missing")
		w.want(take(warden, map[string]any{"session_id": uuid.NewString()}), 403, "permission_missing")
		w.verify(g.AccessToken)
		w.want(take(warden, map[string]any{"session_id": g.SessionID}), 200, "")
		revoked(g.AccessToken)
		sessions := w.want(w.do("GET", "/api/users/tester/sessions", admin.AccessToken, nil), 200, "")
		if strings.Contains(string(sessions.body), g.SessionID) {
			t.Error("the revoked session is still listed")
		}
	})
	t.Run("by id alone, from whoever it is, by a superuser", func(t *testing.T) {
		g := w.login("tester")
		w.want(take(admin.AccessToken, map[string]any{"jti": w.verify(g.AccessToken)["jti"]}), 200, "")
		revoked(g.AccessToken)
		w.want(take(admin.AccessToken, map[string]any{"session_id": uuid.NewString()}), 200, "")
	})
	t.Run("a signing key", func(t *testing.T) {
		before := w.login("tester")
		kid := keyIDs(t, w)[0]
		w.want(take(admin.AccessToken, map[string]any{"kid": kid}), 200, "")
		revoked(before.AccessToken)
		if got := keyIDs(t, w); len(got) != 1 || got[0] == kid {
			t.Errorf("the key set has %v; %s was revoked", got, kid)
		}
		w.verify(w.login("tester").AccessToken)
	})
}

func keyIDs(t *testing.T, w *world) (ids []string) {
	for _, k := range decode[httpapi.JWKS](t, w.do("GET", "/api/pkeys", "", nil)).Keys {
		ids = append(ids, k.KeyID)
	}
	return ids
}

// After the 2xx nobody is answered with the token any more, whatever runs beside.
func TestNoVerificationSucceedsAfterLogout(t *testing.T) {
	w := newWorld(t, nil)
	w.user("tester")
	rounds := 2
	if soak() {
		rounds = 20
	}
	for range rounds {
		grant := w.login("tester")
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
					w.node.Handler().ServeHTTP(rec, verifyRequest(grant.AccessToken))
					if after && rec.Code != http.StatusUnauthorized {
						late.Add(1)
					}
				}
			})
		}
		w.want(w.do("POST", "/api/logout", grant.AccessToken, nil), 204, "")
		loggedOut.Store(true)
		for range 5 {
			w.want(w.do("GET", "/api/verify", grant.AccessToken, nil), 401, "token_revoked")
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
	w := newWorld(t, nil)
	w.user("tester")
	kept, ended := w.login("tester"), w.login("tester")
	w.want(w.do("POST", "/api/logout", ended.AccessToken, nil), 204, "")
	before := fmt.Sprint(keyIDs(t, w))

	w.restart()
	if after := fmt.Sprint(keyIDs(t, w)); after != before {
		t.Errorf("the keys are %s, were %s", after, before)
	}
	w.verify(kept.AccessToken)
	w.want(w.do("GET", "/api/verify", ended.AccessToken, nil), 401, "token_revoked")
	w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: kept.RefreshToken}), 200, "")
	w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: ended.RefreshToken}), 401, "invalid_refresh_token")
}

func TestEveryAlgorithm(t *testing.T) {
	for _, alg := range []string{"ES384", "ES512", "EdDSA", "RS256", "PS256"} { // all other tests are of ES256
		t.Run(alg, func(t *testing.T) {
			w := newWorld(t, func(c *config.Config) { c.Tokens.Algorithm = alg })
			w.verify(w.login("admin").AccessToken)
			a := w.do("GET", "/.well-known/jwks.json", "", nil)
			keys := decode[httpapi.JWKS](t, a).Keys
			if len(keys) != 1 || keys[0].Algorithm != alg || strings.Contains(string(a.body), `"d":`) {
				t.Errorf("the key set is %s", a.body)
			}
		})
	}
}

func TestNothingSecretInTheLog(t *testing.T) {
	w := newWorld(t, nil)
	w.user("tester")
	grant := w.login("tester")
	renewed := decode[httpapi.Grant](t, w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}))
	w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "hunter2-typed-as-name", Password: "wrong"})
	w.do("GET", "/api/verify", "garbage-token", nil)
	w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: "wwr_garbage"})
	w.do("PATCH", "/api/users/tester", w.login("admin").AccessToken, map[string]any{"password": "the new long password"})
	w.do("PATCH", "/api/users/tester", w.login("admin").AccessToken, `{"password": ["the new long password"]}`)
	w.do("POST", "/api/logout", renewed.AccessToken, nil)
	log := w.log.String()
	if !strings.Contains(log, "/api/login") {
		t.Fatalf("the log has no requests: %s", log)
	}
	for _, secret := range []string{
		password, "the new long password", "hunter2-typed-as-name", "garbage-token", "wwr_garbage", "$argon2id",
		grant.AccessToken, grant.RefreshToken, renewed.AccessToken, renewed.RefreshToken,
		strings.Split(grant.AccessToken, ".")[2],
	} {
		if strings.Contains(log, secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}

// A user for whose claims no token has room is told so, and neither begins
// sessions nor spends a refresh token by trying.
func TestTooManyClaimsForAToken(t *testing.T) {
	w := newWorld(t, nil)
	w.user("tester", "log=r")
	grant := w.login("tester")
	claims := w.overload("tester")
	for range 3 {
		w.want(w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "tester", Password: password}), 403, "claims_too_large")
		w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 403, "claims_too_large")
	}
	sessions := decode[httpapi.SessionList](t, w.want(w.do("GET", "/api/sessions", grant.AccessToken, nil), 200, "")).Sessions
	if len(sessions) != 1 || !sessions[0].RenewedAt.Equal(sessions[0].CreatedAt) {
		t.Errorf("%+v", sessions)
	}
	for _, one := range claims {
		if err := w.node.parts.Store.DeleteClaim(t.Context(), one); err != nil {
			t.Fatal(err)
		}
	}
	w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}), 200, "")
}

// overload gives a user more claims than a token has room for, and returns their ids.
func (w *world) overload(user string) (claims []string) {
	w.t.Helper()
	ctx, s := w.t.Context(), w.node.parts.Store
	group, err := s.GroupByName(ctx, "of "+user)
	if err != nil {
		w.t.Fatal(err)
	}
	// Past the directory, which refuses most of this but cannot refuse all.
	for i := range 80 {
		one := store.Claim{ID: fmt.Sprint("claim ", i), Name: fmt.Sprint(i), NameKey: fmt.Sprint(i), ShortName: fmt.Sprint("c", i), Value: strings.Repeat("v", 100)}
		if err := errors.Join(s.CreateClaim(ctx, one), s.AddClaim(ctx, group.ID, one.ID)); err != nil {
			w.t.Fatal(err)
		}
		claims = append(claims, one.ID)
	}
	return claims
}
