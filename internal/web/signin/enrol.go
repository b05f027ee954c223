package signin

import (
	"encoding/base64"
	"errors"
	"net/http"
	"slices"

	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// enrolForm asks for the enrolment of a first factor.
func (f *face) enrolForm(v *page.Visit) error {
	waits := waitingOf(v)
	if waits == nil {
		return v.Redirect(wayOf(v).to("/signin"))
	}
	if len(waits.Enrol) == 0 {
		return v.Redirect(waits.page())
	}
	return f.showEnrol(v, http.StatusOK, waits, way{Return: waits.Return}, v.Field("method"), nil)
}

// showEnrol shows the methods to choose from, or the one that was begun.
func (f *face) showEnrol(v *page.Visit, status int, waits *waiting, w way, method string, m *page.Message) error {
	methods := f.offered(waits.Enrol)
	c := enrolPage{way: w, Step: waits.step(), Username: waits.Username, Methods: methods, Message: m}
	if method == mfa.TOTP && slices.Contains(methods, method) {
		e, err := f.Factors.EnrollingTOTP(v.Request.Context(), waits.Token, v.Client.Address)
		switch {
		case errors.Is(err, mfa.ErrInvalidToken):
			return f.ended(v, c.Step, w, waits.Username)
		case err == nil:
			c.TOTP = &e
		case code(err) != "nothing_pending": // which leaves the choice
			return err
		}
	}
	return v.Show(status, page.Layout{Title: v.T("signin.enrol_title"), Narrow: true, Scripts: scripts, Content: c.content()})
}

// An enrolPage asks for the enrolment of a first factor.
type enrolPage struct {
	way
	Step, Username string
	Methods        []string           // to choose from
	TOTP           *mfa.TOTPEnrolment // that was begun; nil: none
	Message        *page.Message
}

// qr is the QR code as the source of an image.
func (c enrolPage) qr() string {
	return "data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString([]byte(c.TOTP.QR))
}

// secret is the secret in groups of four, as people type it.
func (c enrolPage) secret() string {
	var b []byte
	for i := range len(c.TOTP.Secret) {
		if i > 0 && i%4 == 0 {
			b = append(b, ' ')
		}
		b = append(b, c.TOTP.Secret[i])
	}
	return string(b)
}

// enrol begins an enrolment, or finishes it and the sign-in.
func (f *face) enrol(v *page.Visit) error {
	w := wayOf(v)
	waits, err := f.waiting(v, w)
	if waits == nil {
		return err
	}
	if len(waits.Enrol) == 0 {
		return v.Redirect(waits.page())
	}
	a := answer(v)
	if v.Field("begin") != "" {
		return f.beginTOTP(v, waits, w)
	}
	grant, finished, err := f.Login.Complete(v.Request.Context(), waits.Token, a, v.Client)
	if errors.Is(err, mfa.ErrInvalidToken) {
		return f.ended(v, waits.step(), w, waits.Username)
	}
	if err != nil {
		m := v.Problem(err)
		return f.showEnrol(v, m.Status, waits, w, a.Method, &m)
	}
	f.finished(v, grant, finished, waits)
	if w.Kept != nil {
		return f.arrive(v, w, waits.user())
	}
	return v.Redirect(w.to("/signin/enrolled"))
}

// beginTOTP makes a secret, which the page shows however often it is loaded again.
func (f *face) beginTOTP(v *page.Visit, waits *waiting, w way) error {
	_, err := f.Factors.EnrolTOTP(v.Request.Context(), waits.Token, v.Client.Address)
	switch {
	case errors.Is(err, mfa.ErrInvalidToken):
		return f.ended(v, waits.step(), w, waits.Username)
	case err != nil:
		m := v.Problem(err)
		return f.showEnrol(v, m.Status, waits, w, "", &m)
	case w.Kept != nil:
		return f.showEnrol(v, http.StatusOK, waits, w, mfa.TOTP, nil)
	}
	return v.Redirect("/signin/enrol?method=" + mfa.TOTP)
}

// enrolOptions begins the ceremony that makes a passkey.
func (f *face) enrolOptions(v *page.Visit) error {
	waits, err := f.readStep(v)
	if err != nil {
		return err
	}
	options, err := f.Factors.EnrolPasskey(v.Request.Context(), waits.Token, v.Client.Address)
	if err != nil {
		return err
	}
	return v.JSON(http.StatusOK, options)
}

// enrolled advises to make backup codes.
func (f *face) enrolled(v *page.Visit) error {
	return v.Show(http.StatusOK, page.Layout{Title: v.T("signin.enrolled_title"), Narrow: true, Content: enrolledPage(wayOf(v))})
}
