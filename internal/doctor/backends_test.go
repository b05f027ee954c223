package doctor

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// A bench is a deployment of three replicas whose backends a test breaks. The replicas
// themselves are only said to live.
type bench struct {
	*Deployment
	t      *testing.T
	checks []Check
	admin  *sql.DB // of the database's administrator
	user   string  // of the replicas in the database
	url    string  // by which the database was opened
}

// A fault is planted, and a check has to name it with these words, and to be silent before and
// afterwards.
type fault struct {
	id    string
	plant func(b *bench) (undo func())
	words []string
}

func newBench(t *testing.T, checks []Check) *bench {
	cfg := config.Default()
	cfg.Cluster.Enabled = true
	cfg.Database.MaxConnections = 5
	b := &bench{t: t, checks: checks, Deployment: &Deployment{Config: cfg, Installation: "aaaaaaaaaaaaaaaa", Now: time.Now, Cluster: &cluster.Status{}}}
	for range 3 {
		b.Cluster.Replicas = append(b.Cluster.Replicas, cluster.ReplicaStatus{Standing: cluster.Live})
	}
	b.Cluster.Replicas = append(b.Cluster.Replicas, cluster.ReplicaStatus{Standing: cluster.Gone})
	return b
}

// open opens a database, as a replica does.
func (b *bench) open(url string) {
	b.t.Helper()
	b.url, b.Config.Database.URL = url, url
	b.DB, b.DBErr = sqldb.Open(b.t.Context(), sqldb.Config{URL: url, MaxConnections: b.Config.Database.MaxConnections})
	if b.DBErr != nil {
		b.t.Fatal(b.DBErr)
	}
	b.t.Cleanup(func() { b.DB.Close() })
	if _, err := b.DB.Migrate(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// onServer opens a database of a server, for a user without any right beyond it.
func (b *bench) onServer(s *testenv.Server) {
	b.t.Helper()
	b.admin = testenv.SQL(b.t, s.URL)
	tenant := s.Tenant(b.t)
	b.open(tenant)
	u, err := url.Parse(tenant)
	if err != nil {
		b.t.Fatal(err)
	}
	b.user = u.User.Username()
}

// exec runs statements as the administrator.
func (b *bench) exec(statements ...string) {
	b.t.Helper()
	for _, s := range statements {
		if _, err := b.admin.ExecContext(context.Background(), s); err != nil {
			b.t.Fatalf("%s: %v", s, err)
		}
	}
}

// reconnect ends the connections of the replicas' user, and waits for others.
func (b *bench) reconnect() {
	b.t.Helper()
	if b.DB.Dialect() == sqldb.MySQL {
		b.exec("KILL USER " + b.user + "@'127.0.0.1'")
	} else {
		b.exec("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE usename = '" + b.user + "'")
	}
	b.again(func() error { return b.DB.Ping(context.Background()) })
}

// again does something until it succeeds.
func (b *bench) again(f func() error) {
	b.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for err := f(); err != nil; err = f() {
		if time.Now().After(deadline) {
			b.t.Fatal(err)
		}
	}
}

// statements are planted by one statement of the administrator and mended by another. Both have
// the name of the replicas' user for %s.
func statements(plant, undo string) func(*bench) func() {
	return func(b *bench) func() {
		of := func(s string) string { return strings.ReplaceAll(s, "%s", b.user) }
		b.exec(of(plant))
		return func() { b.exec(of(undo)) }
	}
}

// reconnected is statements for what new connections alone get.
func reconnected(plant, undo string) func(*bench) func() {
	return func(b *bench) func() {
		undo := statements(plant, undo)(b)
		b.reconnect()
		return func() { undo(); b.reconnect() }
	}
}

// changed changes the deployment as the doctor sees it, and puts it back.
func changed(change func(*Deployment)) func(*bench) func() {
	return func(b *bench) func() {
		was, settings := *b.Deployment, *b.Config
		change(b.Deployment)
		return func() { *b.Deployment, *b.Config = was, settings }
	}
}

func configured(change func(*config.Config)) func(*bench) func() {
	return changed(func(d *Deployment) { change(d.Config) })
}

func (b *bench) run(id string) Result {
	b.t.Helper()
	for _, c := range b.checks {
		if c.ID == id {
			return c.run(b.t.Context(), b.Deployment)
		}
	}
	b.t.Fatalf("there is no check %s", id)
	return Result{}
}

// healthy holds that no check finds anything, that none does not know, and which ones have
// nothing to look at.
func (b *bench) healthy(skipped ...string) {
	b.t.Helper()
	var has []string
	for _, r := range Run(b.t.Context(), b.Deployment, b.checks) {
		switch r.Status {
		case Skipped:
			has = append(has, r.ID)
		case OK:
		default:
			b.t.Errorf("%s is %s: %s %+v", r.ID, r.Status, r.Reason, r.Findings)
		}
	}
	if !slices.Equal(has, skipped) {
		b.t.Errorf("these have nothing to look at: %q, and not %q", has, skipped)
	}
}

// finds plants each fault and holds that its check names it, and nothing when it is mended.
func (b *bench) finds(faults ...fault) {
	b.t.Helper()
	for _, f := range faults {
		b.t.Run(f.id, func(t *testing.T) {
			all := b.t
			b.t = t
			defer func() { b.t = all }()
			before := b.run(f.id)
			undo := f.plant(b)
			r := b.run(f.id)
			undo()
			after := b.run(f.id)
			if before.Status == Failed || after.Status == Failed {
				t.Errorf("it finds before: %+v, afterwards: %+v", before.Findings, after.Findings)
			}
			says(t, r, f.words...)
		})
	}
}

// says holds that a check has failed, and that its findings have these words.
func says(t *testing.T, r Result, words ...string) {
	t.Helper()
	if r.Status != Failed {
		t.Fatalf("%s is %s: %s", r.ID, r.Status, r.Reason)
	}
	var text strings.Builder
	for _, f := range r.Findings {
		if f.Seen == "" || f.Mend == "" {
			t.Errorf("it says too little: %+v", f)
		}
		fmt.Fprintf(&text, "%s\n%s\n%s\n", f.Subject, f.Seen, f.Mend)
	}
	t.Logf("%s", text.String())
	for _, w := range words {
		if !strings.Contains(text.String(), w) {
			t.Errorf("it does not say %q:\n%s", w, text.String())
		}
	}
}

// unknown holds that a check could not look, and says what to look at.
func unknown(t *testing.T, r Result, words ...string) {
	t.Helper()
	if r.Status != Unknown {
		t.Errorf("%s is %s: %+v", r.ID, r.Status, r.Findings)
	}
	for _, w := range words {
		if !strings.Contains(r.Reason, w) {
			t.Errorf("%s does not say %q: %s", r.ID, w, r.Reason)
		}
	}
}

// redis runs a command on the server of the deployment.
func (b *bench) redis(words ...string) {
	b.t.Helper()
	if err := b.Redis.Do(context.Background(), b.Redis.B().Arbitrary(words...).Build()).Error(); err != nil {
		b.t.Fatalf("%q: %v", words, err)
	}
}

// onRedis connects to a Redis.
func (b *bench) onRedis(url string) {
	b.t.Helper()
	b.Config.Redis.URL = url
	b.Redis = redisClient(b.t, url)
}

func redisClient(t *testing.T, url string) rueidis.Client {
	t.Helper()
	option, err := rueidis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	option.DisableCache = true
	client, err := rueidis.NewClient(option)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}
