package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/userfile"
)

// foreignHash is the hash of secret as another system may have made it.
func foreignHash(t testing.TB) string {
	t.Helper()
	prepared, err := password.PrepareNew(secret)
	if err != nil {
		t.Fatal(err)
	}
	h, err := hasher(t, password.Config{Memory: 7168, Iterations: 5, Parallelism: 1, Workers: 1, Queue: 1}).Hash(t.Context(), prepared)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func parse(t testing.TB, text string) []userfile.Row {
	t.Helper()
	rows, err := userfile.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// imported runs an import, and checks that the shared state and the trail have what it returns.
func (w *world) imported(actor Actor, text string) Progress {
	w.t.Helper()
	i, err := w.BeginImport(w.t.Context(), actor, parse(w.t, text))
	if err != nil {
		w.t.Fatal(err)
	}
	i.pause = 0
	p := i.Run(w.t.Context())
	seen, err := w.ImportProgress(w.t.Context(), actor, p.Owner, p.ID)
	if err != nil || fmt.Sprint(shown(seen)) != fmt.Sprint(shown(p)) {
		w.t.Errorf("the state has %+v, %v; want %+v", seen, err, p)
	}
	if p.Done != p.Created+p.Present+p.Refused || !p.Finished || (p.Done == p.Total) != (p.Stopped == "") {
		w.t.Errorf("%+v", p)
	}
	es := w.events(p.ID)
	outcome := map[bool]string{true: audit.OK, false: audit.Failed}[p.Stopped == ""]
	if len(es) != 2 || es[0].Actor != actor.ID || es[0].Action != "users.import" || es[0].Outcome != outcome || es[1].Outcome != audit.OK {
		w.t.Errorf("the trail: %+v", es)
	}
	return p
}

// shown is a progress without times.
func shown(p Progress) Progress {
	p.StartedAt, p.UpdatedAt = time.Time{}, time.Time{}
	return p
}

// refusals are "line code" of each.
func refusals(p Progress) (all []string) {
	for _, r := range p.Refusals {
		all = append(all, fmt.Sprint(r.Line, " ", r.Code))
	}
	return all
}

func TestImport(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.group("Staff", "shop=buyer")
	w.group("a;b", "log=r")
	w.user("here")
	hash := foreignHash(t)
	const head = "username,email,email_verified,first_name,last_name,disabled,groups,password_hash\n"
	file := head +
		"Ada,ada@example.org,true,Ada,Lovelace,false,staff;a\\;b," + "\"" + hash + "\"\n" + // 2
		"bob,,,,,true,,\n" +
		"HERE,new@example.org,,,,,,\n" + // there already
		"cy,,,,,,Nobody's group,\n" + // 5
		"dan,ada@example.org,,,,,,\n" +
		"eve,no address,,,,,,\n" +
		"with space,,,,,,,\n" +
		"bоb,,,,,,,\n" + // one letter is Cyrillic
		"bob,,,,,,,\n" + // 10
		"fay,,,,,maybe,,\n" +
		"gil,,,,,,,$2b$12$abcdefghijklmnopqrstuv\n" +
		"hal,,,,,,,\"$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g\"\n" +
		"ivy,,true,,,,,\n" +
		"jim,,,,\n" + // 15
		"kim,,,,,,Staff;staff,\n"
	root := w.superuser("root")
	p := w.imported(as(root), file)
	if p.Total != 15 || p.Created != 3 || p.Present != 1 {
		t.Errorf("%+v", p)
	}
	want := []string{
		"5 group_not_found", "6 email_taken", "7 invalid_email", "8 invalid_username", "9 username_mixes_scripts", "10 row_twice",
		"11 invalid_row", "12 invalid_password_hash", "13 weak_password_hash", "14 email_missing", "15 invalid_row",
	}
	if got := refusals(p); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if r := p.Refusals[0]; r.Username != "cy" || !strings.Contains(r.Why, `"Nobody's group"`) {
		t.Errorf("%+v", r)
	}
	ada, err := w.User(ctx, System(), "ada")
	if err != nil || ada.Username != "Ada" || ada.Email != "ada@example.org" || !ada.EmailVerified || ada.FirstName != "Ada" || ada.LastName != "Lovelace" || ada.Disabled {
		t.Errorf("%+v, %v", ada, err)
	}
	if got := w.claimsOf(ada); got != "log=r shop=buyer" {
		t.Errorf("ada holds %s", got)
	}
	if bob, err := w.User(ctx, System(), "bob"); err != nil || !bob.Disabled {
		t.Errorf("%+v, %v", bob, err)
	}
	if here, err := w.User(ctx, System(), "here"); err != nil || here.Email != "" || here.Version != 1 {
		t.Errorf("who was there has changed: %+v, %v", here, err)
	}
	// The password of before is good here, and is hashed anew.
	if _, err := w.Authenticate(ctx, "ada", secret); err != nil {
		t.Errorf("a login: %v", err)
	}
	if got := w.stored(ada).PasswordHash; got == hash || got == "" {
		t.Errorf("the hash is still %s", got)
	}
	if strings.Contains(w.logs.String(), hash) {
		t.Error("the hash is in the log")
	}

	// The same file again does no harm, and nor does it after a user was changed.
	if _, err := w.UpdateUser(ctx, System(), "ada", UserPatch{Disabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	again := w.imported(as(root), file)
	if again.Created != 0 || again.Present != 4 || !slices.Equal(refusals(again), want) {
		t.Errorf("again: %+v", again)
	}
	if ada := w.stored(ada); !ada.Disabled {
		t.Error("the import has enabled a user")
	}
	list, err := w.Imports(ctx, as(root), root.ID)
	if err != nil || len(list) != 2 || list[0].ID != again.ID || list[1].ID != p.ID {
		t.Errorf("%+v, %v", list, err)
	}
}

// An import gives nothing that its actor could not give with CreateUser.
func TestEscalationByAnImport(t *testing.T) {
	w, root, delegate := delegated(t)
	w.group("Writers", "log=w")
	w.group("Readers", "log=r")
	if _, err := w.UpdateUser(t.Context(), System(), root.ID, UserPatch{Email: new("root@example.org"), FirstName: new("Grace"), LastName: new("Hopper")}); err != nil {
		t.Fatal(err)
	}
	before := w.stored(root)
	hash := foreignHash(t)
	p := w.imported(as(delegate), "username,groups,email,email_verified,first_name,last_name,password_hash\n"+
		"puppet1,Administrators,,,,,\n"+ // 2
		"puppet2,Readers;Writers,,,,,\n"+
		"puppet3,,p3@example.org,true,,,\n"+
		"puppet4,,root@example.org,,,,\n"+ // 5
		"puppet5,,,,Grace,Hopper,\n"+
		"r00t,,,,,,\n"+
		"root,,,,,,\""+hash+"\"\n"+
		"honest,Readers,h@example.org,,,,\""+hash+"\"\n")
	attacks.Add(7)
	want := []string{"2 beyond_own_rights", "3 beyond_own_rights", "4 permission_missing", "5 email_taken", "6 name_of_stronger", "7 username_confusable"}
	if got := refusals(p); p.Created != 1 || p.Present != 1 || !slices.Equal(got, want) || p.Stopped != "" {
		t.Errorf("%q, %+v", got, p)
	}
	for _, name := range []string{"puppet1", "puppet2", "puppet3", "puppet4", "puppet5", "r00t"} {
		if _, err := w.User(t.Context(), System(), name); !errors.Is(err, ErrUserNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if w.stored(root) != before {
		t.Error("the superuser has changed")
	}
	if es := w.events("puppet1"); len(es) != 1 || es[0].Outcome != audit.Denied || es[0].Actor != delegate.ID {
		t.Errorf("the trail: %+v", es)
	}

	// Who may do less imports nothing.
	rows := parse(t, "username\nnew\n")
	stale := as(delegate)
	stale.AuthTime = time.Now().Add(-2 * freshFor)
	elsewhere := as(delegate)
	elsewhere.API = false
	for code, actor := range map[string]Actor{
		"permission_missing": as(w.user("reader", "admin=users:read", "admin=groups:write", "admin=users:verify")), "reauthentication_required": stale, "wrong_audience": elsewhere,
	} {
		_, err := w.BeginImport(t.Context(), actor, rows)
		w.attack(err, code)
	}
	for _, actor := range []Actor{{}, {API: true}, as(w.user("nobody"))} {
		if _, err := w.BeginImport(t.Context(), actor, rows); err == nil {
			t.Errorf("%+v imports", actor)
		}
	}
	if _, err := w.User(t.Context(), System(), "new"); !errors.Is(err, ErrUserNotFound) {
		t.Error(err)
	}
}

// Only the one who imports sees how far it is, and a superuser; on every replica.
func TestWhoSeesAnImport(t *testing.T) {
	w, root, delegate := delegated(t)
	p := w.imported(as(delegate), "username\nada\nx,y\n")
	other := replica(t, w.url)
	w.group("also", "admin=users:write")
	also, err := w.CreateUser(t.Context(), System(), NewUser{Username: "also", Groups: []string{"also"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []store.User{delegate, root} {
		got, err := other.ImportProgress(t.Context(), as(u), delegate.ID, p.ID)
		if err != nil || fmt.Sprint(shown(got)) != fmt.Sprint(shown(p)) {
			t.Errorf("%+v, %v", got, err)
		}
		if list, err := other.Imports(t.Context(), as(u), delegate.ID); err != nil || len(list) != 1 || list[0].ID != p.ID {
			t.Errorf("%+v, %v", list, err)
		}
	}
	for _, c := range []struct {
		by        store.User
		owner, id string
		code      string
	}{
		{also, delegate.ID, p.ID, "import_not_found"},
		{also, also.ID, p.ID, "import_not_found"},
		{also, "", p.ID, "import_not_found"},
		{delegate, delegate.ID, also.ID, "import_not_found"},
		{delegate, delegate.ID, "", "import_not_found"},
		{delegate, delegate.ID, "../" + p.ID, "import_not_found"},
		{delegate, delegate.ID, "{" + p.ID + "}", "import_not_found"},
		{root, "no one}", p.ID, "import_not_found"},
		{w.user("nobody"), delegate.ID, p.ID, "permission_missing"},
	} {
		got, err := other.ImportProgress(t.Context(), as(c.by), c.owner, c.id)
		w.attack(err, c.code)
		if got.ID != "" {
			t.Errorf("%+v", got)
		}
	}
	_, err = other.Imports(t.Context(), as(also), delegate.ID)
	w.attack(err, "import_not_found")
	if list, err := other.Imports(t.Context(), as(also), also.ID); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// An import stops when its actor may go on no more, and says so.
func TestAnImportStops(t *testing.T) {
	text := "username\n"
	for i := range 20 {
		text += fmt.Sprintf("user%02d\n", i)
	}
	for name, c := range map[string]struct {
		do   func(w *world, u store.User, stop context.CancelFunc) error
		code string
	}{
		"a right is taken": {func(w *world, u store.User, _ context.CancelFunc) error {
			return w.RemoveClaim(context.Background(), System(), "of importer", "admin=users:write")
		}, ErrPermissionMissing.Detail},
		"the actor is disabled": {func(w *world, u store.User, _ context.CancelFunc) error {
			_, err := w.UpdateUser(context.Background(), System(), u.ID, UserPatch{Disabled: new(true)})
			return err
		}, ErrPermissionMissing.Detail},
		"the actor is deleted": {func(w *world, u store.User, _ context.CancelFunc) error {
			return w.DeleteUser(context.Background(), System(), u.ID)
		}, ErrPermissionMissing.Detail},
		"the actor's sessions end": {func(w *world, u store.User, _ context.CancelFunc) error {
			_, err := w.Store.NextEpoch(context.Background(), u.ID, true)
			return err
		}, errImportEnded.Detail},
		"the replica stops": {func(_ *world, _ store.User, stop context.CancelFunc) error { stop(); return nil }, errImportHalted.Detail},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			u := w.user("importer", "admin=users:write", "log=r")
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			i, err := w.BeginImport(ctx, as(u), parse(t, text))
			if err != nil {
				t.Fatal(err)
			}
			real := w.Store
			w.Store = &atUser{Store: real, nth: 7, do: func() {
				if err := c.do(w, u, stop); err != nil {
					t.Error(err)
				}
			}}
			p := i.Run(ctx)
			w.Store = real
			if p.Done != 7 || p.Created != 7 || !p.Finished || p.Stopped != c.code || p.Silent(time.Now().Add(time.Hour)) {
				t.Errorf("%+v, want %s", p, c.code)
			}
			rec, err := w.State.Get(t.Context(), importKey(u.ID, p.ID))
			if err != nil {
				t.Fatal(err)
			}
			if seen, err := decodeProgress(rec.Value); err != nil || seen.Stopped != c.code || !seen.Finished {
				t.Errorf("the state: %+v, %v", seen, err)
			}
			if l, err := w.Users(t.Context(), System(), Page{Prefix: "user"}); err != nil || len(l.Items) != 7 {
				t.Errorf("%d users, %v", len(l.Items), err)
			}
		})
	}
}

// atUser is a store that does something once after the nth transaction.
type atUser struct {
	store.Store
	nth int
	do  func()
}

func (s *atUser) Update(ctx context.Context, f func(store.Records) error) error {
	err := s.Store.Update(ctx, f)
	if s.nth--; s.nth == 0 {
		s.do()
	}
	return err
}

// A database that is away for a moment, with what it was told kept or lost, makes no row wrong and
// no user twice; one that stays away stops the import.
func TestAnImportAndTheDatabase(t *testing.T) {
	for _, persisted := range []bool{true, false} {
		w := newWorld(t)
		root := w.superuser("root")
		real := w.Store
		i, err := w.BeginImport(t.Context(), as(root), parse(t, "username\nada\nbob\n"))
		if err != nil {
			t.Fatal(err)
		}
		i.pause = 0
		w.Store = &failing{failedCommit{real, persisted}, 1}
		p := i.Run(t.Context())
		w.Store = real
		if p.Done != 2 || p.Created+p.Present != 2 || (p.Present == 1) != persisted || p.Stopped != "" {
			t.Errorf("persisted %v: %+v", persisted, p)
		}
		i, err = w.BeginImport(t.Context(), as(root), parse(t, "username\nada\nzoe\nyves\n"))
		if err != nil {
			t.Fatal(err)
		}
		i.pause = 0
		w.Store = failedCommit{real, false}
		p = i.Run(t.Context())
		w.Store = real
		if p.Done != 1 || p.Refused != 0 || !p.Finished || p.Stopped != errUnavailable.Detail {
			t.Errorf("persisted %v: %+v", persisted, p)
		}
	}
}

// failing is a store whose first transactions fail.
type failing struct {
	failedCommit
	left int
}

func (f *failing) Update(ctx context.Context, change func(store.Records) error) error {
	if f.left--; f.left < 0 {
		return f.Store.Update(ctx, change)
	}
	return f.failedCommit.Update(ctx, change)
}

// One actor has one import at a time, and the last ones are kept. An import whose replica has died
// is silent, and hinders nothing.
func TestImportsOfOneActor(t *testing.T) {
	w := newWorld(t)
	root, other := w.superuser("root"), w.superuser("other")
	rows := parse(t, "username\nada\n")
	began := time.Now()
	first, err := w.BeginImport(t.Context(), as(root), rows)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.BeginImport(t.Context(), as(root), rows)
	w.want(err, "import_running")
	if _, err := w.BeginImport(t.Context(), as(other), rows); err != nil {
		t.Errorf("of another one: %v", err)
	}
	w.later(began.Add(silentAfter + time.Second))
	fresh := as(root)
	fresh.AuthTime = w.Now()
	p, err := w.ImportProgress(t.Context(), fresh, root.ID, first.Progress().ID)
	if err != nil || !p.Silent(w.Now()) || p.Silent(began.Add(silentAfter/2)) {
		t.Errorf("%+v, %v", p, err)
	}
	var last Progress
	for range keepImports + 5 {
		i, err := w.BeginImport(t.Context(), fresh, rows)
		if err != nil {
			t.Fatal(err)
		}
		last = i.Run(t.Context())
	}
	list, err := w.Imports(t.Context(), fresh, root.ID)
	if err != nil || len(list) != keepImports || list[0].ID != last.ID {
		t.Errorf("%d imports, %v", len(list), err)
	}
	_, err = w.BeginImport(t.Context(), fresh, nil)
	w.want(err, "file_empty")
	_, err = w.BeginImport(t.Context(), fresh, make([]userfile.Row, userfile.MaxRows+1))
	w.want(err, "too_many_rows")
}

// However long the texts of refusals are, their record has room.
func TestManyRefusals(t *testing.T) {
	w := newWorld(t)
	root := w.superuser("root")
	var text strings.Builder
	text.WriteString("username,groups\n")
	const many = MaxRefusals + 500
	for i := range many {
		fmt.Fprintf(&text, "%d%s,\"%s\"\n", i, strings.Repeat("\U0001F388", 80), strings.Repeat(fmt.Sprintf("\u2603%d", i*7919%many), 20))
	}
	i, err := w.BeginImport(t.Context(), as(root), parse(t, text.String()))
	if err != nil {
		t.Fatal(err)
	}
	p := i.Run(t.Context())
	if p.Refused != many || len(p.Refusals) != MaxRefusals || len(p.Refusals[0].Username) > 4*70 {
		t.Errorf("%d refused, %d said", p.Refused, len(p.Refusals))
	}
	seen, err := w.ImportProgress(t.Context(), as(root), root.ID, p.ID)
	if err != nil || seen.Refused != many || len(seen.Refusals) < 100 || !slices.Equal(seen.Refusals, p.Refusals[:len(seen.Refusals)]) {
		t.Errorf("%d refused, %d said, %v", seen.Refused, len(seen.Refusals), err)
	}
	t.Logf("%d of %d refusals have room", len(seen.Refusals), MaxRefusals)
}

// The progress is written while an import runs, and an import goes on without it.
func TestProgressWhileAnImportRuns(t *testing.T) {
	w := newWorld(t)
	root := w.superuser("root")
	text := "username\n"
	for i := range 30 {
		text += fmt.Sprintf("user%02d\n", i)
	}
	var mu sync.Mutex
	clock := time.Now()
	w.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); clock = clock.Add(20 * time.Millisecond); return clock }
	puts := &countedPuts{Store: w.State}
	w.State = puts
	i, err := w.BeginImport(t.Context(), as(root), parse(t, text))
	if err != nil {
		t.Fatal(err)
	}
	if p := i.Run(t.Context()); p.Created != 30 {
		t.Errorf("%+v", p)
	}
	if len(puts.done) < 4 || puts.done[0] != 0 || puts.done[len(puts.done)-1] != 30 || !slices.IsSorted(puts.done) {
		t.Errorf("written at %v", puts.done)
	}

	i, err = w.BeginImport(t.Context(), as(root), parse(t, strings.ReplaceAll(text, "\nuser", "\nother")))
	if err != nil {
		t.Fatal(err)
	}
	puts.away = true
	if p := i.Run(t.Context()); p.Created != 30 || p.Stopped != "" {
		t.Errorf("%+v", p)
	}
	_, err = w.BeginImport(t.Context(), as(root), parse(t, text))
	w.want(err, "import_running")
	if !strings.Contains(w.logs.String(), "progress of an import could not be written") {
		t.Error("the log says nothing")
	}
}

type countedPuts struct {
	state.Store
	done []int
	away bool
}

func (c *countedPuts) Put(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	if c.away {
		return 0, state.ErrUnavailable
	}
	p, err := decodeProgress(value)
	if err != nil {
		return 0, err
	}
	c.done = append(c.done, p.Done)
	return c.Store.Put(ctx, key, value, ttl)
}

// What is exported can be imported elsewhere, and makes the same users.
func TestExportAndImport(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.group("Staff", "shop=buyer")
	w.group("=a;b\\", "log=r")
	exporter := w.user("exporter", "admin=users:read")
	const many = MaxPage + 30
	for i := range many {
		n := NewUser{Username: fmt.Sprintf("user%03d", i), Email: fmt.Sprintf("u%d@example.org", i), EmailVerified: i%3 == 0, FirstName: "=Ada", LastName: `"O'Hara", ü`, Disabled: i%5 == 0}
		if i%2 == 0 {
			n.Groups = []string{"Staff", "=a;b\\"}
		}
		if _, err := w.CreateUser(ctx, System(), n); err != nil {
			t.Fatal(err)
		}
	}
	for _, form := range []userfile.Form{userfile.CSV, userfile.JSON} { // JSONLines is what they are compared by
		var file bytes.Buffer
		if err := w.ExportUsers(ctx, as(exporter), &file, form); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(file.String(), "$argon2") {
			t.Fatal("a hash is exported")
		}
		to := newWorld(t)
		to.group("staff", "shop=buyer")
		to.group("=a;b\\", "log=r")
		to.group("of exporter", "admin=users:read")
		p := to.imported(as(to.superuser("root")), file.String())
		if p.Created != many+1 || p.Refused != 0 {
			t.Fatalf("%s: %+v", form, p)
		}
		var again bytes.Buffer
		if err := to.ExportUsers(ctx, System(), &again, userfile.JSONLines); err != nil {
			t.Fatal(err)
		}
		var before bytes.Buffer
		if err := w.ExportUsers(ctx, System(), &before, userfile.JSONLines); err != nil {
			t.Fatal(err)
		}
		got := strings.ReplaceAll(again.String(), `"staff"`, `"Staff"`)
		got = got[strings.Index(got, `{"username":"exporter"`):]
		got = strings.Replace(got, `{"username":"root","email":"","email_verified":false,"first_name":"","last_name":"","disabled":false,"groups":["Administrators"]}`+"\n", "", 1)
		if got != before.String() {
			t.Errorf("%s:\n%.500s\nwant\n%.500s", form, got, before.String())
		}
	}
	exports, err := w.Store.AuditEvents(ctx, store.AuditQuery{Action: "users.export", Actor: exporter.ID, Limit: 10})
	if err != nil || len(exports.Events) != 2 {
		t.Errorf("the trail: %+v, %v", exports, err)
	}
	var file bytes.Buffer
	w.want(w.ExportUsers(ctx, System(), &file, "xml"), "invalid_form")
	w.attack(w.ExportUsers(ctx, as(w.user("auditor", "admin=audit:read")), &file, userfile.CSV), "permission_missing")
	if file.Len() > 0 {
		t.Errorf("written: %s", file.String())
	}
	taking := &afterWrite{do: func() {
		if err := w.RemoveClaim(ctx, System(), "of exporter", "admin=users:read"); err != nil {
			t.Error(err)
		}
	}}
	w.attack(w.ExportUsers(ctx, as(exporter), taking, userfile.JSONLines), "permission_missing")
	if n := strings.Count(taking.String(), "\n"); n < 1 || n > MaxPage {
		t.Errorf("%d users were written", n)
	}
	if err := w.ExportUsers(ctx, System(), fullFile{}, userfile.JSON); !errors.Is(err, errFull) {
		t.Error(err)
	}
}

// Two imports of one file at once, on two replicas, make each user once.
func TestTwoImportsOfOneFile(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		root, other := w.superuser("root"), w.superuser("other")
		w.group("Staff", "shop=buyer")
		text := "username,email,groups\n"
		const many = 30
		for i := range many {
			text += fmt.Sprintf("user%02d,u%d@example.org,Staff\n", i, i)
		}
		rows := parse(t, text)
		second := replica(t, w.url)
		all := make([]Progress, 2)
		var running sync.WaitGroup
		for n, i := range []struct {
			w *world
			u store.User
		}{{w, root}, {second, other}} {
			running.Go(func() {
				one, err := i.w.BeginImport(t.Context(), as(i.u), rows)
				if err != nil {
					t.Error(err)
					return
				}
				one.pause = 0
				all[n] = one.Run(t.Context())
			})
		}
		running.Wait()
		if created, present := all[0].Created+all[1].Created, all[0].Present+all[1].Present; created != many || present != many {
			t.Errorf("%+v", all)
		}
		if l, err := w.MembersOfGroup(t.Context(), System(), "Staff", Page{Limit: MaxPage}); err != nil || len(l.Items) != many {
			t.Errorf("%d members, %v", len(l.Items), err)
		}
	})
}
