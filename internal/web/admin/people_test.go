package admin_test

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"fmt"
	"html"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// An office is a replica whose administrators use its pages.
type office struct {
	*replica.World
	people  *directory.Service // on the same database
	state   state.Store
	session *session.Store
	made    int
}

func newOffice(t *testing.T) *office {
	t.Helper()
	return newOfficeOn(t, memstate.New(time.Now), time.Now)
}

func newOfficeOn(t *testing.T, s state.Store, now func() time.Time) *office {
	t.Helper()
	o := &office{state: s}
	o.World = replica.NewWith(t, replica.Options{State: o.state, Now: now}, nil)
	o.people = o.Parts().Directory
	o.session = session.New(session.Config{
		State: o.state, TTL: 12 * time.Hour, RefreshDuration: time.Hour, RenewGrace: time.Minute, Now: now, Rand: rand.Reader,
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	return o
}

// A visitor is somebody who is signed in by a browser and, for comparison, has an access token.
type visitor struct {
	done   atomic.Value // the cookie of what was done last
	o      *office
	id     string
	name   string
	cookie string
	token  string
}

// visitor makes an administrator with permissions.
func (o *office) visitor(permissions ...string) *visitor {
	o.T.Helper()
	claims := make([]string, len(permissions))
	for i, p := range permissions {
		claims[i] = "admin=" + p
	}
	v := &visitor{o: o, name: o.name("visitor")}
	v.id = o.User(v.name, claims...)
	v.token = o.Login(v.name).AccessToken // which gives the user their first epoch
	v.signIn()
	return v
}

// signIn begins a session as the sign-in page does.
func (v *visitor) signIn() {
	v.o.T.Helper()
	u, err := v.o.Parts().Store.User(v.o.T.Context(), v.id)
	if err != nil {
		v.o.T.Fatal(err)
	}
	_, v.cookie, _, err = v.o.session.StartBrowser(v.o.T.Context(), v.id, u.Epoch, "192.0.2.7", "Mozilla/5.0 <b>bold</b>", func(s *session.Session) error {
		s.AMR = []string{"pwd"}
		return nil
	})
	if err != nil {
		v.o.T.Fatal(err)
	}
}

// name returns a name that nothing has.
func (o *office) name(word string) string {
	o.made++
	return fmt.Sprintf("%s%03d", word, o.made)
}

// A reply is what a page answered.
type reply struct {
	status int
	body   string
	header http.Header
}

// text is what people read.
func (r reply) text() string {
	return html.UnescapeString(strings.Join(strings.Fields(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(r.body, " ")), " "))
}

func (v *visitor) send(method, path, contentType, body string, headers ...string) reply {
	v.o.T.Helper()
	r, err := http.NewRequestWithContext(v.o.T.Context(), method, v.o.URL+path, strings.NewReader(body))
	if err != nil {
		v.o.T.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	done, _ := v.done.Load().(string)
	r.Header.Set("Cookie", "__Host-watchword="+v.cookie+"; __Host-watchword-done="+done)
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		v.o.T.Fatal(err)
	}
	defer resp.Body.Close()
	for _, c := range resp.Cookies() {
		if c.Name == "__Host-watchword-done" {
			v.done.Store(c.Value)
		}
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		v.o.T.Fatal(err)
	}
	return reply{resp.StatusCode, string(b), resp.Header}
}

func (v *visitor) get(path string) reply { v.o.T.Helper(); return v.send("GET", path, "", "") }

func (v *visitor) post(path string, fields ...string) reply {
	v.o.T.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	return v.send("POST", path, "application/x-www-form-urlencoded", form.Encode())
}

// upload sends a file.
func (v *visitor) upload(name, content string) reply {
	v.o.T.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	w, err := m.CreateFormFile("file", name)
	if err == nil {
		_, err = io.WriteString(w, content)
	}
	if err = cmp.Or(err, m.Close()); err != nil {
		v.o.T.Fatal(err)
	}
	return v.send("POST", "/admin/users/import", m.FormDataContentType(), b.String())
}

// sees gets a page, which must be there, and returns what it says.
func (v *visitor) sees(path string, texts ...string) reply {
	v.o.T.Helper()
	return v.o.shows(v.get(path), 200, texts...)
}

// shows fails the test unless a reply has the status and texts.
func (o *office) shows(r reply, status int, texts ...string) reply {
	o.T.Helper()
	if r.status != status {
		o.T.Fatalf("status %d, want %d: %s", r.status, status, r.text())
	}
	for _, text := range texts {
		if !strings.Contains(r.text(), text) && !strings.Contains(r.body, text) {
			o.T.Errorf("%q is not in: %s", text, r.text())
		}
	}
	return r
}

// leads fails the test unless a reply leads to a path that begins so, and returns it.
func (o *office) leads(r reply, prefix string) string {
	o.T.Helper()
	to := r.header.Get("Location")
	if r.status != 303 || !strings.HasPrefix(to, prefix) {
		o.T.Fatalf("%d %q, want 303 %q: %s", r.status, to, prefix, r.text())
	}
	return to
}

// enrol gives the visitor an authenticator app, and returns the access token that follows.
func (v *visitor) enrol() string {
	v.o.T.Helper()
	secret := kit.Decode[struct{ Secret string }](v.o.T, v.o.Want(v.o.Do("POST", "/api/mfa/totp", v.token, nil), 200, "")).Secret
	a := v.o.Do("POST", "/api/mfa/totp/confirm", v.token, map[string]any{"code": mfatest.Code(v.o.T, secret, time.Now())})
	return kit.Decode[httpapi.Grant](v.o.T, v.o.Want(a, 200, "")).AccessToken
}

// things are a user, a group and a claim of their own, of which nothing is linked.
type things struct{ user, group, claim string }

func (o *office) things() things {
	o.T.Helper()
	ctx, system := o.T.Context(), directory.System()
	name := o.name("thing")
	u, err := o.people.CreateUser(ctx, system, directory.NewUser{Username: name, Email: name + "@example.com"})
	if err != nil {
		o.T.Fatal(err)
	}
	g, err := o.people.CreateGroup(ctx, system, directory.NewGroup{Name: name})
	if err != nil {
		o.T.Fatal(err)
	}
	return things{u.ID, g.ID, o.claim(name, "color", "blue")}
}

func (o *office) claim(name, short, value string) string {
	o.T.Helper()
	c, err := o.people.CreateClaim(o.T.Context(), directory.System(), directory.NewClaim{Name: name, ShortName: short, Value: value})
	if err != nil {
		o.T.Fatal(err)
	}
	return c.ID
}

func (o *office) user(id string) store.User {
	o.T.Helper()
	u, err := o.Parts().Store.User(o.T.Context(), id)
	if err != nil {
		o.T.Fatal(err)
	}
	return u
}

// groupsOf are the names of a user's groups.
func (o *office) groupsOf(id string) (names []string) {
	o.T.Helper()
	groups, err := o.people.GroupsOf(o.T.Context(), directory.System(), id)
	if err != nil {
		o.T.Fatal(err)
	}
	for _, g := range groups {
		names = append(names, g.Name)
	}
	return names
}

// Every permission, alone, lets its holder do by the pages what it lets them do by the API, and
// nothing else. The pages offer what their visitor may do, and nothing else.
func TestPermissionsOfPagesAreThoseOfTheAPI(t *testing.T) {
	o := newOffice(t)
	type call struct {
		method, path string
		fields       []string       // of a page's form
		body         map[string]any // of the API
	}
	operations := []struct {
		name string
		page func(things) call
		api  func(things) call
		// on is the page that offers it, and offer what that page then has in it.
		on    func(things) string
		offer string
	}{
		{"list users", func(things) call { return call{path: "/admin/users"} }, func(things) call { return call{path: "/api/users"} }, nil, ""},
		{"see a user", func(x things) call { return call{path: "/admin/users/" + x.user} }, func(x things) call { return call{path: "/api/users/" + x.user} }, nil, ""},
		{"create a user", func(things) call {
			return call{"POST", "/admin/users/new", []string{"username", o.name("new")}, nil}
		}, func(things) call {
			return call{"POST", "/api/users", nil, map[string]any{"username": o.name("new")}}
		}, func(things) string { return "/admin/users" }, `href="/admin/users/new"`},
		{"import users", func(things) call { return call{path: "/admin/users/import"} }, func(things) call {
			return call{"POST", "/api/users", nil, map[string]any{"username": o.name("new")}}
		}, func(things) string { return "/admin/users" }, `href="/admin/users/import"`},
		{"export users", func(things) call { return call{path: "/admin/users/export"} }, func(things) call { return call{path: "/api/users"} },
			func(things) string { return "/admin/users" }, `href="/admin/users/export?format=csv"`},
		{"preview a token", func(x things) call { return call{path: "/admin/users/" + x.user + "/token"} }, func(x things) call { return call{path: "/api/users/" + x.user} },
			func(x things) string { return "/admin/users/" + x.user }, `USER/token"`},
		{"edit a user", func(x things) call {
			return call{"POST", "/admin/users/" + x.user + "/edit", []string{"username", o.name("other")}, nil}
		}, func(x things) call {
			return call{"PATCH", "/api/users/" + x.user, nil, map[string]any{"username": o.name("other")}}
		}, func(x things) string { return "/admin/users/" + x.user }, `USER/edit"`},
		{"set a password", func(x things) call {
			return call{"POST", "/admin/users/" + x.user + "/password", []string{"password", kit.Password}, nil}
		}, func(x things) call {
			return call{"PATCH", "/api/users/" + x.user, nil, map[string]any{"password": kit.Password}}
		}, func(x things) string { return "/admin/users/" + x.user }, `USER/password"`},
		{"disable a user", func(x things) call { return call{"POST", "/admin/users/" + x.user + "/disable", nil, nil} }, func(x things) call {
			return call{"PATCH", "/api/users/" + x.user, nil, map[string]any{"disabled": true}}
		}, func(x things) string { return "/admin/users/" + x.user }, `USER/disable"`},
		{"delete a user", func(x things) call { return call{"POST", "/admin/users/" + x.user + "/delete", nil, nil} },
			func(x things) call { return call{method: "DELETE", path: "/api/users/" + x.user} },
			func(x things) string { return "/admin/users/" + x.user }, `USER/delete"`},
		{"add to a group", func(x things) call {
			return call{"POST", "/admin/users/" + x.user + "/groups/add", []string{"group", x.group}, nil}
		}, func(x things) call {
			return call{"POST", "/api/users/" + x.user + "/groups", nil, map[string]any{"group": x.group}}
		}, func(x things) string { return "/admin/users/" + x.user }, `USER/groups/add"`},
		{"remove from a group", func(x things) call {
			return call{"POST", "/admin/users/" + x.user + "/groups/remove", []string{"group", x.group}, nil}
		}, func(x things) call {
			return call{method: "DELETE", path: "/api/users/" + x.user + "/groups/" + x.group}
		}, nil, ""},
		{"see factors", func(x things) call { return call{path: "/admin/users/" + x.user + "/factors"} }, func(x things) call { return call{path: "/api/users/" + x.user + "/factors"} }, nil, ""},
		{"reset factors", func(x things) call { return call{"POST", "/admin/users/" + x.user + "/factors/reset", nil, nil} },
			func(x things) call { return call{method: "DELETE", path: "/api/users/" + x.user + "/factors"} }, nil, ""},
		{"issue a recovery token", func(x things) call {
			return call{"POST", "/admin/users/" + x.user + "/recovery", []string{"expires_in", "3600"}, nil}
		}, func(x things) call {
			return call{"POST", "/api/users/" + x.user + "/recovery", nil, map[string]any{}}
		}, func(x things) string { return "/admin/users/" + x.user }, `USER/recovery"`},
		{"see sessions", func(x things) call { return call{path: "/admin/users/" + x.user + "/sessions"} }, func(x things) call { return call{path: "/api/users/" + x.user + "/sessions"} },
			func(x things) string { return "/admin/users/" + x.user }, `USER/sessions"`},
		{"end all sessions", func(x things) call { return call{"POST", "/admin/users/" + x.user + "/sessions/end-all", nil, nil} },
			func(x things) call { return call{method: "DELETE", path: "/api/users/" + x.user + "/sessions"} }, nil, ""},
		{"list groups", func(things) call { return call{path: "/admin/groups"} }, func(things) call { return call{path: "/api/groups"} }, nil, ""},
		{"see a group", func(x things) call { return call{path: "/admin/groups/" + x.group} }, func(x things) call { return call{path: "/api/groups/" + x.group} }, nil, ""},
		{"create a group", func(things) call { return call{"POST", "/admin/groups/new", []string{"name", o.name("new")}, nil} },
			func(things) call { return call{"POST", "/api/groups", nil, map[string]any{"name": o.name("new")}} },
			func(things) string { return "/admin/groups" }, `href="/admin/groups/new"`},
		{"rename a group", func(x things) call {
			return call{"POST", "/admin/groups/" + x.group + "/edit", []string{"name", o.name("other")}, nil}
		}, func(x things) call {
			return call{"PATCH", "/api/groups/" + x.group, nil, map[string]any{"name": o.name("other")}}
		}, func(x things) string { return "/admin/groups/" + x.group }, `GROUP/edit"`},
		{"delete a group", func(x things) call { return call{"POST", "/admin/groups/" + x.group + "/delete", nil, nil} },
			func(x things) call { return call{method: "DELETE", path: "/api/groups/" + x.group} },
			func(x things) string { return "/admin/groups/" + x.group }, `GROUP/delete"`},
		{"give a claim", func(x things) call {
			return call{"POST", "/admin/groups/" + x.group + "/claims/add", []string{"claim", x.claim}, nil}
		}, func(x things) call {
			return call{"POST", "/api/groups/" + x.group + "/claims", nil, map[string]any{"claim": x.claim}}
		}, nil, ""},
		{"take a claim", func(x things) call {
			return call{"POST", "/admin/groups/" + x.group + "/claims/remove", []string{"claim", x.claim}, nil}
		}, func(x things) call {
			return call{method: "DELETE", path: "/api/groups/" + x.group + "/claims/" + x.claim}
		}, nil, ""},
		{"add a member", func(x things) call {
			return call{"POST", "/admin/groups/" + x.group + "/members/add", []string{"user", x.user}, nil}
		}, func(x things) call {
			return call{"POST", "/api/users/" + x.user + "/groups", nil, map[string]any{"group": x.group}}
		}, nil, ""},
		{"remove a member", func(x things) call {
			return call{"POST", "/admin/groups/" + x.group + "/members/remove", []string{"user", x.user}, nil}
		}, func(x things) call {
			return call{method: "DELETE", path: "/api/users/" + x.user + "/groups/" + x.group}
		}, nil, ""},
		{"list claims", func(things) call { return call{path: "/admin/claims"} }, func(things) call { return call{path: "/api/claims"} }, nil, ""},
		{"see a claim", func(x things) call { return call{path: "/admin/claims/" + x.claim} }, func(x things) call { return call{path: "/api/claims/" + x.claim} }, nil, ""},
		{"create a claim", func(things) call {
			return call{"POST", "/admin/claims/new", []string{"name", o.name("new"), "short_name", "color", "value", "red"}, nil}
		}, func(things) call {
			return call{"POST", "/api/claims", nil, map[string]any{"name": o.name("new"), "short_name": "color", "value": "red"}}
		}, nil, ""},
		{"edit a claim", func(x things) call {
			return call{"POST", "/admin/claims/" + x.claim + "/edit", []string{"name", o.name("other"), "short_name", "color", "value", "blue"}, nil}
		}, func(x things) call {
			return call{"PATCH", "/api/claims/" + x.claim, nil, map[string]any{"name": o.name("other")}}
		}, func(x things) string { return "/admin/claims/" + x.claim }, `CLAIM/edit"`},
		{"delete a claim", func(x things) call { return call{"POST", "/admin/claims/" + x.claim + "/delete", nil, nil} },
			func(x things) call { return call{method: "DELETE", path: "/api/claims/" + x.claim} },
			func(x things) string { return "/admin/claims/" + x.claim }, `CLAIM/delete"`},
	}
	compared, allowed, offers := 0, 0, 0
	for _, permission := range []string{
		"", directory.Superuser, directory.UsersRead, directory.UsersWrite, directory.UsersVerify, directory.GroupsRead, directory.GroupsWrite,
		directory.ClaimsRead, directory.ClaimsWrite, directory.SessionsRead, directory.SessionsWrite, directory.Revoke,
		directory.KeysRead, directory.KeysWrite, directory.LimitsRead, directory.LimitsWrite, directory.AuditRead,
	} {
		v := o.visitor(slices.DeleteFunc([]string{permission}, func(s string) bool { return s == "" })...)
		may := map[string]bool{}
		x := o.things() // as nobody has changed them: what is refused leaves them so
		for _, op := range operations {
			page := op.page(x)
			var got int
			if page.method == "POST" {
				got = v.post(page.path, page.fields...).status
			} else {
				got = v.get(page.path).status
			}
			ok := got == 200 || got == 303
			if ok && page.method == "POST" {
				x = o.things()
			}
			api := op.api(x)
			var body any
			if api.body != nil {
				body = api.body
			}
			want := v.o.Do(cmp.Or(api.method, "GET"), api.path, v.token, body).Status
			if may[op.name] = want < 300; may[op.name] {
				allowed++
				if api.method != "" {
					x = o.things()
				}
			}
			compared++
			if ok != (want < 300) || !ok && got != want {
				t.Errorf("%s with %q: the page answers %d, the API %d", op.name, permission, got, want)
			}
		}
		for _, op := range operations {
			if op.on == nil {
				continue
			}
			r := v.get(op.on(x))
			if r.status != 200 {
				continue
			}
			offers++
			offer := strings.NewReplacer("USER", "/admin/users/"+x.user, "GROUP", "/admin/groups/"+x.group, "CLAIM", "/admin/claims/"+x.claim).Replace(op.offer)
			if got := strings.Contains(r.body, offer); got != may[op.name] {
				t.Errorf("%s with %q: offered is %v, allowed is %v", op.name, permission, got, may[op.name])
			}
		}
		v.followsLinks(x)
	}
	t.Logf("%d operations were compared, %d of them allowed, and %d offers", compared, allowed, offers)
	if allowed < 50 {
		t.Errorf("only %d operations are allowed to anybody", allowed)
	}
}

var linkPattern = regexp.MustCompile(`(?:href)="(/admin/(?:users|groups|claims)[^"]*)"`)

// followsLinks walks all pages that links lead to from the lists, and finds none that is refused.
func (v *visitor) followsLinks(x things) {
	v.o.T.Helper()
	seen := map[string]bool{}
	open := []string{"/admin/users", "/admin/groups", "/admin/claims", "/admin/users/" + x.user, "/admin/groups/" + x.group, "/admin/claims/" + x.claim}
	first := len(open)
	own := "/admin/users/" + v.id
	for n := 0; n < len(open) && n < 80; n++ {
		r := v.get(open[n])
		if n >= first && r.status != 200 && r.status != 303 {
			v.o.T.Errorf("%s offers %s, which answers %d: %s", v.name, open[n], r.status, r.text())
		}
		if strings.Contains(open[n], "/export") {
			continue
		}
		for _, m := range linkPattern.FindAllStringSubmatch(r.body, -1) {
			path := html.UnescapeString(m[1])
			near := slices.ContainsFunc([]string{x.user, x.group, x.claim, "/new", "/import", "/export"}, func(s string) bool { return strings.Contains(path, s) }) || strings.HasPrefix(path, own)
			if near && !seen[path] {
				seen[path] = true
				open = append(open, path)
			}
		}
	}
}
