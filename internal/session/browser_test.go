package session

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/state"
)

// startBrowser begins a browser's session by a password.
func (b bench) startBrowser(t *testing.T) (Session, string) {
	t.Helper()
	s, cookie, _, err := b.StartBrowser(t.Context(), b.user, 7, "192.0.2.1", "test", func(s *Session) error {
		s.AMR = []string{"pwd"}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, cookie
}

// recognised returns the session of a cookie.
func (b bench) recognised(t *testing.T, cookie string) Session {
	t.Helper()
	s, err := b.RecogniseCookie(t.Context(), cookie, always)
	if err != nil {
		t.Fatalf("RecogniseCookie: %v", err)
	}
	return s
}

// unknown fails the test unless the cookie is refused.
func (b bench) unknown(t *testing.T, name, cookie string) {
	t.Helper()
	s, err := b.RecogniseCookie(t.Context(), cookie, func(context.Context, Session) error {
		t.Errorf("%s: may is asked", name)
		return nil
	})
	if !errors.Is(err, state.ErrNotFound) || !reflect.DeepEqual(s, Session{}) {
		t.Errorf("%s: got %+v, %v", name, s, err)
	}
}

// again gives a session another cookie.
func (b bench) again(t *testing.T, s Session, amr ...string) (Session, string) {
	t.Helper()
	s, cookie, err := b.ReauthenticatedBrowser(t.Context(), b.user, s.ID, s.CookieID, b.clock.Now(), amr)
	if err != nil {
		t.Fatalf("ReauthenticatedBrowser: %v", err)
	}
	return s, cookie
}

// ends returns the id of the session that a cookie is good to end; "": of none.
func (b bench) ends(t *testing.T, cookie string) string {
	t.Helper()
	s, err := b.OfCookie(t.Context(), cookie)
	if errors.Is(err, state.ErrNotFound) {
		if s.UserID != b.user || s.ID == "" {
			t.Errorf("the ids that the cookie claims are %+v", s)
		}
		return ""
	}
	if err != nil {
		t.Fatalf("OfCookie: %v", err)
	}
	return s.ID
}

// stored returns the record of a session.
func (b bench) stored(t *testing.T, s Session) (record, state.Record) {
	t.Helper()
	r, err := b.State.Get(t.Context(), key(b.user, s.ID))
	if err != nil {
		t.Fatal(err)
	}
	rec, err := decode(r.Key, r)
	if err != nil {
		t.Fatal(err)
	}
	return rec, r
}

func TestABrowsersSession(t *testing.T) {
	b := newBench(t, nil)
	s, cookie := b.startBrowser(t)
	if !s.Browser || s.CookieID == "" || !strings.HasPrefix(cookie, CookiePrefix) || len(cookie) > 100 {
		t.Fatalf("it begins as %+v with %q", s, cookie)
	}
	if got := b.recognised(t, cookie); !reflect.DeepEqual(got, s) {
		t.Errorf("recognised is %+v, want %+v", got, s)
	}
	if got, err := b.Recognise(t.Context(), b.user, s.ID, always); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("by its id: %+v, %v", got, err)
	}
	if list := b.live(t); len(list) != 1 || !reflect.DeepEqual(list[0], s) {
		t.Errorf("listed are %+v", list)
	}
	rec, r := b.stored(t, s)
	if rec.Family != nil || rec.Current != nil || rec.Recent != nil {
		t.Errorf("the record has refresh tokens: %s", r.Value)
	}
	secret, _ := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(cookie, CookiePrefix))
	for _, one := range [][]byte{secret[32:], []byte(base64.StdEncoding.EncodeToString(secret[32:]))} {
		if strings.Contains(string(r.Value), string(one)) {
			t.Error("the record gives the cookie away")
		}
	}
	refused := errors.New("refused")
	if _, err := b.RecogniseCookie(t.Context(), cookie, func(context.Context, Session) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("what may refuses: %v", err)
	}
	if other, another := b.startBrowser(t); another == cookie || other.CookieID == s.CookieID {
		t.Error("two sessions have one cookie")
	}
}

// There is one spelling of a cookie. Anything else is none, and is not looked up.
func TestWhatIsNoCookie(t *testing.T) {
	b := newBench(t, nil)
	_, cookie := b.startBrowser(t)
	encoded := strings.TrimPrefix(cookie, CookiePrefix)
	list := map[string]string{
		"empty": "", "the prefix": CookiePrefix, "without the prefix": encoded, "another prefix": RefreshPrefix + encoded,
		"capitals": strings.ToUpper(CookiePrefix) + encoded, "longer": cookie + "A", "shorter": cookie[:len(cookie)-1],
		"padded": cookie + "=", "space before": " " + cookie, "space after": cookie + " ", "quoted": `"` + cookie + `"`, "line": cookie[:50] + "\n" + cookie[50:],
		"standard alphabet": CookiePrefix + strings.Repeat("+/", len(encoded)/2),
	}
	for name, other := range list {
		b.unknown(t, name, other)
		if _, err := b.OfCookie(t.Context(), other); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: OfCookie: %v", name, err)
		}
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := range encoded {
		for _, other := range alphabet {
			if byte(other) != encoded[i] {
				b.unknown(t, "another letter", CookiePrefix+encoded[:i]+string(other)+encoded[i+1:])
			}
		}
	}
	b.recognised(t, cookie)
}

// raw returns what a refresh token or a cookie says.
func raw(t *testing.T, secret, prefix string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(secret, prefix))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A cookie is no refresh token, and a refresh token no cookie, also if somebody makes one out of
// the parts of the other.
func TestCookiesAndRefreshTokens(t *testing.T) {
	b := newBench(t, nil)
	ofApp, refresh := b.start(t)
	ofBrowser, cookie := b.startBrowser(t)
	parts, token := raw(t, cookie, CookiePrefix), raw(t, refresh, RefreshPrefix)
	madeUp := RefreshPrefix + base64.RawURLEncoding.EncodeToString(slices.Concat(parts[:32], make([]byte, 16), parts[32:]))
	for name, one := range map[string]string{"the cookie": cookie, "a refresh token made of it": madeUp} {
		b.refused(t, one, ErrInvalid)
		if _, err := b.OfFamily(t.Context(), one); !errors.Is(err, ErrInvalid) && !errors.Is(err, state.ErrNotFound) {
			t.Errorf("%s has a family: %v", name, err)
		}
	}
	b.unknown(t, "the refresh token", refresh)
	for name, secret := range map[string][]byte{"secret": token[48:], "family": slices.Concat(token[32:48], token[32:48]), "nothing": make([]byte, 32)} {
		other := CookiePrefix + base64.RawURLEncoding.EncodeToString(slices.Concat(token[:32], secret))
		b.unknown(t, "a cookie made of the refresh token's "+name, other)
		if id := b.ends(t, other); id != "" {
			t.Errorf("a cookie made of the refresh token's %s is good to end %s", name, id)
		}
	}
	if _, err := b.Reauthenticated(t.Context(), b.user, ofBrowser.ID, b.clock.Now(), nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("a browser's session without another cookie: %v", err)
	}
	for _, id := range []string{"", ofBrowser.CookieID} {
		if _, _, err := b.ReauthenticatedBrowser(t.Context(), b.user, ofApp.ID, id, b.clock.Now(), nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("a cookie for another client's session: %v", err)
		}
	}
	// Not even if hashes are missing, as in a record of another version.
	for name, change := range map[string]func(*record){
		"without hashes": func(r *record) { r.Cookie = nil },
		"short hashes":   func(r *record) { r.Cookie = r.Cookie[:31] },
		"no browser's":   func(r *record) { r.Browser = false },
	} {
		s, cookie := b.startBrowser(t)
		rec, _ := b.stored(t, s)
		change(&rec)
		value, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.State.Put(t.Context(), key(b.user, s.ID), value, time.Hour); err != nil {
			t.Fatal(err)
		}
		b.unknown(t, name, cookie)
	}
	if equal(nil, nil) || equal([]byte{}, []byte{}) || equal(nil, hash(nil)) {
		t.Error("a missing hash is equal to something")
	}
	b.recognised(t, cookie)
	b.renew(t, refresh)
}

// A session that has ended in whatever way is not recognised, and has no other cookie any more.
// The cookie of one that was stopped is still good to end it.
func TestTheCookieOfAnEndedSession(t *testing.T) {
	for name, end := range map[string]func(*testing.T, bench, Session){
		"stopped": func(t *testing.T, b bench, s Session) {
			if err := b.Stop(t.Context(), b.user, s.ID); err != nil {
				t.Fatal(err)
			}
		},
		"ended": func(t *testing.T, b bench, s Session) {
			if err := b.End(t.Context(), b.user, s.ID); err != nil {
				t.Fatal(err)
			}
		},
		"expired": func(_ *testing.T, b bench, _ Session) { b.clock.advance(b.TTL) },
		"idle":    func(_ *testing.T, b bench, _ Session) { b.clock.advance(b.Idle) },
		"unreadable": func(t *testing.T, b bench, s Session) {
			if _, err := b.State.Put(t.Context(), key(b.user, s.ID), []byte("garbage"), time.Hour); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(c *Config) { c.Idle = 20 * time.Hour })
			s, cookie := b.startBrowser(t)
			b.clock.advance(time.Hour)
			if err := b.Used(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			end(t, b, s)
			before, beforeErr := b.State.Get(t.Context(), key(b.user, s.ID))
			b.unknown(t, name, cookie)
			if _, _, err := b.ReauthenticatedBrowser(t.Context(), b.user, s.ID, s.CookieID, b.clock.Now(), nil); !errors.Is(err, ErrInvalid) {
				t.Errorf("another cookie: %v", err)
			}
			b.clock.advance(notedEvery)
			if err := b.Used(t.Context(), s); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("Used: %v", err)
			}
			if after, err := b.State.Get(t.Context(), key(b.user, s.ID)); !reflect.DeepEqual(after, before) || !errors.Is(err, beforeErr) {
				t.Errorf("the record was %+v, %v and is %+v, %v", before, beforeErr, after, err)
			}
			if name == "stopped" {
				if rec, r := b.stored(t, s); rec.Cookie != nil {
					t.Errorf("the record is %s", r.Value)
				}
				if id := b.ends(t, cookie); id != s.ID {
					t.Errorf("the cookie is good to end %q", id)
				}
			}
		})
	}
}

// Another authentication gives the session another cookie. The former one is only good to end the
// session, and the one before it is good for nothing.
func TestAnotherCookie(t *testing.T) {
	b := newBench(t, nil)
	s, first := b.startBrowser(t)
	b.clock.advance(time.Hour)
	want := s
	want.AuthTime, want.RenewedAt, want.AMR = b.clock.Now(), b.clock.Now(), []string{"mfa", "otp", "pwd"}
	got, second := b.again(t, s, want.AMR...)
	want.CookieID = got.CookieID
	if second == first || got.CookieID == s.CookieID || !reflect.DeepEqual(got, want) {
		t.Errorf("it is %+v, want %+v", got, want)
	}
	b.unknown(t, "the former cookie", first)
	if now := b.recognised(t, second); !reflect.DeepEqual(now, want) {
		t.Errorf("recognised is %+v", now)
	}
	if id := b.ends(t, first); id != s.ID {
		t.Errorf("the former cookie is good to end %q", id)
	}
	for _, id := range []string{s.CookieID, "", uuid.NewString()} {
		if _, _, err := b.ReauthenticatedBrowser(t.Context(), b.user, s.ID, id, b.clock.Now(), nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("by the former cookie, or none: %v", err)
		}
	}
	// The clock of another replica may be behind; what the session has from now on is said all the same.
	b.clock.advance(-time.Minute)
	got, third := b.again(t, got, "pwd")
	if !got.AuthTime.Equal(want.AuthTime) || !got.RenewedAt.Equal(want.RenewedAt) || !slices.Equal(got.AMR, []string{"pwd"}) {
		t.Errorf("it is %+v", got)
	}
	b.unknown(t, "the first cookie", first)
	b.unknown(t, "the second cookie", second)
	b.recognised(t, third)
	if id := b.ends(t, first); id != "" {
		t.Errorf("the first cookie is good to end %q", id)
	}
	for _, id := range []string{"", "x", uuid.NewString(), s.ID + " "} {
		if _, _, err := b.ReauthenticatedBrowser(t.Context(), b.user, id, got.CookieID, b.clock.Now(), nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("session %q: %v", id, err)
		}
	}
	if _, _, err := b.ReauthenticatedBrowser(t.Context(), uuid.NewString(), s.ID, got.CookieID, b.clock.Now(), nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("another user: %v", err)
	}
}

// Of many calls with one cookie one succeeds, whose cookie is good afterwards.
func TestOneOtherCookie(t *testing.T) {
	b := newBench(t, nil)
	s, _ := b.startBrowser(t)
	var mu sync.Mutex
	var won []string
	var work sync.WaitGroup
	for range 16 {
		work.Go(func() {
			_, cookie, err := b.ReauthenticatedBrowser(t.Context(), b.user, s.ID, s.CookieID, b.clock.Now(), []string{"pwd"})
			if err != nil {
				if !errors.Is(err, ErrInvalid) {
					t.Error(err)
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			won = append(won, cookie)
		})
	}
	work.Wait()
	if len(won) != 1 {
		t.Fatalf("%d calls succeeded", len(won))
	}
	b.recognised(t, won[0])
}

// A copy of before has another cookie: the new one is recognised by the record itself at once.
// The former one is recognised for no longer than the copy is there, and as before.
func TestAnotherCookieAndACopy(t *testing.T) {
	d := newDesk(t)
	s, first := d.startBrowser(t)
	d.recognised(t, first)
	old := d.state.copies[key(d.user, s.ID)]
	d.clock.advance(time.Minute)
	_, second := d.again(t, s, "mfa", "otp", "pwd")
	d.state.gets = 0
	for range 2 {
		if got := d.recognised(t, second); !got.AuthTime.Equal(d.clock.Now()) {
			t.Errorf("the new cookie finds %+v", got)
		}
	}
	if d.state.gets != 1 {
		t.Errorf("the record was read %d times", d.state.gets)
	}
	d.unknown(t, "the former cookie", first) // the copy is another one by now
	d.state.copies[key(d.user, s.ID)] = old
	if got := d.recognised(t, first); !got.AuthTime.Equal(s.AuthTime) || !slices.Equal(got.AMR, s.AMR) {
		t.Errorf("by an old copy the former cookie finds %+v", got)
	}
	d.recognised(t, second)
	d.state.copies[key(d.user, s.ID)] = old
	if _, _, err := d.ReauthenticatedBrowser(t.Context(), d.user, s.ID, s.CookieID, d.clock.Now(), nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("another cookie for the former one: %v", err)
	}
	d.clock.advance(notedEvery)
	if err := d.Used(t.Context(), s); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("the use of the former one: %v", err)
	}
	delete(d.state.copies, key(d.user, s.ID))
	d.unknown(t, "the former cookie, without the copy", first)
	d.recognised(t, second)
	d.clear, d.revoked = false, true
	d.unknown(t, "the cookie of a session that was revoked", second)
}

// A session that is used goes on for as long as it may lie unused, up to its absolute end, and is
// written now and then.
func TestUse(t *testing.T) {
	for name, c := range map[string]struct {
		idle, refresh, unused, every time.Duration
	}{
		"idle":         {20 * time.Minute, 30 * time.Hour, 20 * time.Minute, 2 * time.Minute},
		"long idle":    {10 * time.Hour, 30 * time.Hour, 10 * time.Hour, 5 * time.Minute},
		"no idle time": {0, 10 * time.Hour, 10 * time.Hour, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(conf *Config) { conf.Idle, conf.RefreshDuration = c.idle, c.refresh })
			s, cookie := b.startBrowser(t)
			end, noted := s.CreatedAt.Add(b.TTL), s.CreatedAt
			_, before := b.stored(t, s)
			for now := s.CreatedAt; ; now = b.clock.Now() {
				got, err := b.RecogniseCookie(t.Context(), cookie, always)
				if !now.Before(end) {
					if !errors.Is(err, state.ErrNotFound) {
						t.Errorf("at its absolute end: %+v, %v", got, err)
					}
					break
				}
				if err != nil || !got.RenewedAt.Equal(noted) || !got.ExpiresAt.Equal(end) {
					t.Fatalf("after %v: %+v, %v; noted was %v", now.Sub(s.CreatedAt), got, err, noted)
				}
				if err := b.Used(t.Context(), got); err != nil && !(errors.Is(err, state.ErrNotFound) && end.Sub(now) < minLife) {
					t.Fatalf("after %v: %v", now.Sub(s.CreatedAt), err)
				}
				_, after := b.stored(t, s)
				if want := now.Sub(noted) >= c.every; (after.Version != before.Version) != want {
					t.Fatalf("after %v: it was written: %v", now.Sub(s.CreatedAt), !want)
				} else if want {
					noted = now
					if until := now.Add(min(c.unused, end.Sub(now))); !after.Expires.Equal(until) {
						t.Fatalf("after %v it may lie unused until %v, want %v", now.Sub(s.CreatedAt), after.Expires, until)
					}
				}
				before = after
				b.clock.advance(50 * time.Second)
			}
			s, cookie = b.startBrowser(t)
			b.clock.advance(c.unused - time.Second)
			got := b.recognised(t, cookie)
			if err := b.Used(t.Context(), got); err != nil {
				t.Fatal(err)
			}
			if err := b.Used(t.Context(), s); err != nil { // by a session of before
				t.Fatal(err)
			}
			b.clock.advance(c.unused - time.Second)
			b.recognised(t, cookie)
			b.clock.advance(time.Second)
			b.unknown(t, "unused", cookie)
		})
	}
	b := newBench(t, nil)
	s, _ := b.start(t)
	b.clock.advance(time.Hour)
	_, before := b.stored(t, s)
	if err := b.Used(t.Context(), s); err != nil {
		t.Error(err)
	}
	if _, after := b.stored(t, s); after.Version != before.Version {
		t.Error("the use of a session that is no browser's was noted")
	}
}

// between is a state in which something happens between the reading of a record and its change.
type between struct {
	state.Store
	happens func()
}

func (s *between) Get(ctx context.Context, k state.Key) (state.Record, error) {
	r, err := s.Store.Get(ctx, k)
	if happens := s.happens; happens != nil {
		s.happens = nil
		happens()
	}
	return r, err
}

// What ends a session, or gives it another cookie, between the reading and the writing of a use is
// not undone.
func TestUseUndoesNothing(t *testing.T) {
	for name, act := range map[string]func(*testing.T, bench, Session){
		"a stop": func(t *testing.T, b bench, s Session) {
			if err := b.Stop(t.Context(), b.user, s.ID); err != nil {
				t.Error(err)
			}
		},
		"an end": func(t *testing.T, b bench, s Session) {
			if err := b.End(t.Context(), b.user, s.ID); err != nil {
				t.Error(err)
			}
		},
		"another cookie": func(t *testing.T, b bench, s Session) { b.again(t, s, "pwd") },
	} {
		t.Run(name, func(t *testing.T) {
			race := &between{}
			b := newBench(t, func(c *Config) { race.Store, c.State = c.State, race })
			s, cookie := b.startBrowser(t)
			b.clock.advance(time.Hour)
			race.happens = func() { act(t, b, s) }
			if err := b.Used(t.Context(), s); err != nil {
				t.Errorf("the use: %v", err)
			}
			b.unknown(t, "afterwards", cookie)
			race.happens = func() { act(t, b, s) }
			s, cookie = b.startBrowser(t)
			if _, _, err := b.ReauthenticatedBrowser(t.Context(), b.user, s.ID, s.CookieID, b.clock.Now(), nil); !errors.Is(err, ErrInvalid) {
				t.Errorf("another cookie meanwhile: %v", err)
			}
			b.unknown(t, "afterwards", cookie)
		})
	}
}

// A write whose outcome is not known leaves a session with the cookie that it had, or with one
// that nobody has.
func TestWritesOfABrowsersSessionThatFailed(t *testing.T) {
	for name, persisted := range map[string]bool{"but persisted": true, "and did not persist": false} {
		t.Run(name, func(t *testing.T) {
			f := &faulty{persist: persisted}
			b := newBench(t, func(c *Config) { f.Store, c.State = c.State, f })
			s, cookie := b.startBrowser(t)
			b.clock.advance(time.Hour)
			f.fail = true
			if err := b.Used(t.Context(), s); !errors.Is(err, errFault) {
				t.Fatalf("Used: %v", err)
			}
			f.fail = false
			if got := b.recognised(t, cookie); got.RenewedAt.Equal(b.clock.Now()) != persisted {
				t.Errorf("after a use it is %+v", got)
			}
			f.fail = true
			if _, other, err := b.ReauthenticatedBrowser(t.Context(), b.user, s.ID, s.CookieID, b.clock.Now(), nil); !errors.Is(err, errFault) || other != "" {
				t.Fatalf("another cookie: %q, %v", other, err)
			}
			f.fail = false
			if persisted {
				b.unknown(t, "the former cookie", cookie)
			} else {
				b.recognised(t, cookie)
			}
			if id := b.ends(t, cookie); id != s.ID {
				t.Errorf("the former cookie is good to end %q", id)
			}
		})
	}
}

// A user's sessions have one bound, whoever holds them.
func TestBrowsersSessionsAreBounded(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxPerUser = 2 })
	first, cookie := b.startBrowser(t)
	b.clock.advance(time.Second)
	b.start(t)
	b.clock.advance(time.Second)
	_, _, ended, err := b.StartBrowser(t.Context(), b.user, 7, "", "", nil)
	if err != nil || len(ended) != 1 || ended[0].ID != first.ID {
		t.Errorf("the third sign-in ends %+v, %v", ended, err)
	}
	b.unknown(t, "the first one", cookie)
	refused := errors.New("refused")
	if _, _, _, err := b.StartBrowser(t.Context(), b.user, 7, "", "", func(*Session) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("refused by the caller: %v", err)
	}
	if n := len(b.live(t)); n != 2 {
		t.Errorf("there are %d sessions", n)
	}
}
