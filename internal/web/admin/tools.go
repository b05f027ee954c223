package admin

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const (
	tokenPath  = "/admin/token"
	checksPath = "/admin/checks"
)

func (f *face) mountTools() {
	f.get(tokenPath, f.tokenForm)
	f.post(tokenPath, f.examine)
	f.post(tokenPath+"/revoke", f.revokeToken)
	f.get(checksPath, f.checks)
	f.post(checksPath, f.runChecks)
}

// A tokenPage is the form for a token, and what was found out about the last one. It never has
// the token itself.
type tokenPage struct {
	Found     *login.Examination // nil: nothing was pasted yet
	MayRevoke bool               // the visitor may revoke tokens of others
	SeesUsers bool               // the visitor may see users
	Refused   *page.Message      // why a token was not revoked; nil: none was to be
}

func tokenPageOf(v *visit) tokenPage {
	return tokenPage{MayRevoke: v.can(directory.Revoke), SeesUsers: v.can(directory.UsersRead)}
}

func tokenLayout(p tokenPage) page.Layout {
	return page.Layout{Title: "Token", Active: tokenPath, Content: tokenContent(p)}
}

// tokenForm asks for a token.
func (f *face) tokenForm(v *visit) error { return v.show(tokenLayout(tokenPageOf(v))) }

// examine says what a pasted token is. It answers at once and does not redirect: the token would
// have to be kept meanwhile, or stand in an address.
func (f *face) examine(v *visit) error {
	found, err := f.Login.Examine(v.Request.Context(), v.By.Token, v.Form().Get("token"), v.Client)
	if err != nil {
		return err
	}
	p := tokenPageOf(v)
	p.Found = &found
	return v.show(tokenLayout(p))
}

// revokeToken revokes a token that is pasted once more, so that no page has to have it.
func (f *face) revokeToken(v *visit) error {
	if _, _, err := f.revokeWhole(v, "token_again"); err != nil {
		return tokenNotRevoked(v, err)
	}
	v.Flash(page.Success, "The token is revoked. No replica accepts it any more, and applications that verify offline learn of it within seconds.")
	return v.Redirect(tokenPath)
}

func tokenNotRevoked(v *visit, err error) error {
	return v.retry(err, func(m page.Message) page.Layout {
		p := tokenPageOf(v)
		p.Refused = &m
		return tokenLayout(p)
	})
}

// verdict is what stands above all else.
func verdict(e login.Examination) page.Message {
	switch {
	case e.Valid:
		return page.Message{Kind: page.Success, Text: "This is a valid access token: this service accepts it."}
	case e.Kind == login.KindNothing:
		return page.Message{Kind: page.Info, Text: "Nothing was pasted."}
	case e.Undecided:
		return page.Message{Kind: page.Warning, Text: "This service refuses the token now, and may accept it later: " + lowered(firstFault(e))}
	case e.Kind == login.KindRefreshToken, e.Kind == login.KindCookie, e.Kind == login.KindOneTime:
		return page.Message{Kind: page.Warning, Text: "This is no access token, but a secret of its holder. Do not pass it on."}
	}
	return page.Message{Kind: page.Failure, Text: "This service refuses it: " + lowered(firstFault(e))}
}

// firstFault is the finding by which a token is refused first.
func firstFault(e login.Examination) string {
	for _, f := range e.Findings {
		if !f.OK {
			return f.Text
		}
	}
	return "it is not known why."
}

// lowered begins a text with a small letter, if its first word is one of those that findings
// begin with.
func lowered(s string) string {
	for _, word := range []string{"It ", "The ", "This ", "All ", "Its ", "There "} {
		if len(s) > len(word) && s[:len(word)] == word {
			return string(s[0]+'a'-'A') + s[1:]
		}
	}
	return s
}

// kindWords are what a pasted text may be.
var kindWords = map[string]string{
	login.KindAccessToken: "access token of this service", login.KindJWT: "signed token (JWT) of another kind or issuer",
	login.KindEncrypted: "encrypted token (JWE)", login.KindRefreshToken: "refresh token", login.KindCookie: "cookie of a browser's session",
	login.KindOneTime: "one-time token", login.KindNothing: "nothing", login.KindUnknown: "no token that is known here",
}

// checkWords are what a finding is about.
var checkWords = map[string]string{
	login.CheckForm: "Form", login.CheckKey: "Key", login.CheckSignature: "Signature", login.CheckIssuer: "Issuer", login.CheckAudience: "Audience",
	login.CheckTimes: "Times", login.CheckRevokedToken: "Token revoked?", login.CheckRevokedSession: "Session ended?", login.CheckRevokedUser: "User's tokens revoked?",
	login.CheckRevokedKey: "Key revoked?", login.CheckFreshness: "Up to date?",
}

// timesIn returns the times in claims, which are numbers there.
func timesIn(claims json.RawMessage) (list []claimTime) {
	var known struct {
		IssuedAt  *float64 `json:"iat"`
		Exactly   *float64 `json:"iat_exact"` // iat is earlier, so that a slow clock accepts the token
		NotBefore *float64 `json:"nbf"`
		ExpiresAt *float64 `json:"exp"`
		AuthTime  *float64 `json:"auth_time"`
	}
	if json.Unmarshal(claims, &known) != nil {
		return nil
	}
	name, issued := "iat", known.IssuedAt
	if known.Exactly != nil {
		name, issued = "iat_exact", known.Exactly
	}
	for _, one := range []struct {
		name string
		at   *float64
	}{{"Signed in (auth_time)", known.AuthTime}, {"Issued (" + name + ")", issued}, {"Valid from (nbf)", known.NotBefore}, {"Expires (exp)", known.ExpiresAt}} {
		const last = 253402300799 // of the year 9999
		if one.at != nil && *one.at > 0 && *one.at <= last {
			list = append(list, claimTime{one.name, time.UnixMilli(int64(*one.at * 1000)).UTC()})
		}
	}
	return list
}

// A claimTime is a moment with what happens then.
type claimTime struct {
	Name string
	At   time.Time
}

// A checksPage is how this replica and its backends are, and what the checks of the deployment found.
type checksPage struct {
	Instance, Version string
	NotReady          string // why; empty: it is ready
	Checks            []Check
	At                time.Time
	MayExamine        bool // the visitor may see the deployment
	Examination       *Examination
}

// checks asks the backends how they are, now.
func (f *face) checks(v *visit) error {
	p := f.checksPage(v)
	if v.IsHTMX() {
		return v.Fragment(http.StatusOK, checksLive(p))
	}
	if p.MayExamine {
		var err error
		if p.Examination, err = f.Doctor.Own(v.Request.Context(), v.By.Token, v.Client.Address); err != nil {
			return err
		}
	}
	return v.show(checksLayout(p))
}

// runChecks looks at the whole deployment. It answers at once and does not redirect: the next request
// may reach another replica, which has found nothing.
func (f *face) runChecks(v *visit) error {
	found, err := f.Doctor.Examine(v.Request.Context(), v.By.Token, v.Client.Address)
	if err != nil {
		return err
	}
	p := f.checksPage(v)
	p.Examination = found
	return v.show(checksLayout(p))
}

func (f *face) checksPage(v *visit) checksPage {
	p := checksPage{Instance: f.Instance, Version: f.Version, Checks: f.Checks(v.Request.Context()), At: f.Now(), MayExamine: v.can(directory.KeysRead)}
	if err := f.Ready(); err != nil {
		p.NotReady = problem.From(err).Detail
	}
	return p
}

func checksLayout(p checksPage) page.Layout {
	return page.Layout{Title: "Checks", Active: checksPath, Live: true, Content: checksContent(p)}
}

// sorted returns the checks with those first that found something, the worst one first of all.
func (e *Examination) sorted() []Examined {
	list := slices.Clone(e.Checks)
	slices.SortStableFunc(list, func(a, b Examined) int { return cmp.Compare(a.rank(), b.rank()) })
	return list
}

func (c Examined) rank() int {
	switch {
	case c.Status == "failed" && c.Severity == "error":
		return 0
	case c.Status == "failed" && c.Severity == "warning":
		return 1
	case c.Status == "unknown":
		return 2
	case c.Status == "failed":
		return 3
	case c.Status == "ok":
		return 4
	}
	return 5
}

// badge is how the result of a check looks, and what docs/doctor.md calls it.
func (c Examined) badge() (page.BadgeKind, string) {
	switch c.rank() {
	case 0:
		return page.Bad, "error"
	case 1:
		return page.Caution, "warning"
	case 2:
		return page.Caution, "unknown"
	case 3:
		return page.Accent, "advice"
	case 4:
		return page.Good, "ok"
	}
	return page.Neutral, "skipped"
}

func (c Examined) kind() page.BadgeKind { kind, _ := c.badge(); return kind }
func (c Examined) word() string         { _, word := c.badge(); return word }

// headline says in a sentence what came of the checks.
func (e *Examination) headline() page.Message {
	var bad, look int
	for _, c := range e.Checks {
		switch c.rank() {
		case 0:
			bad++
		case 1, 2:
			look++
		}
	}
	switch {
	case bad > 0:
		return page.Message{Kind: page.Failure, Text: fmt.Sprintf("Checks that found an error: %d. Checks that found something to look at: %d.", bad, look)}
	case look > 0:
		return page.Message{Kind: page.Warning, Text: fmt.Sprintf("Checks that found something to look at: %d. None found an error.", look)}
	}
	return page.Message{Kind: page.Success, Text: "No check found an error or something to look at."}
}

func (p checksPage) notices() (list []notice) {
	if p.NotReady != "" {
		list = append(list, notice{Kind: page.Bad, Title: p.Instance + " takes no traffic", Text: capital(p.NotReady) + "."})
	}
	for _, c := range p.Checks {
		if !c.OK {
			list = append(list, notice{Kind: page.Bad, Title: capital(cmp.Or(c.Reason, backendName(c.Name)+" does not answer")), Text: lost(c.Name)})
		}
	}
	return list
}

// backendName is what a backend is called in a sentence.
func backendName(name string) string {
	switch name {
	case "database":
		return "The database"
	case "redis":
		return "Redis"
	case "state":
		return "The shared state"
	case "pkcs11":
		return "The HSM (PKCS #11)"
	case "remote":
		return "The remote signer"
	}
	return name
}

// role is what a backend is for.
func role(name string) string {
	switch name {
	case "database":
		return "users, rights, keys, the log of revocations, and the audit trail"
	case "redis", "state":
		return "sessions and limits, shared by all replicas"
	case "pkcs11", "remote":
		return "signs access tokens"
	}
	return ""
}

// lost is what does not go while a backend is away.
func lost(name string) string {
	switch name {
	case "database":
		return "Meanwhile nobody can sign in, renew or sign out. Applications that verify tokens offline go on."
	case "pkcs11", "remote":
		return "Meanwhile nobody can sign in or renew. Signing out and revoking go on."
	}
	return "Sessions and limits are kept there. With state.backend tiered the database stands in for Redis; otherwise nobody can sign in or renew meanwhile."
}

// capital begins a text with a capital letter.
func capital(s string) string {
	if s != "" && s[0] >= 'a' && s[0] <= 'z' {
		return string(s[0]-'a'+'A') + s[1:]
	}
	return s
}
