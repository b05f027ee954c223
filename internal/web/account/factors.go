package account

import (
	"net/http"

	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// A factorList is what a user has besides the password.
type factorList struct {
	protection
	Message   page.Message
	Few       bool // backup codes
	Available bool // browsers can use passkeys here
	Room      bool // for one more passkey
}

func (f *face) listOf(p protection, m page.Message) factorList {
	return factorList{
		protection: p, Message: m, Few: p.Codes != nil && !p.Codes.Unreadable && p.Codes.Left <= mfa.FewCodes,
		Available: f.Config.Passkeys, Room: f.Config.Passkeys && len(p.Passkeys) < mfa.MaxPasskeys,
	}
}

func (f *face) factors(v *page.Visit) error { return f.showFactors(v, page.Message{}) }

func (f *face) showFactors(v *page.Visit, m page.Message) error {
	has, err := f.own(v)
	if err != nil {
		return err
	}
	return f.show(v, statusOf(m), factorsPath, v.T("account.factors.title"), factorsContent(f.listOf(protectionOf(has), m)))
}

// refuseFactors shows what a user has, with what is wrong with a change of it.
func (f *face) refuseFactors(v *page.Visit, err error) error {
	m, err := refusal(v, err)
	if err != nil {
		return err
	}
	return f.showFactors(v, m)
}

// askRemoval asks before a factor goes. text names it. last: the account has none without it.
func (f *face) askRemoval(v *page.Visit, action, id, text string, p protection, last bool) error {
	c := page.Confirmation{Action: action, Cancel: factorsPath, Danger: true, Text: text, Button: v.T("account.remove")}
	if id != "" {
		c.Fields = map[string]string{"id": id}
	}
	notes := []string{v.T("account.remove.ends")}
	if last {
		notes = append(notes, v.T("account.remove.last"))
		if p.Codes != nil {
			notes = append(notes, v.T("account.remove.last.codes"))
		}
		if p.Required {
			notes = append(notes, v.T("account.remove.last.required"))
		}
	}
	return f.show(v, http.StatusOK, factorsPath, v.T("account.remove.title"), removalContent(c, notes))
}
