package signin

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// factorForm asks for a second factor.
func (f *face) factorForm(v *page.Visit) error {
	waits := waitingOf(v)
	if waits == nil {
		return v.Redirect(wayOf(v).to("/signin"))
	}
	if len(waits.Enrol) > 0 {
		return v.Redirect(waits.page())
	}
	return f.showFactor(v, http.StatusOK, waits, way{Return: waits.Return}, v.Field("method"), nil)
}

func (f *face) showFactor(v *page.Visit, status int, waits *waiting, w way, method string, m *page.Message) error {
	methods := f.offered(waits.Methods)
	if len(methods) == 0 { // the browser has said so
		return f.ended(v, waits.step(), w, waits.Username)
	}
	if !slices.Contains(methods, method) {
		method = methods[0]
	}
	c := factorPage{way: w, Step: waits.step(), Username: waits.Username, Method: method, Methods: methods, Remember: f.RememberDevice, Message: m}
	return v.Show(status, page.Layout{Title: v.T("signin.factor_title"), Narrow: true, Scripts: scripts, Content: c.content()})
}

// A factorPage asks for a second factor.
type factorPage struct {
	way
	Step, Username string
	Method         string
	Methods        []string      // to choose from
	Remember       time.Duration // for how long the device can be remembered; 0: it cannot
	Message        *page.Message
}

// offered are those of the methods that there are pages for.
func (f *face) offered(methods []string) []string {
	return slices.DeleteFunc(slices.Clone(methods), func(m string) bool {
		return m != mfa.TOTP && m != mfa.BackupCode && (m != mfa.Passkey || !f.Passkeys)
	})
}

// waiting returns the sign-in that a form belongs to. If there is none, it has answered: the
// browser has finished it, works at another one in another tab, or has waited too long.
func (f *face) waiting(v *page.Visit, w way) (*waiting, error) {
	step, waits := v.Field("step"), waitingOf(v)
	switch {
	case waits != nil && waits.step() == step:
		return waits, nil
	case isDone(v, step):
		return nil, f.arrive(v, w, v.By.Token.Subject)
	case waits != nil:
		m := &page.Message{Kind: page.Warning, Text: v.T("signin.other_tab", "user", waits.Username)}
		other := way{Return: waits.Return, Kept: w.Kept}
		if len(waits.Enrol) > 0 {
			return nil, f.showEnrol(v, http.StatusConflict, waits, other, "", m)
		}
		return nil, f.showFactor(v, http.StatusConflict, waits, other, "", m)
	case !marked(v):
		return nil, f.refused(v, w, v.Field("username"), errNoCookies)
	}
	return nil, f.ended(v, step, w, v.Field("username"))
}

// ended leads back to the beginning. Another request may have finished the sign-in just now, as
// after a double click: the cookies with which the browser comes next tell.
func (f *face) ended(v *page.Visit, step string, w way, username string) error {
	if w.Kept == nil {
		return v.Redirect(w.to("/signin", "ended", step))
	}
	return f.refused(v, w, username, mfa.ErrInvalidToken)
}

// answer is what a form presents.
func answer(v *page.Visit) mfa.Answer {
	return mfa.Answer{
		Method: v.Field("method"), Code: v.Field("code"), Credential: json.RawMessage(v.Field("credential")),
		RememberDevice: v.Field("remember_device") == "on",
	}
}

// factor takes a second factor.
func (f *face) factor(v *page.Visit) error {
	w := wayOf(v)
	waits, err := f.waiting(v, w)
	if waits == nil {
		return err
	}
	if len(waits.Enrol) > 0 {
		return v.Redirect(waits.page())
	}
	if other := v.Field("choose"); other != "" {
		return f.showFactor(v, http.StatusOK, waits, w, other, nil)
	}
	a := answer(v)
	grant, finished, err := f.Login.Complete(v.Request.Context(), waits.Token, a, v.Client)
	if errors.Is(err, mfa.ErrInvalidToken) {
		return f.ended(v, waits.step(), w, waits.Username)
	}
	if err != nil {
		m := v.Problem(err)
		return f.showFactor(v, m.Status, waits, w, a.Method, &m)
	}
	f.finished(v, grant, finished, waits)
	return f.arrive(v, w, waits.user())
}

// finished ends a sign-in of two steps.
func (f *face) finished(v *page.Visit, grant login.Grant, d mfa.Done, waits *waiting) {
	f.signedIn(v, grant, waits.step())
	if d.Device != "" {
		v.SetCookie(page.DeviceCookie, d.Device, f.RememberDevice)
	}
	switch left := d.CodesLeft; {
	case left == nil || *left > mfa.FewCodes:
	case *left == 0:
		v.Flash(page.Warning, v.T("signin.no_codes_left"))
	case *left == 1:
		v.Flash(page.Warning, v.T("signin.one_code_left"))
	default:
		v.Flash(page.Warning, v.T("signin.few_codes_left", "n", *left))
	}
}

// factorOptions begins the ceremony of a passkey.
func (f *face) factorOptions(v *page.Visit) error {
	waits, err := f.readStep(v)
	if err != nil {
		return err
	}
	options, err := f.Factors.PasskeyOptions(v.Request.Context(), waits.Token, v.Client.Address)
	if err != nil {
		return err
	}
	return v.JSON(http.StatusOK, options)
}

// readStep returns the sign-in that a script asks for.
func (f *face) readStep(v *page.Visit) (*waiting, error) {
	var in struct {
		Step string `json:"step"`
	}
	if err := v.ReadJSON(&in); err != nil {
		return nil, err
	}
	waits := waitingOf(v)
	if waits == nil || waits.step() != in.Step {
		return nil, mfa.ErrInvalidToken
	}
	return waits, nil
}
