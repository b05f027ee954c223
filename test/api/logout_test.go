package api

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A leaving is a replica on a clock that can be set ahead.
type leaving struct {
	*replica.World
	ahead atomic.Int64
}

func newLeaving(t *testing.T, o replica.Options, change func(*config.Config)) *leaving {
	t.Helper()
	l := &leaving{}
	o.Now = func() time.Time { return time.Now().Add(time.Duration(l.ahead.Load())) }
	l.World = replica.NewWith(t, o, func(cfg *config.Config) {
		cfg.Revocation.MaxStaleness = 48 * time.Hour // longer than a test sets the clock ahead
		if change != nil {
			change(cfg)
		}
	})
	l.User("tester")
	return l
}

func (l *leaving) pass(d time.Duration) { l.ahead.Add(int64(d)) }

// logout is answered with the token, or without one, and a refresh token, if it is not "".
func (l *leaving) logout(access, refresh string) kit.Answer {
	l.T.Helper()
	var body any
	if refresh != "" {
		body = httpapi.LogoutRequest{RefreshToken: refresh}
	}
	return l.Do("POST", "/api/logout", access, body)
}

// over fails the test unless a session has ended and its tokens are revoked.
func (l *leaving) over(g httpapi.Grant) {
	l.T.Helper()
	if a := l.Do("GET", "/api/verify", g.AccessToken, nil); a.Code() != "token_revoked" && a.Code() != "token_expired" {
		l.T.Errorf("an access token is answered %d %s", a.Status, a.Body)
	}
	if _, a := l.Renew(g.RefreshToken); a.Status != 401 {
		l.T.Errorf("a refresh token is answered %d %s", a.Status, a.Body)
	}
}

// lives fails the test unless a session goes on.
func (l *leaving) lives(g httpapi.Grant) {
	l.T.Helper()
	if _, a := l.Renew(g.RefreshToken); a.Status != 200 {
		l.T.Errorf("a refresh token is answered %d %s", a.Status, a.Body)
	}
}

// A client ends its session by whatever it still has of it; twice is as good as once, and the
// trail has it once.
func TestLogoutByWhateverIsLeft(t *testing.T) {
	for name, by := range map[string]func(l *leaving, g httpapi.Grant) (access, refresh string){
		"an access token":                    func(_ *leaving, g httpapi.Grant) (string, string) { return g.AccessToken, "" },
		"a refresh token":                    func(_ *leaving, g httpapi.Grant) (string, string) { return "", g.RefreshToken },
		"both":                               func(_ *leaving, g httpapi.Grant) (string, string) { return g.AccessToken, g.RefreshToken },
		"a refresh token and garbage":        func(_ *leaving, g httpapi.Grant) (string, string) { return "garbage", g.RefreshToken },
		"an access token and another's text": func(_ *leaving, g httpapi.Grant) (string, string) { return g.AccessToken, "garbage" },
		"an access token that has expired": func(l *leaving, g httpapi.Grant) (string, string) {
			l.pass(l.Config.Tokens.TokenDuration + time.Minute)
			l.Want(l.Do("GET", "/api/verify", g.AccessToken, nil), 401, "token_expired")
			return g.AccessToken, ""
		},
		"one that has expired, and a refresh token": func(l *leaving, g httpapi.Grant) (string, string) {
			l.pass(l.Config.Tokens.TokenDuration + time.Minute)
			return g.AccessToken, g.RefreshToken
		},
		"a spent refresh token": func(l *leaving, g httpapi.Grant) (string, string) {
			l.Renew(g.RefreshToken)
			return "", g.RefreshToken
		},
		"an access token of before a renewal": func(l *leaving, g httpapi.Grant) (string, string) {
			l.Renew(g.RefreshToken)
			return g.AccessToken, ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/api/logout", "/auth/logout"} {
				l := newLeaving(t, replica.Options{}, nil)
				g, other := l.Login("tester"), l.Login("tester")
				renewed := l.Login("tester") // of the same user, and not of the session
				access, refresh := by(l, g)
				for range 3 {
					var body any
					if refresh != "" {
						body = httpapi.LogoutRequest{RefreshToken: refresh}
					}
					l.Want(l.Do("POST", path, access, body), 204, "")
					l.over(g)
				}
				l.lives(other)
				l.lives(renewed)
				count := 0
				for _, e := range l.Trail(l.Login("admin").AccessToken, map[string][]string{"action": {"logout"}}) {
					if count++; e.Target != g.SessionID {
						t.Errorf("the trail says that %s has ended", e.Target)
					}
				}
				if count != 1 {
					t.Errorf("%d events", count)
				}
			}
		})
	}
}

// What proves nothing ends nothing, and tells nothing.
func TestLogoutThatProvesNothing(t *testing.T) {
	l := newLeaving(t, replica.Options{}, nil)
	g, second := l.Login("tester"), l.Login("tester")
	gone := l.Login("tester")
	l.Want(l.logout(gone.AccessToken, ""), 204, "")
	other := l.Login("admin")
	head := l.Head()

	l.Want(l.logout("", ""), 401, "token_missing")
	l.Want(l.Do("POST", "/api/logout", "", map[string]any{}), 401, "token_missing")
	l.Want(l.logout("garbage", ""), 401, "invalid_token")
	l.Want(l.logout(g.RefreshToken, ""), 401, "invalid_token")
	l.Want(l.logout(g.SessionID, ""), 401, "invalid_token")
	l.Want(l.logout("", "garbage"), 401, "invalid_refresh_token")
	l.Want(l.logout("", g.AccessToken), 401, "invalid_refresh_token")
	l.Want(l.logout("", g.SessionID), 401, "invalid_refresh_token")
	l.Want(l.Do("POST", "/api/logout", "", `{"refresh_token":`), 400, "malformed_json")
	l.Want(l.Do("POST", "/api/logout", g.AccessToken, `{"session_id":"`+second.SessionID+`"}`), 422, "invalid_request")
	l.Want(l.Do("POST", "/api/logout", "", `{"session_id":"`+second.SessionID+`"}`), 422, "invalid_request")
	several := l.Request("POST", "/api/logout", g.AccessToken, httpapi.LogoutRequest{RefreshToken: g.RefreshToken})
	several.Header.Add("Authorization", "Bearer "+second.AccessToken)
	l.Want(l.Send(several), 400, "several_tokens")

	// A token with another signature, or changed within, expired or not.
	changed := g.AccessToken[:len(g.AccessToken)-10] + strings.Repeat("A", 10)
	l.Want(l.logout(changed, ""), 401, "invalid_token")
	l.pass(l.Config.Tokens.TokenDuration + time.Minute)
	l.Want(l.logout(changed, ""), 401, "invalid_token")
	l.pass(-l.Config.Tokens.TokenDuration - time.Minute)
	l.pass(-time.Hour)
	l.Want(l.logout(g.AccessToken, ""), 401, "invalid_token") // it is not valid yet
	l.pass(time.Hour)

	// Refresh tokens that are made up for a session that lives, one that is over, and none at
	// all: nobody finds out by them which of these it is.
	user := l.Verify(g.AccessToken)["sub"].(string)
	for _, id := range []string{g.SessionID, gone.SessionID, uuid.NewString()} {
		l.Want(l.logout("", madeUp(user, id)), 204, "")
	}
	if l.Head() != head {
		t.Errorf("%d entries in the log", l.Head()-head)
	}
	for _, one := range []httpapi.Grant{g, second, other} {
		l.Verify(one.AccessToken)
		l.lives(one)
	}
}

// madeUp is a refresh token with the ids of a session, which every access token has.
func madeUp(user, id string) string {
	u, s := uuid.MustParse(user), uuid.MustParse(id)
	secret := make([]byte, 48)
	_, _ = rand.Read(secret)
	return session.RefreshPrefix + base64.RawURLEncoding.EncodeToString(append(append(u[:], s[:]...), secret...))
}

// Two tokens of two sessions end both.
func TestLogoutByTokensOfTwoSessions(t *testing.T) {
	l := newLeaving(t, replica.Options{}, nil)
	one, two, three := l.Login("tester"), l.Login("admin"), l.Login("tester")
	l.Want(l.logout(one.AccessToken, two.RefreshToken), 204, "")
	l.over(one)
	l.over(two)
	l.lives(three)
}

// A revoked access token still ends its session, unless it was revoked by itself or with its
// key: then a thief may have it.
func TestLogoutByARevokedToken(t *testing.T) {
	l := newLeaving(t, replica.Options{}, nil)
	admin := l.Login("admin").AccessToken
	for name, tt := range map[string]struct {
		revoke func(g httpapi.Grant)
		status int
	}{
		"its session": {func(g httpapi.Grant) { l.Revoke(g.AccessToken, map[string]any{"session_id": g.SessionID}) }, 204},
		"its user":    {func(g httpapi.Grant) { l.Revoke(g.AccessToken, map[string]any{"user": "tester"}) }, 204},
		"rights that were taken": {func(g httpapi.Grant) {
			l.Want(l.Do("PATCH", "/api/users/tester", admin, map[string]any{"email": uuid.NewString() + "@example.com"}), 200, "")
		}, 204},
		"itself": {func(g httpapi.Grant) { l.Revoke(g.AccessToken, map[string]any{"token": g.AccessToken}) }, 401},
	} {
		t.Run(name, func(t *testing.T) {
			g := l.Login("tester")
			tt.revoke(g)
			for _, expired := range []bool{false, true} {
				if expired {
					l.pass(l.Config.Tokens.TokenDuration + time.Minute)
					defer l.pass(-l.Config.Tokens.TokenDuration - time.Minute)
				}
				code := ""
				if tt.status == 401 {
					code = "token_revoked"
				}
				l.Want(l.logout(g.AccessToken, ""), tt.status, code)
				if tt.status == 204 {
					l.over(g)
				}
			}
			if tt.status == 401 {
				l.lives(g)
				l.Want(l.logout(g.AccessToken, g.RefreshToken), 204, "")
				l.over(g)
			}
		})
	}
	t.Run("its key", func(t *testing.T) {
		g := l.Login("tester")
		l.Revoke(l.Login("admin").AccessToken, map[string]any{"kid": l.KeyIDs()[0]})
		l.Want(l.logout(g.AccessToken, ""), 401, "token_revoked")
		l.Want(l.logout("", g.RefreshToken), 204, "")
		l.over(g)
	})
}

// A token that expired longer ago than a session lasts ends nothing. Its refresh token is of no
// session any more.
func TestLogoutLongAfter(t *testing.T) {
	l := newLeaving(t, replica.Options{}, func(cfg *config.Config) {
		cfg.Sessions.TTL, cfg.Tokens.TokenDuration = time.Hour, 10*time.Minute
	})
	g := l.Login("tester")
	l.pass(l.Config.Tokens.TokenDuration + l.Config.Sessions.TTL)
	l.Want(l.logout(g.AccessToken, ""), 401, "token_expired")
	l.Want(l.logout("", g.RefreshToken), 204, "")
}

// An absent is a state that is away, or has lost its records.
type absent struct {
	state.Store
	away, empty atomic.Bool
}

func (a *absent) Get(ctx context.Context, k state.Key) (state.Record, error) {
	switch {
	case a.away.Load():
		return state.Record{}, state.ErrUnavailable
	case a.empty.Load():
		return state.Record{}, state.ErrNotFound
	}
	return a.Store.Get(ctx, k)
}

// While the state is away no logout is answered 204. Where a session that is lost may return,
// a refresh token alone does not prove that it will stay away.
func TestLogoutWithoutTheState(t *testing.T) {
	a := &absent{Store: memstate.New(time.Now)}
	l := newLeaving(t, replica.Options{State: a}, nil)
	g, ended, kept := l.Login("tester"), l.Login("tester"), l.Login("tester")
	l.Want(l.logout("", ended.RefreshToken), 204, "")
	a.away.Store(true)
	for _, answer := range []kit.Answer{l.logout(g.AccessToken, ""), l.logout("", g.RefreshToken), l.logout(g.AccessToken, g.RefreshToken)} {
		if l.Want(answer, 503, "state_unavailable"); answer.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	a.away.Store(false)
	a.empty.Store(true)
	l.Want(l.logout("", g.RefreshToken), 401, "invalid_refresh_token")
	l.Want(l.logout("", ended.RefreshToken), 204, "")
	l.Want(l.logout(g.AccessToken, g.RefreshToken), 204, "")
	a.empty.Store(false)
	l.over(g)
	l.lives(kept)
}

// A log that cannot be written makes the logout 503, by either token, and it is finished when
// the client tries again.
func TestLogoutThatFailed(t *testing.T) {
	for name, mode := range map[string]int32{"failed and not persisted": failBefore, "failed but persisted": failAfterwards} {
		t.Run(name, func(t *testing.T) {
			w, f := newFailing(t)
			w.User("tester")
			for _, spent := range []bool{false, true} {
				g := w.Login("tester")
				if spent {
					w.Renew(g.RefreshToken)
				}
				body := httpapi.LogoutRequest{RefreshToken: g.RefreshToken}
				f.mode.Store(mode)
				if a := w.Want(w.Do("POST", "/api/logout", "", body), 503, "revocation_not_recorded"); a.Header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
				f.mode.Store(failNot)
				w.Want(w.Do("POST", "/api/logout", "", body), 204, "")
				w.Want(w.Do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
				if _, a := w.Renew(g.RefreshToken); a.Status != http.StatusUnauthorized {
					t.Errorf("renewed: %d", a.Status)
				}
			}
		})
	}
}
