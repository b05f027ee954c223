package account

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const passkeysPath = factorsPath + "/passkeys"

// maxPasskeyName is how long the name of a passkey may be, in characters.
const maxPasskeyName = 64

// ofName is the problem of a name that was typed.
var ofName = []string{"invalid_request"}

// A passkeyForm is that of a new passkey, or of its name.
type passkeyForm struct {
	Message  page.Message
	ID, Name string
}

// newPasskey asks for a fresh authentication before the browser makes a passkey for nothing.
func (f *face) newPasskey(v *page.Visit) error {
	if !f.Config.Passkeys {
		return f.refuseFactors(v, errPasskeysOff)
	}
	if err := f.Directory.MayChangeOwn(v.Request.Context(), v.Actor()); err != nil {
		return err
	}
	return f.showNewPasskey(v, page.Message{})
}

func (f *face) showNewPasskey(v *page.Visit, m page.Message) error {
	return f.show(v, statusOf(m), factorsPath, v.T("account.passkeys.title"), newPasskeyContent(passkeyForm{Message: m, Name: v.Field("name")}), "passkey.js")
}

var (
	errPasskeysOff  = problem.New(problem.Conflict, "passkeys_off", "passkeys cannot be used here")
	errNoCredential = problem.New(problem.Invalid, "no_credential", "the browser made no passkey; that needs JavaScript")
)

// passkeyOptions begins the ceremony by which a browser makes a passkey.
func (f *face) passkeyOptions(v *page.Visit) error {
	var nothing struct{}
	if err := v.ReadJSON(&nothing); err != nil {
		return err
	}
	options, err := f.Factors.BeginPasskey(v.Request.Context(), v.Actor())
	if err != nil {
		if problem.From(err).Kind == problem.Internal {
			return err
		}
		httpkit.NoteCause(v.Writer, err)
		m := message(v, err)
		return v.JSON(m.Status, map[string]any{"code": m.Code, "message": m.Text, "status": m.Status})
	}
	return v.JSON(http.StatusOK, options)
}

func (f *face) addPasskey(v *page.Visit) error {
	ctx := v.Request.Context()
	// First of all, so that a form without a credential leads to the authentication as well.
	if err := f.Directory.MayChangeOwn(ctx, v.Actor()); err != nil {
		return err
	}
	credential := v.Field("credential")
	err := error(errNoCredential)
	if credential != "" {
		grant, failed := f.Login.ConfirmPasskey(ctx, v.By.Token, v.Field("name"), json.RawMessage(credential), v.Client)
		if failed == nil {
			return f.goOn(v, grant, factorsPath, v.T("account.passkeys.done"))
		}
		err = failed
	}
	m, err := refusal(v, err)
	if err != nil {
		return err
	}
	return f.showNewPasskey(v, m)
}

// passkey returns the visitor's passkey that the field "id" names, or a problem of the kind NotFound.
func (f *face) passkey(v *page.Visit) (mfa.Info, protection, error) {
	has, err := f.own(v)
	if err != nil {
		return mfa.Info{}, protection{}, err
	}
	p := protectionOf(has)
	i := slices.IndexFunc(p.Passkeys, func(one mfa.Info) bool { return one.ID == v.Field("id") })
	if i < 0 {
		return mfa.Info{}, p, errNoSuchFactor
	}
	return p.Passkeys[i], p, nil
}

func (f *face) askRenamePasskey(v *page.Visit) error {
	one, _, err := f.passkey(v)
	if err != nil {
		return f.refuseFactors(v, err)
	}
	return f.showRename(v, passkeyForm{ID: one.ID, Name: one.Name})
}

func (f *face) showRename(v *page.Visit, form passkeyForm) error {
	return f.show(v, statusOf(form.Message), factorsPath, v.T("account.passkeys.rename"), renamePasskeyContent(form))
}

func (f *face) renamePasskey(v *page.Visit) error {
	id, name := v.Field("id"), v.Field("name")
	err := f.Factors.RenamePasskey(v.Request.Context(), v.Actor(), v.By.Token.Epoch, id, name)
	if err == nil {
		v.Flash(page.Success, v.T("account.passkeys.renamed"))
		return v.Redirect(factorsPath)
	}
	if problem.From(err).Kind == problem.NotFound {
		return f.refuseFactors(v, err)
	}
	m, err := refusal(v, err)
	if err != nil {
		return err
	}
	return f.showRename(v, passkeyForm{m, id, name})
}

func (f *face) askRemovePasskey(v *page.Visit) error {
	one, p, err := f.passkey(v)
	if err != nil {
		return f.refuseFactors(v, err)
	}
	return f.askRemoval(v, passkeysPath+"/remove", one.ID, v.T("account.passkeys.remove", "name", one.Name), p, p.last())
}

func (f *face) removePasskey(v *page.Visit) error {
	grant, err := f.Login.RemovePasskey(v.Request.Context(), v.By.Token, v.Field("id"), v.Client)
	if err != nil {
		return f.refuseFactors(v, err)
	}
	return f.goOn(v, grant, factorsPath, v.T("account.passkeys.removed"))
}
