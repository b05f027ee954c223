package sqlstate_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// A record and its owner, with the claims, come by one statement, and are what two would
// have read.
func TestARecordBringsItsOwner(t *testing.T) {
	for name, url := range map[string]func(t *testing.T) string{
		"sqlite":    func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "w.db") },
		"postgres":  func(t *testing.T) string { return testenv.Postgres(t) },
		"pgbouncer": func(t *testing.T) string { return testenv.PgBouncer(t, testenv.Postgres(t)).URL },
		"mariadb":   func(t *testing.T) string { return testenv.MariaDB(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var statements atomic.Int64
			db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url(t), AcquireTimeout: time.Minute, Timeout: 2 * time.Minute,
				Watch: func(string, []any, error) { statements.Add(1) }})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			if _, err := db.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			sessions, users := sqlstate.New(db, time.Now), sqlstore.New(db)
			now := time.Now().Truncate(time.Microsecond)
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			user := func(id string, verified bool) {
				must(users.CreateUser(t.Context(), store.User{ID: id, Username: "Ünï " + id, NameKey: "name-" + id, Email: id + "@example.com", EmailVerified: verified,
					FirstName: "F", LastName: "L", PasswordHash: "hash", Epoch: inAThousandYears + 1, SessionEpoch: 2, CreatedAt: now, UpdatedAt: now}))
			}
			user("u1", true)
			user("u2", false)
			for i := range 3 {
				id := fmt.Sprint("g", i)
				must(users.CreateGroup(t.Context(), store.Group{ID: id, Name: id, NameKey: id, CreatedAt: now, UpdatedAt: now}))
				must(users.AddMember(t.Context(), "u1", id))
			}
			for i := range 6 {
				id := fmt.Sprint("c", i)
				must(users.CreateClaim(t.Context(), store.Claim{ID: id, Name: "Ñame " + id, NameKey: "key-" + id, ShortName: fmt.Sprint("short-", i%2), Value: fmt.Sprint("v", 9-i), CreatedAt: now, UpdatedAt: now}))
				must(users.AddClaim(t.Context(), fmt.Sprint("g", i%3), id))
				must(users.AddClaim(t.Context(), "g0", id)) // from two groups
			}
			keyOf := func(owner string) state.Key { return state.Key{Kind: "session", Owner: owner, ID: "s"} }
			value := []byte{0, 1, 0xff, '\''}
			for _, owner := range []string{"u1", "u2", "nobody"} {
				if _, err := sessions.Create(t.Context(), keyOf(owner), value, time.Hour); err != nil {
					t.Fatal(err)
				}
			}

			ctx := store.WithWantedSubject(t.Context())
			for _, owner := range []string{"u1", "u2"} {
				want, wantErr := sessions.Get(t.Context(), keyOf(owner))
				u, claims, err := users.UserWithClaims(t.Context(), owner)
				must(errors.Join(wantErr, err))
				before := statements.Load()
				got, err := sessions.Get(ctx, keyOf(owner))
				must(err)
				if n := statements.Load() - before; n != 1 {
					t.Errorf("%s: it took %d statements", owner, n)
				}
				if fmt.Sprint(got) != fmt.Sprint(want) || string(got.Value) != string(value) {
					t.Errorf("%s: the record is %+v, want %+v", owner, got, want)
				}
				if _, ok := store.SubjectWanted(ctx).Take("another"); ok {
					t.Errorf("%s passes for another user", owner)
				}
				s, ok := store.SubjectWanted(ctx).Take(owner)
				if !ok || s.User != u || !slices.Equal(s.Claims, claims) || owner == "u1" && (len(claims) != 6 || !u.EmailVerified) {
					t.Errorf("%s came as %+v, %v, want %+v with %+v", owner, s, ok, u, claims)
				}
				if _, ok := store.SubjectWanted(ctx).Take(owner); ok {
					t.Errorf("%s can be taken twice", owner)
				}
			}

			// What came along with another record is forgotten.
			for name, c := range map[string]struct {
				key  state.Key
				want error
			}{
				"no such user":   {keyOf("nobody"), nil},
				"no such record": {state.Key{Kind: "session", Owner: "u1", ID: "none"}, state.ErrNotFound},
			} {
				if _, err := sessions.Get(ctx, keyOf("u1")); err != nil {
					t.Fatal(err)
				}
				if r, err := sessions.Get(ctx, c.key); !errors.Is(err, c.want) || err == nil && string(r.Value) != string(value) {
					t.Errorf("%s: %+v, %v", name, r, err)
				}
				if s, ok := store.SubjectWanted(ctx).Take("u1"); ok {
					t.Errorf("%s: %+v came along", name, s)
				}
			}
			must(sessions.Delete(t.Context(), keyOf("u2")))
			if _, err := sessions.Create(t.Context(), keyOf("u2"), value, time.Millisecond); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Millisecond) // by the database's clock
			if _, err := sessions.Get(ctx, keyOf("u2")); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("an expired record: %v", err)
			}
			oneMoment(t, sessions, users, keyOf("u1"))
		})
	}
}

// inAThousandYears is an even epoch that is raised by one each time.
const inAThousandYears = 1 << 45

// oneMoment has a claim taken away and given again, under an epoch that says which, while
// others read: an epoch and claims that were never together would make a token that nobody
// revokes.
func oneMoment(t *testing.T, sessions *sqlstate.Store, users *sqlstore.Store, key state.Key) {
	enough, changed := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			err := users.Update(t.Context(), func(r store.Records) error {
				change := r.RemoveClaim
				if i%2 == 1 {
					change = r.AddClaim
				}
				for _, group := range []string{"g0", "g1"} {
					if err := change(t.Context(), group, "c1"); err != nil {
						return err
					}
				}
				_, err := r.NextEpoch(t.Context(), "u1", false)
				return err
			})
			select {
			case <-enough:
				changed <- err
				return
			default:
			}
			if err != nil {
				changed <- err
				return
			}
		}
	}()
	for seen := map[bool]int{}; seen[true] < 50 || seen[false] < 50; {
		wanted := store.WithWantedSubject(t.Context())
		if _, err := sessions.Get(wanted, key); err != nil {
			t.Error(err)
			break
		}
		s, ok := store.SubjectWanted(wanted).Take("u1")
		has := slices.ContainsFunc(s.Claims, func(c store.Claim) bool { return c.ID == "c1" })
		if !ok || has != (s.User.Epoch%2 == 1) { // it began with an odd one and the claim
			t.Errorf("%v: epoch %d has the claim: %v", ok, s.User.Epoch, has)
			break
		}
		seen[has]++
	}
	close(enough)
	if err := <-changed; err != nil {
		t.Error(err)
	}
}
