package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/test/kit"
)

// fillSessions gives a user n more sessions like the one of g.
func fillSessions(t testing.TB, w *world, user string, g httpapi.Grant, n int) {
	t.Helper()
	one, err := w.node.state.Get(t.Context(), state.Key{Kind: session.Kind, Owner: user, ID: g.SessionID})
	if err != nil {
		t.Fatal(err)
	}
	for n > 0 {
		var rows []string
		var args []any
		for range min(n, 500) {
			id := uuid.NewString()
			rows = append(rows, "(?, ?, ?, ?, 1, ?)")
			args = append(args, session.Kind, user, id, []byte(strings.Replace(string(one.Value), g.SessionID, id, 1)), one.Expires.UnixMicro())
		}
		if _, err := w.node.db.Exec(t.Context(), "INSERT INTO state_records (kind, owner, id, value, version, expires_at) VALUES "+strings.Join(rows, ", "), args...); err != nil {
			t.Fatal(err)
		}
		n -= len(rows)
	}
}

// One user with as many sessions as there may be asks for lists on sixty connections, as
// fast as the answers come. The replica stays ready and verifies, and others sign in.
func TestOneUserDoesNotStopAReplica(t *testing.T) {
	lasts := 3 * time.Second
	if kit.Soak() {
		lasts = time.Minute
	}
	w := newWorld(t, func(cfg *config.Config) {
		cfg.Sessions.MaxPerUser = 0
		cfg.Revocation, cfg.Database.AcquireTimeout = config.Default().Revocation, config.Default().Database.AcquireTimeout
	})
	user := w.user("flooder")
	w.user("honest")
	g, honest := w.login("flooder"), w.login("honest")
	fillSessions(t, w, user, g, session.MaxSessions-1)

	signIn := func() (time.Duration, error) {
		began := time.Now()
		a := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "honest", Password: password})
		if a.status != 200 {
			return 0, fmt.Errorf("%d %s", a.status, a.body)
		}
		return time.Since(began), nil
	}
	var before []time.Duration
	for range 20 {
		took, err := signIn()
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, took)
	}

	const connections = 60
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	stop := make(chan struct{})
	var answers [600]atomic.Int64
	var flood sync.WaitGroup
	for range connections {
		flood.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := client.Do(w.request("GET", "/api/sessions?limit=1", g.AccessToken, nil))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				answers[resp.StatusCode].Add(1)
				if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
					t.Error("429 without Retry-After")
				}
			}
		})
	}
	var during []time.Duration
	for began := time.Now(); time.Since(began) < lasts; {
		for _, path := range []string{"/api/verify", "/readyz"} {
			if a := w.do("GET", path, honest.AccessToken, nil); a.status != 200 {
				t.Errorf("%s after %v: %d %s", path, time.Since(began), a.status, a.body)
			}
		}
		took, err := signIn()
		if err != nil {
			t.Errorf("a login after %v: %v", time.Since(began), err)
			continue
		}
		during = append(during, took)
		time.Sleep(100 * time.Millisecond) // so that in a minute nobody has logged in too often
	}
	close(stop)
	flood.Wait()
	slices.Sort(before)
	slices.Sort(during)
	// Those who flood and those who sign in share the processors with the replica, so that a
	// login takes longer. Without bounds it took ten thousand times as long, or failed.
	if median, worst := during[len(during)/2], 100*before[len(before)/2]+time.Second; median > worst {
		t.Errorf("logins took %v in the flood, and %v before", median, before[len(before)/2])
	}
	if answers[200].Load() == 0 || answers[503].Load() != 0 {
		t.Errorf("the flood was answered 200 %d times, 503 %d times", answers[200].Load(), answers[503].Load())
	}
	t.Logf("logins took %v before (worst %v); %d took %v in the flood (worst %v), which was answered 200 %d times, 429 %d times, 503 %d times",
		before[len(before)/2], before[len(before)-1], len(during), during[len(during)/2], during[len(during)-1],
		answers[200].Load(), answers[429].Load(), answers[503].Load())
}

// held is a state whose lists of one user do not end before the test lets them.
type held struct {
	state.Store
	owner         atomic.Pointer[string]
	began, inside atomic.Int64
	free          chan struct{}
}

func (h *held) List(ctx context.Context, kind, owner, after string, limit int) ([]state.Record, error) {
	if of := h.owner.Load(); of != nil && *of == owner {
		h.began.Add(1)
		h.inside.Add(1)
		defer h.inside.Add(-1)
		select {
		case <-h.free:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(15 * time.Second): // the test has failed, and is to say so
			return nil, context.DeadlineExceeded
		}
	}
	return h.Store.List(ctx, kind, owner, after, limit)
}

// The storage hangs at what one user asks for on sixty connections. No more of it reaches
// the storage than server.max_requests_per_user, and nobody else is kept waiting: neither by the same
// address nor by the connections of the database.
func TestOneUserKeepsNobodyWaiting(t *testing.T) {
	own := &held{Store: memstate.New(time.Now), free: make(chan struct{})}
	w := newWorldOn(t, own, nil)
	user := w.user("flooder")
	w.user("honest")
	g, honest := w.login("flooder"), w.login("honest")
	own.owner.Store(&user)
	answers := make([]answer, 60)
	var flood sync.WaitGroup
	for i := range answers {
		flood.Go(func() { answers[i] = w.do("GET", "/api/sessions?limit=1", g.AccessToken, nil) })
	}
	most := int64(w.cfg.Server.MaxRequestsPerUser)
	w.await("the flood", func() bool { return own.inside.Load() >= most })
	w.want(w.do("GET", "/api/verify", honest.AccessToken, nil), 200, "")
	w.want(w.do("GET", "/api/verify", g.AccessToken, nil), 200, "") // also the flooder's
	w.want(w.do("GET", "/readyz", "", nil), 200, "")
	w.want(w.do("GET", "/api/sessions", honest.AccessToken, nil), 200, "")
	w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: honest.RefreshToken}), 200, "")
	w.login("honest")
	a := w.want(w.do("GET", "/api/sessions", g.AccessToken, nil), 429, "too_many_at_once")
	if a.header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	if n := own.began.Load(); n != most {
		t.Errorf("%d requests reached the storage, want %d", n, most)
	}
	close(own.free)
	flood.Wait()
	count := map[int]int{}
	for _, a := range answers {
		count[a.status]++
	}
	if count[200] < int(most) || count[200]+count[429] != len(answers) {
		t.Errorf("the answers are %v", count)
	}
	w.want(w.do("GET", "/api/sessions", g.AccessToken, nil), 200, "")
}

// A client that sends its body slowly, or never, takes no place from others behind its
// address.
func TestASlowBodyTakesNoPlace(t *testing.T) {
	w := newWorld(t, func(cfg *config.Config) { cfg.Server.MaxRequestsPerAddress = 1 })
	send := func(body io.Reader) answer {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/api/renew", body)
		rec := httptest.NewRecorder()
		w.node.Handler().ServeHTTP(rec, r)
		return answer{rec.Code, rec.Header(), rec.Body.Bytes()}
	}
	body, slow := io.Pipe()
	var other sync.WaitGroup
	other.Go(func() { w.want(send(body), 401, "invalid_refresh_token") })
	if _, err := io.WriteString(slow, "{"); err != nil { // it is being read
		t.Fatal(err)
	}
	w.want(send(strings.NewReader(`{"refresh_token":"x"}`)), 401, "invalid_refresh_token")
	if _, err := io.WriteString(slow, `"refresh_token":"x"}`); err != nil {
		t.Fatal(err)
	}
	_ = slow.Close()
	other.Wait()
}

// Every connection that reads SQLite is in use. The replica's own reads have one of their
// own, so that its view stays fresh.
func TestReadersKeepNoReplicaFromItsLog(t *testing.T) {
	w := newWorld(t, func(cfg *config.Config) { cfg.Database.AcquireTimeout = 100 * time.Millisecond })
	var all []*sqldb.Rows
	for {
		rows, err := w.node.db.Query(t.Context(), "SELECT 1 UNION SELECT 2")
		if errors.Is(err, sqldb.ErrBusy) {
			break
		}
		if err != nil || len(all) > 100 {
			t.Fatalf("%d connections, then %v", len(all), err)
		}
		all = append(all, rows)
	}
	if err := w.node.view.Refresh(t.Context()); err != nil {
		t.Errorf("the revocation log: %v", err)
	}
	if _, err := w.node.store.Keys(t.Context()); err != nil {
		t.Errorf("the keys: %v", err)
	}
	for _, rows := range all {
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkListOneOfManySessions is what a page of one session costs a user of many.
func BenchmarkListOneOfManySessions(b *testing.B) {
	for _, n := range []int{1, 100, session.MaxSessions} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(b, func(cfg *config.Config) { cfg.Sessions.MaxPerUser = 0 })
			w.http.Close()
			w.http = nil
			user := w.user("flooder")
			g := w.login("flooder")
			fillSessions(b, w, user, g, n-1)
			for b.Loop() {
				if a := w.do("GET", "/api/sessions?limit=1", g.AccessToken, nil); a.status != 200 {
					b.Fatalf("%d %s", a.status, a.body)
				}
			}
		})
	}
}
