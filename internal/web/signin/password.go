package signin

import (
	"net/http"
	"strings"

	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// errNoCookies: without them nobody can be signed in.
var errNoCookies = problem.New(problem.Invalid, "cookies_refused", "your browser keeps no cookies of this site, and cannot be signed in without them")

// form shows where to sign in. Who is signed in already goes on, unless they want to sign in
// as somebody else, or come from a sign-in that has ended.
func (f *face) form(v *page.Visit) error {
	w := wayOf(v)
	ended := v.Field("ended")
	if v.By != nil && (isDone(v, ended) || ended == "" && v.Field("switch") == "") {
		return v.Redirect(w.Return)
	}
	if missing, err := f.noAdministrator(v, w.Return); missing || err != nil {
		return err
	}
	var m *page.Message
	switch {
	case ended != "":
		m = &page.Message{Kind: page.Warning, Text: v.T("error.invalid_mfa_token")}
	case v.By == nil && v.Cookie(page.SessionCookie) != "":
		m = &page.Message{Kind: page.Info, Text: v.T("signin.session_ended")}
	}
	return f.showForm(v, http.StatusOK, w, "", m)
}

func (f *face) showForm(v *page.Visit, status int, w way, username string, m *page.Message) error {
	setMark(v)
	c := signInPage{way: w, Username: strings.ToValidUTF8(username, "\ufffd"), Message: m, Passkeys: f.Passkeys}
	if v.By != nil {
		user, err := f.Directory.User(v.Request.Context(), v.Actor(), v.By.Token.Subject)
		if err != nil {
			return err
		}
		c.SignedIn = user.Username
	}
	return v.Show(status, page.Layout{Title: v.T("signin.title"), Narrow: true, Scripts: scripts, Content: c.content()})
}

// A signInPage is the first page of a sign-in.
type signInPage struct {
	way
	Username string
	SignedIn string // who is already; empty: nobody
	Message  *page.Message
	Passkeys bool
}

// noAdministrator says so instead of a sign-in that leads to a path of the administration while
// there is nobody who could sign in there. It reports whether it has.
func (f *face) noAdministrator(v *page.Visit, path string) (bool, error) {
	if v.By != nil || !isAdmin(path) {
		return false, nil
	}
	if err := v.CountVisitor(); err != nil {
		return false, err
	}
	found, err := f.Directory.AnyAdministrator(v.Request.Context())
	if err != nil || found {
		return false, err
	}
	return true, v.Show(http.StatusForbidden, page.Layout{Title: v.T("signin.no_admin_title"), Narrow: true, Content: noAdministratorPage()})
}

// password takes a username and a password.
func (f *face) password(v *page.Visit) error {
	w := wayOf(v)
	if missing, err := f.noAdministrator(v, w.Return); missing || err != nil {
		return err
	}
	if v.Field("back") != "" {
		return f.showForm(v, http.StatusOK, w, "", nil)
	}
	username, password := v.Field("username"), v.Form().Get("password")
	if !marked(v) {
		return f.refused(v, w, username, errNoCookies)
	}
	if username == "" || password == "" {
		return f.showForm(v, http.StatusUnprocessableEntity, w, username, &page.Message{Kind: page.Failure, Text: v.T("signin.both")})
	}
	step, err := f.Login.Begin(v.Request.Context(), login.Credential{
		Username: username, Password: password, Device: v.Cookie(page.DeviceCookie),
	}, f.Login.Issuer, v.Client)
	if err != nil {
		return f.refused(v, w, username, err)
	}
	if step.Challenge == nil {
		f.signedIn(v, step.Grant, "")
		return f.arrive(v, w, userOf(step.Grant))
	}
	waits := newWaiting(v, step.Challenge, username, w)
	if err := waits.set(v); err != nil {
		return err
	}
	switch {
	case w.Kept == nil:
		return v.Redirect(waits.page())
	case len(waits.Enrol) > 0:
		return f.showEnrol(v, http.StatusOK, waits, w, "", nil)
	}
	return f.showFactor(v, http.StatusOK, waits, w, "", nil)
}

// refused shows the form again.
func (f *face) refused(v *page.Visit, w way, username string, err error) error {
	m := v.Problem(err)
	return f.showForm(v, m.Status, w, username, &m)
}
