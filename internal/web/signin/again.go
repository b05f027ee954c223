package signin

import (
	"errors"
	"net/http"
	"slices"

	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// byPassword is the method of a further authentication by password.
const byPassword = "password"

// againForm asks who is signed in to authenticate again.
func (f *face) againForm(v *page.Visit) error {
	return f.showAgain(v, http.StatusOK, wayOf(v), v.Field("method"), nil)
}

func (f *face) showAgain(v *page.Visit, status int, w way, method string, m *page.Message) error {
	ctx, actor := v.Request.Context(), v.Actor()
	user, err := f.Directory.User(ctx, actor, actor.ID)
	if err != nil {
		return err
	}
	has, err := f.Factors.Overview(ctx, actor, actor.ID)
	if err != nil {
		return err
	}
	methods := f.methodsAgain(v.By.Token.ACR, has)
	if !slices.Contains(methods, method) {
		method = methods[0]
	}
	c := factorPage{way: w, Username: user.Username, Method: method, Methods: methods, Message: m}
	return v.Show(status, page.Layout{Title: v.T("signin.again_title"), Narrow: true, Scripts: scripts, Content: c.again()})
}

// methodsAgain are those by which a user with these factors makes a session of this class fresh. A
// password would take from a session what two factors have given it.
func (f *face) methodsAgain(class string, has mfa.Overview) []string {
	var methods []string
	for _, one := range []string{mfa.Passkey, mfa.TOTP, mfa.BackupCode} {
		if slices.ContainsFunc(has.Factors, func(i mfa.Info) bool {
			return i.Method == one && !i.Unreadable && (one != mfa.BackupCode || i.Left > 0)
		}) {
			methods = append(methods, one)
		}
	}
	methods = f.offered(methods)
	switch {
	case class != mfa.TwoFactors:
		return append([]string{byPassword}, methods...)
	case len(methods) == 0:
		return []string{byPassword}
	}
	return methods
}

// again takes a password or a second factor of who is signed in. After a double click the second
// request comes with a cookie that is good no more; the page that follows has the next one.
func (f *face) again(v *page.Visit) error {
	w := wayOf(v)
	if v.By == nil {
		return f.sentTwice(v, w)
	}
	if other := v.Field("choose"); other != "" {
		return f.showAgain(v, http.StatusOK, w, other, nil)
	}
	a := answer(v)
	a.RememberDevice = false
	plain := v.Form().Get("password")
	if a.Method == byPassword && plain == "" {
		return f.showAgain(v, http.StatusUnprocessableEntity, w, a.Method, &page.Message{Kind: page.Failure, Text: v.T("signin.no_password")})
	}
	grant, err := f.Login.StepUp(v.Request.Context(), v.By.Token, plain, a, v.Client)
	if errors.Is(err, revocation.ErrRevoked) {
		return f.sentTwice(v, w)
	}
	if err != nil {
		m := v.Problem(err)
		return f.showAgain(v, m.Status, w, a.Method, &m)
	}
	v.SetSession(grant.Cookie)
	return f.arrive(v, w, v.By.Token.Subject)
}

func (f *face) sentTwice(v *page.Visit, w way) error {
	if w.Kept == nil {
		return v.Redirect(w.to("/signin"))
	}
	v.By = nil
	return f.sessionEnded(v, w)
}

// againOptions begins the ceremony of a passkey.
func (f *face) againOptions(v *page.Visit) error {
	var in struct {
		Step string `json:"step"` // there is none
	}
	if err := v.ReadJSON(&in); err != nil {
		return err
	}
	options, err := f.Login.StepUpOptions(v.Request.Context(), v.By.Token)
	if err != nil {
		return err
	}
	return v.JSON(http.StatusOK, options)
}
