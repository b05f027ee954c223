package directory

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/initfile"
	"github.com/watchword-auth/watchword/internal/store"
)

// exampleInit is the init file by which package initfile tests how it is read.
var exampleInit = func() string {
	content, err := os.ReadFile("../initfile/testdata/example.yaml")
	if err != nil {
		panic(err)
	}
	return string(content)
}()

// initFile writes an init file that only its owner can read.
func (w *world) initFile(content string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "init.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *world) apply(content string) (InitResult, error) {
	w.t.Helper()
	return w.ApplyInitFile(w.t.Context(), w.initFile(content))
}

func (w *world) mustApply(content string, want InitResult) {
	w.t.Helper()
	if got, err := w.apply(content); got != want || err != nil {
		w.t.Errorf("added %+v, %v, want %+v", got, err, want)
	}
}

func TestApplyInitFile(t *testing.T) {
	w := newWorld(t)
	w.mustApply(exampleInit, InitResult{Claims: 2, Groups: 1, Users: 2, Links: 3})
	root, err := w.Authenticate(t.Context(), "root", "0123456789")
	if err != nil {
		t.Fatal(err)
	}
	if got := w.claimsOf(root); got != "admin=all log=r" || root.Email != "root@example.org" || root.FirstName != "Ruth" {
		t.Errorf("%+v holds %s", root, got)
	}
	if _, err := w.Authenticate(t.Context(), "guest", "password"); err != nil {
		t.Errorf("by the hash from the file: %v", err)
	}
	if has, err := w.HasAdministrator(t.Context()); !has || err != nil {
		t.Errorf("%v, %v", has, err)
	}
	if es := w.events(root.ID); len(es) != 2 || es[1].Action != "user.create" || es[1].Actor != "" {
		t.Errorf("%+v", es)
	}
	if w.logs.String() != "" && strings.Contains(w.logs.String(), "others on this machine") {
		t.Error("a warning about a file that only its owner can read")
	}
}

func TestInitFileAgainAddsWhatIsMissing(t *testing.T) {
	w := newWorld(t)
	w.mustApply(exampleInit, InitResult{Claims: 2, Groups: 1, Users: 2, Links: 3})
	root, _ := w.User(t.Context(), System(), "root")
	if err := w.SetPassword(t.Context(), System(), "root", "another password"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.UpdateUser(t.Context(), System(), "root", UserPatch{Email: new("new@example.org")}); err != nil {
		t.Fatal(err)
	}
	before, events := w.stored(root), len(w.events(root.ID))
	w.mustApply(exampleInit, InitResult{})
	if after := w.stored(root); after != before || len(w.events(root.ID)) != events {
		t.Errorf("%+v became %+v", before, after)
	}
	grown := strings.Replace(exampleInit, "users:", "  - name: Second\n    claims: [Log reader]\nusers:\n  - username: new\n    groups: [Second]", 1)
	w.mustApply(grown, InitResult{Groups: 1, Users: 1, Links: 2})
	w.mustApply("users:\n  - username: guest\n    password: another password\n    groups: [second]\n", InitResult{Links: 1})
	if _, err := w.Authenticate(t.Context(), "guest", "password"); err != nil {
		t.Errorf("the password of somebody who was there is overwritten: %v", err)
	}
	w.mustApply("", InitResult{})
}

// An unchanged file, and one that has grown, leave alone what somebody changed or
// removed in the database since: the replica starts, and nothing comes back.
func TestInitFileBringsNothingBack(t *testing.T) {
	w := newWorld(t)
	const file = `claims:
  - {name: Log reader, short_name: log, value: r}
  - {name: Builder, short_name: build, value: x}
groups:
  - {name: Support, claims: [Log reader]}
  - {name: Makers, claims: [Builder, Log reader]}
  - {name: Gone, claims: [Builder]}
users:
  - {username: alice, password: 0123456789, groups: [Support, Makers]}
  - {username: bob, password: 0123456789, groups: [Gone]}
`
	w.mustApply(file, InitResult{Claims: 2, Groups: 3, Users: 2, Links: 7})
	ctx := t.Context()
	if _, err := w.UpdateClaim(ctx, System(), "Log reader", ClaimPatch{Value: new("read")}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"the user":       w.DeleteUser(ctx, System(), "bob"),
		"the group":      w.DeleteGroup(ctx, System(), "Gone"),
		"the claim":      w.DeleteClaim(ctx, System(), "Builder"),
		"the membership": w.RemoveFromGroup(ctx, System(), "alice", "Support"),
		"the link":       w.RemoveClaim(ctx, System(), "Makers", "Log reader"),
	} {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	gone := func(when string) {
		t.Helper()
		for what, err := range map[string]error{
			"user":  second(w.User(ctx, System(), "bob")),
			"group": second(w.Group(ctx, System(), "Gone")),
			"claim": second(w.Claim(ctx, System(), "Builder")),
		} {
			if code(err) != what+"_not_found" {
				t.Errorf("%s: the %s: %v", when, what, err)
			}
		}
		alice, err := w.User(ctx, System(), "alice")
		if err != nil || w.claimsOf(alice) != "" {
			t.Errorf("%s: alice holds %q, %v", when, w.claimsOf(alice), err)
		}
	}
	w.mustApply(file, InitResult{})
	gone("the same file again")

	grown := strings.Replace(file, "users:\n", "users:\n  - {username: carol, groups: [Gone, Support]}\n", 1)
	w.mustApply(grown, InitResult{Users: 1, Links: 1})
	gone("a file with one more user")
	carol, err := w.User(ctx, System(), "carol")
	if err != nil || w.claimsOf(carol) != "log=read" {
		t.Errorf("the new user holds %q, %v", w.claimsOf(carol), err)
	}
	if !strings.Contains(w.logs.String(), `line 9: the group \"Gone\" was removed`) {
		t.Errorf("no warning of a link to what was removed: %s", w.logs)
	}
	more := strings.Replace(grown, "groups: [Gone]", "groups: [Gone, Makers]", 1)
	more = strings.Replace(more, "claims: [Log reader]", "claims: [Log reader, Builder]", 1)
	w.mustApply(strings.Replace(more, "name: Gone, claims: [Builder]", "name: Gone, claims: [Builder, Log reader]", 1), InitResult{})
	gone("a file with more links of what was removed")
}

// Two replicas start with different files, in turn, while one is replaced by the other;
// a third one's is empty by mistake. What was removed meanwhile stays removed.
func TestInitFilesThatDifferBringNothingBack(t *testing.T) {
	w := newWorld(t)
	const file = `claims: [{name: Log reader, short_name: log, value: r}]
groups: [{name: Support, claims: [Log reader]}]
users:
  - {username: alice, password: 0123456789}
`
	const newer = file + "  - {username: bob, password: 0123456789, groups: [Support]}\n"
	w.mustApply(file, InitResult{Claims: 1, Groups: 1, Users: 1, Links: 1})
	w.mustApply(newer, InitResult{Users: 1, Links: 1})
	if err := w.DeleteUser(t.Context(), System(), "bob"); err != nil {
		t.Fatal(err)
	}
	for _, before := range []string{file, ""} {
		w.mustApply(before, InitResult{})
		w.mustApply(newer, InitResult{})
		if _, err := w.User(t.Context(), System(), "bob"); code(err) != "user_not_found" {
			t.Errorf("bob is back: %v", err)
		}
	}
}

// A user or group that is created with the name of a removed one must not be given by a
// restart what the file once gave to the removed one.
func TestInitFileGivesNothingToANamesake(t *testing.T) {
	w := newWorld(t)
	w.mustApply(exampleInit, InitResult{Claims: 2, Groups: 1, Users: 2, Links: 3})
	w.superuser("other")
	if err := w.DeleteUser(t.Context(), System(), "root"); err != nil {
		t.Fatal(err)
	}
	w.later(time.Now().Add(maxTokenLife + time.Minute)) // until when the name is reserved
	namesake, err := w.CreateUser(t.Context(), System(), NewUser{Username: "root", Password: secret})
	if err != nil {
		t.Fatal(err)
	}
	w.mustApply(exampleInit+"  - username: new\n", InitResult{Users: 1})
	if got := w.claimsOf(namesake); got != "" {
		t.Errorf("the namesake holds %s", got)
	}
}

func TestInitFileThatContradicts(t *testing.T) {
	w := newWorld(t)
	w.mustApply(exampleInit+"  - username: former\n", InitResult{Claims: 2, Groups: 1, Users: 3, Links: 3})
	w.claim("own", "x")
	w.mustApply("claims:\n  - {name: former, short_name: x, value: y}\n", InitResult{Claims: 1})
	if err := w.DeleteClaim(t.Context(), System(), "former"); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"claims:\n  - {name: new, short_name: x, value: y}\n  - {name: LOG reader, short_name: log, value: w}\n": `line 3: the claim "LOG reader" is there already, as log=r`,
		"claims:\n  - {name: own=x, short_name: own, value: y}\n":                                                `line 2: the claim "own=x" is there already, as own=x`,
		"claims:\n  - {name: former, short_name: x, value: z}\n":                                                 `line 2: the claim "former" was x=y in this file and has been removed since`,
		"groups:\n  - name: new\n    claims:\n      - nothing\n":                                                 `line 4: there is no claim "nothing"`,
		"users:\n  - username: new\n    groups: [nothing]\n":                                                     `line 3: there is no group "nothing"`,
	} {
		_, err := w.apply(file)
		if code(err) != "init_file_conflict" || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	// A file that follows the database is no contradiction.
	if _, err := w.UpdateClaim(t.Context(), System(), "Log reader", ClaimPatch{Value: new("w")}); err != nil {
		t.Fatal(err)
	}
	w.mustApply(strings.Replace(exampleInit, "value: r}", "value: w}", 1), InitResult{})
	for what, err := range map[string]error{
		"user":  second(w.User(t.Context(), System(), "new")),
		"group": second(w.Group(t.Context(), System(), "new")),
		"claim": second(w.Claim(t.Context(), System(), "new")),
	} {
		w.want(err, what+"_not_found")
	}
}

func TestInitFileThatIsWrongChangesNothing(t *testing.T) {
	w := newWorld(t)
	_, err := w.apply(exampleInit + "  - username: 'a b'\n")
	w.want(err, "init_file_invalid")
	if !strings.Contains(err.Error(), "line 16: ") && !strings.Contains(err.Error(), "line 15: ") {
		t.Error(err)
	}
	for file, want := range map[string]string{
		"claims:\n  - {name: a, short_name: x, value: 'r,S'}\n":          "line 2: a claim's value has",
		"claims:\n  - {name: a, short_name: sub, value: root}\n":         "line 2: ",
		"claims:\n  - {name: a, short_name: admin, value: everything}\n": "line 2: the claim admin grants administration",
	} {
		_, err := w.apply(file + exampleInit[strings.Index(exampleInit, "users:"):])
		w.want(err, "init_file_invalid")
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	_, err = w.User(t.Context(), System(), "root")
	w.want(err, "user_not_found")
	_, err = w.ApplyInitFile(t.Context(), filepath.Join(t.TempDir(), "missing.yaml"))
	w.want(err, "init_file_unreadable")
	_, err = w.apply(strings.Repeat("#", initfile.MaxSize+1))
	w.want(err, "init_file_unreadable")
}

func TestInitFileThatOthersCanRead(t *testing.T) {
	w := newWorld(t)
	path := w.initFile(exampleInit)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ApplyInitFile(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(w.logs.String(), "others on this machine can read it") {
		t.Errorf("no warning: %s", w.logs)
	}
}

func TestTenReplicasApplyOneInitFile(t *testing.T) {
	onEach(t, func(t *testing.T, first *world) {
		path := first.initFile(exampleInit)
		worlds := []*world{first}
		for len(worlds) < 10 {
			worlds = append(worlds, replica(t, first.url))
		}
		results := make([]InitResult, len(worlds))
		var all sync.WaitGroup
		for i, w := range worlds {
			all.Go(func() {
				var err error
				if results[i], err = w.ApplyInitFile(t.Context(), path); err != nil {
					t.Errorf("replica %d: %v", i, err)
				}
			})
		}
		all.Wait()
		var sum InitResult
		for _, r := range results {
			sum = InitResult{sum.Claims + r.Claims, sum.Groups + r.Groups, sum.Users + r.Users, sum.Links + r.Links}
		}
		if want := (InitResult{Claims: 2, Groups: 1, Users: 2, Links: 3}); sum != want {
			t.Errorf("all together added %+v", sum)
		}
		var users List[store.User]
		users, err := first.Users(t.Context(), System(), Page{})
		if err != nil || len(users.Items) != 2 {
			t.Errorf("%+v, %v", users, err)
		}
	})
}
