package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// replace puts another file in place of one, as tools that hand out secrets do.
func replace(t *testing.T, file, text string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(file+".next", []byte(text), 0o600), os.Rename(file+".next", file)); err != nil {
		t.Fatal(err)
	}
}

// A running replica signs with another secret when the file of the secret changes. It accepts the
// former one for as long as the file of previous secrets has it.
func TestSigningSecretChanges(t *testing.T) {
	t.Parallel()
	former, present := strings.Repeat("former secret 0123", 2), strings.Repeat("present secret 4567", 2)
	kid := func(text string) string {
		keys, err := accesstoken.SecretKeys(text)
		if err != nil {
			t.Fatal(err)
		}
		return keys[0].ID
	}
	dir := t.TempDir()
	file, previous := filepath.Join(dir, "secret"), filepath.Join(dir, "previous")
	replace(t, file, former+"\n")
	replace(t, previous, present+"\n")
	n := start(t, t.TempDir(), "WATCHWORD_TOKENS_KEYS=secret", "AUTH_JWT_SECRET_FILE="+file, "AUTH_JWT_SECRET_PREVIOUS_FILE="+previous,
		"ADMIN_GUI_USERNAME=root", "ADMIN_GUI_PASSWORD=correct horse")
	token := n.login("root", "correct horse").AccessToken
	if got := kit.KeyID(t, token); got != kid(former) {
		t.Fatalf("signed with %s, not with the secret of the file", got)
	}
	replace(t, previous, former+","+present+"\n")
	replace(t, file, present+"\n")
	kit.Eventually(t, func() error {
		if got := kit.KeyID(t, n.login("root", "correct horse").AccessToken); got != kid(present) {
			return fmt.Errorf("signed with %s, not with the secret of the new file", got)
		}
		return nil
	})
	if status, body, err := n.call("GET", "/api/verify", token, nil); status != 200 {
		t.Errorf("a token of the former secret: %d %s %v", status, body, err)
	}
	replace(t, previous, present+"\n")
	kit.Eventually(t, func() error {
		if status, body, err := n.call("GET", "/api/verify", token, nil); status != 401 {
			return fmt.Errorf("a token of a secret that is configured no longer: %d %s %w", status, body, err)
		}
		return nil
	})
	for _, secret := range []string{former, present} {
		if strings.Contains(n.log.String()+n.out.String(), secret) {
			t.Error("a secret stands in the log")
		}
	}
}
