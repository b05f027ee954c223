package account

import (
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// What a form without a password would be refused with, after more work.
var (
	errNoCurrent = problem.New(problem.Invalid, "current_password_missing", "type your present password")
	errNoNew     = problem.New(problem.Invalid, "new_password_missing", "type the new password")
)

// The problems that belong to the fields of the form.
var (
	ofCurrent = []string{"invalid_credentials", "current_password_missing"}
	ofNew     = []string{"password_too_short", "invalid_password", "password_unchanged", "new_password_missing"}
)

// A passwordForm says what is wrong with what was typed.
type passwordForm struct {
	Message  page.Message
	Username string // for password managers
	Shortest int
}

func (f *face) password(v *page.Visit) error { return f.showPassword(v, page.Message{}) }

func (f *face) showPassword(v *page.Visit, m page.Message) error {
	user, err := f.Directory.User(v.Request.Context(), v.Actor(), v.By.Token.Subject)
	if err != nil {
		return err
	}
	return f.show(v, statusOf(m), passwordPath, v.T("account.password.title"), passwordContent(passwordForm{m, user.Username, password.MinLength}))
}

func (f *face) changePassword(v *page.Visit) error {
	current, next := v.Form().Get("current_password"), v.Form().Get("new_password")
	err := error(nil)
	switch {
	case current == "":
		err = errNoCurrent
	case next == "":
		err = errNoNew
	default:
		grant, failed := f.Login.ChangePassword(v.Request.Context(), v.By.Token, current, next, v.Client)
		if failed == nil {
			return f.goOn(v, grant, overviewPath, v.T("account.password.done"))
		}
		err = failed
	}
	m, err := refusal(v, err)
	if err != nil {
		return err
	}
	return f.showPassword(v, m)
}
