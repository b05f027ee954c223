package account

import (
	"net/http"
	"strings"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const codesPath = factorsPath + "/codes"

// A codesForm is that by which backup codes are made and confirmed.
type codesForm struct {
	Message page.Message
	Codes   []string // shown this once
	Confirm bool     // codes were shown that wait for their confirmation
	Has     bool     // there are codes, which new ones replace
}

// text is the codes one a line, to copy.
func (f codesForm) text() string { return strings.Join(f.Codes, "\n") }

func (f *face) codes(v *page.Visit) error {
	has, err := f.own(v)
	if err != nil {
		return err
	}
	p := protectionOf(has)
	if p.factors() == 0 {
		return f.refuseFactors(v, errNoFactor)
	}
	return f.showCodes(v, codesForm{Has: p.Codes != nil})
}

// errNoFactor is what the use case would say.
var errNoFactor = problem.New(problem.Conflict, "no_factor", "backup codes are for users who have another factor")

func (f *face) showCodes(v *page.Visit, form codesForm) error {
	return f.show(v, statusOf(form.Message), factorsPath, v.T("account.codes.title"), codesContent(form), scriptName)
}

// changeCodes makes codes and shows them in its answer, since nothing here can show them again; or
// it confirms them.
func (f *face) changeCodes(v *page.Visit) error {
	ctx := v.Request.Context()
	if v.Field("step") != confirming {
		codes, err := f.Factors.BeginBackupCodes(ctx, v.Actor())
		if err != nil {
			return f.refuseFactors(v, err)
		}
		return f.showCodes(v, codesForm{Codes: codes, Confirm: true})
	}
	n, err := f.Factors.ConfirmBackupCodes(ctx, v.Actor(), v.By.Token.Epoch, v.Field("code"))
	if err == nil {
		v.Flash(page.Success, v.T("account.codes.done", "n", n))
		return v.Redirect(factorsPath)
	}
	m, err := refusal(v, err)
	if err != nil {
		return err
	}
	switch m.Code {
	case "invalid_code", "malformed_code":
		return f.showCodes(v, codesForm{Message: m, Confirm: true})
	case "nothing_pending":
		return f.showCodes(v, codesForm{Message: m})
	}
	return f.showFactors(v, m)
}

func (f *face) askRemoveCodes(v *page.Visit) error {
	return f.show(v, http.StatusOK, factorsPath, v.T("account.remove.title"), page.Confirm(page.Confirmation{
		Action: codesPath + "/remove", Cancel: factorsPath, Danger: true,
		Text: v.T("account.codes.remove"), Button: v.T("account.remove"),
	}))
}

func (f *face) removeCodes(v *page.Visit) error {
	if err := f.Factors.RemoveBackupCodes(v.Request.Context(), v.Actor(), v.By.Token.Epoch); err != nil {
		return f.refuseFactors(v, err)
	}
	v.Flash(page.Success, v.T("account.codes.removed"))
	return v.Redirect(factorsPath)
}
