package app

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/doctor"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

// A recorder passes requests on and keeps them, as somebody on the way could.
type recorder struct {
	*httptest.Server
	mu       sync.Mutex
	requests []http.Header
	bodies   [][]byte
}

// newRecorder answers as a handler does; nil: 200 and {} to everybody.
func newRecorder(t *testing.T, next http.Handler) *recorder {
	t.Helper()
	rec := &recorder{}
	rec.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rec.mu.Lock()
		rec.requests, rec.bodies = append(rec.requests, r.Header.Clone()), append(rec.bodies, body)
		rec.mu.Unlock()
		if next == nil {
			_, _ = w.Write([]byte("{}"))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(rec.Close)
	return rec
}

// TestDoctorAsksReplicas has a doctor ask real replicas, and attacks what is between them.
func TestDoctorAsksReplicas(t *testing.T) {
	database := testenv.Postgres(t)
	start := func(name string) *world {
		return join(t, database, func(cfg *config.Config) {
			cfg.Cluster.InstanceID, cfg.Tokens.PKCS11.PIN = name, "4711"
			cfg.Tokens.Secret, cfg.Tokens.Keys, cfg.Storage.Key = "u8Qm2xW4e7Rt9yP1a3Sd5fG6hJ8kL0zX", config.KeysDatabase, "kQ0m9x3pYd7a1Zr5c8Vb2nL6tHs4wEoJgU+iFyKqXRM="
		})
	}
	one, two := start("auth-0"), start("auth-1")
	line, stranger := newRecorder(t, one.node.Handler()), newRecorder(t, nil)
	gone := httptest.NewServer(nil)
	gone.Close()
	cfg := *one.cfg
	cfg.Server.PublicURL = line.URL
	d, closeAll, err := operator.OpenDeployment(t.Context(), &cfg, slog.New(slog.DiscardHandler), []string{line.URL, two.URL, stranger.URL, gone.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := closeAll(); err != nil {
			t.Error(err)
		}
	}()
	if d.DBErr != nil || d.ClusterErr != nil || d.Cluster == nil || len(d.Cluster.Replicas) != 2 || d.State == nil || d.Installation == "" {
		t.Fatalf("%+v", d)
	}
	if len(d.Replicas) != 4 {
		t.Fatalf("%d replicas", len(d.Replicas))
	}
	secrets := []string{cfg.Cluster.Secret, cfg.Tokens.Secret, cfg.Storage.Key, cfg.Admin.Password, database}
	migrations, err := sqldb.Migrations()
	if err != nil {
		t.Fatal(err)
	}
	a, b := d.Replicas[0], d.Replicas[1]
	for i, r := range []doctor.Replica{a, b} {
		f := r.Facts
		if r.Err != nil || f.Problem != "" || f.Ready != "" || f.Instance != []string{"auth-0", "auth-1"}[i] || f.Installation != d.Installation ||
			f.Schema != migrations[len(migrations)-1].Version || f.Version != "test" || time.Since(f.Time) > time.Minute || f.Signs == "" || f.Token != "" {
			t.Errorf("%+v, %v", f, r.Err)
		}
		text, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range secrets {
			if bytes.Contains(text, []byte(s)) {
				t.Errorf("the replica told %q", s)
			}
		}
		if f.Settings["tokens.token_duration"] != "30m" && f.Settings["tokens.token_duration"] != "30m0s" || !strings.HasPrefix(f.Settings["cluster.secret"], "hmac:") {
			t.Errorf("settings %v", f.Settings)
		}
	}
	if a.Facts.Process == b.Facts.Process || a.Facts.Process == "" {
		t.Error("two processes look like one")
	}
	for _, key := range []string{"cluster.secret", "tokens.secret", "storage.key"} {
		if a.Facts.Settings[key] != b.Facts.Settings[key] || !strings.HasPrefix(a.Facts.Settings[key], "hmac:") {
			t.Errorf("%s differs between replicas that have the same", key)
		}
	}
	// What is compared with nobody's is not told by a digest, which can be guessed at.
	for _, key := range []string{"database.url", "tokens.pkcs11.pin"} {
		if got := a.Facts.Settings[key]; got != "set" {
			t.Errorf("of %s the replica tells %q", key, got)
		}
	}
	for i, r := range d.Replicas[2:] {
		if r.Err == nil || r.Facts.Instance != "" {
			t.Errorf("the %d. that is no replica is believed: %+v", i, r)
		}
	}

	ask := func(base string, q doctor.Question) doctor.Facts {
		t.Helper()
		f, err := d.Ask(t.Context(), base, q)
		if err != nil || f.Problem != "" {
			t.Fatalf("%v, %s", err, f.Problem)
		}
		return f
	}
	if ask(two.URL, doctor.Question{Read: "never-written"}).Found {
		t.Error("a record is found that nobody wrote")
	}
	ask(line.URL, doctor.Question{Write: "a-record"})
	if !ask(two.URL, doctor.Question{Read: "a-record"}).Found {
		t.Error("what one replica wrote, the other one does not find")
	}
	for i, base := range []string{line.URL, two.URL, two.URL} {
		if n := ask(base, doctor.Question{Count: "a-counter"}).Counted; n != int64(i) {
			t.Errorf("counted %d, want %d", n, i)
		}
	}
	if _, err := d.Ask(t.Context(), "https://elsewhere.example.com", doctor.Question{}); err == nil {
		t.Error("an address is asked that is no replica of this cluster")
	}
	if f, err := d.Ask(t.Context(), two.URL, doctor.Question{Read: "../x"}); err == nil {
		t.Errorf("a name that is none: %+v", f)
	}
	through, err := d.Through(t.Context(), http.Header{"X-Forwarded-For": {"192.0.2.1"}}, doctor.Question{})
	if err != nil || through.Instance != "auth-0" || !slices.Equal(through.Request.XForwardedFor, []string{"192.0.2.1"}) || through.Request.Client != "127.0.0.1" {
		t.Errorf("%+v, %v", through.Request, err)
	}

	// The token of a doctor is accepted by replicas that are asked as replicas are, and by nothing
	// else, until it is revoked.
	issued := ask(line.URL, doctor.Question{Issue: true})
	accepted := func() bool {
		t.Helper()
		ok, err := d.Accepts(t.Context(), two.URL, issued.Token)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if !accepted() {
		t.Error("the token is not accepted")
	}
	two.want(two.do("GET", "/api/verify", issued.Token, nil), 401, "invalid_token")
	two.want(two.do("GET", "/api/users", issued.Token, nil), 401, "invalid_token")
	ask(line.URL, doctor.Question{Revoke: issued.TokenID})
	kit.Await(t, "the token is refused", func() bool { return !accepted() })

	// What went over the line, and to the stranger, has no secret and no token in it.
	secrets = append(secrets, issued.Token, issued.TokenID, a.Facts.Settings["storage.key"], "a-record", "a-counter")
	for _, rec := range []*recorder{line, stranger} {
		rec.mu.Lock()
		if len(rec.bodies) == 0 {
			t.Error("nothing was recorded")
		}
		for i, body := range rec.bodies {
			var head bytes.Buffer
			_ = rec.requests[i].Write(&head)
			for _, s := range secrets {
				if bytes.Contains(body, []byte(s)) || strings.Contains(head.String(), s) {
					t.Errorf("%q was sent in the open", s)
				}
			}
		}
		rec.mu.Unlock()
	}

	// A question that was recorded is not answered again, and not with another nonce.
	line.mu.Lock()
	header, body := line.requests[0].Clone(), line.bodies[0]
	line.mu.Unlock()
	replay := func(w *world, nonce string) answer {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL+cluster.ExaminePath, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = header.Clone()
		if nonce != "" {
			r.Header.Set(cluster.HeaderNonce, nonce)
		}
		return w.send(r)
	}
	one.want(replay(one, ""), 403, "question_replayed")
	one.want(replay(one, "another-nonce-of-some-length"), 403, "not_a_replica")
	one.want(one.do("POST", cluster.ExaminePath, "", cluster.ExamineQuestion{Sealed: []byte("x")}), 400, "nonce_invalid")
	huge, err := http.NewRequestWithContext(t.Context(), http.MethodPost, one.URL+cluster.ExaminePath, strings.NewReader(`{"question":"`+strings.Repeat("A", httpkit.MaxBody)+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	one.want(one.send(huge), 413, "body_too_large")

	// A doctor with another secret is told nothing, and says so.
	other := cfg
	other.Cluster.Secret = strings.Repeat("another secret ", 4)
	foreign, closeForeign, err := operator.OpenDeployment(t.Context(), &other, slog.New(slog.DiscardHandler), []string{two.URL})
	if err != nil {
		t.Fatal(err)
	}
	if foreign.Replicas[0].Err == nil || foreign.Replicas[0].Facts.Settings != nil || foreign.Cluster.Rejected == 0 {
		t.Errorf("%+v", foreign.Replicas[0])
	}
	if err := closeForeign(); err != nil {
		t.Error(err)
	}
}

// A replica counts what it finds in /readyz, and tells nobody there what it is; one that is alone
// answers no doctor.
func TestDoctorOfAReplica(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *bubble) {
		w := newQuietWorld(t, func(cfg *config.Config) { cfg.MFA.Required.Mode = config.RequiredNever })
		a := w.want(w.do("GET", "/readyz", "", nil), 200, "")
		if strings.Contains(string(a.body), "checks") {
			t.Errorf("before it has looked: %s", a.body)
		}
		time.Sleep(3 * time.Minute)
		counted := decode[httpapi.Readiness](t, w.want(w.do("GET", "/readyz", "", nil), 200, ""))
		last := w.node.doctor.Last()
		if last == nil || counted.Checks == nil || counted.Checks.Warnings != last.Counts().Warnings || counted.Checks.Errors != last.Counts().Errors || counted.Checks.Warnings == 0 {
			t.Fatalf("%+v of %+v", counted.Checks, last)
		}
		if a := w.do("GET", "/readyz", "", nil); strings.Contains(string(a.body), "mfa") {
			t.Errorf("it tells everybody: %s", a.body)
		}
		if n := w.metric(`watchword_doctor_checks{severity="warning",status="failed"}`); n < 1 {
			t.Errorf("the metric is %v", n)
		}
		found := false
		for _, r := range last.Results {
			found = found || r.ID == "mfa-required" && r.Status == doctor.Failed
		}
		if !found || strings.Count(w.log.String(), "mfa-required") != 1 {
			t.Errorf("the check found nothing, or was not logged once: %+v", last)
		}
		w.node.doctor.Look(t.Context())
		if n := strings.Count(w.log.String(), "mfa-required"); n != 1 {
			t.Errorf("it was logged %d times", n)
		}
		r := w.request("POST", cluster.ExaminePath, "", cluster.ExamineQuestion{Sealed: []byte("x")})
		r.Header.Set(cluster.HeaderNonce, "0123456789abcdef")
		w.want(w.send(r), 404, "no_cluster")
	})
}
