//go:build pkcs11 && cgo

package process

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

// A running replica logs in to its HSM with another PIN when the file of the PIN changes.
func TestPINChanges(t *testing.T) {
	h := testenv.StartSoftHSM(t, "process")
	h.Tool(t, "process", "--keypairgen", "--key-type", "EC:prime256v1", "--label", "watchword", "--id", "01", "--usage-sign")
	file := filepath.Join(t.TempDir(), "pin")
	replace(t, file, h.PIN+"\n")
	n := start(t, t.TempDir(), "SOFTHSM2_CONF="+os.Getenv("SOFTHSM2_CONF"), "WATCHWORD_TOKENS_KEYS=pkcs11", "CRYPTOKI_LIB="+h.Library,
		"PKCS11_PIN_FILE="+file, "WATCHWORD_TOKENS_PKCS11_TOKEN=process", "ADMIN_GUI_USERNAME=root", "ADMIN_GUI_PASSWORD=correct horse")
	kid := kit.KeyID(t, n.login("root", "correct horse").AccessToken)
	login := func(status int) func() error {
		return func() error {
			got, body, err := n.call("POST", "/api/login", "", httpapi.LoginRequest{Username: "root", Password: "correct horse"})
			if got != status {
				return fmt.Errorf("a login: %d %s %w", got, body, err)
			}
			return nil
		}
	}
	const next = "another-pin"
	h.Tool(t, "process", "--change-pin", "--new-pin", next)
	// The token's absence ends the login that there is.
	if err := os.Rename(h.Dir, h.Dir+"-away"); err != nil {
		t.Fatal(err)
	}
	kit.Eventually(t, login(http.StatusServiceUnavailable))
	if err := os.Rename(h.Dir+"-away", h.Dir); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the PIN is refused", func() bool {
		if err := login(http.StatusServiceUnavailable)(); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(n.log.String(), "refuses the PIN")
	})
	replace(t, file, next+"\n")
	kit.Eventually(t, login(http.StatusOK))
	if got := kit.KeyID(t, n.login("root", "correct horse").AccessToken); got != kid {
		t.Errorf("signed with %s, not with %s", got, kid)
	}
	for _, pin := range []string{h.PIN, next} {
		if strings.Contains(n.log.String()+n.out.String(), pin) {
			t.Error("a PIN stands in the log")
		}
	}
}
