package app

import (
	"context"
	"flag"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/graceful"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

const (
	password      = kit.Password
	clusterSecret = kit.ClusterSecret
	patience      = kit.Patience
)

var discard = slog.New(slog.DiscardHandler)

// TestMain lets more tests run side by side than there are processors: those that are
// parallel wait most of the time.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// A world is a replica with its HTTP face, an administrator and what it wrote to its
// log. The embedded World, which has what all tests of replicas share, is there once the
// replica has begun.
type world struct {
	*kit.World

	t    testing.TB
	cfg  *config.Config
	own  state.Store      // nil: what the configuration names
	kept store.Store      // the same for what must last
	now  func() time.Time // nil: the clock of the machine
	node *Node
	http *httptest.Server // nil: requests go to the handler itself
	log  *logBuffer

	quiet bool // there is to be no http
}

type logBuffer = testenv.Log

func testConfig(t testing.TB) *config.Config { return kit.Config(t) }

func clusterConfig(t testing.TB, database string) *config.Config {
	return kit.ClusterConfig(t, database)
}

func storedKeys(cfg *config.Config) { kit.StoredKeys(cfg) }

func newWorld(t testing.TB, change func(*config.Config)) *world {
	t.Helper()
	return newWorldOn(t, nil, change)
}

// newWorldOn is newWorld with a state of the test's own.
func newWorldOn(t testing.TB, own state.Store, change func(*config.Config)) *world {
	t.Helper()
	cfg := testConfig(t)
	if change != nil {
		change(cfg)
	}
	cfg.Complete()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, cfg: cfg, own: own, log: &logBuffer{}}
	w.start()
	t.Cleanup(w.stop)
	return w
}

// join starts a replica of a cluster.
func join(t testing.TB, database string, change func(*config.Config)) *world {
	t.Helper()
	return newWorld(t, func(cfg *config.Config) {
		*cfg = *clusterConfig(t, database)
		if change != nil {
			change(cfg)
		}
	})
}

// begin makes the replica.
func (w *world) begin() {
	w.t.Helper()
	w.World = &kit.World{Client: kit.Client{T: w.t, Log: w.log}, Quiet: w.quiet}
	w.Open = func(ctx context.Context, logger *slog.Logger) (_ kit.Replica, err error) {
		w.node, err = New(ctx, Options{Config: w.cfg, Version: "test", State: w.own, Store: w.kept, Now: w.now, Logger: logger})
		return w.node, err
	}
	w.Begin()
	w.http = w.Server
}

// start makes the replica and waits until it is ready.
func (w *world) start()   { w.t.Helper(); w.begin(); w.IsReady() }
func (w *world) isReady() { w.t.Helper(); w.IsReady() }
func (w *world) stop()    { w.Stop() }

// restart ends the replica and starts another one on the same database.
func (w *world) restart() { w.t.Helper(); w.stop(); w.start() }

// kill ends what the replica does without a word to the others, as a kill -9 would.
func (w *world) kill() {
	w.node.stop()
	w.node.loops.Wait()
}

// An answer is a kit.Answer.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) code() string { return kit.Answer{Body: a.body}.Code() }

func decode[T any](t testing.TB, a answer) T {
	t.Helper()
	return kit.Decode[T](t, kit.Answer{Body: a.body})
}

func (w *world) do(method, path, token string, body any) answer {
	w.t.Helper()
	return w.send(w.request(method, path, token, body))
}

func (w *world) request(method, path, token string, body any) *http.Request {
	w.t.Helper()
	return w.Request(method, path, token, body)
}

func (w *world) send(r *http.Request) answer {
	w.t.Helper()
	a := w.Send(r)
	return answer{a.Status, a.Header, a.Body}
}

// want fails unless the answer has the status and, if it is a problem, the code.
func (w *world) want(a answer, status int, code string) answer {
	w.t.Helper()
	w.Want(kit.Answer{Status: a.status, Header: a.header, Body: a.body}, status, code)
	return a
}

func (w *world) login(username string) httpapi.Grant { w.t.Helper(); return w.Login(username) }

func (w *world) verify(token string) map[string]any { w.t.Helper(); return w.Verify(token) }

func (w *world) accepts(token string) { w.t.Helper(); w.Accepts(token) }

func (w *world) refuses(token, code string, since time.Time, bound time.Duration) {
	w.t.Helper()
	w.Refuses(token, code, since, bound)
}

// renew spends a refresh token and returns the next one.
func (w *world) renew(token string) (next string, a answer) {
	w.t.Helper()
	g, got := w.Renew(token)
	return g.RefreshToken, answer{got.Status, got.Header, got.Body}
}

// revoke has an administrator revoke something.
func (w *world) revoke(token string, what map[string]any) { w.t.Helper(); w.Revoke(token, what) }

func (w *world) metric(name string) float64 { w.t.Helper(); return w.Metric(name) }

func sum(t testing.TB, metrics, name string) (float64, bool) {
	t.Helper()
	return kit.Sum(t, metrics, name)
}

func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	kit.Await(w.t, what, ok, w.log.Tail)
}

// user makes a user in a group that gives the claims, each written "short=value".
func (w *world) user(name string, claims ...string) string {
	w.t.Helper()
	return kit.AddUser(w.t, w.node.parts.Directory, name, claims...)
}

func (w *world) head() int64 { w.t.Helper(); return kit.Head(w.t, w.node.parts.Store) }

func (w *world) outlive(after int64, until time.Time) {
	w.t.Helper()
	kit.Outlives(w.t, w.node.parts.Store, after, until)
}

func (w *world) overload(user string) (claims []string) {
	w.t.Helper()
	return kit.Overload(w.t, w.node.parts.Store, user)
}

func eventually(t testing.TB, f func() error) { t.Helper(); kit.Eventually(t, f) }

func insist(t testing.TB, f func(ctx context.Context) error) { t.Helper(); kit.Insist(t, f) }

func kidOf(t testing.TB, token string) string { t.Helper(); return kit.KeyID(t, token) }

func redisClient(t *testing.T, url string) rueidis.Client { t.Helper(); return kit.Redis(t, url) }

// sqliteFile is where a replica's database is.
func sqliteFile(c *config.Config) string {
	file, _ := sqldb.SQLiteFile(c.Database.URL)
	return file
}

// serve answers with h where cfg says, as Serve does, and returns the server.
func serve(t *testing.T, cfg *config.Config, h http.Handler) *graceful.Server {
	t.Helper()
	s, err := listen(cfg, h, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Abort() })
	return s
}
