package process

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

// What was begun on a replica that is then killed is finished on another one, and what was spent
// there stays spent: enrolments, logins in two steps, ceremonies of passkeys.
func TestFactorsOutliveTheirReplica(t *testing.T) {
	t.Parallel()
	const password = "correct horse"
	env := []string{
		"DATABASE_URL=" + testenv.Postgres(t), "AUTH_CLUSTER_SECRET=" + kit.ClusterSecret,
		"AUTH_STORAGE_KEY=" + strings.Repeat("0123456789abcdef", 4), "WATCHWORD_TOKENS_KEYS=database",
		"ADMIN_GUI_USERNAME=root", "ADMIN_GUI_PASSWORD=" + password, "WATCHWORD_SERVER_PUBLIC_URL=https://auth.example.com",
	}
	nodes := make([]*node, 3)
	for i := range nodes {
		nodes[i] = launch(t, t.TempDir(), env...)
	}
	for _, n := range nodes {
		n.ready()
	}
	n, others := nodes[0], nodes[1:]
	next := func() { // the next replica goes on
		n.kill()
		n, others = others[0], others[1:]
	}
	begin := func() string {
		a := n.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "root", Password: password})
		return kit.Decode[httpapi.LoginRefusal](t, n.Want(a, 401, "mfa_required")).MFAToken
	}
	answer := func(r httpapi.MFARequest) kit.Answer { return n.Do("POST", "/api/login/mfa", "", r) }
	options := func(path, token string, body any) json.RawMessage {
		return kit.Decode[json.RawMessage](t, n.Want(n.Do("POST", path, token, body), 200, ""))
	}
	key := &passkeytest.Authenticator{Origin: "https://auth.example.com", Verifies: true}

	token := n.login("root", password).AccessToken
	secret := kit.Decode[httpapi.Enrolment](t, n.Want(n.Do("POST", "/api/mfa/totp", token, nil), 200, "")).Secret
	now := time.Now()
	code := mfatest.Code(t, secret, now)
	following := mfatest.Code(t, secret, now.Add(mfatest.Step))
	next()

	token = kit.Decode[httpapi.Grant](t, n.Want(n.Do("POST", "/api/mfa/totp/confirm", token, httpapi.Code{Code: code}), 200, "")).AccessToken
	codes := kit.Decode[httpapi.BackupCodes](t, n.Want(n.Do("POST", "/api/mfa/backup-codes", token, nil), 200, "")).Codes
	made, err := key.Create(options("/api/mfa/passkeys", token, nil))
	if err != nil {
		t.Fatal(err)
	}
	waiting := begin()
	n.Want(answer(httpapi.MFARequest{MFAToken: waiting, Method: "backup_code", Code: codes[0]}), 422, "unknown_method") // not confirmed
	n.Want(answer(httpapi.MFARequest{MFAToken: begin(), Method: "totp", Code: following}), 200, "")
	next()

	n.Want(n.Do("POST", "/api/mfa/backup-codes/confirm", token, httpapi.Code{Code: codes[1]}), 200, "")
	n.Want(answer(httpapi.MFARequest{MFAToken: waiting, Method: "totp", Code: following}), 401, "code_used")
	n.Want(answer(httpapi.MFARequest{MFAToken: waiting, Method: "totp", Code: code}), 401, "code_used")
	n.Want(answer(httpapi.MFARequest{MFAToken: waiting, Method: "backup_code", Code: codes[0]}), 200, "")
	n.Want(n.Do("POST", "/api/mfa/passkeys/confirm", token, httpapi.NewPasskey{Credential: made}), 200, "")
	waiting = begin()
	assertion, err := key.Get(options("/api/login/mfa/options", "", httpapi.MFAToken{MFAToken: waiting}))
	if err != nil {
		t.Fatal(err)
	}
	n.Want(answer(httpapi.MFARequest{MFAToken: waiting, Method: "passkey", Credential: assertion}), 200, "")
	n.Want(answer(httpapi.MFARequest{MFAToken: begin(), Method: "backup_code", Code: codes[0]}), 401, "code_used")
}
