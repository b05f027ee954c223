package process

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/test/kit"
)

// What an operator does at the command line for a user who has lost the password or a factor
// is in force on the replica that runs.
func TestRecoverAtTheCommandLine(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), "ADMIN_GUI_USERNAME=root", "ADMIN_GUI_PASSWORD=correct horse")
	root := n.login("root", "correct horse").AccessToken
	n.Want(n.Do("POST", "/api/users", root, map[string]any{"username": "alice", "password": "a forgotten one"}), 201, "")

	first, secret := n.enrol(n.login("alice", "a forgotten one"))
	n.Verify(first.AccessToken)
	if shown := n.command("user", "show", "alice"); !regexp.MustCompile(`(?m)^FACTOR +totp, since 20`).MatchString(shown) {
		t.Error(shown)
	}

	// The password alone is lost.
	since := time.Now()
	token := n.command("user", "recover", "alice", "--keep-factors")
	n.Want(n.Do("POST", "/api/login/recover", "", httpapi.Recover{RecoveryToken: token, NewPassword: "another password"}), 204, "")
	n.Refuses(first.AccessToken, "token_revoked", since, kit.Promised)
	n.Want(n.Do("POST", "/api/login/recover", "", httpapi.Recover{RecoveryToken: token, NewPassword: "a third password"}), 401, "invalid_recovery_token")
	n.secondStep("alice", "another password", mfatest.Code(t, secret, time.Now().Add(mfatest.Step)))

	// A new token replaces the one before. Of several that are redeemed at once one is.
	before := n.command("user", "recover", "alice")
	token = n.command("user", "recover", "ALICE", "--valid", "1m")
	n.Want(n.Do("POST", "/api/login/recover", "", httpapi.Recover{RecoveryToken: before, NewPassword: "a third password"}), 401, "invalid_recovery_token")
	won := n.redeem(token, 20)
	grant := n.login("alice", won) // without a factor

	// The factors alone are lost.
	grant, _ = n.enrol(grant)
	since = time.Now()
	if out := n.command("user", "reset-factors", "alice"); out != "Removed the second factors of the user." {
		t.Error(out)
	}
	n.Refuses(grant.AccessToken, "token_revoked", since, kit.Promised)
	_, a := n.Renew(grant.RefreshToken)
	n.Want(a, 401, "invalid_refresh_token")
	n.login("alice", won)
}

// command runs a command beside the replica, with its settings, and returns what it writes.
func (n *node) command(args ...string) string {
	n.t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Env, cmd.Stderr = n.dir, n.cmd.Env, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		n.t.Fatalf("watchword %v: %v", args, err)
	}
	return strings.TrimSuffix(string(out), "\n")
}

// enrol gives a user an authenticator app, and returns the new session and the secret. The code
// of the next step is not spent.
func (n *node) enrol(g grant) (grant, string) {
	n.t.Helper()
	app := kit.Decode[httpapi.Enrolment](n.t, n.Want(n.Do("POST", "/api/mfa/totp", g.AccessToken, nil), 200, ""))
	code := httpapi.Code{Code: mfatest.Code(n.t, app.Secret, time.Now())}
	return kit.Decode[grant](n.t, n.Want(n.Do("POST", "/api/mfa/totp/confirm", g.AccessToken, code), 200, "")), app.Secret
}

// secondStep logs in a user who has an app.
func (n *node) secondStep(username, password, code string) grant {
	n.t.Helper()
	a := n.Want(n.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: username, Password: password}), 401, "mfa_required")
	in := httpapi.MFARequest{MFAToken: kit.Decode[httpapi.LoginRefusal](n.t, a).MFAToken, Method: "totp", Code: code}
	return kit.Decode[grant](n.t, n.Want(n.Do("POST", "/api/login/mfa", "", in), 200, ""))
}

// redeem sends a recovery token several times at once, each with another password. It returns
// the password of the one that is answered 204; the others are answered 401.
func (n *node) redeem(token string, times int) (won string) {
	n.t.Helper()
	answers := make([]kit.Answer, times)
	begin := make(chan struct{})
	var clients sync.WaitGroup
	for i := range answers {
		clients.Go(func() {
			<-begin
			var err error
			in := httpapi.Recover{RecoveryToken: token, NewPassword: fmt.Sprintf("new password %d", i)}
			if answers[i], err = n.Try(n.Request("POST", "/api/login/recover", "", in)); err != nil {
				n.t.Error(err)
			}
		})
	}
	close(begin)
	clients.Wait()
	for i, a := range answers {
		switch {
		case a.Status == http.StatusNoContent && won == "":
			won = fmt.Sprintf("new password %d", i)
		case a.Status != http.StatusUnauthorized || a.Code() != "invalid_recovery_token":
			n.t.Errorf("%d %s", a.Status, a.Body)
		}
	}
	if won == "" {
		n.t.Fatal("none was redeemed")
	}
	return won
}
