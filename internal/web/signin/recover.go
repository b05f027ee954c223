package signin

import (
	"net/http"
	"strings"

	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// recoverForm takes the recovery token of an administrator. A link has it in its fragment, which
// no server sees, and a script puts it into the form.
func (f *face) recoverForm(v *page.Visit) error { return f.showRecover(v, http.StatusOK, nil) }

func (f *face) showRecover(v *page.Visit, status int, m *page.Message) error {
	return v.Show(status, page.Layout{Title: v.T("signin.recover_title"), Narrow: true, Scripts: scripts, Content: recoverPage(m)})
}

// recover gives the user of a recovery token another password.
func (f *face) recover(v *page.Visit) error {
	token, next := strings.Join(strings.Fields(v.Form().Get("recovery_token")), ""), v.Form().Get("new_password")
	if token == "" || next == "" {
		return f.showRecover(v, http.StatusUnprocessableEntity, &page.Message{Kind: page.Failure, Text: v.T("signin.recover_both")})
	}
	if err := f.Factors.Recover(v.Request.Context(), token, next, v.Client.Address); err != nil {
		m := v.Problem(err)
		return f.showRecover(v, m.Status, &m)
	}
	v.Flash(page.Success, v.T("signin.recovered"))
	return v.Redirect("/signin?switch=1")
}

// minPassword is how many characters a new password has at least.
const minPassword = password.MinLength
