package signin

import (
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// Config is what the pages need.
type Config struct {
	Login     *login.Service
	Factors   *mfa.Service
	Directory *directory.Service
	// RememberDevice is for how long a device needs no second factor after one was presented on
	// it; zero: that is not offered.
	RememberDevice time.Duration
	// Passkeys: browsers can use passkeys here.
	Passkeys bool
}

type face struct {
	Config
}

// Mount adds the pages, and answers where a session is missing or too old.
func Mount(k *page.Kit, c Config) {
	f := &face{c}
	k.OnNoSession(f.noSession)
	k.OnReauthenticate(f.reauthenticate)
	k.Get("/signin", page.Anybody, f.form)
	k.Post("/signin", page.Anybody, f.password)
	k.PostJSON("/signin/passkey/options", page.Anybody, f.passkeyOptions)
	k.PostJSON("/signin/passkey", page.Anybody, f.passkey)
	k.Get("/signin/factor", page.Anybody, f.factorForm)
	k.Post("/signin/factor", page.Anybody, f.factor)
	k.PostJSON("/signin/factor/passkey/options", page.Anybody, f.factorOptions)
	k.Get("/signin/enrol", page.Anybody, f.enrolForm)
	k.Post("/signin/enrol", page.Anybody, f.enrol)
	k.PostJSON("/signin/enrol/passkey/options", page.Anybody, f.enrolOptions)
	k.Get("/signin/enrolled", page.SignedIn, f.enrolled)
	k.Post("/signin/continue", page.SignedIn, f.goOnWith)
	k.Get("/signin/again", page.SignedIn, f.againForm)
	k.Post("/signin/again", page.Anybody, f.again)
	k.PostJSON("/signin/again/passkey/options", page.SignedIn, f.againOptions)
	k.Get("/signin/recover", page.Anybody, f.recoverForm)
	k.Post("/signin/recover", page.Anybody, f.recover)
	k.Get("/signout", page.Anybody, f.signOutForm)
	k.Post("/signout", page.Anybody, f.signOut)
	k.Get("/.well-known/change-password", page.Anybody, func(v *page.Visit) error { return v.Redirect("/account/password") })
}

// A way is what all forms of a sign-in carry: where it leads, and what its user wanted to send
// when their session was found to have ended.
type way struct {
	Return string // as page.SafeReturn has it
	Kept   *kept  // nil: nothing
}

// maxReturn bounds the path to which a sign-in leads, in bytes: a cookie has it.
const maxReturn = 1024

// wayOf reads the fields of a form, or of a query. What was kept counts in a form alone, which
// no other site can have sent.
func wayOf(v *page.Visit) way {
	return way{Return: safeReturn(v.Form().Get("return")), Kept: readKept(v)}
}

func safeReturn(path string) string {
	if len(path) > maxReturn {
		path, _, _ = strings.Cut(path, "?")
	}
	if len(path) > maxReturn {
		path = ""
	}
	return page.SafeReturn(path)
}

// to returns a path of these pages with the return and further fields in its query.
func (w way) to(path string, fields ...string) string {
	q := url.Values{}
	if w.Return != page.SafeReturn("") {
		q.Set("return", w.Return)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		q.Set(fields[i], fields[i+1])
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// signedIn ends a sign-in: the browser gets the cookie of its session, and forgets the former
// session, which ends. step names the sign-in that waited; empty: none did.
func (f *face) signedIn(v *page.Visit, grant login.Grant, step string) {
	if former := v.Cookie(page.SessionCookie); v.By != nil {
		if err := f.Login.SignOut(v.Request.Context(), former, v.Client); err != nil && !errors.Is(err, login.ErrNoBrowser) {
			f.Login.Logger.WarnContext(v.Request.Context(), "the session that a browser had before another sign-in could not be ended", "session", v.By.Session.ID, "err", err)
		}
	}
	v.SetSession(grant.Cookie)
	setDone(v, step)
}

// arrive leads to where a sign-in was to lead, or asks whether to send what was kept.
func (f *face) arrive(v *page.Visit, w way, user string) error {
	if w.Kept != nil && w.Kept.User == user {
		return f.askToSend(v, w)
	}
	if w.Kept != nil {
		v.Flash(page.Warning, v.T("signin.kept_of_another"))
	}
	return v.Redirect(w.Return)
}

// userOf returns the id of the user whose session a grant is.
func userOf(g login.Grant) string { return session.CookieUser(g.Cookie) }

// isAdmin reports whether a path is one of administration.
func isAdmin(path string) bool {
	u, err := url.Parse(path)
	return err == nil && (u.Path == "/admin" || strings.HasPrefix(u.Path, "/admin/"))
}

func code(err error) string { return problem.From(err).Code }
