package admin_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// The list goes on and back in both orders, and has no page that is empty.
func TestListsGoOnAndBack(t *testing.T) {
	o := newOffice(t)
	v := o.visitor("users:read")
	for n := range 120 {
		if _, err := o.people.CreateUser(t.Context(), directory.System(), directory.NewUser{Username: fmt.Sprintf("crew%03d", n)}); err != nil {
			t.Fatal(err)
		}
	}
	names := regexp.MustCompile(`>(crew\d{3})<`)
	link := func(r reply, text string) string {
		m := regexp.MustCompile(`href="([^"]*)"[^>]*>` + text + `<`).FindStringSubmatch(r.body)
		if m == nil {
			return ""
		}
		return strings.ReplaceAll(m[1], "&amp;", "&")
	}
	bounds := func(r reply) string {
		all := names.FindAllStringSubmatch(r.body, -1)
		if len(all) == 0 {
			t.Fatalf("nobody: %s", r.text())
		}
		return all[0][1] + " to " + all[len(all)-1][1]
	}
	for _, order := range []struct {
		query string
		pages []string
	}{
		{"?q=crew", []string{"crew000 to crew049", "crew050 to crew099", "crew100 to crew119"}},
		{"?q=crew&order=desc", []string{"crew119 to crew070", "crew069 to crew020", "crew019 to crew000"}},
	} {
		r := v.sees("/admin/users" + order.query)
		for n, want := range order.pages {
			if n > 0 {
				r = v.sees(link(r, "Next"))
			}
			if got := bounds(r); got != want {
				t.Errorf("%s, page %d: %s, want %s", order.query, n, got, want)
			}
		}
		if link(r, "Next") != "" {
			t.Error("the last page has a next one")
		}
		for n := 1; n >= 0; n-- {
			r = v.sees(link(r, "Previous"))
			if got := bounds(r); got != order.pages[n] {
				t.Errorf("%s, back on page %d: %s, want %s", order.query, n, got, order.pages[n])
			}
		}
		if link(r, "Previous") != "" {
			t.Error("the first page has a previous one")
		}
		if got := bounds(v.sees(link(v.sees(link(r, "Next")), "First page"))); got != order.pages[0] {
			t.Errorf("the first page is %s", got)
		}
	}
	if !strings.Contains(v.sees("/admin/users?q=crew").body, `aria-sort="ascending"`) || !strings.Contains(v.sees("/admin/users?q=crew&order=desc").body, `aria-sort="descending"`) {
		t.Error("the table does not say how it is sorted")
	}
	part := v.send("GET", "/admin/users?q=crew007", "", "", "HX-Request", "true")
	if strings.Contains(part.body, "<html") || !strings.HasPrefix(part.body, `<div id="list"`) || bounds(part) != "crew007 to crew007" {
		t.Errorf("what htmx gets: %s", part.body)
	}
	v.sees("/admin/users?q=%3Cnobody+here", "Nobody found")
	v.sees("/admin/users?q=crew&after=zzzz", "No more users")
	v.sees("/admin/users?q="+o.user(v.id).Email, v.name)
}

// A user is made, with what the form has, or the form says what is wrong and keeps what was typed.
func TestCreateUser(t *testing.T) {
	o := newOffice(t)
	v := o.visitor("all")
	x := o.things()
	v.sees("/admin/users/new", "New user", o.user(x.user).Username) // the group has the same name
	r := v.post("/admin/users/new", "username", "alice", "password", "short", "email", "alice@example.com", "first_name", "Alice", "groups[]", x.group)
	o.shows(r, 422, "A password has at least 8 characters", `value="alice@example.com"`, `value="Alice"`, `aria-invalid="true"`)
	if strings.Contains(r.body, "short") {
		t.Error("the password is shown again")
	}
	if !regexp.MustCompile(`value="` + x.group + `" checked`).MatchString(r.body) {
		t.Error("the group that was chosen is not kept")
	}
	to := o.leads(v.post("/admin/users/new", "username", "alice", "password", kit.Password, "email", "alice@example.com", "email_verified", "on",
		"first_name", "Alice", "last_name", "Archer", "groups[]", x.group), "/admin/users/")
	v.sees(to, "alice", "Alice Archer", "alice@example.com verified", o.user(x.user).Username)
	o.Login("alice")
	for _, field := range [][]string{{"username", "ALICE"}, {"username", "a b"}, {"username", "carol", "email", "no address"}, {"username", "carol", "email", "Alice@example.com"}, {"username", "carol", "last_name", "a\tb"}} {
		r := v.post("/admin/users/new", field...)
		if r.status != 422 && r.status != 409 || !strings.Contains(r.body, `aria-invalid="true"`) {
			t.Errorf("%v: %d %s", field, r.status, r.text())
		}
	}
	// Sent twice, as by a double click without scripts.
	o.shows(v.post("/admin/users/new", "username", "alice"), 409, "There is a user of this name")

	// By a recovery link instead of a password.
	r = o.shows(v.post("/admin/users/new", "username", "bob", "first", "link", "password", "ignored"), 200, "This is shown once")
	token := regexp.MustCompile(`https://auth\.example\.com/signin/recover#token=([^"<&]+)`).FindStringSubmatch(r.body)
	if token == nil {
		t.Fatalf("no link: %s", r.text())
	}
	o.Want(o.Do("POST", "/api/login/recover", "", map[string]any{"recovery_token": token[1], "new_password": kit.Password}), 204, "")
	o.Login("bob")
	if strings.Contains(o.Log.String(), token[1]) {
		t.Error("the token is in the log")
	}
}

func TestEditUser(t *testing.T) {
	o := newOffice(t)
	v, other := o.visitor("all"), o.visitor("users:write")
	x := o.things()
	path := "/admin/users/" + x.user
	version := func() string { return strconv.FormatInt(o.user(x.user).Version, 10) }
	name, email := o.user(x.user).Username, o.user(x.user).Email
	seen := version()
	v.sees(path+"/edit", `name="version" value="`+seen+`"`, `value="`+email+`"`)

	// Another one saves first.
	o.leads(other.post(path+"/edit", "username", name, "email", email, "first_name", "First", "version", seen), path)
	r := o.shows(v.post(path+"/edit", "username", name, "email", email, "first_name", "Second", "version", seen), 409,
		"Somebody else changed this", "What it is now", `value="Second"`, `value="`+version()+`"`)
	if o.user(x.user).FirstName != "First" {
		t.Errorf("the later one has overwritten the first: %s", r.text())
	}
	o.leads(v.post(path+"/edit", "username", name, "email", email, "first_name", "Second", "version", version()), path)
	if got := o.user(x.user).FirstName; got != "Second" {
		t.Errorf("the name is %q", got)
	}

	// Who may verify, does, once for each address.
	o.shows(other.post(path+"/edit", "username", name, "email", email, "email_verified", "on", "version", version()), 403, "does not have the right")
	o.leads(v.post(path+"/edit", "username", name, "email", email, "email_verified", "on", "version", version()), path)
	if !o.user(x.user).EmailVerified {
		t.Error("the address is not verified")
	}
	o.leads(other.post(path+"/edit", "username", name, "email", "other-"+email, "email_verified", "on", "verified", "on", "version", version()), path)
	if u := o.user(x.user); u.EmailVerified || u.Email != "other-"+email {
		t.Errorf("another address, which nobody verified: %+v", u)
	}

	o.shows(v.post(path+"/edit", "username", "a b", "version", version()), 422, `value="a b"`, `aria-invalid="true"`)
	o.shows(v.post(path+"/edit", "username", v.name, "version", version()), 409, "There is a user of this name")
	o.leads(v.post(path+"/password", "password", kit.Password), path)
	o.Login(name)
	o.shows(v.post(path+"/password", "password", "short"), 422, "A password has at least 8 characters")
	if got := v.get("/admin/users/" + v.id + "/password").header.Get("Location"); got != "/account/password" {
		t.Errorf("one's own password is changed at %q", got)
	}

	v.sees(path+"/delete", "Deleting "+name+" ends their sessions and revokes their tokens", "Delete "+name)
	o.leads(v.post(path+"/delete", "name", name), "/admin/users")
	for _, gone := range []reply{v.get(path), v.get(path + "/edit"), v.post(path + "/delete"), v.post(path+"/edit", "username", name), v.post(path + "/disable"),
		v.post(path+"/password", "password", kit.Password), v.post(path + "/recovery"), v.post(path + "/factors/reset"), v.post(path+"/groups/add", "group", x.group)} {
		o.shows(gone, 404, "There is no such user")
	}
	o.shows(v.get(path+"/nothing"), 404, "There is no such page")
}

// What can be undone is, by the button that the next page has.
func TestUndo(t *testing.T) {
	o := newOffice(t)
	v, other := o.visitor("all"), o.visitor("all")
	x := o.things()
	path, group := "/admin/users/"+x.user, "/admin/groups/"+x.group
	name := o.user(x.user).Username
	press := func(page string, says string) string {
		t.Helper()
		if r := other.sees(page); strings.Contains(r.body, "Undo") {
			t.Errorf("whoever follows a link to %s is told that it was done, and offered to undo it", page)
		}
		r := v.sees(page, says, "Undo")
		form := regexp.MustCompile(`(?s)<form method="post" action="([^"]*)">(?:<input type="hidden" name="(\w+)" value="([^"]*)">)?\s*<button type="submit" class="button">Undo`).FindStringSubmatch(r.body)
		if form == nil {
			t.Fatalf("no button: %s", r.body)
		}
		return o.leads(v.post(form[1], form[2], form[3]), strings.SplitN(page, "?", 2)[0])
	}
	now := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	to := o.leads(v.post(path+"/disable"), path)
	now("disabled", o.user(x.user).Disabled, true)
	to = press(to, "is disabled")
	now("disabled", o.user(x.user).Disabled, false)
	press(to, "can sign in again")
	now("disabled", o.user(x.user).Disabled, true)

	to = o.leads(v.post(path+"/groups/add", "group", strings.ToUpper(name)), path) // by name
	now("groups", o.groupsOf(x.user), []string{name})
	to = press(to, "is now a member of "+name)
	now("groups", o.groupsOf(x.user), []string{})
	press(to, "is no longer a member of "+name)
	now("groups", o.groupsOf(x.user), []string{name})
	to = press(o.leads(v.post(group+"/members/remove", "user", x.user), group), "is no longer a member")
	now("groups", o.groupsOf(x.user), []string{name})
	press(to, "is now a member")
	now("groups", o.groupsOf(x.user), []string{})

	claims := func() int {
		all, err := o.people.ClaimsOfGroup(t.Context(), directory.System(), x.group)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	to = press(o.leads(v.post(group+"/claims/add", "claim", name), group), "now gives "+name)
	now("claims", claims(), 0)
	press(to, "no longer gives "+name)
	now("claims", claims(), 1)

	// What is not so any more is not said, whatever the address says.
	for _, page := range []string{path + "?done=enabled", path + "?done=left&group=" + x.claim, path + "?done=joined&group=" + x.group, group + "?done=taken&of=" + x.claim, group + "?done=joined&of=" + x.user} {
		if r := v.sees(page); strings.Contains(r.body, "Undo") {
			t.Errorf("%s offers to undo what was not done", page)
		}
	}
	o.shows(v.post(path+"/groups/add", "group", "no such group"), 404, "There is no such group", "Details")
	o.shows(v.post(group+"/claims/add", "claim", "no such claim"), 404, "There is no such claim", "Members")
	o.shows(v.post(group+"/members/add", "user", "nobody"), 404, "There is no such user", "Members")
}

// Whoever holds more than the visitor is beyond them. The page says why, and offers nothing.
func TestBeyondOwnRights(t *testing.T) {
	o := newOffice(t)
	boss, v := o.visitor("all"), o.visitor("users:write", "groups:write", "sessions:write", "revoke", "claims:write")
	path := "/admin/users/" + boss.id
	r := v.sees(path, "holds rights that your account does not hold", "you lack admin=all")
	for _, action := range []string{"/edit", "/delete", "/disable", "/password", "/recovery", "/groups/add", "/sessions"} {
		if strings.Contains(r.body, path+action+`"`) {
			t.Errorf("the page offers %s", action)
		}
	}
	if r := v.sees(path + "/token"); !strings.Contains(r.text(), "whose rights your account holds too") || !strings.Contains(r.body, "<code>all</code>") {
		t.Errorf("the token of a stronger user: %s", r.text())
	}
	for _, action := range []string{"/disable", "/delete", "/factors/reset", "/sessions/end-all", "/recovery"} {
		o.shows(v.post(path+action), 403, "rights that your own account does not hold")
	}
	groups, err := o.people.GroupsOf(t.Context(), directory.System(), boss.id)
	if err != nil {
		t.Fatal(err)
	}
	group := "/admin/groups/" + groups[0].ID
	if r := v.sees(group, "you lack admin=all"); strings.Contains(r.body, group+"/delete") {
		t.Error("the page offers to delete the group")
	}
	o.shows(v.post(group+"/delete"), 403, "rights that your own account does not hold", "Members")
	o.shows(v.post("/admin/claims/new", "name", "mine", "short_name", "admin", "value", "all"), 403, "can be made by a superuser", `value="mine"`)
}

func TestGroupsAndClaims(t *testing.T) {
	o := newOffice(t)
	v := o.visitor("all")
	x := o.things()
	name := o.user(x.user).Username
	o.shows(v.post("/admin/claims/new", "name", "Log reader", "short_name", "exp", "value", "r"), 422, `value="Log reader"`, `aria-invalid="true"`)
	o.shows(v.post("/admin/claims/new", "name", "Log reader", "short_name", "log", "value", "a,b"), 422, `value="a,b"`, `aria-invalid="true"`)
	claim := o.leads(v.post("/admin/claims/new", "name", "Log reader", "short_name", "log", "value", "r"), "/admin/claims/")
	v.sees(claim, "log=r", "No group gives it")
	o.shows(v.post("/admin/groups/new", "name", name), 409, "There is a group of this name", `aria-invalid="true"`)
	group := o.leads(v.post("/admin/groups/new", "name", "Readers", "claims[]", claim[len("/admin/claims/"):]), "/admin/groups/")
	v.sees(group, "log=r", "No members")
	o.leads(v.post(group+"/members/add", "user", name), group)
	v.sees(group, name)
	v.sees(group+"?q=nobody", "Nobody found")
	v.sees(claim, "Readers")
	v.sees("/admin/users/"+x.user+"/token", "Readers", `&#34;log&#34;: &#34;r&#34;`, "The user would get no token now")
	v.sees(claim+"/delete", "takes log=r from the members of Readers")
	v.sees(group+"/delete", "Deleting the group Readers takes log=r from its 1 member. Their tokens are revoked")

	g, err := o.people.Group(t.Context(), directory.System(), "Readers")
	if err != nil {
		t.Fatal(err)
	}
	o.leads(v.post(group+"/edit", "name", "Log readers", "version", fmt.Sprint(g.Version)), group)
	o.shows(v.post(group+"/edit", "name", "Others", "version", fmt.Sprint(g.Version)), 409, "Somebody else changed this", `value="Others"`)
	o.leads(v.post(claim+"/edit", "name", "Log reader", "short_name", "log", "value", "read", "version", "1"), claim)
	o.shows(v.post(claim+"/edit", "name", "Mine", "short_name", "log", "value", "r", "version", "1"), 409, "Now it is Log reader, log=read", `value="Mine"`)
	o.leads(v.post(claim+"/delete"), "/admin/claims")
	o.shows(v.post(claim+"/delete"), 404, "There is no such claim")
	o.leads(v.post(group+"/delete"), "/admin/groups")
	for _, gone := range []reply{v.get(group), v.post(group + "/delete"), v.post(group+"/edit", "name", "x"), v.post(group+"/claims/add", "claim", x.claim)} {
		o.shows(gone, 404, "There is no such group")
	}
}

func TestSessionsAndFactors(t *testing.T) {
	o := newOffice(t)
	v, u := o.visitor("all"), o.visitor()
	path := "/admin/users/" + u.id
	first := o.Login(u.name)
	v.sees(path+"/sessions", "Mozilla/5.0 <b>bold</b>", "192.0.2.7", "App")
	ask := v.sees(path+"/sessions/end?id="+first.SessionID, "Ending the session of "+u.name)
	if !strings.Contains(ask.body, first.SessionID) {
		t.Error("the question does not name the session")
	}
	o.shows(v.get(path+"/sessions/end?id="+v.id), 404, "There is no such session")
	o.leads(v.post(path+"/sessions/end", "id", first.SessionID), path+"/sessions")
	o.Want(o.Do("GET", "/api/verify", first.AccessToken, nil), 401, "token_revoked")
	o.Want(o.Do("GET", "/api/verify", u.token, nil), 200, "")
	v.sees(path+"/sessions/end-all", "signs "+u.name+" out everywhere")
	o.leads(v.post(path+"/sessions/end-all"), path+"/sessions")
	o.Want(o.Do("GET", "/api/verify", u.token, nil), 401, "token_revoked")
	v.sees(path+"/sessions", "Not signed in")

	u.token = o.Login(u.name).AccessToken
	v.sees(path+"/factors", "No second factor")
	enrolled := u.enrol()
	o.shows(v.get(path+"/factors/remove?id=x"), 404)
	o.shows(v.post(path+"/factors/remove"), 404)
	v.sees(path+"/factors/reset", "Resetting the second factors of "+u.name)
	factor := regexp.MustCompile(`/factors/remove\?id=([0-9a-f-]+)"`).FindStringSubmatch(v.sees(path+"/factors", "Authenticator app").body)
	v.sees(path+"/factors/remove?id="+factor[1], "Removing the second factor “Authenticator app” of "+u.name)
	o.leads(v.post(path+"/factors/remove", "id", factor[1]), path+"/factors")
	o.Want(o.Do("GET", "/api/verify", enrolled, nil), 401, "token_revoked")
	v.sees(path+"/factors", "No second factor")
	u.token = o.Login(u.name).AccessToken
	u.enrol()
	o.leads(v.post(path+"/factors/reset"), path+"/factors")
	o.shows(v.post(path+"/factors/reset"), 404, "There is no such factor", "Second factors")
	o.shows(v.post("/admin/users/"+v.id+"/recovery"), 403)
	o.shows(v.post(path+"/recovery", "expires_in", "1"), 422, "one minute to seven days")
	r := o.shows(v.post(path+"/recovery", "expires_in", "86400", "keep_factors", "on"), 200, "Recovery link for "+u.name, "/signin/recover#token=")
	if r.header.Get("Cache-Control") != "no-store" {
		t.Error("a browser may keep the link")
	}
	v.sees(path+"/events", "session_end_all", "user.recovery", v.name)
}

// The token of the page is the one that a login gives.
func TestTokenPreview(t *testing.T) {
	o := newOffice(t)
	v := o.visitor("all")
	id := o.User("crewman", "log=r", "log=w", "ship=acc")
	r := v.sees("/admin/users/"+id+"/token", "of crewman", "ship")
	m := regexp.MustCompile(`(?s)aria-label="Claims of the token">(.*?)</pre>`).FindStringSubmatch(r.body)
	if m == nil {
		t.Fatal(r.text())
	}
	var shown map[string]any
	if err := json.Unmarshal([]byte(strings.ReplaceAll(m[1], "&#34;", `"`)), &shown); err != nil {
		t.Fatal(err)
	}
	real := o.Verify(o.Login("crewman").AccessToken)
	for name, want := range real {
		switch name {
		case "jti", "sid", "exp", "iat", "iat_exact", "nbf", "auth_time", "epoch":
			continue
		}
		if fmt.Sprint(shown[name]) != fmt.Sprint(want) {
			t.Errorf("%s is %v, and in a token %v", name, shown[name], want)
		}
	}
	o.shows(v.get("/admin/users/"+id+"/token?audience=https://evil.example"), 400, "Tokens are not issued for this audience")
	o.leads(v.post("/admin/users/"+id+"/disable"), "/admin/users/")
	v.sees("/admin/users/"+id+"/token", "The user would get no token now", "disabled")
}

// What people put into names is shown as they wrote it, and never as markup.
func TestNamesAreNoMarkup(t *testing.T) {
	o := newOffice(t)
	v := o.visitor("all")
	const evil = `<script>alert(1)</script>`
	const attribute = `"onmouseover='alert(1)'x="`
	names := []string{evil, attribute, `'><img/src=x>`, `{{7*7}}`, `javascript:alert(1)`}
	var pages []string
	for n, name := range names {
		u, err := o.people.CreateUser(t.Context(), directory.System(), directory.NewUser{
			Username: name, FirstName: name, LastName: name, Email: fmt.Sprintf(`"%s"@example.com`, strings.NewReplacer(`"`, "", `(`, "", `)`, "").Replace(name)),
		})
		if err != nil { // not every address can be one
			u, err = o.people.CreateUser(t.Context(), directory.System(), directory.NewUser{Username: name, FirstName: name, LastName: name})
		}
		if err != nil {
			t.Fatal(err)
		}
		g, err := o.people.CreateGroup(t.Context(), directory.System(), directory.NewGroup{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		c := o.claim(name, fmt.Sprintf("color%d", n), name)
		if err := o.people.AddClaim(t.Context(), directory.System(), g.ID, c); err != nil {
			t.Fatal(err)
		}
		if err := o.people.AddToGroup(t.Context(), directory.System(), u.ID, g.ID); err != nil {
			t.Fatal(err)
		}
		user, group, claim := "/admin/users/"+u.ID, "/admin/groups/"+g.ID, "/admin/claims/"+c
		pages = append(pages, user, user+"/edit", user+"/password", user+"/delete", user+"/token", user+"/factors", user+"/factors/reset", user+"/recovery", user+"/sessions", user+"/sessions/end-all", user+"/events",
			group, group+"/edit", group+"/delete", claim, claim+"/edit", claim+"/delete", user+"?done=joined&group="+g.ID)
	}
	check := func(what string, r reply) {
		t.Helper()
		for _, bad := range []string{evil, "<img/src", attribute, `href="javascript:`, "<b>bold"} {
			if strings.Contains(r.body, bad) {
				t.Errorf("%s has %s", what, bad)
			}
		}
	}
	pages = append(pages, "/admin/users", "/admin/users/new", "/admin/groups", "/admin/groups/new", "/admin/claims", "/admin/users/"+v.id+"/sessions",
		"/admin/users?q="+"%3Cscript%3Ealert(1)%3C/script%3E", "/admin/groups?q=%22onmouseover%3D")
	for _, p := range pages {
		check(p, v.sees(p))
	}
	for _, path := range []string{"/admin/users/new", "/admin/groups/new", "/admin/claims/new"} {
		check(path, v.post(path, "username", evil, "name", evil, "first_name", attribute, "last_name", "\x01"+evil, "email", evil, "short_name", evil, "value", attribute))
	}
	check("/admin/users", v.post("/admin/users/new", "username", attribute+" "+evil, "email", attribute))
	to := o.leads(v.upload(`"><script>alert(1)</script>.csv`, "username,groups\n"+`"<script>alert(1)</script> x",`+"\nsomebody,<script>alert(1)</script>no\n"), "/admin/users/import/")
	r := v.awaits(to)
	check("the import", r)
	o.shows(r, 200, "&lt;script&gt;alert(1)&lt;/script&gt;")
	check("a wrong file", v.upload("x.csv", evil+"\n1\n"))
}

// awaits gets the page of an import until it has ended.
func (v *visitor) awaits(path string) (r reply) {
	v.o.T.Helper()
	v.o.Await("the end of the import", func() bool {
		r = v.sees(path)
		return !strings.Contains(r.text(), "The import is running")
	})
	return r
}

func TestImportAndExport(t *testing.T) {
	o := newOffice(t)
	v := o.visitor("users:write", "users:verify", "groups:read")
	if _, err := o.people.CreateGroup(t.Context(), directory.System(), directory.NewGroup{Name: "Crew"}); err != nil {
		t.Fatal(err)
	}
	v.sees("/admin/users/import", "username,email,email_verified", "16 MiB")
	file := "username,email,email_verified,groups\nann,ann@example.com,true,Crew\nbea,,,Nobody\n=cmd,not an address,,\nann,,,\ndan,,maybe,\n"
	r := v.awaits(o.leads(v.upload("people.csv", file), "/admin/users/import/"))
	o.shows(r, 200, "The import is done. Some rows were refused", "5 of 5 rows", `there is no group "Nobody"`, "line 2 has a user of this name", "email_verified is true, false or empty")
	if u, err := o.people.User(t.Context(), directory.System(), "ann"); err != nil || !u.EmailVerified || fmt.Sprint(o.groupsOf(u.ID)) != "[Crew]" {
		t.Errorf("ann is %+v %v", u, err)
	}
	if strings.Contains(r.body, "hx-trigger") {
		t.Error("the page asks on after the end")
	}
	again := v.awaits(o.leads(v.upload("people.csv", file), "/admin/users/import/"))
	o.shows(again, 200, "There already 1")
	report := v.sees(regexp.MustCompile(`/admin/users/import/[^"]*/refused`).FindString(r.body))
	if got := report.header.Get("Content-Disposition"); got != `attachment; filename="refused.csv"` {
		t.Errorf("the report is served as %q", got)
	}
	if !strings.HasPrefix(report.body, "line,username,code,why\n3,bea,group_not_found,") || !strings.Contains(report.body, "\n4,'=cmd,") {
		t.Errorf("the report is %s", report.body)
	}
	v.sees("/admin/users/import", "Your imports of the last day", "done, some refused")

	for content, says := range map[string]string{
		"":                          "The file is empty",
		"username,nmae\nx,y\n":      "Line 1: there is no column",
		"username\n\xff\n":          "Line 2: this is not UTF-8",
		`[{"username":"x"}`:         "ine 1:",
		strings.Repeat("x", 17<<20): "too large",
	} {
		if r := v.upload("x.csv", content); r.status < 400 || r.status > 422 || !strings.Contains(r.text(), says) {
			t.Errorf("%.20q: %d %.300s, want %s", content, r.status, r.text(), says)
		}
	}
	o.shows(v.send("POST", "/admin/users/import", "multipart/form-data; boundary=x", "--x--\r\n"), 422, "Choose a file")
	o.shows(v.get("/admin/users/import/none"), 404, "There is no such import")

	// What is exported can be imported.
	for _, format := range []string{"csv", "json", "jsonl"} {
		r := v.sees("/admin/users/export?format=" + format)
		if !strings.Contains(r.header.Get("Content-Disposition"), "."+format) || !strings.Contains(r.body, "ann@example.com") {
			t.Errorf("%s: %v %s", format, r.header, r.body)
		}
		back := v.awaits(o.leads(v.upload("users."+format, r.body), "/admin/users/import/"))
		o.shows(back, 200, "The import is done.")
		if strings.Contains(back.text(), "Refused rows") {
			t.Errorf("%s: %s", format, back.text())
		}
	}
	// Imports are their owner's.
	stranger := o.visitor("users:write")
	to := regexp.MustCompile(`/admin/users/import/[0-9a-f-]{36}`).FindString(v.sees("/admin/users/import").body)
	o.shows(stranger.get(to), 404, "There is no such import")
	reader := o.visitor("users:read")
	o.shows(reader.upload("x.csv", "username\nnew\n"), 403)
	o.shows(o.visitor("groups:read").get("/admin/users/export?format=csv"), 403)
}

// An import whose replica is stopped says so, and can be done again.
func TestImportIsStoppedWithItsReplica(t *testing.T) {
	o := newOffice(t)
	v := o.visitor("users:write")
	var file strings.Builder
	file.WriteString("username\n")
	for n := range 40_000 {
		fmt.Fprintf(&file, "person%05d\n", n)
	}
	to := o.leads(v.upload("people.csv", file.String()), "/admin/users/import/")
	running := v.sees(to, "The import is running", `hx-trigger="every 1s"`)
	part := v.send("GET", to, "", "", "HX-Request", "true")
	if strings.Contains(part.body, "<html") || !strings.Contains(part.body, `id="import"`) {
		t.Errorf("what htmx gets: %.300s", part.body)
	}
	o.shows(v.upload("people.csv", "username\nsomebody\n"), 409, "Another import of yours is running")
	_ = running
	began := time.Now()
	o.Restart() // the state is the test's own, as Redis would be
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the replica took %v to stop", took)
	}
	o.shows(v.get(to), 200, "The import has stopped before its end", "Import the same file again")
	o.leads(v.upload("people.csv", "username\nsomebody\n"), "/admin/users/import/")
}

// deaf is a shared state that takes no progress of imports while it is.
type deaf struct {
	state.Store
	is atomic.Bool
}

func (d *deaf) Put(ctx context.Context, k state.Key, value []byte, life time.Duration) (int64, error) {
	if d.is.Load() && k.Kind == "import" {
		return 0, errors.New("out of reach")
	}
	return d.Store.Put(ctx, k, value, life)
}

// An import whose replica died is not taken for one that runs.
func TestImportOfADeadReplica(t *testing.T) {
	var later atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	d := &deaf{Store: memstate.New(now)}
	o := newOfficeOn(t, d, now)
	v := o.visitor("users:write")
	to := o.leads(v.upload("people.csv", "username\n"+strings.Repeat("a b\n", 20_000)), "/admin/users/import/")
	d.is.Store(true) // it dies without a word
	o.Stop()
	later.Store(int64(2 * time.Minute))
	o.Start()
	r := o.shows(v.get(to), 200, "The import has stopped: the replica that ran it says nothing any more")
	if strings.Contains(r.body, "hx-trigger") {
		t.Error("the page asks on")
	}
	v.sees("/admin/users/import", "stopped")
	d.is.Store(false)
	v.awaits(o.leads(v.upload("people.csv", "username\nsomebody\n"), "/admin/users/import/"))
}

// A file may take longer than the server gives a request, to come and to go.
func TestFilesTakeTheirTime(t *testing.T) {
	o := newOffice(t)
	v := o.visitor("users:write")
	serve := func(read, write time.Duration) *httptest.Server {
		server := httptest.NewUnstartedServer(o.Replica.Handler())
		server.Config.ReadTimeout, server.Config.WriteTimeout = read, write
		server.Start()
		t.Cleanup(server.Close)
		return server
	}
	server := serve(300*time.Millisecond, 300*time.Millisecond)
	body, w := io.Pipe()
	m := multipart.NewWriter(w)
	go func() {
		part, err := m.CreateFormFile("file", "x.csv")
		for _, text := range []string{"username\n", "late\n", "later\n"} {
			if err == nil {
				_, err = io.WriteString(part, text)
			}
			time.Sleep(250 * time.Millisecond) // what is slow here is the client
		}
		w.CloseWithError(cmp.Or(err, m.Close()))
	}()
	r, err := http.NewRequest("POST", server.URL+"/admin/users/import", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", m.FormDataContentType())
	r.Header.Set("Cookie", "__Host-watchword="+v.cookie)
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 303 {
		t.Fatalf("a slow file: %d", resp.StatusCode)
	}
	hasty := *o
	hasty.World = &replica.World{World: kit.World{Client: kit.Client{T: t, URL: serve(time.Minute, time.Nanosecond).URL}}}
	v.o = &hasty
	if got := v.sees("/admin/users/export?format=csv"); !strings.Contains(got.body, v.name) {
		t.Errorf("what was exported: %s", got.body)
	}
}

// hooked calls f before the first piece of an answer is written.
type hooked struct {
	*httptest.ResponseRecorder
	once sync.Once
	f    func()
}

func (h *hooked) Write(b []byte) (int, error) {
	h.once.Do(h.f)
	return h.ResponseRecorder.Write(b)
}

// An export that ends in the middle is no whole file: the connection breaks.
func TestExportBreaksOff(t *testing.T) {
	o := newOffice(t)
	v := o.visitor("users:read")
	for n := range directory.MaxPage + 10 {
		if _, err := o.people.CreateUser(t.Context(), directory.System(), directory.NewUser{Username: fmt.Sprintf("person%03d", n)}); err != nil {
			t.Fatal(err)
		}
	}
	r := httptest.NewRequest("GET", "https://auth.example.com/admin/users/export?format=csv", nil)
	r.Header.Set("Cookie", "__Host-watchword="+v.cookie)
	w := &hooked{ResponseRecorder: httptest.NewRecorder(), f: func() {
		if err := o.people.RemoveFromGroup(t.Context(), directory.System(), v.id, "of "+v.name); err != nil {
			t.Error(err)
		}
	}}
	defer func() {
		if recovered := recover(); recovered != http.ErrAbortHandler {
			t.Errorf("it ended with %v", recovered)
		}
		if lines := strings.Count(w.Body.String(), "\n"); lines != directory.MaxPage+1 {
			t.Errorf("%d lines were written", lines)
		}
	}()
	o.Replica.Handler().ServeHTTP(w, r)
}

// Without a session nothing is shown or done.
func TestWithoutASession(t *testing.T) {
	o := newOffice(t)
	v := o.visitor("all")
	x := o.things()
	pages := []string{"/admin/users", "/admin/users/new", "/admin/users/" + x.user, "/admin/users/" + x.user + "/token", "/admin/users/" + x.user + "/sessions/end", "/admin/groups", "/admin/groups/" + x.group, "/admin/claims", "/admin/claims/" + x.claim, "/admin/users/import", "/admin/users/export"}
	posts := []string{"/admin/users/new", "/admin/users/" + x.user + "/delete", "/admin/users/" + x.user + "/groups/add", "/admin/groups/" + x.group + "/delete", "/admin/claims/" + x.claim + "/delete"}
	try := func(want int) {
		t.Helper()
		for _, p := range pages {
			get := want
			if want == 401 {
				get = 303 // to the sign-in
			}
			if r := v.get(p); r.status != get || strings.Contains(r.body, o.user(x.user).Username) {
				t.Errorf("%s: %d", p, r.status)
			}
		}
		for _, p := range posts {
			if r := v.post(p, "username", "somebody"); r.status != want {
				t.Errorf("POST %s: %d", p, r.status)
			}
		}
		if r := v.upload("x.csv", "username\nsomebody\n"); r.status != want {
			t.Errorf("an upload: %d", r.status)
		}
	}
	cookie := v.cookie
	v.cookie = ""
	try(401)
	v.cookie = cookie
	o.leads(v.post("/admin/users/"+v.id+"/sessions/end-all"), "/admin/users/") // their own
	try(401)
	v.signIn()
	v.sees("/admin/users")
	v.cookie = o.visitor("keys:read").cookie
	try(403)
	if _, err := o.people.User(t.Context(), directory.System(), "somebody"); err == nil {
		t.Error("a user was made")
	}
	// Of another site.
	v.signIn()
	r := v.send("POST", "/admin/users/"+x.user+"/delete", "application/x-www-form-urlencoded", "", "Sec-Fetch-Site", "cross-site")
	o.shows(r, 403, "another site")
	o.user(x.user)
}
