package cluster

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// Secrets are those of a replica, which the test changes.
type secrets struct{ kids atomic.Pointer[[]string] }

func (s *secrets) set(kids ...string) { s.kids.Store(&kids) }
func (s *secrets) get() []string      { return *s.kids.Load() }

// joinWith starts a replica that accepts the secrets.
func joinWith(t testing.TB, r Registry, c *clock, instance string, kids ...string) (*Cluster, *secrets) {
	t.Helper()
	s := &secrets{}
	s.set(kids...)
	cfg := config(r, c, instance)
	cfg.Secrets = s.get
	return join(t, cfg), s
}

// lookAll has time pass until each replica has written and read.
func lookAll(t testing.TB, c *clock, all ...*Cluster) {
	t.Helper()
	for range 2 {
		c.Move(timing.Beat)
		for _, cl := range all {
			look(t, cl)
		}
	}
}

// A secret is accepted when every other live replica has written that it accepts it.
func TestAccepted(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	a, ofA := joinWith(t, r, c, "auth-0", "former")
	b, ofB := joinWith(t, r, c, "auth-1", "former")
	d, ofD := joinWith(t, r, c, "auth-2", "former")
	lookAll(t, c, a, b, d)
	accepted := func(kid string, want bool) {
		t.Helper()
		if got := a.Accepted(kid); got != want {
			t.Errorf("%s is accepted: %v", kid, got)
		}
	}
	accepted("former", true)
	accepted("next", false)
	ofA.set("next", "former")
	ofB.set("next", "former")
	for _, cl := range []*Cluster{a, b} {
		cl.SecretsChanged()
		look(t, cl) // as Run does at once
	}
	lookAll(t, c, a)
	accepted("next", false) // auth-2 does not
	ofD.set("former", "next")
	d.SecretsChanged()
	look(t, d)
	lookAll(t, c, a)
	accepted("next", true)
	accepted("former", true)
	ofB.set("next")
	b.SecretsChanged()
	look(t, b)
	lookAll(t, c, a)
	accepted("former", false)
	ofB.set()
	b.SecretsChanged()
	look(t, b)
	lookAll(t, c, a)
	accepted("next", false)
	if err := b.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	lookAll(t, c, a)
	accepted("next", true)
}

// A silent replica is not waited for, nor is a row that somebody kept and writes again. Without
// others, and without a cluster, each secret is accepted.
func TestAcceptedByTheLive(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	a, _ := joinWith(t, r, c, "auth-0", "next", "former")
	if !a.Accepted("next") || !(&Alone{}).Accepted("next") {
		t.Error("a replica that is alone waits for others")
	}
	b, _ := joinWith(t, r, c, "auth-1", "former")
	look(t, b)
	c.Move(timing.Beat)
	look(t, a)
	if a.Accepted("next") {
		t.Error("the other one does not accept it")
	}
	silence := func() {
		t.Helper()
		exec(t, r, "UPDATE replicas SET beat_at = beat_at - ? WHERE instance = 'auth-1'", timing.LiveFor.Microseconds())
		c.Move(timing.Beat)
		look(t, a)
	}
	silence()
	if a.Accepted("next") {
		t.Error("a replica that has just started takes another one for gone, though the database may have been away")
	}
	lookAll(t, c, a)
	lookAll(t, c, a)
	if !a.Accepted("next") {
		t.Error("a silent replica is waited for")
	}
	look(t, b)
	c.Move(timing.LiveFor) // the database is away
	silence()
	if a.Accepted("next") {
		t.Error("after an outage a replica that could not beat is taken for gone")
	}
	for range 2 {
		lookAll(t, c, a)
	}
	if !a.Accepted("next") {
		t.Error("a silent replica is waited for")
	}
	kept := sign(t, store.Replica{Instance: "auth-2", Incarnation: "x", Secrets: []string{"former"}, EnteredAt: time.Unix(1, 0), ClockAt: time.Now().Add(-timing.ClockSkew - time.Second)})
	if _, err := r.EnterRegistry(t.Context(), kept, 0); err != nil {
		t.Fatal(err)
	}
	look(t, a)
	if !a.Accepted("next") || a.Ready() != nil {
		t.Errorf("a row from ten minutes ago counts: %v", a.Ready())
	}
}

func exec(t testing.TB, r *testRegistry, query string, args ...any) {
	t.Helper()
	if _, err := r.db.Exec(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// Of two replicas with different secrets, the one that started later takes no traffic and says
// which other one differs, however the clocks of the replicas stand.
func TestSecretDiffers(t *testing.T) {
	for _, tt := range []struct {
		name          string
		first, second []string
		differs       bool
	}{
		{"the same", []string{"a"}, []string{"a"}, false},
		{"one in common", []string{"a", "b"}, []string{"c", "b"}, false},
		{"different", []string{"a"}, []string{"b"}, true},
		{"part of a kid in common", []string{"ab"}, []string{"a", "b"}, true},
		{"the later one has none", []string{"a", "a"}, nil, true},
		{"the later one has none, and no secret signs", []string{"a"}, nil, false},
		{"the later one does not accept what signs", []string{"a", "a", "b"}, []string{"b"}, true},
		{"the earlier one has none", nil, []string{"a"}, false},
		{"neither has any", nil, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := openRegistry(t)
			ahead, behind := &clock{}, &clock{}
			ahead.Move(3 * time.Second)
			a, _ := joinWith(t, r, ahead, "auth-1", tt.first...)
			log := &logBuffer{}
			cfg := config(r, behind, "auth-0")
			cfg.Secrets, cfg.Logger = func() []string { return tt.second }, slog.New(slog.NewTextHandler(log, nil))
			b := join(t, cfg)
			check := func() {
				t.Helper()
				if err := a.Ready(); err != nil {
					t.Errorf("the one that started earlier: %v", err)
				}
				err := b.Ready()
				if tt.differs != errors.Is(err, errSecretDiffers) || !tt.differs && err != nil || tt.differs && !strings.Contains(err.Error(), "replica auth-1,") {
					t.Errorf("the one that started later: %v", err)
				}
			}
			check() // from the start
			for range 3 {
				for _, cl := range []*Cluster{a, b} {
					look(t, cl)
				}
				check()
				ahead.Move(timing.Beat)
				behind.Move(timing.Beat)
			}
			if n := strings.Count(log.String(), "has other signing secrets"); n != map[bool]int{true: 1}[tt.differs] {
				t.Errorf("it is logged %d times", n)
			}
			if err := a.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			look(t, b)
			if err := b.Ready(); err != nil {
				t.Errorf("when the other one is gone: %v", err)
			}
		})
	}
}

// A replica that was away while the others changed to another secret takes no traffic until it
// accepts what they sign with, although it entered first and they accept its own secret. They go
// on. It does not say of their tokens that they are forged.
func TestReturnAfterAChange(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	former, next := strings.Repeat("f", secretKid), strings.Repeat("n", secretKid)
	a, ofA := joinWith(t, r, c, "auth-0", former, former)
	b, ofB := joinWith(t, r, c, "auth-1", former, former)
	lookAll(t, c, a, b)
	ofB.set(next, next, former) // auth-0 was silent
	lookAll(t, c, b)
	if _, err := a.Find(next); !errors.Is(err, accesstoken.ErrUnknownKey) {
		t.Errorf("a secret that is unknown so far: %v", err)
	}
	look(t, a)
	lookAll(t, c, a, b)
	if err := a.Ready(); !errors.Is(err, errSecretDiffers) || !strings.Contains(err.Error(), "replica auth-1,") {
		t.Errorf("the one that was away: %v", err)
	}
	if _, err := a.Find(next); !errors.Is(err, errSecretDiffers) {
		t.Errorf("what the other one signs with: %v", err)
	}
	if err := b.Ready(); err != nil || !b.Accepted(next) {
		t.Errorf("the other one: %v", err)
	}
	if d, _ := joinWith(t, r, c, "auth-2", next, former); !d.Accepted(next) {
		t.Error("a third one waits for the one that takes no traffic")
	}
	ofA.set(former, next, former)
	look(t, a) // finds that its secrets have changed
	if err := a.Ready(); err != nil {
		t.Errorf("with the secret: %v", err)
	}
	// Of two that would refuse each other's tokens, the one that entered first goes on.
	ofA.set("x", "x")
	ofB.set("y", "y")
	lookAll(t, c, a, b)
	if a.Ready() != nil || b.Ready() == nil {
		t.Errorf("ready: %v, %v", a.Ready(), b.Ready())
	}
}

// Exactly one of two replicas that the database saw enter at the same moment is ready.
func TestSecretDiffersAtOnce(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	a, _ := joinWith(t, r, c, "auth-0", "a")
	b, _ := joinWith(t, r, c, "auth-1", "b")
	moment := a.registry.entered
	a.registry.entered, b.registry.entered = moment, moment
	for _, cl := range []*Cluster{b, a, b} {
		cl.SecretsChanged()
		look(t, cl)
	}
	if a.Ready() != nil || b.Ready() == nil {
		t.Errorf("ready: %v, %v", a.Ready(), b.Ready())
	}
}

// A database's writer who gives a replica other secrets, or another moment of entry, is not
// believed, and puts nobody out of service.
func TestForgedSecrets(t *testing.T) {
	for name, forge := range map[string]string{
		"other secrets":                      "UPDATE replica_secrets SET secrets = 'forged' WHERE instance = 'auth-0'",
		"none":                               "DELETE FROM replica_secrets WHERE instance = 'auth-0'",
		"more":                               "UPDATE replica_secrets SET secrets = secrets || ' next' WHERE instance = 'auth-0'",
		"a later entry":                      "UPDATE replica_secrets SET entered_at = entered_at + 1 WHERE instance = 'auth-0'",
		"the row of a replica that has none": `INSERT INTO replica_secrets SELECT 'auth-2', incarnation, 'forged', 1 FROM replicas WHERE instance = 'auth-2'`,
	} {
		t.Run(name, func(t *testing.T) {
			c, r := &clock{}, openRegistry(t)
			a, _ := joinWith(t, r, c, "auth-0", "a")
			d := join(t, config(r, c, "auth-2"))
			b, _ := joinWith(t, r, c, "auth-1", "a")
			for _, cl := range []*Cluster{a, d, b} {
				look(t, cl)
			}
			if b.Accepted("a") {
				t.Fatal("auth-2 has no secret")
			}
			exec(t, r, forge)
			c.Move(timing.Beat)
			look(t, b)
			if err := b.Ready(); err != nil {
				t.Error(err)
			}
			if b.Accepted("next") || b.Accepted("forged") {
				t.Error("a forged secret is accepted")
			}
			if n := count(t, b.metrics.rejected, wrongMAC); n != 1 {
				t.Errorf("%d rows are rejected", n)
			}
			lookAll(t, c, a, d, b) // a beat mends it
			if slices.ContainsFunc(b.registry.replicas, func(o store.Replica) bool { return o.Instance == "auth-0" }) != true {
				t.Error("the replica's own beat does not mend its row")
			}
		})
	}
}

// Versions before secrets believe the row of a replica without any, and replicas with secrets
// that of an older version, with which they have nothing in common and nothing to object.
func TestSecretsInARollingUpdate(t *testing.T) {
	s, err := newSecret(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	c, r := &clock{}, openRegistry(t)
	old := store.Replica{Instance: "auth-0", Incarnation: "x", Version: "0.1", ClockAt: c.Now()}
	old.MAC = sum(s.replicas, old.Instance, old.Incarnation, old.URL, old.Version, old.Config,
		old.MaxAge.Microseconds(), store.Micros(old.StartedAt), store.Micros(old.ClockAt), old.Seen)
	if !s.ownsReplica(old) {
		t.Fatal("the MAC of a row without secrets has changed")
	}
	if _, err := r.EnterRegistry(t.Context(), old, 0); err != nil {
		t.Fatal(err)
	}
	a, _ := joinWith(t, r, c, "auth-1", "a")
	if a.Ready() != nil || a.Accepted("a") || a.Live() != 2 {
		t.Errorf("ready: %v, accepted: %v, live: %d", a.Ready(), a.Accepted("a"), a.Live())
	}
	// An older version takes the place of a newer one: it deletes the row, and not what belongs to it.
	exec(t, r, "DELETE FROM replicas WHERE instance = 'auth-1'")
	exec(t, r, "UPDATE replicas SET instance = 'auth-1'")
	all, err := r.Registered(t.Context())
	if err != nil || len(all.Replicas) != 1 || all.Replicas[0].Secrets != nil || !all.Replicas[0].EnteredAt.IsZero() {
		t.Errorf("%+v, %v", all.Replicas, err)
	}
}

// A row comes back from each database as it was written.
func TestSecretsInTheDatabase(t *testing.T) {
	for name, url := range map[string]string{"postgres": testenv.Postgres(t), "mysql": testenv.MariaDB(t), "sqlite": "sqlite:" + t.TempDir() + "/watchword.db"} {
		t.Run(name, func(t *testing.T) {
			db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			if _, err := db.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			r, c := sqlstore.New(db), &clock{}
			a, of := joinWith(t, r, c, "auth-0", "one", "two")
			for _, want := range [][]string{{"one", "two"}, {"three"}, nil} {
				of.set(want...)
				a.SecretsChanged()
				look(t, a)
				all, err := r.Registered(t.Context())
				if err != nil || len(all.Replicas) != 1 || !slices.Equal(all.Replicas[0].Secrets, want) || !all.Replicas[0].EnteredAt.Equal(a.registry.entered) {
					t.Fatalf("%+v, %v", all.Replicas, err)
				}
				if !a.secret.ownsReplica(all.Replicas[0]) {
					t.Errorf("with %v the row is not vouched for", want)
				}
			}
			if err := a.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			var left int
			if err := db.QueryRow(t.Context(), "SELECT COUNT(*) FROM replica_secrets").Scan(&left); err != nil || left != 0 {
				t.Errorf("%d rows are left, %v", left, err)
			}
		})
	}
}

// A replica that signs with a secret serves a key set without keys. A cache may hold it, so that
// the first key of another replica does not sign at once.
func TestKeySetsOfReplicasWithSecrets(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	joinWith(t, r, c, "auth-0", "secret")
	d := join(t, config(r, c, "auth-1"))
	if !d.AnyKey(time.Time{}) {
		t.Error("no cache can hold a key set without keys, and a live replica serves one")
	}
	alone, _ := joinWith(t, openRegistry(t), c, "auth-0", "secret")
	lookAll(t, c, alone)
	if alone.AnyKey(time.Time{}) {
		t.Error("a replica holds itself up")
	}
}
