package admin_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/directory"
)

const iPhone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"

func TestSessionsOfEverybody(t *testing.T) {
	o := newBureau(t)
	o.user("root", directory.Superuser)
	ada := o.user("ada")
	d := o.desk("root")
	d.get("/admin/sessions").says(http.StatusOK, "root", "this session", "Firefox on Linux").saysNot("ada")
	o.begin("ada", true, "198.51.100.4", iPhone)
	o.begin("ada", false, "198.51.100.5", "backup-tool/2")
	d.get("/admin/sessions").says(http.StatusOK,
		"Safari on iPhone, these pages, from 198.51.100.4", "backup-tool/2, an app, from 198.51.100.5", ">ada</a>")

	// One user's, by name and by id; what htmx gets is the list alone.
	for _, user := range []string{"ada", "ADA", ada.ID} {
		d.get("/admin/sessions?user="+user).says(http.StatusOK, "Sessions of ", "/admin/users/"+ada.ID, "End all sessions of ada").saysNot("this session")
	}
	live := d.get("/admin/sessions?user=ada")
	path := regexp.MustCompile(`hx-get="([^"]*)"`).FindStringSubmatch(live.Body.String())[1]
	d.htmx = true
	d.get(path).says(http.StatusOK, "Safari on iPhone").saysNot("<html", "<form")
	d.htmx = false
	d.get("/admin/sessions?user=nobody").says(http.StatusNotFound, "There is no such user", `value="nobody"`)

	// Of a user with a right that the visitor does not hold, nothing is seen.
	o.user("reader", directory.SessionsRead)
	r := o.desk("reader")
	r.get("/admin/sessions").says(http.StatusOK, "Firefox on Linux").saysNot(">root</a>", "/admin/users/")
	r.get("/admin/sessions?user=root").says(http.StatusForbidden, "rights that your own account does not hold")
	r.get("/admin/sessions?user=ada").says(http.StatusOK).saysNot("/admin/sessions/end")
}

func TestSessionsArePaged(t *testing.T) {
	o := newBureau(t)
	o.user("root", directory.Superuser)
	o.user("ada")
	for i := range 27 {
		o.begin("ada", false, fmt.Sprintf("198.51.100.%d", i), "app")
	}
	d := o.desk("root")
	first := d.get("/admin/sessions?user=ada").says(http.StatusOK, "198.51.100.26", "198.51.100.2<").saysNot("198.51.100.1<")
	next := regexp.MustCompile(`href="(/admin/sessions\?after=[^"]*)"`).FindStringSubmatch(first.Body.String())
	if next == nil {
		t.Fatalf("there is no next page: %s", first.Body)
	}
	d.get(strings.ReplaceAll(next[1], "&amp;", "&")).says(http.StatusOK, "198.51.100.1<", "198.51.100.0<", "First page").saysNot("198.51.100.26")
	d.post("/admin/sessions/end-all", "user", "ada").leads("/admin/sessions?user=ada")
	d.get("/admin/sessions?user=ada").says(http.StatusOK, "Not signed in")
}

func TestEndSessionsOfAUser(t *testing.T) {
	o := newBureau(t)
	root, ada := o.user("root", directory.Superuser), o.user("ada")
	d := o.desk("root")
	one, other := o.begin("ada", false, "198.51.100.4", "one"), o.begin("ada", false, "198.51.100.5", "other")
	ask := func(user, id string) string {
		return "/admin/sessions/end?" + url.Values{"user": {user}, "id": {id}}.Encode()
	}
	d.get(ask(ada.ID, one.SessionID)).says(http.StatusOK, "End the session of ada on one (198.51.100.4)?", "refused everywhere")
	o.call(one.AccessToken, "GET", "/api/sessions", nil).says(http.StatusOK)
	d.then(d.post("/admin/sessions/end", "user", ada.ID, "id", one.SessionID).leads("/admin/sessions?user="+ada.ID)).
		says(http.StatusOK, "The session has ended.", "other", "from 198.51.100.5").saysNot("from 198.51.100.4")
	o.call(one.AccessToken, "GET", "/api/sessions", nil).says(http.StatusUnauthorized)
	o.call(other.AccessToken, "GET", "/api/sessions", nil).says(http.StatusOK)
	d.post("/admin/sessions/end", "user", ada.ID, "id", one.SessionID).says(http.StatusNotFound)
	d.post("/admin/sessions/end", "user", ada.ID, "id", "nonsense").says(http.StatusUnprocessableEntity, "no id of a session")

	d.get("/admin/sessions/end-all?user=ada").says(http.StatusOK, "End all sessions of ada?", "Every token")
	d.post("/admin/sessions/end-all", "user", ada.ID).leads("/admin/sessions?user=" + ada.ID)
	o.call(other.AccessToken, "GET", "/api/sessions", nil).says(http.StatusUnauthorized)

	// Asking does nothing; ending one's own session leads to the sign-in.
	mine := regexp.MustCompile(`/admin/sessions/end\?id=([0-9a-f-]+)`).FindStringSubmatch(d.get("/admin/sessions?user=root").Body.String())[1]
	d.get(ask(root.ID, mine)).says(http.StatusOK, "your own", "signed out at once")
	d.get("/admin/sessions/end-all?user="+root.ID).says(http.StatusOK, "all your own sessions")
	gone := d.post("/admin/sessions/end", "user", root.ID, "id", mine).leads("/signin?return=%2Fadmin%2Fsessions")
	if !strings.Contains(strings.Join(gone.Header().Values("Set-Cookie"), ";"), "watchword=;") {
		t.Errorf("the cookie stays: %q", gone.Header())
	}
	d.get("/admin/sessions").says(http.StatusUnauthorized)
	again := o.desk("root")
	again.post("/admin/sessions/end-all", "user", root.ID).leads("/signin?return=%2Fadmin%2Fsessions")
	again.get("/admin/sessions").says(http.StatusUnauthorized)
}

// Whoever may revoke, or end sessions, ends one session of a user in either list of them.
func TestEndOneSessionByEitherRight(t *testing.T) {
	o := newBureau(t)
	ada := o.user("ada")
	lists := map[string]string{"/admin/sessions": "/admin/sessions?user=" + ada.ID, "/admin/users/" + ada.ID + "/sessions": "/admin/users/" + ada.ID + "/sessions"}
	for right, status := range map[string]int{directory.Revoke: http.StatusSeeOther, directory.SessionsWrite: http.StatusSeeOther, directory.AuditRead: http.StatusForbidden} {
		o.user(strings.ReplaceAll(right, ":", "-"), directory.UsersRead, directory.SessionsRead, right)
		d := o.desk(strings.ReplaceAll(right, ":", "-"))
		for path, list := range lists {
			one := o.begin("ada", false, "198.51.100.4", "one")
			page := d.get(list).says(http.StatusOK)
			if offered := strings.Contains(page.Body.String(), path+"/end?"); offered != (status == http.StatusSeeOther) {
				t.Errorf("%s: %s offers to end a session: %t", right, list, offered)
			}
			d.post(path+"/end", "user", ada.ID, "id", one.SessionID).says(status)
			want := http.StatusOK
			if status == http.StatusSeeOther {
				want = http.StatusUnauthorized
			}
			o.call(one.AccessToken, "GET", "/api/sessions", nil).says(want)
		}
		if right == directory.Revoke {
			d.get("/admin/sessions?user=ada").saysNot("/admin/sessions/end-all")
			d.post("/admin/sessions/end-all", "user", ada.ID).says(http.StatusForbidden)
		}
	}
}
