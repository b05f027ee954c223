package pages

import (
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/watchword-auth/watchword/test/browser"
)

// boss sits at a browser as the administrator, and is at the overview.
func (w *World) boss(t *testing.T) *person {
	t.Helper()
	p := w.sits(t, User{Name: AdminName, Password: AdminPassword})
	p.open("/signin?return=%2Fadmin")
	p.types(p.Name, p.Password)
	p.at("/admin", 200)
	return p
}

// asks clicks what leads to a question, and answers it in the dialog.
func (p *person) asks(question, answer string, texts ...string) {
	p.t.Helper()
	p.In("main").Click("link", question)
	p.In("dialog").Sees(texts...)
	p.In("dialog").Follow("button", answer)
}

// Whoever has no right of administration reads so. Whoever has one comes from the sign-in to the
// page that they asked for, with their second factor.
func TestAdministrators(t *testing.T) {
	w := world(t)
	p := w.sits(t, w.User(t, "noright")).in()
	p.open("/admin")
	p.at("/admin", http.StatusForbidden)
	p.Sees("Your account has no right of administration")
	browser.Axe(t, p.Browser)
	for _, path := range []string{"/admin/users", "/admin/token", "/admin/users/" + p.ID + "/edit"} {
		p.open(path)
		p.at(path, http.StatusForbidden)
	}

	u := w.Administrator(t, "oncall", "all")
	app, _ := w.app(t, u)
	q := w.sits(t, u)
	q.open("/admin/users")
	q.at("/signin?return=%2Fadmin%2Fusers", 200)
	q.types(u.Name, u.Password)
	q.at("/signin/factor", 200)
	q.Fill("Code", app.next())
	q.Follow("button", "Continue")
	q.at("/admin/users", 200)
	q.Follow("link", "Overview")
	q.at("/admin", 200)
	for range 2 {
		q.Follow("link", "Groups")
		q.at("/admin/groups", 200)
		q.Follow("link", "Checks")
		q.at("/admin/checks", 200)
	}

	// Who has few rights sees few pages, and no button that would be refused.
	r := w.sits(t, w.Administrator(t, "reader", "users:read"))
	r.open("/admin")
	r.types(r.Name, r.Password)
	r.at("/admin", 200)
	if got := strings.Join(r.Names("link"), "|"); !strings.Contains(got, "Users|Token|Checks") || contains(got, "Groups", "Sessions", "Audit") {
		t.Errorf("links are %s", got)
	}
	r.open("/admin/users/" + p.ID)
	for _, name := range []string{"Edit", "Delete"} {
		if r.Has("link", name) {
			t.Errorf("%s is offered", name)
		}
	}
	r.open("/admin/audit")
	r.at("/admin/audit", http.StatusForbidden)
}

// The overview and the cluster change while somebody looks at them. The replica that served the
// last page is killed, and the next click works on the other one.
func TestOverviewAndCluster(t *testing.T) {
	w := world(t)
	p := w.boss(t)
	p.open("/admin?span=15m")
	if n := browser.Eval[int](p.Browser, "[...document.querySelectorAll('figure.chart')].filter(f => f.querySelector('svg[role=img] title') && f.querySelector('details table')).length"); n < 8 {
		t.Errorf("%d charts have a title and a table", n)
	}
	p.In("#choices").Follow("link", "auth-1")
	p.Sees("the last 5 minutes of auth-1")
	if !strings.Contains(p.URL(), "replica=auth-1") || !strings.Contains(p.URL(), "span=15m") {
		t.Errorf("the address is %s", p.URL())
	}
	p.In("#choices").Follow("link", "All replicas")
	browser.Eval[bool](p.Browser, "(document.body.dataset.stays = 'yes', true)")
	signIns := `Number([...document.querySelectorAll('.stat')].find(e => e.textContent.includes('Sign-ins')).textContent.replaceAll(',', '').match(/[0-9]+/)[0])`
	before := browser.Eval[float64](p.Browser, signIns)
	u := w.User(t, "counted")
	client := w.client(t)
	for range 5 {
		client.LoginWith(u.Name, u.Password)
	}

	c := p.tab()
	c.open("/admin/cluster")
	if n := browser.Eval[int](c.Browser, "document.querySelectorAll('.ring g .body').length"); n != 2 {
		t.Errorf("%d replicas are drawn\n%s", n, c.Describe())
	}
	c.Sees("auth-0", "auth-1", "Lives of the signing keys", "What happens next")
	killed := w.ServedBy(t, c.Browser)
	w.vanish(t, killed)
	c.Follow("link", "Users")
	c.at("/admin/users", 200)
	c.open("/admin/cluster")
	other := w.ServedBy(t, c.Browser)
	if other == killed {
		t.Fatalf("%s answers though it was killed", killed.Name)
	}
	browser.Eval[bool](c.Browser, "(document.body.dataset.stays = 'yes', true)")

	p.Until(signIns + " >= " + fmt.Sprint(before+5))
	c.Until("document.querySelector('.ring g.silent') && document.body.innerText.includes('" + killed.Name + " has been silent for')")
	for _, one := range []*person{p, c} {
		if !browser.Eval[bool](one.Browser, "document.body.dataset.stays === 'yes'") {
			t.Errorf("%s was loaded again", one.Path())
		}
	}
	p.open("/admin")
	p.Sees(killed.Name + " has been silent for")
	c.looks("")
}

// The database goes, and the checks say so as soon as somebody looks.
func TestChecks(t *testing.T) {
	w := world(t)
	p := w.boss(t)
	p.open("/admin/checks")
	p.Sees("Everything answers, and this replica takes traffic.", "The database", "Redis")
	p.looks("")
	w.WithoutRedis(t, func() {
		p.Reload()
		p.Sees("Redis", "failed")
	})
	w.WithoutDatabase(t, func() {
		p.Tolerate("Response Status Error Code 503 from /admin/checks")
		// A page that is open says that it is not renewed. Nobody's rights are known, so that there
		// is no new one.
		browser.Eval[bool](p.Browser, "document.dispatchEvent(new Event('visibilitychange'))")
		p.Sees("What is shown is no longer up to date.")
		p.Reload()
		p.at("/admin/checks", http.StatusServiceUnavailable)
		p.Sees("This cannot be answered at the moment. Try again in")
	})
	p.open("/admin/checks")
	p.Sees("Everything answers")
}

// One task by the keyboard alone: an administrator makes a user, adds them to a group, takes that
// back, and deletes them after a question.
func TestAdministrationByKeyboard(t *testing.T) {
	w := world(t)
	p := w.boss(t)
	g := w.Group(t, w.word("keyboard"))
	name := w.word("typed")
	p.open("/admin/users")
	p.tabTo("link", "New user")
	p.Navigates(func() { p.Press("Enter") })
	p.Until("document.activeElement.name === 'username'")
	p.Press(name, "Tab", "Kim", "Tab", "Key")
	p.tabTo("textbox", "Password")
	p.Press("a password of many words")
	p.Navigates(func() { p.Press("Enter") })
	p.Sees(name + " has been created.")
	p.tabTo("combobox", "Add to a group, by its name")
	p.Press(g.Name, "Escape")
	p.Navigates(func() { p.Press("Enter") })
	p.Sees(name + " is now a member of " + g.Name + ".")
	p.tabTo("button", "Undo")
	p.Navigates(func() { p.Press("Enter") })
	p.Sees("In no group")
	p.stops("Skip to the content", "Users", "Edit", "Set a password", "Delete")

	p.tabTo("link", "Delete")
	p.Press("Enter")
	p.In("dialog").Sees("Deleting " + name + " ends their sessions and revokes their tokens.")
	p.Press("Escape")
	p.Until("!document.querySelector('dialog')")
	if role, link := p.Focused(); role != "link" || link != "Delete" {
		t.Errorf("after the question the %s %q has the focus", role, link)
	}
	p.Press("Enter")
	p.In("dialog").Sees("Delete " + name)
	p.tabTo("button", "Delete "+name)
	p.Navigates(func() { p.Press("Enter") })
	p.at("/admin/users", 200)
	p.Sees(name + " has been deleted.")
}

// tabTo presses the Tab key until something has the focus.
func (p *person) tabTo(role, name string) {
	p.t.Helper()
	var seen []string
	for range 80 {
		p.Press("Tab")
		r, n := p.Focused()
		if r == role && n == name {
			return
		}
		seen = append(seen, r+" "+n)
	}
	p.t.Fatalf("the Tab key does not come to the %s %q: %q\n%s", role, name, seen, p.Describe())
}

// The session ends while an administrator edits a user. What was typed is there after the
// sign-in, and is sent.
func TestSessionEndsWhileAdministering(t *testing.T) {
	w := world(t)
	u := w.User(t, "edited")
	admin := w.Administrator(t, "editor", "all")
	p := w.sits(t, admin).in()
	p.open("/admin/users/" + u.ID + "/edit")
	p.Fill("First name", "Typed in vain?")
	w.endSessions(t, admin)
	p.Follow("button", "Save")
	if p.Status() != http.StatusUnauthorized {
		t.Fatal(p.Describe())
	}
	p.Sees("Your session has ended. Sign in again; what you typed is kept.")
	p.types(admin.Name, admin.Password)
	p.Sees("Continue what you were doing?")
	p.Follow("button", "Continue")
	p.at("/admin/users/"+u.ID, 200)
	p.Sees("Typed in vain?")
}

// What is essential works without scripts, and questions are pages.
func TestAdministrationWithoutScripts(t *testing.T) {
	w := world(t)
	p := w.boss(t)
	p.Scripts(false)
	name, g := w.word("plain"), w.Group(t, w.word("plain"))
	p.open("/admin/users/new")
	p.Fill("Username", name)
	p.Fill("Password", "a password of many words")
	p.Follow("button", "Create user")
	p.Sees(name + " has been created.")
	p.Follow("link", "Edit")
	p.Fill("First name", "Renamed")
	p.Follow("button", "Save")
	p.Sees("Renamed")
	p.Fill("Add to a group, by its name", g.Name)
	p.Follow("button", "Add")
	p.Sees(name + " is now a member of " + g.Name + ".")
	p.Follow("button", "Remove from "+g.Name)
	p.Sees(name + " is no longer a member of " + g.Name + ".")
	p.Follow("button", "Undo")
	p.Sees(name + " is now a member of " + g.Name + ".")

	client := w.client(t)
	token := client.LoginWith(name, "a password of many words").AccessToken
	p.open("/admin/revocations/new")
	p.In("main").Fill("The whole token", token)
	p.Follow("button", "Revoke the token")
	p.Sees("is revoked: entry")
	client.Want(client.Do("GET", "/api/verify", token, nil), http.StatusUnauthorized, "token_revoked")
	p.open("/admin/limits")
	p.Fill("User", name)
	p.In("form[action='/admin/limits/account']").Follow("button", "Look")
	p.Follow("link", "Lift the limits of "+name)
	p.Follow("button", "Lift")
	p.Sees("The limits of the account are lifted.")

	p.open("/admin/users")
	p.Fill("q", name)
	p.Follow("button", "Search")
	p.Follow("link", name)
	p.Follow("link", "Delete")
	p.Sees("Deleting "+name+" ends their sessions", "a member of "+g.Name)
	p.Follow("link", "Cancel")
	p.Follow("link", "Delete")
	p.Follow("button", "Delete "+name)
	p.Sees(name + " has been deleted.")
	file := filepath.Join(t.TempDir(), "users.csv")
	if err := os.WriteFile(file, []byte("username\n"+name+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.open("/admin/users/import")
	p.Upload("file", file)
	p.Follow("button", "Import")
	p.Sees("rows")
}

// vanish kills a replica, which leaves the registry as one does whose machine loses its power:
// with its last beat in it.
func (w *World) vanish(t *testing.T, r *Replica) {
	t.Helper()
	db, err := sql.Open("pgx", w.Database.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	do := func(statements ...string) {
		t.Helper()
		for _, s := range statements {
			if _, err := db.ExecContext(t.Context(), s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
	}
	of := " WHERE instance = '" + r.Name + "'"
	do("DROP TABLE IF EXISTS kept_replicas, kept_secrets",
		"CREATE TABLE kept_replicas AS SELECT * FROM replicas"+of, "CREATE TABLE kept_secrets AS SELECT * FROM replica_secrets"+of)
	w.Kill(t, r)
	do("INSERT INTO replicas SELECT * FROM kept_replicas ON CONFLICT DO NOTHING", "INSERT INTO replica_secrets SELECT * FROM kept_secrets ON CONFLICT DO NOTHING",
		"DROP TABLE kept_replicas, kept_secrets")
}
