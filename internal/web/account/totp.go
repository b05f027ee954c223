package account

import (
	"encoding/base64"
	"errors"
	"strings"

	"github.com/a-h/templ"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const totpPath = factorsPath + "/totp"

// confirming is the value of the field "step" in the form that finishes what another one has begun.
const confirming = "confirm"

// The problems of a code that was typed.
var ofCode = []string{"invalid_code", "malformed_code"}

// errPending: nothing waits for its confirmation, as when that came too late.
var errPending = problem.New(problem.Conflict, "nothing_pending", "")

// grouped writes a secret as people type it: in groups of four.
func grouped(secret string) string {
	var b strings.Builder
	for i, c := range secret {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// imageOf is an SVG document as the address of an image.
func imageOf(svg string) templ.SafeURL {
	return templ.SafeURL("data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString([]byte(svg)))
}

// totp shows the secret that waits for its confirmation, or how to get one.
func (f *face) totp(v *page.Visit) error { return f.showTOTP(v, page.Message{}) }

func (f *face) showTOTP(v *page.Visit, m page.Message) error {
	e, err := f.Factors.PendingTOTP(v.Request.Context(), v.Actor())
	title := v.T("account.totp.title")
	if errors.Is(err, errPending) {
		return f.show(v, statusOf(m), factorsPath, title, totpIntro(m))
	}
	if err != nil {
		return f.refuseFactors(v, err)
	}
	return f.show(v, statusOf(m), factorsPath, title, totpContent(e, m))
}

func (f *face) changeTOTP(v *page.Visit) error {
	ctx := v.Request.Context()
	if v.Field("step") != confirming {
		if _, err := f.Factors.BeginTOTP(ctx, v.Actor()); err != nil {
			return f.refuseFactors(v, err)
		}
		return v.Redirect(totpPath)
	}
	grant, err := f.Login.ConfirmTOTP(ctx, v.By.Token, v.Field("code"), v.Client)
	if err == nil {
		return f.goOn(v, grant, factorsPath, v.T("account.totp.done"))
	}
	m, err := refusal(v, err)
	if err != nil {
		return err
	}
	return f.showTOTP(v, m)
}

func (f *face) askRemoveTOTP(v *page.Visit) error {
	has, err := f.own(v)
	if err != nil {
		return err
	}
	p := protectionOf(has)
	if p.TOTP == nil {
		return f.refuseFactors(v, errNoSuchFactor)
	}
	return f.askRemoval(v, totpPath+"/remove", "", v.T("account.totp.remove"), p, p.last())
}

func (f *face) removeTOTP(v *page.Visit) error {
	grant, err := f.Login.RemoveTOTP(v.Request.Context(), v.By.Token, v.Client)
	if err != nil {
		return f.refuseFactors(v, err)
	}
	return f.goOn(v, grant, factorsPath, v.T("account.totp.removed"))
}

// errNoSuchFactor is what a use case would say of a factor that is not there.
var errNoSuchFactor = problem.New(problem.NotFound, "factor_not_found", "there is no such factor")

// aside keeps a message for the page if no field is its place.
func aside(m page.Message) page.Message { return without(m, ofCode...) }
