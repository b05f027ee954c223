package account

import (
	_ "embed"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/a-h/templ"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// Config is what the pages need.
type Config struct {
	Login     *login.Service
	Factors   *mfa.Service
	Directory *directory.Service
	// Passkeys: browsers can use passkeys here.
	Passkeys bool
}

type face struct {
	Config
}

// The pages that the navigation leads to.
const (
	overviewPath = "/account"
	sessionsPath = "/account/sessions"
	factorsPath  = "/account/factors"
	passwordPath = "/account/password"
	eventsPath   = "/account/events"
	adminPath    = "/admin"
)

//go:embed account.js
var script []byte

// scriptName is the asset with what these pages do beyond those of all.
const scriptName = "account.js"

// Mount adds the pages.
func Mount(k *page.Kit, c Config) {
	k.AddAsset(scriptName, script)
	f := &face{c}
	get := func(path string, h func(*page.Visit) error) { k.Get(path, page.SignedIn, f.handler(h)) }
	post := func(path string, h func(*page.Visit) error) { k.Post(path, page.SignedIn, f.handler(h)) }

	get(overviewPath, f.overview)
	get(sessionsPath, f.sessions)
	get(sessionsPath+"/end", f.askEnd)
	post(sessionsPath+"/end", f.end)
	get(sessionsPath+"/end-others", f.askEndOthers)
	post(sessionsPath+"/end-others", f.endOthers)
	get(sessionsPath+"/end-all", f.askEndAll)
	post(sessionsPath+"/end-all", f.endAll)
	get(factorsPath, f.factors)
	get(totpPath, f.totp)
	post(totpPath, f.changeTOTP)
	get(totpPath+"/remove", f.askRemoveTOTP)
	post(totpPath+"/remove", f.removeTOTP)
	get(passkeysPath, f.newPasskey)
	post(passkeysPath, f.addPasskey)
	k.PostJSON(passkeysPath+"/options", page.SignedIn, f.passkeyOptions)
	get(passkeysPath+"/rename", f.askRenamePasskey)
	post(passkeysPath+"/rename", f.renamePasskey)
	get(passkeysPath+"/remove", f.askRemovePasskey)
	post(passkeysPath+"/remove", f.removePasskey)
	get(codesPath, f.codes)
	post(codesPath, f.changeCodes)
	get(codesPath+"/remove", f.askRemoveCodes)
	post(codesPath+"/remove", f.removeCodes)
	get(passwordPath, f.password)
	post(passwordPath, f.changePassword)
	get(eventsPath, f.events)
}

// handler has a handler's errors that mean the end of the session lead to the sign-in.
func (f *face) handler(h func(*page.Visit) error) func(*page.Visit) error {
	return func(v *page.Visit) error {
		err := h(v)
		switch code := problem.From(err).Code; {
		case err == nil:
			return nil
		case errors.Is(err, revocation.ErrRevoked): // since the cookie was recognised
			return login.ErrNoBrowser.Because(err)
		case code == "factors_changed" || code == "password_changed":
			// It is changed, and all sessions have ended, but none has begun.
			httpkit.NoteCause(v.Writer, err)
			v.ClearSession()
			v.ClearCookie(page.DeviceCookie)
			v.Flash(page.Warning, message(v, err).Text)
			return v.Redirect("/signin?" + url.Values{"return": {overviewPath}}.Encode())
		}
		return err
	}
}

// show answers with a page. active is the path of the part that it belongs to, scripts are the
// assets that it needs.
func (f *face) show(v *page.Visit, status int, active, title string, content templ.Component, scripts ...string) error {
	user, err := f.Directory.User(v.Request.Context(), v.Actor(), v.By.Token.Subject)
	if err != nil {
		return err
	}
	nav, err := f.nav(v)
	if err != nil {
		return err
	}
	return v.Show(status, page.Layout{
		Title: title, Nav: nav, Active: active, User: user.Username, Scripts: scripts, Content: content,
	})
}

// nav has the administration for those who have a right of it.
func (f *face) nav(v *page.Visit) ([]page.NavItem, error) {
	nav := []page.NavItem{
		{Href: overviewPath, Text: v.T("account.nav.overview")},
		{Href: sessionsPath, Text: v.T("account.nav.sessions")},
		{Href: factorsPath, Text: v.T("account.nav.factors")},
		{Href: passwordPath, Text: v.T("account.nav.password")},
		{Href: eventsPath, Text: v.T("account.nav.events")},
	}
	switch _, _, err := f.Directory.Administration(v.Request.Context(), v.Actor()); {
	case err == nil:
		return append(nav, page.NavItem{Href: adminPath, Text: v.T("account.nav.admin")}), nil
	case problem.From(err).Kind == problem.Denied:
		return nav, nil
	default:
		return nil, err
	}
}

// own returns what the visitor has of second factors.
func (f *face) own(v *page.Visit) (mfa.Overview, error) {
	return f.Factors.Overview(v.Request.Context(), v.Actor(), v.By.Token.Subject)
}

// goOn goes on with the session that a change has begun, in the place of the one that it has ended.
// A device that was remembered is so no more.
func (f *face) goOn(v *page.Visit, grant login.Grant, path, text string) error {
	v.SetSession(grant.Cookie)
	v.ClearCookie(page.DeviceCookie)
	v.Flash(page.Success, text)
	return v.Redirect(path)
}

// elsewhere are the problems of which not the form says something, but the kit or handler.
var elsewhere = []error{
	directory.ErrReauthenticate, directory.ErrWrongAudience, login.ErrNoBrowser, revocation.ErrRevoked,
	problem.New(problem.Unavailable, "factors_changed", ""), problem.New(problem.Unavailable, "password_changed", ""),
}

// refusal returns what a form says of an error, which goes to the log too. It returns the error
// itself if that is not for the form to say.
func refusal(v *page.Visit, err error) (page.Message, error) {
	if problem.From(err).Kind == problem.Internal || slices.ContainsFunc(elsewhere, func(e error) bool { return errors.Is(err, e) }) {
		return page.Message{}, err
	}
	httpkit.NoteCause(v.Writer, err)
	return message(v, err), nil
}

// message is Visit.Problem, in the words of these pages if they have some of their own.
func message(v *page.Visit, err error) page.Message {
	m := v.Problem(err)
	if text, ok := words(v, "account.error."+m.Code); ok && m.RetryAfter == 0 {
		m.Text = text
	}
	return m
}

// words returns a text of the catalogue, and reports whether it has that.
func words(v *page.Visit, key string, args ...any) (string, bool) {
	text := v.T(key, args...)
	return text, text != key
}

// errorOf returns the text of a message if it belongs to a field: has its code among these.
func errorOf(m page.Message, codes ...string) string {
	if slices.Contains(codes, m.Code) {
		return m.Text
	}
	return ""
}

// without returns the message if none of these codes is its: if it belongs to no field.
func without(m page.Message, codes ...string) page.Message {
	if slices.Contains(codes, m.Code) {
		return page.Message{}
	}
	return m
}

// fullName is the name of a user as people say it.
func fullName(u store.User) string { return strings.TrimSpace(u.FirstName + " " + u.LastName) }

// with returns a path with a query.
func with(path, name, value string) string { return path + "?" + url.Values{name: {value}}.Encode() }

// statusOf is that of an answer with a message.
func statusOf(m page.Message) int {
	if m.Status == 0 {
		return http.StatusOK
	}
	return m.Status
}
