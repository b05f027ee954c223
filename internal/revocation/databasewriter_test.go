package revocation

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// An attacker who can write the database changes every column of every row of the revocation log
// and of its head, in every way that the database takes. What a live replica has read stays
// revoked for it and for its readers, for a replica that starts later and reaches it, and for one
// that starts after that and reaches the second alone. A replica that starts when no other can be
// asked lacks no more than the rows that were changed. What is revoked afterwards is refused by all
// that count as fresh, or it could not be recorded.

// logTables are the tables of the log, each with the column that names a row.
var logTables = map[string]string{"revocations": "seq", "revocation_head": "id"}

// A logStage is a database whose log has an entry of each kind, and a token for each.
type logStage struct {
	t       *testing.T
	db      *sqldb.DB
	store   Store
	columns sqldbtest.Columns
	before  sqldbtest.Content // when the log had half of its entries
	now     sqldbtest.Content
	tokens  []*accesstoken.Token // by the row that revokes it
	good    *accesstoken.Token
	later   time.Duration // by how much the replicas' clocks are later than this machine's
	attacks int
}

func (s *logStage) time() time.Time { return time.Now().Add(s.later) }

func newLogStage(t *testing.T) *logStage {
	db := sqldbtest.Open(t)
	s := &logStage{t: t, db: db, store: sqlstore.New(db), columns: sqldbtest.Schema(t, db).Only(t, slices.Collect(maps.Keys(logTables))...)}
	issued := time.Now().Add(-time.Hour)
	end := time.Now().Add(1000 * time.Hour)
	other := func(i int) *accesstoken.Token {
		return &accesstoken.Token{KeyID: fmt.Sprint("key-", i), Subject: fmt.Sprint("user-", i), SessionID: fmt.Sprint("session-", i),
			ID: fmt.Sprint("token-", i), Epoch: 4, IssuedAt: issued}
	}
	l := &Log{Store: s.store, Now: s.time}
	for i, r := range []store.Revocation{
		{Kind: string(revoked.Token), Subject: "token-0"},
		{Kind: string(revoked.Session), Subject: "session-1"},
		{Kind: string(revoked.User), Subject: "user-2", Epoch: 5},
		{Kind: string(revoked.User), Subject: "user-3", IssuedBefore: time.Now()},
		{Kind: string(revoked.Key), Subject: "key-4"},
		{Kind: string(revoked.Session), Subject: "session-5"},
	} {
		if i == 3 {
			s.before = sqldbtest.Dump(t, db, s.columns)
		}
		r.ExpiresAt, r.Reason = end, "test"
		if _, err := l.Append(t.Context(), sqlstore.New(db), r); err != nil {
			t.Fatal(err)
		}
		s.tokens = append(s.tokens, other(i))
	}
	s.good, s.now = other(len(s.tokens)), sqldbtest.Dump(t, db, s.columns)
	return s
}

// start starts a replica that can reach some others.
func (s *logStage) start(peers ...*replica) *replica {
	s.t.Helper()
	r := &replica{logged: new(journal), metrics: prometheus.NewRegistry()}
	var err error
	if r.View, err = NewView(Config{
		Store: s.store, Poll: time.Second, MaxStaleness: 5 * time.Second, Now: s.time,
		Logger: slog.New(slog.NewTextHandler(r.logged, nil)), Registerer: r.metrics,
	}); err != nil {
		s.t.Fatal(err)
	}
	r.log = &Log{Store: s.store, View: r.View, Now: s.time}
	others := new(views)
	others.are(nil, peers...)
	r.Follow(others)
	r.Learn(s.t.Context())
	return r
}

// live lets replicas do what they do in some seconds, in which a view that is not confirmed goes
// stale. It returns the errors that they would log.
func (s *logStage) live(name string, rs ...*replica) (err error) {
	s.t.Helper()
	for range 3 {
		s.later += 2 * time.Second
		for _, r := range rs {
			began := time.Now()
			err = errors.Join(err, r.Refresh(s.t.Context()))
			if took := time.Since(began); took > 15*time.Second { // on a busy machine; by itself it takes milliseconds
				s.t.Errorf("%s: reading the log takes %v", name, took)
			}
		}
	}
	for _, r := range rs {
		if _, sweep := r.Sweep(s.t.Context()); sweep != nil {
			err = errors.Join(err, sweep)
		}
	}
	return err
}

// refuses fails unless a replica refuses the tokens of the rows, but for some.
func (s *logStage) refuses(name string, r *replica, lost func(row int) bool) {
	s.t.Helper()
	for i, token := range s.tokens {
		if err := r.Check(s.t.Context(), token); err == nil && !lost(i) {
			s.t.Errorf("%s: what row %d revokes is accepted", name, i)
		}
	}
}

// A follower reads the feed of a replica as package verify does.
type follower struct {
	list revoked.List
	log  string
	next int64
	asOf time.Time
}

func (f *follower) follow(s *logStage, name string, r *replica) {
	s.t.Helper()
	for range 100 {
		asked := s.time()
		p, err := r.Page("", f.next, 3)
		if err != nil {
			return
		}
		if p.Log != f.log || p.Snapshot {
			from := f.next
			f.log, f.next = p.Log, 0
			if from > 0 && !p.Snapshot {
				continue
			}
		}
		if f.list.Apply(p.Entries...) != nil {
			return
		}
		f.next = max(f.next, p.Next())
		if !p.More {
			f.asOf = asked.Add(-time.Duration(p.Age) * time.Millisecond)
			return
		}
	}
	s.t.Errorf("%s: the feed does not end", name)
}

// accepts reports whether the reader accepts a token.
func (f *follower) accepts(s *logStage, token *accesstoken.Token) bool {
	_, listed := f.list.Revoked(token)
	return !listed && revoked.Age(f.asOf, s.time()) <= 5*time.Second
}

// An assault is what somebody makes of the log.
type assault struct {
	sqldbtest.Change
	lost func(row int) bool // what revokes that is missing to a replica that is alone
}

// seen reports whether a live replica must notice an assault: the head is not one that follows the
// one that it has read, or the last entry is another one.
func (s *logStage) seen(a assault) bool {
	last := len(s.now["revocations"]) - 1
	to := a.To["revocation_head"]
	switch {
	case len(to) == 0, a.Column == "revocation_head.id", a.Column == "revocation_head.log_id":
		return true
	case a.Column == "revocation_head.seq":
		n, ok := to[0]["seq"].(int64)
		return !ok || n < int64(last+1)
	}
	return a.Row == last && (a.Column == "revocations.kind" || a.Column == "revocations.subject")
}

func (s *logStage) play(a assault) {
	s.t.Helper()
	load := func(c sqldbtest.Content) error { return sqldbtest.Load(s.t, s.db, s.columns, c) }
	if load(a.To) != nil {
		return // the database does not take it
	}
	s.attacks++
	s.later = 0
	if err := load(s.now); err != nil {
		s.t.Fatal(err)
	}
	nothing := func(int) bool { return false }
	one, reader := s.start(), new(follower)
	if err := s.live(a.Name, one); err != nil || strings.Contains(one.logged.String(), "level=ERROR") {
		s.t.Fatal("without an attack: ", err, one.logged)
	}
	reader.follow(s, a.Name, one)
	s.refuses("without an attack", one, nothing)
	if err := one.Check(s.t.Context(), s.good); err != nil || !reader.accepts(s, s.good) {
		s.t.Fatal("without an attack a good token is refused: ", err)
	}
	if err := load(a.To); err != nil {
		s.t.Fatal(err)
	}
	said := s.live(a.Name, one)
	if s.seen(a) && said == nil && !strings.Contains(one.logged.String(), "the revocation log") {
		s.t.Errorf("%s: nobody says so", a.Name)
	}
	s.refuses(a.Name+", live", one, nothing)
	second := s.start(one)
	_ = s.live(a.Name, second)
	s.refuses(a.Name+", later", second, nothing)
	third := s.start(second)
	_ = s.live(a.Name, third)
	s.refuses(a.Name+", after that", third, nothing)
	// The live ones may have written a new id. The attacker does it all again.
	if err := load(a.To); err != nil {
		s.t.Fatal(err)
	}
	alone := s.start()
	_ = s.live(a.Name, one, alone)
	s.refuses(a.Name+", alone", alone, a.lost)

	fresh := &accesstoken.Token{KeyID: "k", Subject: "u", SessionID: "s", ID: fmt.Sprint("fresh-", s.attacks), IssuedAt: time.Now()}
	_, err := one.log.Append(s.t.Context(), sqlstore.New(s.db), store.Revocation{Kind: string(revoked.Token), Subject: fresh.ID, ExpiresAt: time.Now().Add(1000 * time.Hour), Reason: "test"})
	_ = s.live(a.Name, one, second, third, alone)
	newcomer := new(follower)
	for _, f := range []*follower{reader, newcomer} {
		f.follow(s, a.Name, one)
	}
	for i, token := range s.tokens {
		if reader.accepts(s, token) || newcomer.accepts(s, token) && !one.replaced.Load() {
			s.t.Errorf("%s: a reader of the feed accepts what row %d revokes", a.Name, i)
		}
	}
	if err != nil {
		return // it was not recorded, and the administrator hears of it
	}
	for i, r := range []*replica{one, second, third, alone} {
		if err := r.Check(s.t.Context(), fresh); err == nil {
			s.t.Errorf("%s: replica %d accepts what was revoked afterwards", a.Name, i)
		}
	}
	if reader.accepts(s, fresh) || newcomer.accepts(s, fresh) {
		s.t.Errorf("%s: a reader of the feed accepts what was revoked afterwards", a.Name)
	}
	if _, listed := one.list.Revoked(fresh); !listed {
		return
	}
	if err := load(a.To); err != nil { // the row is gone
		s.t.Fatal(err)
	}
	last := s.start(one)
	_ = s.live(a.Name, last)
	if err := last.Check(s.t.Context(), fresh); err == nil {
		s.t.Errorf("%s: a replica that starts accepts what was revoked afterwards", a.Name)
	}
}

// assaults are on single columns, rows and tables, and some on several at once.
func (s *logStage) assaults() (single, several []assault) {
	for _, c := range sqldbtest.Changes(s.columns, logTables, s.before, s.now) {
		lost := func(row int) bool {
			return c.Table == "revocations" && (c.Row == row || c.Row < 0 && (len(c.To["revocations"]) == 0 || row >= len(s.before["revocations"])))
		}
		single = append(single, assault{c, lost})
	}
	all := func(int) bool { return true }
	add := func(name string, lost func(int) bool, change func(to sqldbtest.Content)) {
		to := s.now.Clone()
		change(to)
		several = append(several, assault{sqldbtest.Change{Name: name, Row: -1, To: to}, lost})
	}
	newest := func(row int) bool { return row >= len(s.before["revocations"]) }
	add("both as before", newest, func(to sqldbtest.Content) { maps.Copy(to, s.before.Clone()) })
	add("both as before, in another log", newest, func(to sqldbtest.Content) {
		maps.Copy(to, s.before.Clone())
		to["revocation_head"][0]["log_id"] = "another"
	})
	add("no entries, in another log", all, func(to sqldbtest.Content) {
		to["revocations"] = nil
		to["revocation_head"][0]["log_id"], to["revocation_head"][0]["seq"] = "another", int64(0)
	})
	add("no entries, in a log with a number below 0", all, func(to sqldbtest.Content) {
		to["revocations"] = nil
		to["revocation_head"][0]["seq"] = int64(-1000)
	})
	add("no entries, in the log that peers name for those of former ones", all, func(to sqldbtest.Content) {
		to["revocations"] = nil
		to["revocation_head"][0]["log_id"] = revoked.Former
	})
	add("both as before, and an id that is no text", newest, func(to sqldbtest.Content) {
		maps.Copy(to, s.before.Clone())
		to["revocation_head"][0]["log_id"] = []byte(to["revocation_head"][0]["log_id"].(string))
	})
	add("nothing at all", all, func(to sqldbtest.Content) { clear(to) })
	add("an entry far beyond the head", nil, func(to sqldbtest.Content) {
		far := maps.Clone(to["revocations"][0])
		far["seq"], far["subject"] = int64(1e15), "somebody"
		to["revocations"] = append(to["revocations"], far)
	})
	add("a head far beyond the entries", nil, func(to sqldbtest.Content) { to["revocation_head"][0]["seq"] = int64(1e15) })
	add("the other end of the numbers", nil, func(to sqldbtest.Content) {
		to["revocation_head"][0]["seq"] = int64(1<<63 - 1)
	})
	for i := range several {
		if several[i].lost == nil {
			several[i].lost = func(int) bool { return false }
		}
	}
	return single, several
}

func TestDatabaseWriter(t *testing.T) {
	t.Parallel()
	s := newLogStage(t)
	single, all := s.assaults()
	mathrand.New(mathrand.NewPCG(testenv.Seed(t), 0)).Shuffle(len(single), func(i, j int) { single[i], single[j] = single[j], single[i] })
	// Each column is attacked in some ways, at random, and rows and tables in as many; in a long test
	// in all.
	const some = 5
	tried := map[string]int{}
	for _, a := range single {
		of := a.Table + a.Column
		if tried[of]++; tried[of] <= some || os.Getenv("WATCHWORD_SOAK") != "" {
			all = append(all, a)
		}
	}
	for _, a := range all {
		s.play(a)
	}
	t.Logf("summary: %d attacks on the rows of the revocation log", s.attacks)
	if s.attacks < 50 {
		t.Error("the test attacks next to nothing")
	}
}
