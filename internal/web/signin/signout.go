package signin

import (
	"errors"
	"net/http"

	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// signOutForm asks whether to sign out.
func (f *face) signOutForm(v *page.Visit) error {
	if v.By == nil {
		return v.Redirect("/signin")
	}
	user, err := f.Directory.User(v.Request.Context(), v.Actor(), v.By.Token.Subject)
	if err != nil {
		return err
	}
	return v.Show(http.StatusOK, page.Layout{Title: v.T("signin.sign_out"), Narrow: true, User: user.Username, Content: signOutPage(user.Username, from(v))})
}

// signOut ends the browser's session. If it has ended already, or never was, the browser is
// signed out all the same.
func (f *face) signOut(v *page.Visit) error {
	if cookie := v.Cookie(page.SessionCookie); cookie != "" {
		if err := f.Login.SignOut(v.Request.Context(), cookie, v.Client); err != nil && !errors.Is(err, login.ErrNoBrowser) {
			return err
		}
	}
	v.ClearSession()
	setDone(v, "")
	v.Flash(page.Success, v.T("signin.signed_out"))
	return v.Redirect("/signin")
}
