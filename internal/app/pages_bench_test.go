package app

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/rueidis"
	"golang.org/x/sys/unix"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// BenchmarkPages measures how long this server takes for each page, beside a million users, a
// million events and 100,000 sessions: the median and the 95th percentile, what a page costs of
// this process's CPU time, how often it asks the servers behind it (the least of all times: the
// replica itself asks as well), and how many bytes it has.
func BenchmarkPages(b *testing.B) {
	const users, events, sessions = 1_000_000, 1_000_000, 100_000
	database := testenv.Postgres(b)
	redis := testenv.Redis(b)
	first := newCrowded(b, database, "", "")
	first.crowd(users, events, sessions)
	first.stop()
	for _, backend := range []struct{ name, redis string }{{"sql", ""}, {"tiered", redis}} {
		b.Run(backend.name, func(b *testing.B) {
			c := newCrowded(b, database, backend.redis, "")
			linked := newCrowded(b, database, backend.redis, "linked")
			cookie, counted := c.signIn("admin"), linked.signIn("admin")
			for _, page := range c.pages(users, events) {
				b.Run(page.name, func(b *testing.B) {
					const rounds = 41
					var took, trips []float64
					var size int
					for range 3 { // prepares the statements
						c.page(page.path, cookie)
						linked.page(page.path, counted)
					}
					used := cpuUsed(b)
					for b.Loop() {
						for range rounds {
							began := time.Now()
							size = c.page(page.path, cookie)
							took = append(took, milliseconds(time.Since(began)))
						}
					}
					used = cpuUsed(b) - used
					for range rounds {
						trips = append(trips, float64(linked.trips(page.path, counted)))
					}
					slices.Sort(took)
					slices.Sort(trips)
					b.ReportMetric(0, "ns/op")
					b.ReportMetric(took[len(took)/2], "p50-ms")
					b.ReportMetric(took[len(took)*95/100], "p95-ms")
					b.ReportMetric(milliseconds(used)/float64(len(took)), "CPU-ms")
					b.ReportMetric(trips[0], "trips")
					b.ReportMetric(float64(size)/1000, "kB")
				})
			}
		})
	}
}

// BenchmarkRecognisedPage measures what a page costs of this process's CPU time that only says
// something to whoever is signed in, beside the same page for anybody and a GET of the session's
// copy by the client library alone; with one caller and with 64 at once, in turns.
func BenchmarkRecognisedPage(b *testing.B) {
	redis := testenv.Redis(b)
	c := newCrowded(b, testenv.Postgres(b), redis, "")
	show := func(v *page.Visit) error {
		return v.Show(http.StatusOK, page.Layout{Title: "Hello", Narrow: true, Content: page.Confirm(page.Confirmation{Action: "/account", Text: "Hello", Button: "Hello", Cancel: "/account"})})
	}
	c.node.kit.Get("/account/hello", page.SignedIn, show)
	c.node.kit.Get("/signin/hello", page.Anybody, show)
	options, err := redisstate.ClientOption(redis)
	if err != nil {
		b.Fatal(err)
	}
	client, err := rueidis.NewClient(options)
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	for _, mode := range []struct {
		name           string
		callers, calls int
	}{{"one caller", 1, 3000}, {"64 callers", 64, 100}} {
		b.Run(mode.name, func(b *testing.B) {
			cookie := c.signIn("admin")
			c.page("/account/hello", cookie)
			var copies []string
			eventually(b, func() (err error) {
				copies, err = client.Do(b.Context(), client.B().Keys().Pattern("*copy:session:*").Build()).AsStrSlice()
				if err == nil && len(copies) == 0 {
					err = fmt.Errorf("there is no copy of the session")
				}
				return err
			})
			sides := [2]func(){
				func() { c.page("/account/hello", cookie) },
				func() {
					if err := client.Do(b.Context(), client.B().Get().Key(copies[0]).Build()).Error(); err != nil {
						b.Error(err)
					}
					c.page("/signin/hello", "")
				},
			}
			var costs [2][]float64
			var ratios, slower []float64
			for round := 0; b.Loop(); round++ {
				var cost, took [2]float64
				for i := range sides {
					side := (i + round) % 2
					var group sync.WaitGroup
					used, began := cpuUsed(b), time.Now()
					for range mode.callers {
						group.Go(func() {
							for range mode.calls {
								sides[side]()
							}
						})
					}
					group.Wait()
					took[side] = time.Since(began).Seconds()
					cost[side] = float64((cpuUsed(b) - used).Nanoseconds()) / 1000 / float64(mode.callers*mode.calls)
					costs[side] = append(costs[side], cost[side])
				}
				ratios, slower = append(ratios, cost[0]/cost[1]), append(slower, took[0]/took[1])
			}
			for _, list := range [][]float64{costs[0], costs[1], ratios, slower} {
				slices.Sort(list)
			}
			middle := len(ratios) / 2
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(ratios[middle], "ratio")
			b.ReportMetric(slower[middle], "ratio-time")
			b.ReportMetric(costs[0][middle], "µs/page")
			b.ReportMetric(costs[1][middle], "µs/bare")
		})
	}
}

// BenchmarkSignInPage measures what a sign-in by the page costs of this process's CPU time, beside
// a login over the API, in turns. Passwords cost hardly anything here.
func BenchmarkSignInPage(b *testing.B) {
	const rounds, each = 21, 10
	c := newCrowded(b, testenv.Postgres(b), "", "")
	sides := [2]func(string){
		func(user string) { c.signIn(user) },
		func(user string) {
			login, err := json.Marshal(httpapi.LoginRequest{Username: user, Password: password})
			if err != nil {
				b.Fatal(err)
			}
			if a := c.ask("POST", "/api/login", "application/json", string(login)); a.StatusCode != http.StatusOK {
				b.Fatalf("%d %s", a.StatusCode, textOf(b, a))
			}
		},
	}
	var costs [2][]float64
	var ratios []float64
	for n := 0; b.Loop(); n++ {
		user := fmt.Sprint("user", n) // each may sign in so often, and not much more often
		c.user(user)
		sides[0](user)
		sides[1](user)
		for round := range rounds {
			var cost [2]float64
			for i := range sides {
				side, used := (i+round)%2, cpuUsed(b)
				for range each {
					sides[side](user)
				}
				cost[side] = float64((cpuUsed(b) - used).Microseconds()) / each
				costs[side] = append(costs[side], cost[side])
			}
			ratios = append(ratios, cost[0]/cost[1])
		}
	}
	for _, list := range [][]float64{costs[0], costs[1], ratios} {
		slices.Sort(list)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
	b.ReportMetric(costs[0][len(ratios)/2], "µs/page")
	b.ReportMetric(costs[1][len(ratios)/2], "µs/API")
}

// A crowded is a stage on PostgreSQL, and perhaps on Redis, where much is.
type crowded struct {
	*stage
	links  []*testenv.Link // to the servers behind it; none: it has no links
	direct string          // the URL of the database itself
}

// newCrowded starts a replica, on links to its servers if that is asked for.
func newCrowded(t testing.TB, database, redis, linked string) *crowded {
	t.Helper()
	c := &crowded{direct: database}
	link := func(server string) string {
		u, err := url.Parse(server)
		if err != nil {
			t.Fatal(err)
		}
		if linked == "" {
			return server
		}
		if _, _, err := net.SplitHostPort(u.Host); err != nil {
			t.Fatal(err)
		}
		l := testenv.NewLink(t, u.Host)
		c.links = append(c.links, l)
		u.Host = l.Addr
		return u.String()
	}
	w := newWorld(t, func(cfg *config.Config) {
		*cfg = *clusterConfig(t, link(database))
		cfg.State.Backend = config.StateSQL
		if redis != "" {
			cfg.State.Backend, cfg.Redis.URL = config.StateTiered, link(redis)
		}
		cfg.Cluster.InstanceID = "bench" + linked
		cfg.Revocation.Poll = config.Default().Revocation.Poll
	})
	c.stage = &stage{world: w}
	return c
}

// page gets a page, and returns how many bytes it has.
func (c *crowded) page(path, cookie string) int {
	r := httptest.NewRequestWithContext(c.t.Context(), http.MethodGet, path, nil)
	r.RemoteAddr = "198.18.0.1:4711"
	if !strings.HasPrefix(path, "/signin") {
		r.Header.Set("Cookie", cookie)
	}
	rec := httptest.NewRecorder()
	c.node.Handler().ServeHTTP(rec, r)
	if rec.Code != http.StatusOK {
		c.t.Fatalf("%s: %d\n%s", path, rec.Code, c.log.Tail())
	}
	return rec.Body.Len()
}

// trips gets a page, and returns how often the servers were asked meanwhile, by whomever.
func (c *crowded) trips(path, cookie string) (n int64) {
	for _, l := range c.links {
		n -= l.Asked()
	}
	c.page(path, cookie)
	for _, l := range c.links {
		n += l.Asked()
	}
	return n
}

// crowdID is the id of the nth user, session or event that crowd makes: a UUID.
func crowdID(kind string, n int) string { return fmt.Sprintf("%08x-0000-7000-8000-%s", n, kind) }

// What ends the ids of users, groups, sessions and events.
const (
	userKind    = "000000000001"
	sessionKind = "000000000002"
	eventKind   = "000000000003"
	groupKind   = "000000000004"
)

// crowd fills the database: with users who are all in the group "staff", a tenth of them also in
// one of a thousand teams; with events, half of them sign-ins, the newest last; and with sessions,
// to every second one of the newest sign-ins.
func (c *crowded) crowd(users, events, sessions int) {
	t := c.t
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.direct)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	c.signIn("admin")
	id := func(n, kind string) string {
		return "lpad(to_hex(" + n + "), 8, '0') || '-0000-7000-8000-" + kind + "'"
	}
	const name = "'user' || lpad(n::text, 8, '0')"
	now := time.Now().UnixMicro()
	who := fmt.Sprintf("(n::bigint * 7919 %% %d + 1)::int", users)
	for _, sql := range []string{
		"SET session_replication_role = replica",
		"SET synchronous_commit = off",
		fmt.Sprintf(`INSERT INTO users (id, username, name_key, email, first_name, last_name, password_hash, disabled, epoch, session_epoch, created_at, updated_at, version)
			SELECT %s, %s, %[2]s, %[2]s || '@example.com', 'First', 'Last', '', 0, 1, 1, 0, 0, 1 FROM generate_series(1, %d) n`, id("n", userKind), name, users),
		`INSERT INTO usergroups (id, name, name_key, created_at, updated_at, version) SELECT ` + id("n", groupKind) + `, 'team' || lpad(n::text, 4, '0'), 'team' || lpad(n::text, 4, '0'), 0, 0, 1 FROM generate_series(1, 1000) n`,
		`INSERT INTO usergroups (id, name, name_key, created_at, updated_at, version) VALUES ('` + crowdID(groupKind, 0) + `', 'staff', 'staff', 0, 0, 1)`,
		`INSERT INTO claims (id, name, name_key, short_name, held_value, created_at, updated_at, version) SELECT id, name, name_key, name, 'r', 0, 0, 1 FROM usergroups WHERE id LIKE '%` + groupKind + `'`,
		`INSERT INTO group_claims (group_id, claim_id) SELECT id, id FROM usergroups WHERE id LIKE '%` + groupKind + `'`,
		fmt.Sprintf(`INSERT INTO memberships (user_id, group_id, user_key) SELECT %s, '%s', %s FROM generate_series(1, %d) n`, id("n", userKind), crowdID(groupKind, 0), name, users),
		fmt.Sprintf(`INSERT INTO memberships (user_id, group_id, user_key) SELECT %s, %s, %s FROM generate_series(10, %d, 10) n`, id("n", userKind), id("(n / 10 % 1000 + 1)", groupKind), name, users),
		fmt.Sprintf(`INSERT INTO identity_marks (digest, kind, user_id, until_at) SELECT md5(n::text), 'email', %s, 0 FROM generate_series(1, %d) n`, id("n", userKind), users),
		fmt.Sprintf(`INSERT INTO audit_events (id, at_time, actor, action, target, outcome, address, detail)
			SELECT %s, %d + n::bigint * 1000, %s, (ARRAY['login', 'renew', 'login', 'logout'])[n %% 4 + 1], %s, CASE WHEN n %% 100 = 1 THEN 'denied' ELSE 'ok' END,
			'192.0.2.' || (n %% 256), '' FROM generate_series(1, %d) n`, id("n", eventKind), now-int64(events)*1000, id(who, userKind), id("n", sessionKind), events),
		fmt.Sprintf(`INSERT INTO state_records (kind, owner, id, value, version, expires_at)
			SELECT 'session', %s, %s, convert_to(replace(replace(convert_from(s.value, 'UTF8'), s.id, %[2]s), s.owner, %[1]s), 'UTF8'), s.version, s.expires_at
			FROM generate_series(%[3]d, %[4]d, 4) n, (SELECT * FROM state_records WHERE kind = 'session' LIMIT 1) s`,
			id(who, userKind), id("n", sessionKind), events-4*sessions+4, events),
		fmt.Sprintf(`INSERT INTO revocations (seq, kind, subject, epoch, issued_before, expires_at, created_at, actor, reason)
			SELECT (SELECT seq FROM revocation_head) + n, 'user', %s, 0, 1, %d, %d, %s, 'admin' FROM generate_series(1, 1000) n`, id(who, userKind), now+int64(24*time.Hour/time.Microsecond), now, id("(n * 31)", userKind)),
		"UPDATE revocation_head SET seq = seq + 1000",
		"VACUUM ANALYZE",
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	_, err = c.node.parts.Directory.CreateUser(t.Context(), directory.System(), directory.NewUser{Username: "wanted", Email: "wanted@elsewhere.example"})
	if err != nil {
		t.Fatal(err)
	}
}

// A namedPage is one that is measured.
type namedPage struct{ name, path string }

// pages are those that are measured, beside a crowd.
func (c *crowded) pages(users, events int) []namedPage {
	someone, staff := crowdID(userKind, users/2), crowdID(groupKind, 0)
	deep := fmt.Sprintf("user%08d", users*9/10)
	signedIn := crowdID(userKind, events*7919%users+1) // of the newest session
	return []namedPage{
		{"overview", "/admin"}, {"overview-48h", "/admin?span=48h"}, {"cluster", "/admin/cluster"},
		{"users", "/admin/users"}, {"users-deep", "/admin/users?after=" + deep}, {"users-back", "/admin/users?before=" + deep},
		{"users-descending", "/admin/users?order=desc"}, {"users-deep-descending", "/admin/users?order=desc&after=" + deep},
		{"users-prefix", "/admin/users?q=" + deep[:9]}, {"users-email", "/admin/users?q=wanted%40elsewhere.example"}, {"users-none", "/admin/users?q=nobody"},
		{"user", "/admin/users/" + someone}, {"user-token", "/admin/users/" + someone + "/token"}, {"user-factors", "/admin/users/" + someone + "/factors"},
		{"user-sessions", "/admin/users/" + signedIn + "/sessions"}, {"user-events", "/admin/users/" + someone + "/events"},
		{"groups", "/admin/groups"}, {"group", "/admin/groups/" + staff}, {"group-deep", "/admin/groups/" + staff + "?after=" + deep}, {"claims", "/admin/claims"},
		{"sessions", "/admin/sessions"}, {"sessions-of-one", "/admin/sessions?user=" + signedIn},
		{"sessions-deep", "/admin/sessions?after=" + crowdID(eventKind, events*3/4)}, {"sessions-ended", "/admin/sessions?after=" + crowdID(eventKind, events/4)},
		{"revocations", "/admin/revocations"}, {"limits", "/admin/limits"},
		{"audit", "/admin/audit"}, {"audit-person", "/admin/audit?actor=" + someone}, {"audit-action", "/admin/audit?action=logout"},
		{"audit-deep", "/admin/audit?after=" + crowdID(eventKind, events/10)}, {"audit-none", "/admin/audit?action=storage.rekey"},
		{"token", "/admin/token"}, {"checks", "/admin/checks"},
		{"account", "/account"}, {"account-sessions", "/account/sessions"}, {"account-events", "/account/events"}, {"signin", "/signin"},
	}
}

// cpuUsed is the CPU time of this process.
func cpuUsed(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
