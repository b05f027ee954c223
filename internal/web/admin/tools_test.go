package admin

import (
	"context"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/web/page"
	"github.com/watchword-auth/watchword/test/kit"
)

func (s *scene) examine(pasted string) answer {
	return s.send("POST", "/admin/token", url.Values{"token": {pasted}})
}

func TestExamineAToken(t *testing.T) {
	s := newScene(t)
	s.get("/admin/token").has(t, 200, "Examine a token", "Revoke a token", `method="post" action="/admin/token"`)
	kit.AddUser(t, s.parts.Directory, "ada", "log=r")
	g := s.token("ada")
	a := s.examine("  Bearer " + g.AccessToken + "\n")
	a.has(t, 200, "This is a valid access token", "alert success", "Signature", "&#34;log&#34;: &#34;r&#34;", "Signed in (auth_time)", "auth-0", `href="/admin/users/`)
	parts := strings.Split(g.AccessToken, ".")
	a.lacks(t, g.AccessToken, parts[2], "not good")

	// One whose claims were changed.
	claims := must[[]byte](t)(base64.RawURLEncoding.DecodeString(parts[1]))
	forged := parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(claims), `"log":"r"`, `"log":"w"`, 1))) + "." + parts[2]
	a = s.examine(forged)
	a.has(t, 200, "This service refuses it: ", "alert failure", "Anybody can write a token.")
	a.lacks(t, "valid access token", parts[2], `href="/admin/users/`)
}

// A secret that somebody pastes by mistake is recognised, and does not come back.
func TestExamineASecret(t *testing.T) {
	s := newScene(t)
	g := s.token("ester")
	for _, secret := range []string{g.RefreshToken, s.cookie, "Authorization: Bearer " + g.RefreshToken} {
		a := s.examine(secret)
		a.has(t, 200, "a secret of its holder", "alert warning")
		a.lacks(t, secret, secret[len(secret)-20:])
	}
	s.examine(" ").has(t, 200, "Nothing was pasted.")
	s.examine("hello").has(t, 200, "This service refuses it: it has no dots")
	// Never by the address: the query is not read.
	a := s.get("/admin/token?token=" + g.AccessToken)
	a.has(t, 200)
	a.lacks(t, "valid access token", g.AccessToken)
}

func TestExamineHostileClaims(t *testing.T) {
	s := newScene(t)
	part := func(json string) string { return base64.RawURLEncoding.EncodeToString([]byte(json)) }
	inside := strings.ReplaceAll(hostile, `"`, `\"`)
	a := s.examine(part(`{"alg":"`+inside+`","kid":"`+inside+`","typ":"at+jwt"}`) + "." + part(`{"sub":"`+inside+`","iss":"`+inside+`","exp":1e300,"iat":-5,"`+inside+`":1,"nbf":253402300800}`) + ".AA")
	a.has(t, 200, "&lt;script&gt;")
	a.lacks(t, "<script>alert", "<img src=x", "Expires (exp)", "Issued (iat)", "Valid from")
}

func TestRevokeAToken(t *testing.T) {
	s := newScene(t)
	kit.AddUser(t, s.parts.Directory, "ada", "log=r")
	g, other := s.token("ada"), s.token("ada")
	revoke := func(pasted string) answer {
		return s.send("POST", "/admin/token/revoke", url.Values{"token_again": {pasted}})
	}
	if a := revoke("Bearer " + g.AccessToken); a.status != 303 || a.header.Get("Location") != "/admin/token" {
		t.Errorf("revoking: %d %s\n%s", a.status, a.header.Get("Location"), a.body)
	}
	s.examine(g.AccessToken).has(t, 200, "This service refuses it: this token was revoked")
	s.examine(other.AccessToken).has(t, 200, "valid access token")
	revoke("").has(t, 422, "Paste a whole access token.")
	a := revoke(g.RefreshToken)
	a.lacks(t, g.RefreshToken)
	if a.status != 422 {
		t.Errorf("a refresh token: %d", a.status)
	}
	// The use case decides, also where no button is shown.
	s.cookie = s.signIn("reader", "admin=users:read")
	s.get("/admin/token").lacks(t, "Revoke a token", "/admin/token/revoke")
	revoke(other.AccessToken).has(t, 403)
	s.examine(other.AccessToken).has(t, 200, "valid access token")
	s.cookie = s.signIn("auditor", "admin=audit:read")
	s.examine(other.AccessToken).lacks(t, `href="/admin/users/`)
}

func TestVerdict(t *testing.T) {
	bad := login.Finding{Check: login.CheckKey, Text: "The key could not be looked up."}
	for want, e := range map[page.FlashKind]login.Examination{
		page.Success: {Kind: login.KindAccessToken, Valid: true},
		page.Warning: {Kind: login.KindAccessToken, Undecided: true, Findings: []login.Finding{bad}},
		page.Failure: {Kind: login.KindJWT, Findings: []login.Finding{{Check: login.CheckForm, OK: true}, bad}},
		page.Info:    {Kind: login.KindNothing},
	} {
		if m := verdict(e); m.Kind != want || want != page.Success && want != page.Info && !strings.HasSuffix(m.Text, ": the key could not be looked up.") {
			t.Errorf("%+v: %+v", e, m)
		}
	}
	for _, kind := range []string{login.KindAccessToken, login.KindJWT, login.KindEncrypted, login.KindRefreshToken, login.KindCookie, login.KindOneTime, login.KindNothing, login.KindUnknown} {
		if kindWords[kind] == "" {
			t.Errorf("there is no word for %s", kind)
		}
	}
}

func TestChecks(t *testing.T) {
	s := newScene(t)
	s.get("/admin/checks").has(t, 200, "Everything answers, and this replica takes traffic.", "The database", "It answered in 1.2 ms.", "under 1 ms", "auth-0", "1.2.3")
	s.face.Checks = func(context.Context) []Check {
		return []Check{{Name: "database", OK: true}, {Name: "redis", Latency: 2 * time.Second, Reason: "the cache takes no writes " + hostile}, {Name: "remote"}}
	}
	s.face.Ready = func() error {
		return problem.New(problem.Unavailable, "x", "there is no signing key yet").Because(errors.New("secret cause"))
	}
	a := s.get("/admin/checks")
	a.has(t, 200, "3 problems need attention", "auth-0 takes no traffic", "There is no signing key yet.", "The cache takes no writes", "The remote signer does not answer", "Signing out and revoking go on.", "It was asked for 2 s.", "&lt;script&gt;")
	a.lacks(t, "<script>alert", "secret cause", "Retry-After")
	if a.header.Get("Retry-After") != "" {
		t.Error("the page says that it is to be asked again later, as if it had failed")
	}
}

// Who may see keys may see what is wrong with the deployment, and have it looked for. Nobody else may.
func TestDeployment(t *testing.T) {
	s := newScene(t)
	d := s.face.Doctor.(*fakeDoctor)
	run := func() answer { return s.send("POST", "/admin/checks", url.Values{}, "Sec-Fetch-Site", "same-origin") }
	s.get("/admin/checks").has(t, 200, "The deployment", "Run all checks", "Everything answers")
	s.get("/admin/checks").lacks(t, "Checks of the deployment")
	d.own = &Examination{At: s.now(), Checks: []Examined{{ID: "one", Title: "One holds", Severity: "error", Status: "ok"}}}
	s.get("/admin/checks").has(t, 200, "What auth-0 looks at by itself", "No check found an error", "One holds")
	d.whole = &Examination{At: s.now(), Whole: true, Checks: []Examined{
		{ID: "well", Title: "Well holds", Severity: "error", Status: "ok"},
		{ID: "none", Title: "None holds", Severity: "error", Status: "skipped", Reason: "there is none"},
		{ID: "small", Title: "Small holds", Severity: "advice", Status: "failed", Findings: []Finding{{Seen: "it could be better", Mend: "make it so"}}},
		{ID: "away", Title: "Away holds", Severity: "error", Status: "unknown", Reason: "it is away"},
		{ID: "later", Title: "Later holds", Severity: "warning", Status: "failed", Findings: []Finding{{Seen: "it may break", Mend: "look"}}},
		{ID: "worst", Title: "Worst holds", Severity: "error", Status: "failed", Findings: []Finding{{Subject: "auth-1", Seen: "it is broken " + hostile, Mend: "repair it"}}},
	}}
	a := run()
	a.has(t, 200, "All checks, run at", "Checks that found an error: 1. Checks that found something to look at: 2.", "<strong>auth-1:</strong>", "it is broken", "To mend it: repair it", "&lt;script&gt;", "there is none", "unknown", "The database")
	a.lacks(t, "<script>alert")
	at := -1
	for _, id := range []string{"worst", "later", "away", "small", "well", "none"} {
		next := strings.Index(a.body, `<code class="id">`+id)
		if next < at || next < 0 {
			t.Errorf("%s is at %d, after %d", id, next, at)
		}
		at = next
	}
	if d.asked != 1 {
		t.Errorf("the doctor was asked %d times", d.asked)
	}
	s.get("/admin/checks", "HX-Request", "true").lacks(t, "The deployment", "One holds") // what stays as it is while the rest is kept up to date
	s.send("POST", "/admin/checks", url.Values{}, "Sec-Fetch-Site", "cross-site").has(t, 403)

	s.cookie = s.signIn("user.reader", "admin=users:read")
	plain := s.get("/admin/checks")
	plain.has(t, 200, "Everything answers")
	plain.lacks(t, "The deployment", "One holds", "Run all checks")
	denied := run()
	denied.has(t, 403)
	denied.lacks(t, "Worst holds", "One holds")
	if d.asked != 1 {
		t.Error("somebody without the right had the checks run")
	}
	s.cookie = s.signIn("key.reader", "admin=keys:read")
	run().has(t, 200, "Worst holds")
}
