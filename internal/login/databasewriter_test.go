package login

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// An attacker who can write the database changes every column of every row of the shared state, in
// every way that the database takes, and puts back the record of a session that has ended. That
// session is not renewed while the log has its entry. A live one is renewed only with its own
// refresh token, for its own user, and not beyond its end. The same holds for the cookies of browsers. A user whose records cannot be read can
// log in. No bucket lets more through than its rate says.

// stateTables are the tables of the shared state, each with the column that names a row.
var stateTables = map[string]string{"state_records": "id", "state_rates": "id"}

// A stateStage is a service with six sessions, three of apps and three of browsers: one of ada's that
// has ended, one of hers that is live, and one of bob's.
type stateStage struct {
	t       *testing.T
	s       *Service
	db      *sqldb.DB
	store   *sqlstate.Store
	columns sqldbtest.Columns
	later   time.Duration // by how much the clock of sessions and of their store is later
	metrics *prometheus.Registry

	ended, live, bobs Grant
	cookies           struct{ ended, live, bobs Grant }
	spent             string            // ended's refresh token before its last one
	before, now       sqldbtest.Content // before and after the one session has ended
	attacks, renewed  int
	recognised        int
}

const stageTTL = time.Hour

var stageRate = state.Rate{Burst: 3, Period: time.Hour}

func newStateStage(t *testing.T) *stateStage {
	service, _ := newService(t)
	db := sqldbtest.Open(t)
	g := &stateStage{t: t, s: service, db: db, columns: sqldbtest.Schema(t, db).Only(t, "state_records", "state_rates"), metrics: prometheus.NewRegistry()}
	clock := func() time.Time { return time.Now().Add(g.later) }
	g.store = sqlstate.New(db, clock)
	service.Sessions = session.New(session.Config{
		State: g.store, TTL: stageTTL, RefreshDuration: 10 * stageTTL, RenewGrace: time.Minute, MaxPerUser: 5,
		Revoked: service.View.SessionRevoked, Now: clock, Rand: rand.Reader, Logger: slog.New(slog.DiscardHandler), Registerer: g.metrics,
	})
	return g
}

// set begins the sessions anew.
func (g *stateStage) set() {
	g.t.Helper()
	g.later = 0
	g.s.begun = budget{rate: sessionRate}
	g.load(nil)
	g.ended, g.live, g.bobs = g.login("ada", Client{}), g.login("ada", Client{}), g.login("bob", Client{})
	g.cookies.ended, g.cookies.live, g.cookies.bobs = g.login("ada", desktop), g.login("ada", desktop), g.login("bob", desktop)
	g.spent = g.ended.RefreshToken
	var err error
	if g.ended, err = g.s.Renew(g.t.Context(), g.spent, "", Client{}); err != nil {
		g.t.Fatal(err)
	}
	for _, id := range []string{"a", "b"} {
		for range 2 {
			if _, err := g.store.Limit(g.t.Context(), bucket(id), stageRate); err != nil {
				g.t.Fatal(err)
			}
		}
	}
	g.before = sqldbtest.Dump(g.t, g.db, g.columns)
	token, err := g.s.Verify(g.t.Context(), g.ended.AccessToken)
	if err == nil {
		err = g.s.logout(g.t.Context(), sessionOf(token), Client{})
	}
	if err == nil {
		err = g.s.SignOut(g.t.Context(), g.cookies.ended.Cookie, desktop)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	g.now = sqldbtest.Dump(g.t, g.db, g.columns)
	if len(g.before["state_records"]) != 6 || len(g.now["state_records"]) != 4 {
		g.t.Fatal("the records are not those of the sessions")
	}
}

func bucket(id string) state.Key { return state.Key{Kind: "test", Owner: "o", ID: id} }

func (g *stateStage) login(name string, client Client) Grant {
	g.t.Helper()
	step, err := g.s.Begin(g.t.Context(), Credential{name, "right", ""}, "", client)
	if err != nil {
		g.t.Fatal(err)
	}
	return step.Grant
}

func (g *stateStage) load(c sqldbtest.Content) {
	g.t.Helper()
	if err := sqldbtest.Load(g.t, g.db, g.columns, c); err != nil {
		g.t.Fatal(err)
	}
}

// spliced is a refresh token, or a cookie, with some bytes of another one.
func spliced(t *testing.T, token, other string, from, to int) string {
	t.Helper()
	prefix := token[:len(session.RefreshPrefix)]
	var raw [2][]byte
	for i, s := range []string{token, other} {
		var err error
		if raw[i], err = base64.RawURLEncoding.DecodeString(s[len(prefix):]); err != nil {
			t.Fatal(err)
		}
	}
	copy(raw[0][from:to], raw[1][from:to])
	return prefix + base64.RawURLEncoding.EncodeToString(raw[0])
}

// changes are what somebody makes of the tables: of those of now, and of those in which the
// session that has ended is back.
func (g *stateStage) changes() []sqldbtest.Change {
	all := sqldbtest.Changes(g.columns, stateTables, g.before, g.now)
	for _, c := range sqldbtest.Changes(g.columns, stateTables, g.now, g.before) {
		c.Name += ", and the session that has ended is back"
		all = append(all, c)
	}
	to := g.before.Clone()
	for _, row := range to["state_records"] {
		row["owner"] = bobID
	}
	all = append(all, sqldbtest.Change{Name: "all records are bob's", To: to})
	// What the records say of themselves is changed.
	for _, says := range [][2]string{
		{`"epoch":1`, `"epoch":9000000`}, {`"expires_at":"2`, `"expires_at":"9`}, {`"turn":`, `"ended":false,"turn":1`},
		{adaID, bobID}, {`"created_at":"2`, `"created_at":"1`}, {`"recent":[`, `"recent":[{},`}, {`{`, `[`}, {`"current":"`, `"current":"A`},
		{`"cookie":"`, `"cookie":"A`}, {`"browser":true`, `"browser":false`}, {`"cookie_id":"`, `"cookie_id":"x`},
	} {
		to, found := g.before.Clone(), false
		for _, row := range to["state_records"] {
			value := string(row["value"].([]byte))
			found = found || strings.Contains(value, says[0])
			row["value"] = []byte(strings.Replace(value, says[0], says[1], 1))
		}
		if !found {
			g.t.Fatalf("no record says %s", says[0])
		}
		all = append(all, sqldbtest.Change{Name: "all records say " + says[1], To: to})
	}
	return all
}

func (g *stateStage) play(c sqldbtest.Change) {
	t, s, began := g.t, g.s, time.Now()
	t.Helper()
	if sqldbtest.Load(t, g.db, g.columns, c.To) != nil {
		return // the database does not take it
	}
	g.attacks++
	unreadable := g.unreadable()
	refused := func(what, refresh string) {
		t.Helper()
		if grant, err := s.Renew(t.Context(), refresh, "", Client{}); err == nil {
			t.Errorf("%s: %s is renewed, as %s", c.Name, what, grant.SessionID)
		}
	}
	// The family's part of a refresh token is what nobody else has.
	refused("with bob's secrets, ada's session", spliced(t, g.live.RefreshToken, g.bobs.RefreshToken, 32, 80))
	refused("with ada's secrets, bob's session", spliced(t, g.bobs.RefreshToken, g.live.RefreshToken, 32, 80))
	refused("for bob, ada's session", spliced(t, g.live.RefreshToken, g.bobs.RefreshToken, 0, 16))
	refused("the session that has ended", g.ended.RefreshToken)
	refused("the session that has ended, with a spent token,", g.spent)
	live, bobs := g.cookies.live.Cookie, g.cookies.bobs.Cookie
	unknown := func(what, cookie string) {
		t.Helper()
		if b, err := s.Recognise(t.Context(), cookie); err == nil {
			t.Errorf("%s: %s is recognised, as %s", c.Name, what, b.Session.ID)
		}
	}
	unknown("with bob's secret, ada's browser", spliced(t, live, bobs, 32, 64))
	unknown("with ada's secret, bob's browser", spliced(t, bobs, live, 32, 64))
	unknown("for bob, ada's browser", spliced(t, live, bobs, 0, 16))
	unknown("with the family of a refresh token, ada's browser", spliced(t, live, g.live.RefreshToken, 16, 64))
	unknown("the browser's session that has ended", g.cookies.ended.Cookie)
	for user, of := range map[string]Grant{adaID: g.cookies.live, bobID: g.cookies.bobs} {
		b, err := s.Recognise(t.Context(), of.Cookie)
		if err != nil {
			if p := problem.From(err); p.Kind != problem.Unauthenticated && p.Kind != problem.Unavailable {
				t.Errorf("%s: a browser is not recognised otherwise than it should be: %v", c.Name, err)
			}
			continue
		}
		g.recognised++
		if b.Token.Subject != user || b.Token.SessionID != of.SessionID || b.Session.UserID != user {
			t.Errorf("%s: a browser of %s is one of %s in %s", c.Name, user, b.Token.Subject, b.Token.SessionID)
		}
	}
	if _, err := s.Verify(t.Context(), g.ended.AccessToken); err == nil {
		t.Errorf("%s: a token of the session that has ended is accepted", c.Name)
	}
	for id, n := range map[string]int{"a": 0, "b": 0} {
		for range 2 * stageRate.Burst {
			if d, err := g.store.Limit(t.Context(), bucket(id), stageRate); err == nil && d.Allowed {
				n++
			}
		}
		if n > stageRate.Burst {
			t.Errorf("%s: a bucket of %d lets %d through", c.Name, stageRate.Burst, n)
		}
	}
	left := []string{g.live.RefreshToken, g.bobs.RefreshToken}
	for i, of := range []struct {
		user string
		was  Grant
	}{{adaID, g.live}, {bobID, g.bobs}} {
		grant, err := s.Renew(t.Context(), of.was.RefreshToken, "", Client{})
		if err != nil {
			if p := problem.From(err); p.Kind != problem.Unauthenticated && p.Kind != problem.Unavailable && p.Kind != problem.TooMany {
				t.Errorf("%s: a renewal fails otherwise than it should: %v", c.Name, err)
			}
			continue
		}
		left[i] = grant.RefreshToken
		token, err := s.Verify(t.Context(), grant.AccessToken)
		if err != nil {
			continue // such as one that says that its user logged in before 1970
		}
		g.renewed++
		if token.Subject != of.user || token.SessionID != of.was.SessionID {
			t.Errorf("%s: the token of a renewal is for %s in %s", c.Name, token.Subject, token.SessionID)
		}
	}
	for _, user := range []string{adaID, bobID} {
		_, _, err := s.Sessions.List(t.Context(), user, "", 100)
		if p := problem.From(err); err != nil && p.Kind != problem.Unavailable {
			t.Errorf("%s: the list of sessions: %v", c.Name, err)
		}
	}
	// One whose rows the database itself cannot read is not let in either: nobody knows how many
	// sessions they have.
	if _, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", Client{}); err != nil && problem.From(err).Kind != problem.Unavailable {
		t.Errorf("%s: a login: %v", c.Name, err)
	}
	if c.Column == "state_records.value" && g.unreadable() == unreadable && !strings.Contains(c.Name, "before") {
		t.Errorf("%s: nobody counts a record that cannot be read", c.Name)
	}
	g.later = stageTTL
	for i, refresh := range left {
		if !strings.Contains(c.Name, `"expires_at"`) { // who writes a whole record decides when it ends
			refused(fmt.Sprint("beyond its end, session ", i), refresh)
			unknown("beyond its end, a browser's session", []string{live, bobs}[i])
		}
	}
	if took := time.Since(began); took > 30*time.Second { // on a busy machine; by itself it takes a tenth of a second
		t.Errorf("%s: it takes %v", c.Name, took)
	}
}

func (g *stateStage) unreadable() float64 {
	families, err := g.metrics.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "watchword_session_unreadable_records_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

func TestStateWriter(t *testing.T) {
	t.Parallel()
	g := newStateStage(t)
	g.set()
	all := g.changes()
	mathrand.New(mathrand.NewPCG(testenv.Seed(t), 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	// Each column is attacked in some ways, at random, and rows and tables in as many; in a long test
	// in all.
	const some = 7
	tried := map[string]int{}
	for _, planned := range all {
		of := planned.Table + planned.Column
		if tried[of]++; tried[of] > some && planned.Table != "" && os.Getenv("WATCHWORD_SOAK") == "" {
			continue
		}
		g.set()
		for _, c := range g.changes() { // the same of the new sessions
			if c.Name == planned.Name {
				g.play(c)
			}
		}
	}
	t.Logf("summary: %d attacks on the rows of the shared state, after which %d sessions were renewed and %d browsers recognised", g.attacks, g.renewed, g.recognised)
	if g.attacks < 50 || g.renewed < g.attacks/2 || g.recognised < g.attacks/2 {
		t.Error("the test attacks next to nothing, or renews or recognises next to nothing")
	}
}
