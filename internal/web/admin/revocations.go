package admin

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/internal/web/page"
	"github.com/watchword-auth/watchword/verify/revoked"
)

const (
	revocationsPath = "/admin/revocations"
	revokePath      = revocationsPath + "/new"
)

func (f *face) mountRevocations() {
	f.get(revocationsPath, f.revocations)
	f.get(revokePath, f.revoke)
	f.post(revocationsPath+"/token", f.revokePasted)
	for path, h := range map[string]struct {
		ask func(*visit, revokeForm) (page.Confirmation, error)
		do  func(*visit, revokeForm) (login.Target, error)
	}{
		"/session": {f.askRevokeSession, sessionTarget},
		"/user":    {f.askRevokeUser, userTarget},
		"/key":     {f.askRevokeKey, keyTarget},
	} {
		f.get(revocationsPath+path, func(v *visit) error {
			form := v.revokeForm()
			c, err := h.ask(v, form)
			if err != nil {
				return f.notRevoked(v, err, form)
			}
			c.Action, c.Cancel, c.Danger = revocationsPath+path, revokePath, true
			return v.show(page.Layout{Title: "Revoke", Active: revocationsPath, Content: page.Confirm(c)})
		})
		f.post(revocationsPath+path, func(v *visit) error {
			form := v.revokeForm()
			target, err := h.do(v, form)
			if err != nil {
				return f.notRevoked(v, err, form)
			}
			seq, err := f.Login.Revoke(v.Request.Context(), v.By.Token, target, v.Client)
			if err != nil {
				return f.notRevoked(v, err, form)
			}
			v.Flash(page.Success, revokedText(form.what(), seq))
			return v.Redirect(v.afterRevoking())
		})
	}
}

// A logRow is an entry of the revocation log as the list shows it.
type logRow struct {
	login.LogEntry
	What, Why string
}

type logView struct {
	Rows       []logRow
	Names      map[string]string
	Pages      page.Pages
	MayRead    bool
	MayOpen    bool
	MayRevoke  bool
	Bound      Bound
	NothingYet bool // the log is empty
}

func (f *face) revocations(v *visit) error {
	l := logView{MayRead: v.can(directory.SessionsRead), MayOpen: v.can(directory.UsersRead), MayRevoke: v.mayRevoke(), Bound: f.Bound}
	if !l.MayRead && l.MayRevoke {
		return v.show(revocationsLayout(l))
	}
	before, err := sequence(v.Field("before"))
	if err != nil {
		return err
	}
	entries, next, err := f.Login.RevocationLog(v.Request.Context(), v.By.Token, before, rowsAtOnce, v.Client)
	if err != nil {
		return err
	}
	var ids []string
	for _, e := range entries {
		l.Rows = append(l.Rows, logRow{e, kindOf(e), reason(e.Reason)})
		ids = append(ids, e.Actor)
		if e.What == revoked.User {
			ids = append(ids, e.Subject)
		}
	}
	if l.Names, err = f.names(v, ids...); err != nil {
		return err
	}
	l.NothingYet = len(entries) == 0 && before == 0
	if before != 0 {
		l.Pages.First = revocationsPath
	}
	if next != 0 {
		l.Pages.Next = linkTo(revocationsPath, "before", strconv.FormatInt(next, 10))
	}
	return v.show(revocationsLayout(l))
}

func revocationsLayout(l logView) page.Layout {
	return page.Layout{Title: "Revocations", Active: revocationsPath, Content: logContent(l)}
}

// mayRevoke reports whether the visitor may revoke what is not their own.
func (v *visit) mayRevoke() bool { return v.can(directory.Revoke) || v.can(directory.KeysWrite) }

// afterRevoking is the page after something was revoked: the log, if the visitor may read it.
func (v *visit) afterRevoking() string {
	if v.can(directory.SessionsRead) {
		return revocationsPath
	}
	return revokePath
}

var errNoPlace = problem.New(problem.Invalid, "invalid_cursor", "this is not where a page ended")

// sequence reads a number of the log; empty: 0.
func sequence(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 {
		return 0, errNoPlace
	}
	return n, nil
}

func kindOf(e login.LogEntry) string {
	switch e.What {
	case revoked.Key:
		return "Signing key"
	case revoked.Session:
		return "Session"
	case revoked.Token:
		return "Token"
	case revoked.User:
		if e.IssuedBefore.IsZero() {
			return "All tokens of a user"
		}
		return "Older tokens of a user"
	}
	return string(e.What)
}

// reasons are those of the log, in words.
var reasons = map[string]string{
	"revoked":          "Revoked by itself",
	"session_ended":    "The session was ended",
	"logout":           "Signed out",
	"replay":           "A refresh token was used twice, by two parties",
	"user_revoked":     "All of the user was revoked",
	"user_disabled":    "The user was disabled",
	"user_deleted":     "The user was deleted",
	"user_recovered":   "The account was recovered",
	"password_changed": "The password changed",
	"identity_changed": "The username, name or e-mail address changed",
	"rights_changed":   "Rights ended",
	"factors_changed":  "The second factors changed",
	"factors_reset":    "The second factors were removed by an administrator",
	"key_revoked":      "The key was revoked",
	"canary":           "The service's own test of revocation",
}

func reason(word string) string {
	if text, ok := reasons[word]; ok {
		return text
	}
	return strings.ReplaceAll(word, "_", " ")
}

// A revokeForm is what was typed to revoke something.
type revokeForm struct{ SessionID, User, IssuedBefore, KeyID, Reason string }

func (v *visit) revokeForm() revokeForm {
	return revokeForm{v.Field("session_id"), v.Field("user"), v.Field("issued_before"), v.Field("kid"), v.Field("reason")}
}

// what says what a form has revoked.
func (r revokeForm) what() string {
	switch {
	case r.SessionID != "":
		return "The session " + page.Readable(r.SessionID) + " is"
	case r.KeyID != "":
		return "The signing key " + page.Readable(r.KeyID) + " is"
	case r.IssuedBefore != "":
		return "The user's tokens from before that time are"
	}
	return "All tokens of the user are"
}

func revokedText(what string, seq int64) string {
	return fmt.Sprintf("%s revoked: entry %d of the log.", what, seq)
}

type revokeView struct {
	Message   page.Message
	Form      revokeForm
	Bound     Bound
	MayRevoke bool // tokens, sessions and users
	MayKeys   bool
}

func (f *face) revokeLayout(v *visit, m page.Message, form revokeForm) page.Layout {
	return page.Layout{Title: "Revoke", Active: revocationsPath, Content: revokeContent(revokeView{
		Message: m, Form: form, Bound: f.Bound, MayRevoke: v.can(directory.Revoke), MayKeys: v.can(directory.KeysWrite),
	})}
}

func (f *face) revoke(v *visit) error {
	if !v.mayRevoke() {
		return directory.ErrPermissionMissing
	}
	return v.show(f.revokeLayout(v, page.Message{}, revokeForm{}))
}

// notRevoked shows the forms again, with what was typed but a token.
func (f *face) notRevoked(v *visit, err error, form revokeForm) error {
	return v.retry(err, func(m page.Message) page.Layout { return f.revokeLayout(v, m, form) })
}

var (
	errNoToken = problem.New(problem.Invalid, "invalid_token", "paste a whole access token")
	errNoUser  = problem.New(problem.Invalid, "invalid_request", "type the username or id of a user")
	errNoKey   = problem.New(problem.Invalid, "invalid_request", "type the id of a signing key (kid)")
	errNoTime  = problem.New(problem.Invalid, "invalid_time", "this is no time; it looks like 2026-01-31T12:00, in UTC")
)

func (f *face) revokePasted(v *visit) error {
	pasted, seq, err := f.revokeWhole(v, "token")
	if err != nil {
		return f.notRevoked(v, err, revokeForm{})
	}
	id, subject := ofToken(pasted)
	names, err := f.names(v, subject)
	if err != nil {
		return err
	}
	what := "The token " + page.Readable(id)
	if name, ok := names[subject]; ok {
		what += " of " + name
	}
	v.Flash(page.Success, revokedText(what+" is", seq))
	return v.Redirect(v.afterRevoking())
}

// revokeWhole revokes the access token that was pasted into a field, and returns it with the
// number of its entry in the log.
func (f *face) revokeWhole(v *visit, field string) (pasted string, seq int64, err error) {
	if pasted, _ = token.Strip(v.Form().Get(field)); pasted == "" {
		return "", 0, errNoToken
	}
	seq, err = f.Login.Revoke(v.Request.Context(), v.By.Token, login.Target{Token: pasted}, v.Client)
	return pasted, seq, err
}

// ofToken returns the id and the subject of a token that was accepted.
func ofToken(compact string) (id, subject string) {
	var claims struct{ JTI, Sub string }
	if parts := strings.Split(compact, "."); len(parts) == 3 {
		if b, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			_ = json.Unmarshal(b, &claims) // it was read before
		}
	}
	return claims.JTI, claims.Sub
}

func (f *face) askRevokeSession(v *visit, form revokeForm) (page.Confirmation, error) {
	target, err := sessionTarget(v, form)
	return page.Confirmation{
		Text:   "Revoke the session " + target.SessionID + "? All its tokens are refused everywhere, and it cannot be renewed.",
		Button: "Revoke the session", Fields: map[string]string{"session_id": target.SessionID},
	}, err
}

func sessionTarget(_ *visit, form revokeForm) (login.Target, error) {
	id, err := uuid.Parse(form.SessionID)
	if err != nil {
		return login.Target{}, errNoSessionID
	}
	return login.Target{SessionID: id.String()}, nil
}

func (f *face) askRevokeUser(v *visit, form revokeForm) (page.Confirmation, error) {
	target, err := userTarget(v, form)
	if err != nil {
		return page.Confirmation{}, err
	}
	u, err := f.Directory.AuthorizeOn(v.Request.Context(), v.Actor(), directory.Revoke, target.User)
	if err != nil {
		return page.Confirmation{}, err
	}
	c := page.Confirmation{Button: "Revoke", Fields: map[string]string{"user": u.ID}}
	if target.IssuedBefore.IsZero() {
		c.Text = "Revoke all tokens of " + u.Username + "? Every token that " + u.Username + " has now is refused everywhere, and all sessions end. " +
			u.Username + " can sign in again."
	} else {
		c.Fields["issued_before"] = form.IssuedBefore
		c.Text = "Revoke the tokens of " + u.Username + " that were issued before " + target.IssuedBefore.Format("2006-01-02 15:04:05 UTC") +
			"? They are refused everywhere, and the sessions end that began before. Later ones go on."
	}
	if u.ID == v.User.ID {
		c.Text += " This is yourself: you may be signed out."
	}
	return c, nil
}

func userTarget(_ *visit, form revokeForm) (login.Target, error) {
	if form.User == "" {
		return login.Target{}, errNoUser
	}
	before, err := readTime(form.IssuedBefore)
	return login.Target{User: form.User, IssuedBefore: before}, err
}

// readTime reads what a field for a time in UTC sends; empty: none.
func readTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil && t.Unix() > 0 {
			return t, nil
		}
	}
	return time.Time{}, errNoTime
}

func (f *face) askRevokeKey(v *visit, form revokeForm) (page.Confirmation, error) {
	target, err := keyTarget(v, form)
	if err == nil && !v.can(directory.KeysWrite) {
		err = directory.ErrPermissionMissing
	}
	why := "No reason is given."
	if form.Reason != "" {
		why = "Reason: " + form.Reason
	}
	return page.Confirmation{
		Text: "Revoke the signing key " + target.KeyID + "? Every token that it has signed, of whatever user, is refused everywhere, for good. " +
			"Sessions go on: the next renewal is signed with another key. If it signs now, another one takes its place at once. " + why,
		Button: "Revoke the key", Fields: map[string]string{"kid": target.KeyID, "reason": target.Reason},
	}, err
}

func keyTarget(_ *visit, form revokeForm) (login.Target, error) {
	if form.KeyID == "" {
		return login.Target{}, errNoKey
	}
	return login.Target{KeyID: form.KeyID, Reason: form.Reason}, nil
}
