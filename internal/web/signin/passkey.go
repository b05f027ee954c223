package signin

import (
	"encoding/json"
	"net/http"

	"github.com/watchword-auth/watchword/internal/web/page"
)

// scripts are those of the pages: passkeys, and a token out of a link.
var scripts = []string{"passkey.js"}

// passkeyOptions begins the ceremony of a sign-in by passkey alone.
func (f *face) passkeyOptions(v *page.Visit) error {
	var in struct{}
	if err := v.ReadJSON(&in); err != nil {
		return err
	}
	options, err := f.Factors.PasskeyLoginOptions(v.Request.Context(), v.Client.Address)
	if err != nil {
		return err
	}
	return v.JSON(http.StatusOK, options)
}

// passkey signs in by passkey alone, and says where the script is to go.
func (f *face) passkey(v *page.Visit) error {
	var in struct {
		Credential json.RawMessage `json:"credential"`
		Return     string          `json:"return"`
	}
	if err := v.ReadJSON(&in); err != nil {
		return err
	}
	if !marked(v) {
		return errNoCookies
	}
	grant, err := f.Login.PasskeyLogin(v.Request.Context(), in.Credential, f.Login.Issuer, v.Client)
	if err != nil {
		return err
	}
	f.signedIn(v, grant, "")
	return v.JSON(http.StatusOK, struct {
		Location string `json:"location"`
	}{safeReturn(in.Return)})
}
