package admin

import (
	"net/http"
	"slices"
	"strings"

	"github.com/a-h/templ"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const (
	sessionsPath = "/admin/sessions"
	// rowsAtOnce is how many rows a list has.
	rowsAtOnce = 25
)

func (f *face) mountSessions() {
	f.get(sessionsPath, f.sessions)
	f.get(sessionsPath+"/end", f.askEndOne)
	f.post(sessionsPath+"/end", f.endOne)
	f.get(sessionsPath+"/end-all", f.askEndAll)
	f.post(sessionsPath+"/end-all", f.endAll)
}

// A sessionRow is a session as a list shows it.
type sessionRow struct {
	login.SignedIn
	Device   string
	Factor   string // the second factor of its sign-in, in words; empty: none
	This     bool   // the one of this visit
	MayEnd   bool
	ShowUser bool
}

type sessionsView struct {
	Message page.Message
	Query   string     // who is looked for, as it was typed; empty: everybody
	User    store.User // whose sessions these are; empty: everybody's
	Rows    []sessionRow
	Pages   page.Pages
	After   string
	// MayEndAll: the visitor may end all sessions of a user. MayOpen: they may see users.
	MayEndAll, MayOpen bool
}

// path is that of the list as it is shown.
func (l sessionsView) path() string { return linkTo(sessionsPath, "user", l.Query, "after", l.After) }

func (f *face) sessions(v *visit) error {
	l := sessionsView{
		Query: v.Field("user"), After: v.Field("after"), MayEndAll: v.can(directory.SessionsWrite), MayOpen: v.can(directory.UsersRead),
	}
	var err error
	if l.Query == "" {
		err = f.everybody(v, &l)
	} else {
		err = f.sessionsOfOne(v, &l)
	}
	if err != nil && l.Query != "" {
		return v.retry(err, func(m page.Message) page.Layout {
			return sessionsLayout(sessionsView{Message: m, Query: l.Query})
		})
	}
	if err != nil {
		return err
	}
	if v.IsHTMX() {
		return v.Fragment(http.StatusOK, sessionsList(l))
	}
	return v.show(sessionsLayout(l))
}

func sessionsLayout(l sessionsView) page.Layout {
	return page.Layout{Title: "Sessions", Active: sessionsPath, Live: true, Content: sessionsContent(l)}
}

// everybody lists the latest sign-ins.
func (f *face) everybody(v *visit, l *sessionsView) error {
	found, next, err := f.Login.SignedIn(v.Request.Context(), v.By.Token, l.After, rowsAtOnce, v.Client)
	if err != nil {
		return err
	}
	for _, one := range found {
		l.Rows = append(l.Rows, v.sessionRow(one))
		l.Rows[len(l.Rows)-1].ShowUser = true
	}
	l.Pages = pagesOf(sessionsPath, l.After, next)
	return nil
}

// sessionsOfOne lists the sessions of one user.
func (f *face) sessionsOfOne(v *visit, l *sessionsView) error {
	ctx := v.Request.Context()
	u, err := f.Directory.AuthorizeOn(ctx, v.Actor(), directory.SessionsRead, l.Query)
	if err != nil {
		return err
	}
	found, next, err := f.Login.ListSessions(ctx, v.By.Token, u.ID, l.After, rowsAtOnce, v.Client)
	if err != nil {
		return err
	}
	l.User = u
	for _, one := range found {
		l.Rows = append(l.Rows, v.sessionRow(login.SignedIn{Session: one, User: u}))
	}
	l.Pages = pagesOf(sessionsPath, l.After, next, "user", l.Query)
	return nil
}

func (v *visit) sessionRow(one login.SignedIn) sessionRow {
	return sessionRow{
		SignedIn: one, Device: v.Device(one.Session.UserAgent), Factor: secondFactor(one.Session.AMR),
		This: one.Session.ID == v.By.Token.SessionID, MayEnd: v.mayEndOneOf(one.User.ID),
	}
}

// mayEndOneOf reports whether the visitor may end one session of a user, unless the user has
// rights that the visitor does not have.
func (v *visit) mayEndOneOf(userID string) bool {
	return userID == v.User.ID || v.can(directory.SessionsWrite) || v.can(directory.Revoke)
}

// sessionOf returns a live session of a user, as endSessionOf would end it.
func (f *face) sessionOf(v *visit, u store.User, id string) (session.Session, error) {
	if u.ID == v.User.ID {
		return f.Login.OwnSession(v.Request.Context(), v.By.Token, id)
	}
	one, err := f.Login.SessionOf(v.Request.Context(), v.By.Token, u.ID, id, v.Client)
	return one.Session, err
}

// endSessionOf ends a session of a user (their id), by whichever right the visitor has for it.
func (f *face) endSessionOf(v *visit, user, id string) error {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return errNoSessionID
	}
	if user == v.User.ID || v.can(directory.SessionsWrite) {
		return f.Login.EndSessionOf(v.Request.Context(), v.By.Token, user, parsed.String(), v.Client)
	}
	_, err = f.Login.Revoke(v.Request.Context(), v.By.Token, login.Target{SessionID: parsed.String()}, v.Client)
	return err
}

// secondFactor says which of the methods of a sign-in (RFC 8176) was its second factor.
func secondFactor(amr []string) string {
	switch {
	case slices.Contains(amr, "hwk"), slices.Contains(amr, "swk"):
		return "Passkey"
	case slices.Contains(amr, "otp"):
		return "Code"
	}
	return ""
}

func (f *face) askEndOne(v *visit) error {
	one, err := f.Login.SessionOf(v.Request.Context(), v.By.Token, v.Field("user"), v.Field("id"), v.Client)
	if err != nil {
		return err
	}
	text := "End the session of " + one.User.Username + " on " + v.Device(one.Session.UserAgent) + " (" + shown(one.Session.Address) +
		")? All its tokens are refused everywhere, and it cannot be renewed. Other sessions of " + one.User.Username + " go on."
	if one.Session.ID == v.By.Token.SessionID {
		text = "End this session, which is your own and the one that you are using now? You are signed out at once, and all its tokens are refused everywhere."
	}
	return v.show(page.Layout{Title: "End a session", Active: sessionsPath, Content: page.Confirm(page.Confirmation{
		Action: sessionsPath + "/end", Fields: map[string]string{"id": one.Session.ID, "user": one.User.ID},
		Text: text, Button: "End the session", Danger: true, Cancel: linkTo(sessionsPath, "user", one.User.ID),
	})})
}

func (f *face) endOne(v *visit) error {
	user, id := v.Field("user"), v.Field("id")
	if err := f.endSessionOf(v, user, id); err != nil {
		return err
	}
	if id == v.By.Token.SessionID {
		return v.signedOut("Your session has ended.")
	}
	v.Flash(page.Success, "The session has ended. Its tokens are refused everywhere, and it cannot be renewed.")
	return v.Redirect(linkTo(sessionsPath, "user", user))
}

func (f *face) askEndAll(v *visit) error {
	u, err := f.Directory.AuthorizeOn(v.Request.Context(), v.Actor(), directory.SessionsWrite, v.Field("user"))
	if err != nil {
		return err
	}
	text := "End all sessions of " + u.Username + "? Every token that " + u.Username + " has now is refused everywhere, whatever device has it. " +
		"So are sign-ins that wait for their second factor. " + u.Username + " can sign in again."
	if u.ID == v.User.ID {
		text = "End all your own sessions, also the one that you are using now? You are signed out at once, and every token that you have is refused everywhere. You can sign in again."
	}
	return v.show(page.Layout{Title: "End all sessions of a user", Active: sessionsPath, Content: page.Confirm(page.Confirmation{
		Action: sessionsPath + "/end-all", Fields: map[string]string{"user": u.ID},
		Text: text, Button: "End all sessions", Danger: true, Cancel: linkTo(sessionsPath, "user", u.ID),
	})})
}

func (f *face) endAll(v *visit) error {
	user := v.Field("user")
	if err := f.Login.EndAllSessions(v.Request.Context(), v.By.Token, user, v.Client); err != nil {
		return err
	}
	if user == v.User.ID {
		return v.signedOut("All your sessions have ended.")
	}
	v.Flash(page.Success, "All sessions have ended, and every token that the user had is refused everywhere.")
	return v.Redirect(linkTo(sessionsPath, "user", user))
}

// signedOut leads to the sign-in after the visitor's own session has ended.
func (v *visit) signedOut(text string) error {
	v.ClearSession()
	v.Flash(page.Success, text)
	return v.Redirect(linkTo("/signin", "return", sessionsPath))
}

var errNoSessionID = problem.New(problem.Invalid, "invalid_request", "this is no id of a session; it looks like 0198c8c4-2f5e-7a63-9f3e-0123456789ab")

// pagesOf are the neighbours of a page that begins after a place and is followed by next.
func pagesOf(path, after, next string, query ...string) page.Pages {
	var p page.Pages
	if after != "" {
		p.First = linkTo(path, query...)
	}
	if next != "" {
		p.Next = linkTo(path, append(slices.Clone(query), "after", next)...)
	}
	return p
}

// shown is what a client has said, or the words that it has said nothing.
func shown(text string) string {
	if text = page.Readable(strings.TrimSpace(text)); text == "" {
		return "not known"
	}
	return text
}

func sessionColumns(l sessionsView) []page.Column {
	first := "User and device"
	if l.User.ID != "" {
		first = "Device"
	}
	return []page.Column{{Label: first}, {Label: "Second factor"}, {Label: "Begun"}, {Label: "Actions", Hidden: true}}
}

// where says from where a session was begun.
func (s sessionRow) where() string {
	if s.Session.Browser {
		return "these pages, from " + shown(s.Session.Address)
	}
	return "an app, from " + shown(s.Session.Address)
}

// typedName are attributes of a field for a name that is typed as it is.
func typedName(example string) templ.Attributes {
	return templ.Attributes{"placeholder": example, "autocapitalize": "none", "spellcheck": "false"}
}
