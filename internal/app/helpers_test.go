package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/graceful"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

const password = "correct horse battery staple"

// patience is how long a test waits for what must come: long, because the machine may
// be busy with something else.
const patience = 2 * time.Minute

// TestMain lets more tests run side by side than there are processors: those that are
// parallel wait most of the time.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// soak reports whether long tests are to run at their full length.
func soak() bool { return os.Getenv("WATCHWORD_SOAK") != "" }

// A world is a replica with its HTTP face, an administrator and what it wrote to its
// log.
type world struct {
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

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// tail is the end of the log, for a test that fails.
func (l *logBuffer) tail() string {
	s := l.String()
	return s[max(0, len(s)-1000):]
}

// testConfig is a replica on a fresh SQLite database whose passwords cost little.
func testConfig(t testing.TB) *config.Config {
	cfg := config.Default()
	file := filepath.Join(t.TempDir(), "watchword.db")
	writeEmptyDatabase(t, file)
	cfg.Database.URL = "sqlite:" + file
	cfg.Server.PublicURL = "https://auth.example.com"
	cfg.Password.Memory, cfg.Password.Iterations = 64, 1
	cfg.Admin.Username, cfg.Admin.Password = "admin", password
	cfg.Revocation.Poll = 200 * time.Millisecond
	// A machine that stands still for some seconds is nothing that most tests are about.
	cfg.Revocation.MaxStaleness, cfg.Database.AcquireTimeout = time.Minute, time.Minute
	return cfg
}

// emptyDatabase returns the bytes of a SQLite database of the present schema, and its
// log's id, which each copy is to have for its own. To migrate each would be most of
// what many tests do.
var emptyDatabase = sync.OnceValues(func() (content []byte, logID string) {
	content, logID, err := makeEmptyDatabase()
	if err != nil {
		panic(err)
	}
	return content, logID
})

func makeEmptyDatabase() (content []byte, logID string, err error) {
	dir, err := os.MkdirTemp("", "watchword")
	if err != nil {
		return nil, "", err
	}
	defer os.RemoveAll(dir)
	ctx, file := context.Background(), filepath.Join(dir, "empty.db")
	db, err := sqldb.Open(ctx, sqldb.Config{URL: "sqlite:" + file})
	if err != nil {
		return nil, "", err
	}
	_, err = db.Migrate(ctx)
	if err == nil {
		err = db.QueryRow(ctx, "SELECT log_id FROM revocation_head").Scan(&logID)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return nil, "", err
	}
	content, err = os.ReadFile(file)
	return content, logID, err
}

func writeEmptyDatabase(t testing.TB, file string) {
	t.Helper()
	content, logID := emptyDatabase()
	own := make([]byte, len(logID)/2)
	_, _ = rand.Read(own)
	content = bytes.ReplaceAll(content, []byte(logID), []byte(hex.EncodeToString(own)))
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

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

// start makes the replica and waits until it is ready.
func (w *world) start() {
	w.t.Helper()
	w.begin()
	w.isReady()
}

// isReady waits until the replica is ready.
func (w *world) isReady() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if err := w.node.WaitReady(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// begin makes the replica.
func (w *world) begin() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	var err error
	w.node, err = New(ctx, Options{
		Config: w.cfg, Version: "test", State: w.own, Store: w.kept, Now: w.now,
		Logger: slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if !w.quiet {
		w.http = httptest.NewServer(w.node.Handler())
	}
}

func (w *world) stop() {
	w.node.Drain()
	if w.http != nil {
		w.http.Close()
	}
	if err := w.node.Close(); err != nil {
		w.t.Errorf("close: %v", err)
	}
}

// restart ends the replica and starts another one on the same database.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// code is the problem's code.
func (a answer) code() string {
	var p httpkit.Problem
	_ = json.Unmarshal(a.body, &p)
	return p.Code
}

func (w *world) do(method, path, token string, body any) answer {
	w.t.Helper()
	return w.send(w.request(method, path, token, body))
}

func (w *world) request(method, path, token string, body any) *http.Request {
	w.t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			w.t.Fatal(err)
		}
		reader = bytes.NewReader(encoded)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url()+path, reader)
	if err != nil {
		w.t.Fatal(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

// url is where the replica is reached.
func (w *world) url() string {
	if w.http == nil {
		return "http://127.0.0.1"
	}
	return w.http.URL
}

func (w *world) send(r *http.Request) answer {
	w.t.Helper()
	if w.http == nil {
		r.RequestURI, r.RemoteAddr = r.URL.RequestURI(), "127.0.0.1:50000"
		if r.Body == nil {
			r.Body = http.NoBody
		}
		rec := httptest.NewRecorder()
		w.node.Handler().ServeHTTP(rec, r)
		return answer{rec.Code, rec.Header(), rec.Body.Bytes()}
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, got}
}

// want fails unless the answer has the status and, if it is a problem, the code.
func (w *world) want(a answer, status int, code string) answer {
	w.t.Helper()
	if a.status != status || a.code() != code {
		w.t.Fatalf("got %d %q, want %d %q\n%s\n%s", a.status, a.code(), status, code, a.body, w.log.tail())
	}
	return a
}

func decode[T any](t testing.TB, a answer) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return v
}

// login returns what a login answers.
func (w *world) login(username string) httpapi.Grant {
	w.t.Helper()
	a := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: username, Password: password})
	return decode[httpapi.Grant](w.t, w.want(a, 200, ""))
}

// verify returns the claims of a token.
func (w *world) verify(token string) map[string]any {
	w.t.Helper()
	return decode[map[string]any](w.t, w.want(w.do("GET", "/api/verify", token, nil), 200, ""))
}

// accepts comes to accept a token. A replica that has been kept waiting is not sure
// for a moment (503).
func (w *world) accepts(token string) {
	w.t.Helper()
	eventually(w.t, func() error {
		a := w.do("GET", "/api/verify", token, nil)
		if a.code() == "revocation_stale" {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		w.want(a, 200, "")
		return nil
	})
}

// refuses comes to refuse a token with a code, and accepts it in no request that begins
// later than the bound after a moment.
func (w *world) refuses(token, code string, since time.Time, bound time.Duration) {
	w.t.Helper()
	eventually(w.t, func() error {
		began := time.Now()
		a := w.do("GET", "/api/verify", token, nil)
		if a.status == 200 && began.Sub(since) > bound {
			w.t.Errorf("accepted %v after it should have been refused with %s", began.Sub(since), code)
		}
		if a.code() != code {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		return nil
	})
}

// promised is by when what was revoked must be refused, far above the poll that finds
// it, even though tests let views be trusted for longer.
const promised = 10 * time.Second

// user makes a user in groups that give the claims, each written "short=value".
func (w *world) user(name string, claims ...string) string {
	w.t.Helper()
	ctx, d, system := w.t.Context(), w.node.parts.Directory, directory.System()
	group, err := d.CreateGroup(ctx, system, directory.NewGroup{Name: "of " + name})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range claims {
		short, value, _ := strings.Cut(c, "=")
		one, err := d.CreateClaim(ctx, system, directory.NewClaim{Name: name + " " + c, ShortName: short, Value: value})
		if err != nil {
			w.t.Fatal(err)
		}
		if err := d.AddClaim(ctx, system, group.ID, one.ID); err != nil {
			w.t.Fatal(err)
		}
	}
	u, err := d.CreateUser(ctx, system, directory.NewUser{Username: name, Password: password, Email: name + "@example.com",
		FirstName: "Travis", LastName: "Ester", Groups: []string{group.ID}})
	if err != nil {
		w.t.Fatal(err)
	}
	return u.ID
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
