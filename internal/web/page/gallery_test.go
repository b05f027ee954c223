package page

import (
	"context"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/a-h/templ"
)

var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// within renders a component with others as its children.
func within(c templ.Component, children ...templ.Component) templ.Component {
	return templ.ComponentFunc(func(ctx context.Context, w io.Writer) error {
		return c.Render(templ.WithChildren(ctx, templ.Join(children...)), w)
	})
}

func raw(html string) templ.Component { return templ.Raw(html) }

// gallery has every component, in every state that looks different.
func gallery() templ.Component {
	var times []time.Time
	good, bad, renewed := Line{Name: "Sign-ins"}, Line{Name: "Refused"}, Line{Name: "Renewals"}
	for i := range 60 {
		times = append(times, noon.Add(time.Duration(i-60)*time.Minute))
		known := i < 20 || i > 24
		x := float64(i)
		good.Values = append(good.Values, Value{math.Round(300 + 180*math.Sin(x/7) + 40*math.Sin(x*1.7)), known})
		bad.Values = append(bad.Values, Value{math.Round(40 + 30*math.Sin(x/3)), known})
		renewed.Values = append(renewed.Values, Value{math.Round(200 + x*3), known})
	}
	day := 24 * time.Hour
	row := func(name string, created time.Duration) TimelineRow {
		at := noon.Add(created)
		return TimelineRow{name, []Segment{
			{at, at.Add(day), Coming, "published"}, {at.Add(day), at.Add(8 * day), Current, "active"}, {at.Add(8 * day), at.Add(9 * day), Ending, "retiring"},
		}}
	}
	revoked := TimelineRow{"replica-c 8d31", []Segment{
		{noon.Add(-6 * day), noon.Add(-5 * day), Coming, "published"}, {noon.Add(-5 * day), noon.Add(-2 * day), Current, "active"}, {noon.Add(-2 * day), noon.Add(3 * day), Broken, "revoked"},
	}}
	line := func(name, mail, badge string, kind BadgeKind, seen time.Duration) templ.Component {
		return templ.Join(raw("<tr><th scope=\"row\"><a href=\"#\">"+name+"</a></th><td>"+mail+"</td><td>"), Badge(kind, badge), raw("</td><td>"), Ago(noon.Add(seen)),
			raw("</td><td class=\"number\">1,204</td><td>"), ConfirmLink("/admin/delete", "Delete"), raw("</td></tr>"))
	}
	return templ.Join(
		Tabs("Time range", []Tab{{"#", "15 minutes", false}, {"#", "1 hour", true}, {"#", "24 hours", false}}),
		within(Stats(), Stat("Sessions", "104,212", "of 98,310 users"), Stat("Sign-ins a minute", "412", "8 % refused"), Stat("Revocations seen after", "18 ms", "99 % within"), Stat("Replicas", "3", "all up to date")),
		within(Cards(),
			within(Card(""), LineChart(Chart{Title: "Sign-ins", Unit: "a minute", Description: "How many sign-ins there were in each minute of the last hour.", Times: times, Lines: []Line{good, bad, renewed}})),
			within(Card(""), LineChart(Chart{ID: "none", Title: "Limits hit", Times: times, Lines: []Line{{"Limits", make([]Value, len(times))}}})),
		),
		within(Card(""), TimelineChart(Timeline{Title: "Signing keys", Description: "what each replica signs with, and when", From: noon.Add(-7 * day), To: noon.Add(7 * day), Now: noon,
			Rows: []TimelineRow{row("replica-a 3f2c", -5*day), row("replica-a 91aa", 2*day), row("replica-b 77e0", -3*day), revoked}})),
		within(Table("Users", []Column{{Label: "Name", Href: "#", Sorted: "ascending"}, {Label: "E-mail", Href: "#"}, {Label: "State"}, {Label: "Last seen"}, {Label: "Tokens", Numeric: true}, {Label: "Actions", Hidden: true}}),
			line("ester.aronsson", "ester@example.com", "active", Good, -3*time.Minute), line("finn", "finn@example.com", "locked", Caution, -30*time.Hour),
			line("grace.with.a.rather.long.username", "grace.hopper@subdomain.example.com", "disabled", Bad, -700*time.Hour)),
		Pager(Pages{First: "#", Previous: "#", Next: "#"}),
		within(Cards(),
			within(Card("Edit a user"), within(Form("#"),
				Alert(Message{Kind: Failure, Text: "Somebody else has changed this user meanwhile."}),
				Field(Input{Name: "username", Label: "Username", Value: "ester.aronsson", Autocomplete: "username", Required: true}),
				Field(Input{Name: "email", Label: "E-mail", Type: "email", Value: "ester@", Autocomplete: "email", Hint: "Where messages to this person go.", Error: "This is no e-mail address."}),
				PasswordField(Input{Name: "password", Label: "New password", Autocomplete: "new-password", Hint: "15 characters or more."}),
				CodeField(Input{Name: "code", Label: "Code of the app"}),
				Select(Input{Name: "group", Label: "Group", Value: "b"}, []Option{{Value: "a", Text: "Administrators"}, {Value: "b", Text: "Billing"}}),
				TextArea(Input{Name: "note", Label: "Note", Value: "A note\nof two lines"}),
				FileField(Input{Name: "file", Label: "File", Accept: ".csv,.json"}),
				Checkbox(Input{Name: "disabled", Label: "The user may not sign in", Checked: true, Hint: "Their sessions end at once."}),
				within(Actions(), Submit("Save"), Button("Save and go on", "then", "next"), Danger("Delete"), LinkButton("#", "Cancel")))),
			within(Card("Messages"),
				Alert(Message{Kind: Success, Text: "The user has been saved."}), Alert(Message{Kind: Info, Text: "Keys are replaced at 14:00."}),
				within(Alert(Message{Kind: Warning, Text: "replica-c is 4 s behind."}), raw(`<a href="#">See the cluster</a>`)), Alert(Message{Kind: Failure, Text: "The database does not answer."}),
				within(Actions(), Badge(Neutral, "user"), Badge(Good, "live"), Badge(Caution, "slowed"), Badge(Bad, "revoked"), Badge(Accent, "you")),
				Progress("Importing users", 340, 1000),
				within(Empty("No passkeys yet", "A passkey signs you in without a password."), LinkButton("#", "Add a passkey")),
				within(Facts(), within(Fact("Id"), raw("<code>01h8xq3f7k2m4n6p8r0s2t4v6w</code>")), within(Fact("Created"), Time(noon)), within(Fact("Last seen"), Ago(noon)), within(Fact("Never"), Time(time.Time{}))),
				Code("Claims", "{\n  \"iss\": \"https://id.example.com\",\n  \"sub\": \"01h8xq3f7k2m4n6p8r0s2t4v6w\",\n  \"admin\": \"users.write,sessions.read,revoke,audit.read,limits.write\"\n}")),
		),
		within(Search("#"), Field(Input{Name: "q", Label: "Username or e-mail", Type: "search"}), Button("Search", "", "")),
		within(Card("A question"), Confirm(Confirmation{Action: "/admin/delete", Text: "Delete ester.aronsson? Their 3 sessions end, and all of their tokens are revoked.", Button: "Delete ester.aronsson", Danger: true, Cancel: "#", Fields: map[string]string{"id": "1"}})),
	)
}

// signIn is a page of one card.
func signIn() templ.Component {
	return within(Form("#"),
		Alert(Message{Kind: Failure, Text: "The username or the password is wrong."}),
		Field(Input{Name: "username", Label: "Username", Autocomplete: "username webauthn", Value: "ester"}),
		PasswordField(Input{Name: "password", Label: "Password", Error: "Enter your password."}),
		Submit("Sign in"))
}

// TestGallery renders every component into HTML files, to be looked at: into the directory that
// WATCHWORD_GALLERY names, if there is one.
func TestGallery(t *testing.T) {
	dir := os.Getenv("WATCHWORD_GALLERY")
	if dir == "" {
		dir = t.TempDir()
	}
	k := newKit(t, nil)
	nav := []NavItem{{"/admin", "Overview"}, {"/admin/cluster", "Cluster"}, {"/admin/users", "Users"}, {"/admin/groups", "Groups"}, {"/admin/claims", "Claims"}, {"/admin/sessions", "Sessions"}, {"/admin/limits", "Limits"}, {"/admin/audit", "Audit"}, {"/admin/tools", "Tools"}}
	k.Get("/admin", Anybody, func(v *Visit) error {
		return v.Show(http.StatusOK, Layout{Title: "Overview", Nav: nav, Active: "/admin", Live: true, User: "ester.aronsson", Content: gallery()})
	})
	k.Get("/signin", Anybody, func(v *Visit) error {
		return v.Show(http.StatusOK, Layout{Title: "Sign in", Narrow: true, Content: signIn()})
	})
	k.Get("/account", Anybody, func(v *Visit) error {
		return v.Show(http.StatusOK, Layout{Title: "Your account", User: "ester.aronsson", Content: within(Card("Sessions"), raw("<p>Text.</p>"))})
	})
	mux := http.NewServeMux()
	k.Mount(mux)
	for name, path := range map[string]string{"admin": "/admin", "signin": "/signin", "account": "/account", "missing": "/admin/none"} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost"+path, nil))
		html := strings.ReplaceAll(w.Body.String(), `"/assets/`, `"assets/`)
		if err := os.WriteFile(filepath.Join(dir, name+".html"), []byte(html), 0o644); err != nil {
			t.Fatal(err)
		}
		checkHTML(t, name, w.Body.String())
	}
	if err := os.MkdirAll(filepath.Join(dir, "assets"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, a := range k.assets.byURL {
		if err := os.WriteFile(filepath.Join(dir, "assets", name), a.plain, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
