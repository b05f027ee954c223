package mfa

import (
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
)

// A response that is presented twice at the same moment logs in once, and is no sign of a copy:
// it was the first that has raised the counter which the second one does not exceed.
func TestOneResponseTwiceIsNoCopy(t *testing.T) {
	w, a, b := passkeys(t)
	ada := a.user("ada")
	key := &passkeytest.Authenticator{Origin: origin, Verifies: true}
	w.want("enrolled", a.made(ada, key, ""), "")
	options, err := a.PasskeyLoginOptions(t.Context(), home)
	response := shown(t, key, options, err).Credential
	first := false
	a.faults.set(func(op string) (bool, bool) {
		if op == "user" && !first { // the ceremony has been read, the counter has not
			first = true
			w.want("the first", errOf(b.PasskeyLogin(t.Context(), response, home)), "")
		}
		return false, true
	})
	_, err = a.PasskeyLogin(t.Context(), response, home)
	a.faults.set(nil)
	w.want("the second", err, "passkey_refused")
	o, err := a.Overview(t.Context(), w.as(ada), ada.ID)
	if err != nil || !first || o.Factors[0].Cloned || strings.Contains(w.log.String(), "has not grown") {
		t.Errorf("%+v, %v, %t, and the log says\n%s", o, err, first, w.log)
	}
}
