package directory

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/userfile"
)

// move imports a text, and returns what was refused as "what line code".
func (w *world) move(text string, how Moving) (Moved, []string) {
	w.t.Helper()
	var refused []string
	how.Refused = func(r Refused) error {
		if strings.Contains(r.Why, "$2b$") {
			w.t.Errorf("a hash is told: %+v", r)
		}
		refused = append(refused, fmt.Sprint(r.What, " ", r.Line, " ", r.Code))
		return nil
	}
	how.Progress = func(Moved) {}
	form := userfile.CSV
	if strings.HasPrefix(text, "{") {
		form = userfile.JSON
	}
	moved, err := w.Move(w.t.Context(), func(to userfile.Sink) error { return userfile.Scan(strings.NewReader(text), form, to) }, how)
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(refused)
	return moved, refused
}

// onAll is onEach with MariaDB.
func onAll(t *testing.T, test func(t *testing.T, w *world)) {
	onEach(t, test)
	t.Run("mariadb", func(t *testing.T) { test(t, replica(t, testenv.MariaDB(t))) })
}

const document = `{"claims": [
  {"name": "Log reader", "short_name": "log", "value": "r"},
  {"name": "Log writer", "short_name": "log", "value": "w"},
  {"name": "Comma", "short_name": "log", "value": "a,b"},
  {"name": "SUPERUSER", "short_name": "log", "value": "x"}
], "groups": [
  {"name": "Crew", "claims": ["Log reader", "log writer"]},
  {"name": "Empty", "claims": []},
  {"name": "Spoilt", "claims": ["Log reader", "Comma"]},
  {"name": "Administrators", "claims": ["Log reader"]}
], "users": [
  {"username": "Ann", "email": "ann@example.org", "email_verified": true, "first_name": "Ann", "last_name": "Lee", "groups": ["Crew", "crew", "Empty"], "password_hash": "` + bcryptOfSecret + `"},
  {"username": "bob", "groups": ["Spoilt"]},
  {"username": "cat", "groups": ["Administrators"]},
  {"username": "dan", "groups": ["Nobody's"]},
  {"username": "ANN"},
  {"username": "eve", "email": "ANN@example.org"},
  {"username": "fay", "password_hash": "$2b$31$abcdefghijklmnopqrstuufbqfRxtekKywx.MSoEF6s.GBix1QrCW"},
  {"username": "a b:c"},
  {"username": "gus", "email_verified": true},
  {"username": "аnn"},
  {"username": "hal", "disabled": true},
  {"username": "ha1"}
]}`

// A document becomes claims, groups and users with their links. What cannot be made is refused and told;
// the second time nothing changes; a dry run says both before and changes nothing.
func TestMove(t *testing.T) {
	onAll(t, func(t *testing.T, w *world) {
		root := w.superuser("root") // and with it the group Administrators
		want := Moved{Claims: 2, Groups: 2, Users: 2, Links: 4, Refused: 14}
		wantRefused := []string{
			"claim 4 invalid_value", "claim 5 claim_differs", "group 10 group_differs", "group 9 claim_not_found",
			"user 13 group_not_found", "user 14 group_not_found", "user 15 group_not_found", "user 16 user_differs", "user 17 email_taken",
			"user 18 invalid_password_hash", "user 19 invalid_username", "user 20 email_missing", "user 21 username_mixes_scripts", "user 23 username_confusable",
		}
		if moved, refused := w.move(document, Moving{From: "json", DryRun: true}); moved != want || !slices.Equal(refused, wantRefused) {
			t.Errorf("dry run: %+v\n%q\n%q", moved, refused, wantRefused)
		}
		if _, err := w.User(t.Context(), System(), "ann"); !errors.Is(err, ErrUserNotFound) {
			t.Fatalf("after a dry run: %v", err)
		}
		if moved, refused := w.move(document, Moving{From: "json"}); moved != want || !slices.Equal(refused, wantRefused) {
			t.Errorf("%+v\n%q\n%q", moved, refused, wantRefused)
		}
		ann, err := w.Authenticate(t.Context(), "ann", secret)
		if err != nil || !ann.EmailVerified || ann.Username != "Ann" || ann.LastName != "Lee" {
			t.Errorf("%+v, %v", ann, err)
		}
		if got := w.claimsOf(ann); got != "log=r,w" {
			t.Errorf("the claims of ann: %s", got)
		}
		if hal, err := w.User(t.Context(), System(), "hal"); err != nil || !hal.Disabled {
			t.Errorf("%+v, %v", hal, err)
		}
		if got := w.claimsOf(root); got != "admin=all" {
			t.Errorf("the claims of root: %s", got)
		}
		revoked := len(w.revocations())
		again := Moved{Present: 6, Refused: 14}
		for _, dry := range []bool{true, false} {
			moved, refused := w.move(document, Moving{From: "json", DryRun: dry})
			if moved != again || !slices.Equal(refused, wantRefused) {
				t.Errorf("again, dry %t: %+v\n%q", dry, moved, refused)
			}
		}
		if now := w.stored(ann); !isOurs(now) || len(w.revocations()) != revoked {
			t.Errorf("again: %+v", now)
		}
		es := w.events(ann.ID)
		if len(es) != 1 || es[0].Action != "user.create" || !strings.Contains(es[0].Detail, "imported into Crew, Empty") {
			t.Errorf("the trail: %+v", es)
		}
		page, err := w.Store.AuditEvents(t.Context(), store.AuditQuery{Action: actionImport, Limit: 100})
		if err != nil || len(page.Events) != 4 || page.Events[0].Outcome != audit.OK || !strings.Contains(page.Events[2].Detail, "2 claims, 2 groups and 2 users created, 0 there already, 14 refused") {
			t.Errorf("the trail: %+v, %v", page.Events, err)
		}
		if n, err := w.CountHashes(t.Context()); n != 0 || err != nil { // it was counted, and is known
			t.Error(n, err)
		}
		if last, err := w.lastCensus(t.Context()); err != nil || last.At.IsZero() {
			t.Error(last, err)
		}
	})
}

// A user who is there is not changed, and what differs is told without values.
func TestMoveComparesUsers(t *testing.T) {
	w := newWorld(t)
	w.group("Crew")
	u := w.user("ann")
	for row, want := range map[string]string{
		"ann,,,,,": "",
		"ann,,,,," + strings.ReplaceAll(bcryptOfSecret, ",", ""): "", // a password is not compared
		"ann,a@example.org,Ann,Lee,Crew,":                        "with other email, first_name, last_name, groups;",
	} {
		moved, err := w.Move(t.Context(), func(to userfile.Sink) error {
			return userfile.Scan(strings.NewReader("username,email,first_name,last_name,groups,password_hash\n"+row), userfile.CSV, to)
		}, Moving{From: "csv", Progress: func(Moved) {}, Refused: func(r Refused) error {
			if want == "" || !strings.Contains(r.Why, want) {
				t.Errorf("%s: %s", row, r.Why)
			}
			return nil
		}})
		if err != nil || moved.Refused+moved.Present != 1 || (moved.Present == 1) != (want == "") {
			t.Errorf("%s: %+v, %v", row, moved, err)
		}
	}
	if now := w.stored(u); now.Version != 1 {
		t.Errorf("%+v", now)
	}
}

// A claim of another system that would give rights here is refused, and with it the group and its members.
func TestMoveGivesNoRightsOfAdministration(t *testing.T) {
	w := newWorld(t)
	w.superuser("root")
	const text = `{"claims":[{"name":"Boss","short_name":"admin","value":"all"}],"groups":[{"name":"Bosses","claims":["Boss"]},{"name":"Administrators","claims":[]}],
"users":[{"username":"mallory","groups":["Bosses"]},{"username":"oscar","groups":["Administrators"]}]}`
	moved, refused := w.move(text, Moving{From: "stoke", Foreign: true})
	attacks.Add(2)
	if moved.Users != 0 || moved.Refused != 5 || refused[0] != "claim 1 claim_of_administration" {
		t.Errorf("%+v, %q", moved, refused)
	}
	if moved, _ := w.move(text, Moving{From: "json"}); moved.Users != 1 { // the operator says so
		t.Errorf("%+v", moved)
	}
}

// What cannot be written stops an import with what was made before; whole transactions are.
func TestMoveStopsWhenTheSourceEnds(t *testing.T) {
	w := newWorld(t)
	broken := errors.New("the disk is gone")
	moved, err := w.Move(t.Context(), func(to userfile.Sink) error {
		for i := range 2*moveBatch + 1 {
			if err := to.User(userfile.MadeOf(userfile.User{Username: fmt.Sprint("user", i)}, nil)); err != nil {
				return err
			}
		}
		return broken
	}, Moving{From: "csv", Refused: func(Refused) error { return nil }, Progress: func(Moved) {}})
	if !errors.Is(err, broken) || moved.Users != 2*moveBatch {
		t.Errorf("%+v, %v", moved, err)
	}
	if _, err := w.User(t.Context(), System(), fmt.Sprint("user", 2*moveBatch)); !errors.Is(err, ErrUserNotFound) {
		t.Errorf("%v", err)
	}
	_, err = w.Move(t.Context(), func(to userfile.Sink) error {
		return userfile.Scan(io.MultiReader(strings.NewReader("username\nzoe\nyan\n"), unreadable{}), userfile.CSV, to)
	}, Moving{From: "csv", Refused: func(Refused) error { return nil }, Progress: func(Moved) {}})
	if problem.From(err).Kind != problem.Internal {
		t.Errorf("%v", err)
	}
}

type unreadable struct{}

func (unreadable) Read([]byte) (int, error) { return 0, errors.New("read error") }
