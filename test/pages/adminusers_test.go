package pages

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/test/browser"
)

// claimsOf are the claims of a token, without those that each token has of its own. The epoch
// is no less than when the replica that answers began to know what is revoked.
func claimsOf(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var claims map[string]any
	if err := json.Unmarshal(text, &claims); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	maps.DeleteFunc(claims, func(name string, _ any) bool {
		return slices.Contains([]string{"jti", "sid", "iat", "iat_exact", "exp", "nbf", "auth_time", "epoch"}, name)
	})
	return claims
}

// listed are the first cells of the list that the page shows.
func (p *person) listed() []string {
	p.t.Helper()
	return browser.Eval[[]string](p.Browser, "[...document.querySelectorAll('#list tbody tr')].map(r => r.cells[0].innerText.trim())")
}

// A user from their making to their end.
func TestUsers(t *testing.T) {
	w := world(t)
	p := w.boss(t)
	word := w.word("users")
	claim := w.Claim(t, word+" may read", "doc", "read-"+word)
	g := w.Group(t, word+" readers", claim.ID)
	name := word + "-ada"

	// Made by a form that says what is wrong with it.
	p.open("/admin/users")
	p.Follow("link", "New user")
	p.Fill("Username", AdminName)
	p.Fill("First name", "Ada")
	p.Fill("Password", "short")
	p.Follow("button", "Create user")
	if p.Status() < 400 {
		t.Error(p.Describe())
	}
	if p.Value("First name") != "Ada" || p.Value("Password") != "" {
		t.Error(p.Describe())
	}
	p.Fill("Username", name)
	p.Fill("Last name", "Lovelace")
	p.Fill("E-mail", name+"@example.com")
	p.Fill("Password", "a password of many words")
	p.Follow("button", "Create user")
	p.Sees(name+" has been created.", "Ada Lovelace", name+"@example.com", "In no group")
	page := p.Path()
	p.Fill("Add to a group, by its name", g.Name)
	p.Follow("button", "Add")
	p.Sees(name + " is now a member of " + g.Name + ".")

	// The token that they would get is the one that they get.
	p.Follow("link", "Claims and token")
	p.Sees("doc", "read-"+word, g.Name)
	preview := claimsOf(t, []byte(browser.Eval[string](p.Browser, "[...document.querySelectorAll('.code pre')].at(-2).textContent")))
	client := w.client(t)
	grant := client.LoginWith(name, "a password of many words")
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(grant.AccessToken, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	if got := claimsOf(t, payload); !reflect.DeepEqual(got, preview) {
		t.Errorf("the token has %v, and the preview %v", got, preview)
	}

	// Changes.
	user := w.sits(t, User{Name: name, Password: "a password of many words"}).in()
	p.open(page)
	p.Follow("link", "Edit")
	other := p.tab()
	other.open(page + "/edit")
	p.Fill("Last name", "King")
	p.Follow("button", "Save")
	p.Sees("Ada King")
	other.Fill("Last name", "Byron")
	other.Follow("button", "Save")
	other.Sees("Somebody else changed this while you were at it.", "What it is now", "Ada King")
	if got := other.Value("Last name"); got != "Byron" {
		t.Errorf("the form has %q", got)
	}
	user.isIn()
	p.Follow("button", "Remove from "+g.Name)
	p.Sees("In no group")
	p.Follow("button", "Undo")
	p.Sees(name + " is now a member of " + g.Name + ".")
	p.Follow("button", "Disable")
	p.Sees(name + " is disabled.")
	for range 2 {
		user.isOut()
	}
	p.Follow("link", "Claims and token")
	p.Sees("The user would get no token now.")
	p.Back()
	p.Follow("button", "Undo")
	p.Sees(name + " can sign in again.")

	// A second factor that is lost, and a recovery link in another browser.
	user.in()
	id := strings.TrimPrefix(page, "/admin/users/")
	w.app(t, User{ID: id, Name: name, Password: "a password of many words"})
	p.open(page)
	p.Follow("link", "Second factors")
	p.Sees("Authenticator app", "Backup codes")
	p.asks("Reset all", "Reset the second factors", name)
	p.Sees("The second factors have been removed.", "No second factor")
	user.isOut()
	user.in()
	p.Follow("link", "Make a recovery link")
	p.Follow("button", "Make the link")
	p.Sees("This is shown once.")
	link := browser.Eval[string](p.Browser, "document.querySelector('.code pre').textContent.trim()")
	lost := w.sits(t, User{Name: name, Password: "another password of many words"})
	lost.Open(link)
	lost.Fill("New password", lost.Password)
	lost.Follow("button", "Set the password")
	lost.at("/signin?switch=1", 200)
	user.isOut()
	lost.in()

	// Sessions.
	p.open(page)
	p.In("main").Follow("link", "Sessions")
	p.asks("End", "End the session", name)
	p.Sees("The session has ended, and its tokens are revoked.")
	lost.isOut()
	lost.in()
	p.Reload()
	p.asks("End all sessions", "End all sessions", name)
	for range 2 {
		lost.isOut()
	}
	p.Follow("link", "Events")
	p.Sees("User created", "User joined a group")

	p.Follow("link", "Details")
	p.asks("Delete", "Delete "+name, "Deleting "+name+" ends their sessions", "They are no longer a member of "+g.Name)
	p.at("/admin/users", 200)
	p.Sees(name + " has been deleted.")
	lost.types(name, lost.Password)
	lost.at("/signin", http.StatusUnauthorized)
}

// The list finds what one types, page by page and in either order.
func TestUserList(t *testing.T) {
	w := world(t)
	word := w.word("list")
	p := w.boss(t)
	var rows strings.Builder
	rows.WriteString("username,email\n")
	for i := range 60 {
		fmt.Fprintf(&rows, "%s%02d,%s%02d@example.com\n", word, i, word, i)
	}
	p.imports(rows.String())
	p.Sees("The import is done.", "60 of 60 rows")

	p.open("/admin/users")
	browser.Eval[bool](p.Browser, "(document.body.dataset.stays = 'yes', true)")
	p.Fill("q", word)
	p.Until("document.querySelectorAll('#list tbody tr').length === 50")
	p.Fill("q", word+"1")
	p.Until("document.querySelectorAll('#list tbody tr').length === 10")
	p.Fill("q", word+"07@example.com")
	p.Until("document.querySelectorAll('#list tbody tr').length === 1")
	p.Fill("q", word+"-nobody")
	p.Sees("Nobody found")
	p.Fill("q", word)
	p.Until("document.querySelectorAll('#list tbody tr').length === 50")
	if !browser.Eval[bool](p.Browser, "document.body.dataset.stays === 'yes'") {
		t.Error("the page was loaded again")
	}
	first := p.listed()
	p.Follow("link", "Next")
	if rest := p.listed(); len(rest) != 10 || first[0] != word+"00" || rest[0] != word+"50" {
		t.Errorf("after %s… come %v", first[0], rest)
	}
	p.Follow("link", "Previous")
	if !slices.Equal(p.listed(), first) {
		t.Errorf("back are %v", p.listed())
	}
	p.Follow("link", "Username")
	if down := p.listed(); down[0] != word+"59" || len(down) != 50 {
		t.Errorf("the other way round come %v", down)
	}
}

// imports imports a file, and waits until that is done.
func (p *person) imports(content string) {
	p.t.Helper()
	file := filepath.Join(p.t.TempDir(), "users.csv")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.open("/admin/users/import")
	p.Upload("file", file)
	p.Follow("button", "Import")
	p.Sees("Import another file")
}

// A file makes users, and its other rows are in a report. What is exported can be imported.
func TestImportAndExport(t *testing.T) {
	w := world(t)
	word := w.word("import")
	w.Group(t, word+" crew")
	there := w.User(t, "there")
	p := w.boss(t)
	p.imports("username,email,groups,password_hash\n" +
		word + "-1," + word + "@example.com," + word + " crew,\n" +
		word + "-2," + word + "@example.com,,\n" +
		word + "-3,,no such group,\n" +
		there.Name + ",,,\n" +
		word + "-4,,,not a hash\n")
	p.Sees("Some rows were refused.", "5 of 5 rows", "Refused rows", word+"-2", word+"-3", word+"-4")
	progress := p.Path()
	p.open(progress) // at the other replica
	p.Sees("Some rows were refused.")
	report, err := p.Run("return await (await fetch(x)).text()", progress+"/refused")
	if err != nil || strings.Count(string(report), `\n`) != 4 || !strings.Contains(string(report), "line,username,code,why") {
		t.Errorf("the report is %s: %v", report, err)
	}
	for _, form := range []string{"csv", "json"} {
		file, err := p.Run(`const a = await fetch(x); return a.headers.get('Content-Disposition') + await a.text()`, "/admin/users/export?format="+form)
		if err != nil || !strings.Contains(string(file), "attachment") || !contains(string(file), word+"-1") || contains(string(file), "argon2", word+"-2") {
			t.Errorf("%s: %.500s %v", form, file, err)
		}
	}
	p.open("/admin/users/import")
	p.Sees("Your imports of the last day", "done, some refused")
	// A file that is none.
	file := filepath.Join(t.TempDir(), "<img src=x onerror=alert(1)>.csv")
	if err := os.WriteFile(file, []byte("username,<script>alert(1)</script>\nx,y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Upload("file", file)
	p.Follow("button", "Import")
	p.at("/admin/users/import", http.StatusUnprocessableEntity)
	p.harmless("a refused file")
}

// Groups and claims from their making to their end, and what that does to tokens.
func TestGroupsAndClaims(t *testing.T) {
	w := world(t)
	p := w.boss(t)
	word := w.word("group")
	p.open("/admin/claims")
	p.Follow("link", "New claim")
	p.Fill("Name", word+" claim")
	p.Fill("Claim name in a token", "bad name!")
	p.Fill("Value", "write")
	p.Follow("button", "Create claim")
	if p.Status() != http.StatusUnprocessableEntity || p.Value("Value") != "write" {
		t.Error(p.Describe())
	}
	p.Fill("Claim name in a token", "repo")
	p.Follow("button", "Create claim")
	p.Sees("repo=write", "No group gives it")
	claim := p.Path()
	p.open("/admin/groups")
	p.Follow("link", "New group")
	p.Fill("Name", word)
	p.Follow("button", "Create group")
	p.Sees("No claims", "No members")
	group := p.Path()
	p.Fill("Give a claim, by its name", word+" claim")
	p.In("form[action$='/claims/add']").Follow("button", "Add")
	p.Sees("repo=write")
	u := w.User(t, "member")
	p.Fill("Add a member, by the username", u.Name)
	p.In("form[action$='/members/add']").Follow("button", "Add")
	p.Sees(u.Name)
	client := w.client(t)
	token := client.LoginWith(u.Name, u.Password).AccessToken
	if got := client.Verify(token)["repo"]; got != "write" {
		t.Errorf("the token has repo=%v", got)
	}
	p.Follow("button", "Remove the claim "+word+" claim")
	p.Sees("No claims")
	client.Want(client.Do("GET", "/api/verify", token, nil), http.StatusUnauthorized, "token_revoked")
	p.Follow("button", "Undo")
	p.Sees("repo=write")
	p.Follow("link", "Rename")
	p.Fill("Name", word+" renamed")
	p.Follow("button", "Save")
	p.Sees(word + " renamed")
	p.open(claim)
	p.Follow("link", "Edit")
	p.Fill("Value", "admin")
	p.Follow("button", "Save")
	p.Sees("repo=admin", word+" renamed")
	token = client.LoginWith(u.Name, u.Password).AccessToken
	if got := client.Verify(token)["repo"]; got != "admin" {
		t.Errorf("the token has repo=%v", got)
	}
	p.asks("Delete", "Delete "+word+" claim", word+" claim")
	p.at("/admin/claims", 200)
	client.Want(client.Do("GET", "/api/verify", token, nil), http.StatusUnauthorized, "token_revoked")
	p.open(group)
	p.Sees("No claims")
	p.asks("Delete", "Delete "+word+" renamed", word+" renamed")
	p.at("/admin/groups", 200)
	p.open(group)
	p.at(group, http.StatusNotFound)
}
