package account

import (
	"net/http"
	"slices"
	"strings"

	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// An overview is who somebody is, and what protects their account.
type overview struct {
	User     store.User
	Browser  *login.Browser
	Device   string
	Methods  string
	Factors  protection
	Advice   []advice
	Sessions string // how many there are
}

// A protection is what an account has besides its password.
type protection struct {
	Required   bool
	TOTP       *mfa.Info
	Passkeys   []mfa.Info
	Codes      *mfa.Info
	Unreadable []mfa.Info
}

// factors are those that stand in for one another: without any, backup codes are of no use.
func (p protection) factors() int {
	n := len(p.Passkeys)
	if p.TOTP != nil {
		n++
	}
	return n
}

// last reports whether there is one factor left, so that the account has none without it.
func (p protection) last() bool { return p.factors() == 1 }

func protectionOf(o mfa.Overview) protection {
	p := protection{Required: o.Required}
	for _, one := range o.Factors {
		switch {
		case one.Method == mfa.TOTP:
			p.TOTP = &one
		case one.Method == mfa.Passkey:
			p.Passkeys = append(p.Passkeys, one)
		case one.Method == mfa.BackupCode:
			p.Codes = &one
		}
		if one.Unreadable {
			p.Unreadable = append(p.Unreadable, one)
		}
	}
	return p
}

// An advice is what would make an account safer.
type advice struct{ Text, Href, Link string }

// advise returns what to improve, the most urgent first.
func (f *face) advise(v *page.Visit, p protection) []advice {
	var all []advice
	add := func(key, href string, args ...any) {
		all = append(all, advice{v.T("account.advice."+key, args...), href, v.T("account.advice." + key + ".link")})
	}
	if len(p.Unreadable) > 0 {
		add("unreadable", factorsPath)
	}
	if slices.ContainsFunc(p.Passkeys, func(i mfa.Info) bool { return i.Cloned }) {
		add("cloned", factorsPath)
	}
	switch {
	case p.factors() == 0:
		add("no_factor", factorsPath)
	case p.Codes == nil:
		add("no_codes", codesPath)
	case !p.Codes.Unreadable && p.Codes.Left <= mfa.FewCodes:
		add("few_codes", codesPath, "n", p.Codes.Left)
	}
	return all
}

// sessionsOnOverview is how many sessions the overview counts.
const sessionsOnOverview = 50

func (f *face) overview(v *page.Visit) error {
	ctx := v.Request.Context()
	user, err := f.Directory.User(ctx, v.Actor(), v.By.Token.Subject)
	if err != nil {
		return err
	}
	has, err := f.own(v)
	if err != nil {
		return err
	}
	live, next, err := f.Login.ListSessions(ctx, v.By.Token, "", "", sessionsOnOverview, v.Client)
	if err != nil {
		return err
	}
	o := overview{
		User: user, Browser: v.By, Device: v.Device(v.By.Session.UserAgent), Methods: methods(v, v.By.Session.AMR),
		Factors: protectionOf(has), Sessions: v.T("account.sessions.count", "n", len(live)),
	}
	if next != "" {
		o.Sessions = v.T("account.sessions.many", "n", len(live))
	}
	o.Advice = f.advise(v, o.Factors)
	return f.show(v, http.StatusOK, overviewPath, v.T("account.title"), overviewContent(o))
}

// methods says in plain words by what a user has authenticated (RFC 8176).
func methods(v *page.Visit, amr []string) string {
	var all []string
	add := func(key string, any ...string) {
		if slices.ContainsFunc(any, func(m string) bool { return slices.Contains(amr, m) }) {
			all = append(all, v.T("account.method."+key))
		}
	}
	add("password", "pwd")
	add("passkey", "hwk", "swk")
	// A backup code is a one-time password too.
	add("code", "otp")
	return strings.Join(all, " + ")
}
