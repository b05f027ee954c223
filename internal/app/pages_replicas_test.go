package app

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// A snapshot is what a Redis had at some time.
type snapshot map[string]string

func takeSnapshot(t *testing.T, c rueidis.Client) snapshot {
	t.Helper()
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	all := snapshot{}
	for _, key := range keys {
		if text, err := c.Do(t.Context(), c.B().Dump().Key(key).Build()).ToString(); err == nil { // else it has expired
			all[key] = text
		}
	}
	return all
}

// restore has the Redis be as it was, with nothing that expires.
func (s snapshot) restore(t *testing.T, c rueidis.Client) {
	t.Helper()
	if err := c.Do(t.Context(), c.B().Flushall().Build()).Error(); err != nil {
		t.Fatal(err)
	}
	for key, text := range s {
		if err := c.Do(t.Context(), c.B().Restore().Key(key).Ttl(0).SerializedValue(text).Replace().Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
}

// cookieOf returns the header Cookie of the session that an answer has begun, or given another
// cookie; empty: it has not.
func cookieOf(a *http.Response) string {
	for _, c := range a.Cookies() {
		if c.Name == sessionCookie && strings.HasPrefix(c.Value, "wwb_") {
			return sessionCookie + "=" + c.Value
		}
	}
	return ""
}

// A browser's session that has ended on one replica is over on all, in whatever way it has ended:
// while pages are asked for on the others, and its cookie is changed by a step-up; and it does not come
// back when Redis forgets everything, or has an older state back, nor after a restart.
func TestCookiesOverReplicas(t *testing.T) {
	t.Parallel()
	database, redis := testenv.Postgres(t), testenv.StartRedis(t)
	var replicas []*stage
	for range 3 {
		replicas = append(replicas, &stage{world: join(t, database, func(c *config.Config) { storedKeys(c); c.Redis.URL = redis.URL })})
	}
	client := redisClient(t, redis.URL)
	// Within this time every replica must know.
	bound := 2*replicas[0].cfg.Revocation.Poll + time.Second
	form := func(s *stage, cookie, path string, fields ...string) *http.Response {
		f := url.Values{}
		for i := 0; i+1 < len(fields); i += 2 {
			f.Set(fields[i], fields[i+1])
		}
		return s.ask("POST", path, formType, f.Encode(), "Sec-Fetch-Site", "same-origin", "Cookie", cookie)
	}
	people, first := replicas[0].node.parts.Directory, replicas[0]
	admin := first.login("admin").AccessToken
	// What asks all the time pauses for this long, and leaves the processors to the replicas.
	const pause = 10 * time.Millisecond
	type attack struct {
		name, user, username string
		end                  func(id, username, cookie string) error
		cookies              []string // all that the session has had
	}
	status := func(a *http.Response, want int) error {
		if a.StatusCode != want {
			return fmt.Errorf("%d", a.StatusCode)
		}
		return nil
	}
	// The database is busy with the step-ups, and tells whoever asks for an end to try again.
	again := func(ask func() (busy bool, err error)) error {
		for patience := time.Now().Add(time.Minute); ; {
			busy, err := ask()
			if !busy || time.Now().After(patience) {
				return err
			}
		}
	}
	api := func(method, path string, body any, want int) error {
		return again(func() (bool, error) {
			if a := first.do(method, path, admin, body); a.status != want {
				return a.status == 503, fmt.Errorf("%d %s", a.status, a.body)
			}
			return false, nil
		})
	}
	attacks := []*attack{
		{name: "signed out", end: func(_, _, cookie string) error { return status(form(first, cookie, "/signout"), 303) }},
		{name: "ended elsewhere", end: func(_, username, _ string) error {
			return status(form(first, first.signIn(username), "/account/sessions/end-others"), 303)
		}},
		{name: "disabled", end: func(id, _, _ string) error {
			return api("PATCH", "/api/users/"+id, map[string]bool{"disabled": true}, 200)
		}},
		{name: "deleted", end: func(id, _, _ string) error { return api("DELETE", "/api/users/"+id, nil, 204) }},
		{name: "revoked", end: func(id, _, _ string) error {
			return api("POST", "/api/revocations", httpapi.RevocationRequest{User: id}, 200)
		}},
		{name: "another password", end: func(id, _, _ string) error {
			return again(func() (bool, error) {
				err := people.SetPassword(t.Context(), directory.System(), id, password+"!")
				return err != nil && problem.From(err).Kind == problem.Unavailable, err
			})
		}},
	}
	for i, a := range attacks {
		a.username = fmt.Sprint("user", i)
		a.user = first.user(a.username)
		a.cookies = []string{first.signIn(a.username)}
	}
	page := func(s *stage, cookie string) int {
		return s.ask("GET", "/account", "", "", "Cookie", cookie).StatusCode
	}
	for _, s := range replicas {
		for _, a := range attacks {
			if got := page(s, a.cookies[0]); got != 200 {
				t.Fatalf("%s, before: %d", a.name, got)
			}
		}
	}
	var old snapshot
	first.await("all copies are in Redis", func() bool {
		old = takeSnapshot(t, client)
		return len(old) >= len(attacks)
	})
	var all sync.WaitGroup
	for _, a := range attacks {
		all.Go(func() {
			var latest atomic.Value // the cookie
			var ended atomic.Int64  // when, in Unix nanoseconds
			latest.Store(a.cookies[0])
			known := func(began time.Time) bool {
				at := ended.Load()
				return at > 0 && began.After(time.Unix(0, at).Add(bound))
			}
			// A cookie is good to sign out until it was changed twice: so it changes once at most
			// between a look at it and that.
			var changes sync.Mutex
			ctx, stop := context.WithCancel(t.Context())
			var work sync.WaitGroup
			for _, s := range replicas[1:] {
				work.Go(func() {
					for ; ctx.Err() == nil; time.Sleep(pause) {
						began := time.Now()
						if got := page(s, latest.Load().(string)); got == 200 && known(began) {
							t.Errorf("%s: a page %v after it", a.name, time.Since(time.Unix(0, ended.Load())))
							return
						}
					}
				})
			}
			work.Go(func() {
				for ; ctx.Err() == nil; time.Sleep(pause) {
					began := time.Now()
					answer := form(replicas[2], latest.Load().(string), "/signin/again", "method", "password", "password", password)
					next := cookieOf(answer)
					if next == "" {
						continue
					}
					if known(began) {
						t.Errorf("%s: another cookie %v after it", a.name, time.Since(time.Unix(0, ended.Load())))
					}
					changes.Lock()
					a.cookies = append(a.cookies, next)
					latest.Store(next)
					changes.Unlock()
				}
			})
			// In the middle of it: when there was a step-up.
			changed := func() bool {
				changes.Lock()
				defer changes.Unlock()
				return len(a.cookies) > 1
			}
			for patience := time.Now().Add(20 * time.Second); !changed() && time.Now().Before(patience); time.Sleep(time.Millisecond) {
			}
			changes.Lock()
			if err := a.end(a.user, a.username, latest.Load().(string)); err != nil {
				t.Errorf("%s: %v", a.name, err)
			}
			ended.Store(time.Now().UnixNano())
			changes.Unlock()
			time.Sleep(bound + 200*time.Millisecond)
			stop()
			work.Wait()
		})
	}
	all.Wait()
	over := func(when string) {
		t.Helper()
		for i, s := range replicas {
			for _, a := range attacks {
				for _, cookie := range a.cookies {
					if got := page(s, cookie); got == 200 || got >= 500 {
						t.Errorf("%s, %s, on replica %d: %d", a.name, when, i, got)
					}
				}
			}
		}
	}
	over("afterwards")
	old.restore(t, client)
	over("after Redis has an older state back")
	replicas[2].restart()
	over("after a restart")
	old.restore(t, client)
	over("after a restart and with an older state in Redis")
	if err := client.Do(t.Context(), client.B().Flushall().Build()).Error(); err != nil {
		t.Fatal(err)
	}
	over("after Redis has forgotten everything")
	redis.Stop()
	over("without Redis")
	cookie := first.signIn("admin")
	if got := page(replicas[1], cookie); got != 200 {
		t.Errorf("without Redis nobody is recognised: %d", got)
	}
	steps := 0
	for _, a := range attacks {
		steps += len(a.cookies) - 1
	}
	t.Logf("summary: %d sessions, %d step-ups beside their ends", len(attacks), steps)
	if steps < len(attacks) {
		t.Error("no cookie was changed meanwhile")
	}
}
