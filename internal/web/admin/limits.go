package admin

import (
	"fmt"
	"net/http"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const (
	limitsPath        = "/admin/limits"
	limitsAccountPath = limitsPath + "/account"
	limitsAddressPath = limitsPath + "/address"
)

func (f *face) mountLimits() {
	f.get(limitsPath, f.limits)
	f.get(limitsAccountPath, f.limitsOfAccount)
	f.get(limitsAddressPath, f.limitsOfAddress)
	f.get(limitsAccountPath+"/lift", f.askLiftAccount)
	f.post(limitsAccountPath+"/lift", f.liftAccount)
	f.get(limitsAddressPath+"/lift", f.askLiftAddress)
	f.post(limitsAddressPath+"/lift", f.liftAddress)
}

type limitsView struct {
	Message       page.Message
	User, Address string // what is looked for, as it was typed
	After         string
	Waiting       limit.Waiting
	Pages         page.Pages
	MayLift       bool
	Lockout       limit.Lockout
	Spray         limit.Spray
	Rates         []rateRow
}

func (l limitsView) path() string { return linkTo(limitsPath, "after", l.After) }

func (l limitsView) empty() bool {
	return len(l.Waiting.Accounts) == 0 && len(l.Waiting.Addresses) == 0 && l.Waiting.Unnamed == 0
}

// A rateRow is what is counted together, and what of it is allowed.
type rateRow struct{ What, PerAddress, PerAccount string }

func (f *face) limits(v *visit) error {
	l, err := f.waiting(v, v.Field("after"))
	if err != nil {
		return err
	}
	if v.IsHTMX() {
		return v.Fragment(http.StatusOK, limitsList(l))
	}
	return v.show(limitsLayout(l))
}

func limitsLayout(l limitsView) page.Layout {
	return page.Layout{Title: "Limits", Active: limitsPath, Live: true, Content: limitsContent(l)}
}

// waiting is a page of what waits.
func (f *face) waiting(v *visit, after string) (limitsView, error) {
	c := f.Limits.Limits.Present()
	l := limitsView{After: after, MayLift: v.can(directory.LimitsWrite), Lockout: c.Lockout, Spray: c.Spray, Rates: rates(v, c.Policies)}
	var err error
	l.Waiting, err = f.Limits.List(v.Request.Context(), f.Directory.LimitRights(v.Actor()), l.After, rowsAtOnce)
	l.Pages = pagesOf(limitsPath, l.After, l.Waiting.Next)
	return l, err
}

// classes are what is counted together, in words.
var classes = map[limit.Class]string{
	limit.Login: "Sign-ins", limit.MFA: "Second factors", limit.Ceremony: "Sign-ins by passkey that begin", limit.Renew: "Renewals of sessions", limit.API: "Requests", limit.Admin: "Changes by administrators",
}

func rates(v *visit, policies map[limit.Class]limit.Policy) []rateRow {
	var rows []rateRow
	for _, class := range limit.Classes {
		p := policies[class]
		rows = append(rows, rateRow{classes[class], rate(v, p.PerAddress.Burst, p.PerAddress.Period), rate(v, p.PerAccount.Burst, p.PerAccount.Period)})
	}
	return rows
}

func rate(v *visit, burst int, period time.Duration) string {
	if burst == 0 {
		return "not bounded"
	}
	return fmt.Sprintf("%s in %s", v.Number(burst), v.Duration(period))
}

type accountView struct {
	limit.AccountFailures
	Pages   page.Pages
	MayLift bool
	MayOpen bool
}

func (f *face) limitsOfAccount(v *visit) error {
	user, after := v.Field("user"), v.Field("after")
	a, err := f.Limits.Account(v.Request.Context(), f.Directory.LimitRights(v.Actor()), user, after, rowsAtOnce)
	if err != nil {
		return f.limitsRefused(v, err, limitsView{User: user})
	}
	return v.show(page.Layout{Title: "Limits of " + a.Username, Active: limitsPath, Content: accountLimits(accountView{
		AccountFailures: a, Pages: pagesOf(limitsAccountPath, after, a.Next, "user", a.ID),
		MayLift: v.can(directory.LimitsWrite), MayOpen: v.can(directory.UsersRead),
	})})
}

func (f *face) limitsOfAddress(v *visit) error {
	address := v.Field("address")
	a, err := f.Limits.Address(v.Request.Context(), f.Directory.LimitRights(v.Actor()), address)
	if err != nil {
		return f.limitsRefused(v, err, limitsView{Address: address})
	}
	return v.show(page.Layout{Title: "Limits of " + a.Address, Active: limitsPath, Content: addressLimits(a, v.can(directory.LimitsWrite))})
}

// limitsRefused shows the list with what is wrong with a name or an address that was typed.
func (f *face) limitsRefused(v *visit, err error, typed limitsView) error {
	l, wrong := f.waiting(v, "")
	if wrong != nil { // as who may not see limits at all
		return err
	}
	l.User, l.Address = typed.User, typed.Address
	return v.retry(err, func(m page.Message) page.Layout {
		l.Message = m
		return limitsLayout(l)
	})
}

func (f *face) askLiftAccount(v *visit) error {
	a, err := f.Limits.Account(v.Request.Context(), f.Directory.LimitRights(v.Actor()), v.Field("user"), "", 1)
	if err != nil {
		return err
	}
	return v.show(page.Layout{Title: "Lift the limits of " + a.Username, Active: limitsPath, Content: page.Confirm(page.Confirmation{
		Action: limitsAccountPath + "/lift", Fields: map[string]string{"user": a.ID}, Cancel: linkTo(limitsAccountPath, "user", a.ID),
		Text: "Forget every failed attempt and every used-up rate that was counted for " + a.Username + ", on all replicas? Attempts at this account wait no more, " +
			"also those of an attacker, who may begin anew. The addresses from which " + a.Username + " has signed in stay known.",
		Button: "Lift",
	})})
}

func (f *face) liftAccount(v *visit) error {
	user := v.Field("user")
	if err := f.Limits.LiftAccount(v.Request.Context(), f.Directory.LimitRights(v.Actor()), user); err != nil {
		return err
	}
	v.Flash(page.Success, "The limits of the account are lifted. Attempts are counted from zero.")
	return v.Redirect(limitsPath)
}

func (f *face) askLiftAddress(v *visit) error {
	a, err := f.Limits.Address(v.Request.Context(), f.Directory.LimitRights(v.Actor()), v.Field("address"))
	if err != nil {
		return err
	}
	return v.show(page.Layout{Title: "Lift the limits of " + a.Address, Active: limitsPath, Content: page.Confirm(page.Confirmation{
		Action: limitsAddressPath + "/lift", Fields: map[string]string{"address": a.Address}, Cancel: linkTo(limitsAddressPath, "address", a.Address),
		Text: "Forget every failed attempt and every used-up rate that was counted from " + a.Address + ", on all replicas? Attempts from there wait no more. " +
			"What was counted for the accounts that were tried stays counted.",
		Button: "Lift",
	})})
}

func (f *face) liftAddress(v *visit) error {
	address := v.Field("address")
	if err := f.Limits.LiftAddress(v.Request.Context(), f.Directory.LimitRights(v.Actor()), address); err != nil {
		return err
	}
	v.Flash(page.Success, "The limits of "+page.Readable(address)+" are lifted. Attempts are counted from zero.")
	return v.Redirect(limitsPath)
}

// attempts is a number of failed attempts in words.
func attempts(v *page.Visit, n int) string {
	if n == 1 {
		return "1 failed attempt"
	}
	return v.Number(n) + " failed attempts"
}
