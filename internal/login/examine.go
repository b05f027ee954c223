package login

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// What Examine may have been given.
const (
	KindAccessToken  = "access_token"    // of this deployment, as far as it says so itself
	KindJWT          = "jwt"             // a signed token of another kind or issuer
	KindEncrypted    = "encrypted_token" // a JWE (RFC 7516)
	KindRefreshToken = "refresh_token"   // of this service
	KindCookie       = "session_cookie"  // a browser's
	KindOneTime      = "one_time_token"  // an mfa_token, a device_token or a recovery token
	KindNothing      = "nothing"
	KindUnknown      = "unknown"
)

// What a Finding is about.
const (
	CheckForm           = "form"
	CheckKey            = "key"
	CheckSignature      = "signature"
	CheckIssuer         = "issuer"
	CheckAudience       = "audience"
	CheckTimes          = "times"
	CheckRevokedToken   = "revoked_token"
	CheckRevokedSession = "revoked_session"
	CheckRevokedUser    = "revoked_user"
	CheckRevokedKey     = "revoked_key"
	CheckFreshness      = "freshness" // of what this replica knows of revocations
)

// KeySecret is the Examination.KeyState of a signing secret.
const KeySecret = "secret"

// A Finding is the result of one check.
type Finding struct {
	Check string
	OK    bool
	Text  string // plain sentences
}

// An Examination says what a pasted text is, and why it is a valid access token, or none.
type Examination struct {
	Kind string
	At   time.Time // when it was examined, by this replica's clock
	// Valid: Verify accepts the token at this replica at this moment. All Findings are OK then,
	// and only then.
	Valid bool
	// Undecided: Verify refuses the token, but may accept it later: its key could not be looked
	// up, or this replica does not know well enough what was revoked.
	Undecided bool

	// Header and Claims are JSON, indented, as they stand in the token; nil if they cannot be
	// read. They are not to be believed if the signature was not found right.
	Header, Claims json.RawMessage
	KeyID          string // as the header says
	Algorithm      string // as the header says
	// SignedBy is the instance that made the key; empty if the signature was not found right,
	// or if no one instance did.
	SignedBy string
	// KeyState is where the key stands in its life (keyring.Phase), or KeySecret; empty if
	// neither the database nor the signing secrets have it.
	KeyState string

	// TokenID, SessionID and UserID are those of a token whose signature is right. A refresh
	// token and a cookie name their session and user, and a one-time token its user, which
	// anybody could have written.
	TokenID, SessionID, UserID string

	Findings []Finding
}

// Examine says of whatever is pasted what it is, and why it is a valid access token or not, here
// and now. It accepts what Verify accepts, and nothing else, except that it takes off what is
// commonly copied along with a token: white space, and "Authorization: Bearer" in front.
//
// The holder of by needs a permission of administration, whichever. It is not asked whose the
// token is: who pastes a token can read its claims without this service, and anybody who has it
// can ask for its verification. So nothing is written to the audit trail, either. What is
// not signed by a known key is not looked up, but for the name of its key. A refresh token, a
// cookie and a one-time token are recognised by their form alone. They are neither looked up
// nor spent: otherwise whoever finds one could learn here, unnoticed, whether it is still good.
func (s *Service) Examine(ctx context.Context, by *accesstoken.Token, pasted string, client Client) (Examination, error) {
	if _, _, err := s.People.Administration(ctx, actor(by, client)); err != nil {
		return Examination{}, err
	}
	compact, around := token.Strip(pasted)
	e := &examination{Examination: Examination{At: s.Now()}, s: s, compact: compact}
	if e.isSecret() {
		return e.Examination, nil
	}
	if err := e.token(ctx); err != nil {
		return Examination{}, err
	}
	if len(around) > 0 && e.Valid {
		e.find(CheckForm, true, "What stands around the token does not belong to it, and was left out: a program that sends it along is refused.")
	}
	return e.Examination, nil
}

// An examination is one that goes on.
type examination struct {
	Examination
	s       *Service
	compact string
	in      accesstoken.Inspection
	found   bool // the key
}

func (e *examination) find(check string, ok bool, format string, args ...any) {
	e.Findings = append(e.Findings, Finding{check, ok, fmt.Sprintf(format, args...)})
}

// wrong reports whether a check has found something wrong.
func (e *examination) wrong(checks ...string) bool {
	return slices.ContainsFunc(e.Findings, func(f Finding) bool { return !f.OK && slices.Contains(checks, f.Check) })
}

// The cookie of a browser's session, and a refresh token, begin with the 16 bytes each of a user's
// and a session's id.
const (
	cookiePrefix  = "wwb_"
	cookieLength  = 16 + 16 + 32
	refreshLength = 16 + 16 + 16 + 32
)

// isSecret recognises the secrets of this service that are no access tokens.
func (e *examination) isSecret() bool {
	const notLookedUp = " It was not looked up and is not spent by this, so that nothing is said here about whether it is still good. " +
		"Nobody but its holder should have it: if you were given it, "
	switch c := e.compact; {
	case c == "":
		e.Kind = KindNothing
		e.find(CheckForm, false, "There is nothing to examine.")
	case strings.HasPrefix(c, session.RefreshPrefix):
		e.Kind = KindRefreshToken
		e.names(c[len(session.RefreshPrefix):], refreshLength)
		e.find(CheckForm, false, "This is a refresh token, with which a client gets access tokens, and no access token."+notLookedUp+"end its session.")
	case strings.HasPrefix(c, cookiePrefix):
		e.Kind = KindCookie
		e.names(c[len(cookiePrefix):], cookieLength)
		e.find(CheckForm, false, "This is the cookie of a browser's session, and no access token."+notLookedUp+"end its session.")
	case mfa.OwnerOf(c) != "":
		e.Kind, e.UserID = KindOneTime, mfa.OwnerOf(c)
		e.find(CheckForm, false, "This is the mfa_token of a login that waits for its second step, the device_token of a device, or the token of a recovery link, "+
			"and no access token."+notLookedUp+"end all sessions of its user, which ends the former two, and issue another recovery link, which ends the last one.")
	default:
		return false
	}
	return true
}

// names reads the user and the session that a secret names, if it has its whole length.
func (e *examination) names(encoded string, length int) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) != length {
		e.find(CheckForm, false, "It is not whole: it was cut off or changed.")
		return
	}
	e.UserID, e.SessionID = uuid.UUID(raw[:16]).String(), uuid.UUID(raw[16:32]).String()
}

// token examines what is no other secret.
func (e *examination) token(ctx context.Context) error {
	s := e.s
	e.in = s.Rules.Inspect(e.compact, e.At, func(kid string) (accesstoken.Key, error) {
		k, err := s.Key(kid)
		e.found = err == nil
		return k, err
	})
	e.show()
	if err := e.keyState(ctx); err != nil {
		return err
	}
	e.recognise()
	for _, fault := range e.in.Faults {
		e.fault(fault)
	}
	e.praise()
	revokedErr := e.revocation(ctx)
	e.Valid = len(e.in.Faults) == 0 && revokedErr == nil
	slices.SortStableFunc(e.Findings, func(a, b Finding) int { return slices.Index(checks, a.Check) - slices.Index(checks, b.Check) })
	return nil
}

// checks are all of them, in the order in which they are shown.
var checks = []string{
	CheckForm, CheckKey, CheckSignature, CheckIssuer, CheckAudience, CheckTimes,
	CheckRevokedToken, CheckRevokedSession, CheckRevokedUser, CheckRevokedKey, CheckFreshness,
}

// show decodes the first two parts of what may be a token, whether or not it is one.
func (e *examination) show() {
	if len(e.compact) > accesstoken.DefaultMaxLength {
		return
	}
	for i, part := range strings.Split(e.compact, ".") {
		raw, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil || !json.Valid(raw) || !utf8.Valid(raw) || i > 1 {
			continue
		}
		*[]*json.RawMessage{&e.Header, &e.Claims}[i] = readable(raw)
	}
	e.KeyID, e.Algorithm = word(e.in.Header["kid"]), word(e.in.Header["alg"])
}

// maxBrackets is how many objects and arrays a token may have for it to be indented. One of the
// greatest length then takes 300 KB at most, and with thousands within each other many megabytes.
const maxBrackets = 32

// readable returns JSON as people read it. A character that is not seen, or that changes the
// direction of others, is escaped, so that nothing in a token looks like something else.
func readable(raw []byte) json.RawMessage {
	if strings.Count(string(raw), "{")+strings.Count(string(raw), "[") <= maxBrackets {
		raw = indented(raw)
	}
	var out []byte
	for _, c := range string(raw) {
		switch {
		case c == '\n' || unicode.IsPrint(c):
			out = utf8.AppendRune(out, c)
		case c <= 0xffff:
			out = fmt.Appendf(out, `\u%04x`, c)
		default:
			high, low := utf16.EncodeRune(c)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		}
	}
	return out
}

// word returns a member of a header as it is shown to people.
func word(member any) string {
	text, _ := member.(string)
	if strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' }) || len(text) > 200 {
		return fmt.Sprintf("%.200q", text)
	}
	return text
}

// keyState finds out what is known of the key that the header names.
func (e *examination) keyState(ctx context.Context) error {
	kid, _ := e.in.Header["kid"].(string)
	if kid == "" {
		return nil
	}
	if len(e.s.SecretKids(kid)) > 0 {
		e.KeyState = KeySecret
		return nil
	}
	keys, err := e.s.Store.Keys(ctx)
	if err != nil {
		return unavailable(err)
	}
	if i := slices.IndexFunc(keys, func(k store.Key) bool { return k.ID == kid }); i >= 0 {
		e.KeyState, e.SignedBy = string(keyring.State(keys[i], e.At)), keys[i].Instance
	}
	return nil
}

// recognise says what kind of token it is.
func (e *examination) recognise() {
	foreign := func(fault error) bool {
		return errors.Is(fault, accesstoken.ErrType) || errors.Is(fault, accesstoken.ErrIssuer)
	}
	switch {
	case strings.Count(e.compact, ".") == 4:
		e.Kind = KindEncrypted
		e.find(CheckForm, false, "It has five parts, so it is an encrypted token (JWE, RFC 7516). Watchword issues none.")
	case e.Header == nil || e.Claims == nil:
		e.Kind = KindUnknown
		if !strings.Contains(e.compact, ".") {
			e.find(CheckForm, false, "It has no dots, so it is not an access token. A jti, a session id and a kid are names, which are looked up elsewhere.")
		}
	case e.in.Token == nil || slices.ContainsFunc(e.in.Faults, foreign):
		e.Kind = KindJWT
	default:
		e.Kind = KindAccessToken
	}
	if strings.ContainsFunc(e.compact, unicode.IsSpace) {
		e.find(CheckForm, false, "There is white space within it, as after copying it from several lines.")
	}
}

// fault adds the finding of something that is wrong.
func (e *examination) fault(fault error) {
	if token.Follows(fault, e.in.Token) {
		return
	}
	var known *accesstoken.Error
	if !errors.As(fault, &known) {
		e.Undecided = true
		e.find(CheckKey, false, "The key could not be looked up at this moment, so the signature is neither right nor wrong: %s.", problem.From(fault).Detail)
		return
	}
	check := CheckForm
	switch known.Code {
	case accesstoken.ErrAlgorithm.Code, accesstoken.ErrUnknownKey.Code:
		check = CheckKey
	case accesstoken.ErrSignature.Code:
		check = CheckSignature
	case accesstoken.ErrIssuer.Code:
		check = CheckIssuer
	case accesstoken.ErrAudience.Code:
		check = CheckAudience
	case accesstoken.ErrExpired.Code, accesstoken.ErrNotYetValid.Code:
		check = CheckTimes
	}
	text := token.Explain(known, e.in, e.At, &e.s.Rules)
	if known.Code == accesstoken.ErrUnknownKey.Code {
		text += e.whereKeyWas()
	}
	e.find(check, false, "%s", text)
}

// whereKeyWas says where a key was looked up that is not known.
func (e *examination) whereKeyWas() string {
	text := " It was looked up among the keys of this replica and of all others, and among the signing secrets."
	kid, _ := e.in.Header["kid"].(string)
	switch maker, made := makerOf(kid); {
	case e.KeyState != "":
		text += fmt.Sprintf(" The database has a key of this name, which is %s.", e.KeyState)
	case made:
		text += fmt.Sprintf(" The database has none of this name, either. By its name, an instance %q has made it.", maker)
	default:
		text += " The database has none of this name, either."
	}
	return text
}

// thumbprintLength is how long the end of a kid is by which keys differ (RFC 7638, SHA-256).
const thumbprintLength = 43

// makerOf returns the instance that a kid names.
func makerOf(kid string) (instance string, ok bool) {
	at := len(kid) - thumbprintLength - 1
	if at < 1 || kid[at] != '-' {
		return "", false
	}
	return kid[:at], true
}

// praise adds the findings of what is right.
func (e *examination) praise() {
	t := e.in.Token
	if e.in.Header != nil && t != nil && !e.wrong(CheckForm) {
		e.find(CheckForm, true, "It has the form of an access token (RFC 9068), and all claims that one must have.")
	}
	if e.found && !e.wrong(CheckKey) {
		state := "in use"
		if e.KeyState != "" {
			state = e.KeyState
		}
		by := ""
		if e.SignedBy != "" {
			by = fmt.Sprintf(", made by the instance %q", e.SignedBy)
		}
		e.find(CheckKey, true, "The key %s is known here: %s%s.", e.KeyID, state, by)
		if !e.wrong(CheckSignature) {
			e.find(CheckSignature, true, "The signature is right: the key has signed exactly this.")
		}
	}
	if !e.signed() {
		e.SignedBy = ""
	} else if t != nil {
		e.TokenID, e.SessionID, e.UserID = t.ID, t.SessionID, t.Subject
	}
	if t == nil {
		return
	}
	if t.Issuer == e.s.Rules.Issuer {
		e.find(CheckIssuer, true, "The issuer is this deployment.")
	}
	if len(t.Audience) > 0 && !e.wrong(CheckAudience) {
		e.find(CheckAudience, true, "It is meant for %q, which tokens of this deployment may be.", t.Audience)
	}
	if !t.ExpiresAt.IsZero() && !e.wrong(CheckTimes) {
		e.find(CheckTimes, true, "It expires at %s, in %s.", t.ExpiresAt.UTC().Format(time.RFC3339), t.ExpiresAt.Sub(e.At).Round(time.Second))
	}
}

// signed reports whether a known key has signed the token.
func (e *examination) signed() bool {
	return slices.ContainsFunc(e.Findings, func(f Finding) bool { return f.Check == CheckSignature && f.OK })
}

// revocation adds what is known of the token's being revoked. It returns what View.Check does.
func (e *examination) revocation(ctx context.Context) error {
	view := e.s.View
	kid, _ := e.in.Header["kid"].(string)
	if !e.signed() || e.in.Token == nil {
		if kid != "" && view.KeyRevoked(kid) {
			e.find(CheckRevokedKey, false, "The key was revoked, and with it everything that it has signed.")
		}
		return nil // whatever the claims are
	}
	why, err := view.Why(e.in.Token), error(revocation.ErrRevoked)
	if !why.Any() {
		err = view.Check(ctx, e.in.Token)
	}
	for _, one := range []struct {
		check   string
		revoked bool
		yes, no string
	}{
		{CheckRevokedToken, why.Token, "This token was revoked, by its jti.", "This token was not revoked by itself."},
		{CheckRevokedSession, why.Session, "Its session has ended, by a logout or by somebody who may end it, or because its refresh token was presented twice.", "Its session has not been ended."},
		{CheckRevokedUser, why.Epoch || why.Time, e.userRevoked(why), "Its user's tokens have not been revoked."},
		{CheckRevokedKey, why.Key, "The key was revoked, and with it everything that it has signed.", "The key was not revoked."},
	} {
		switch {
		case one.revoked:
			e.find(one.check, false, "%s", one.yes)
		case one.check != CheckRevokedSession || e.in.Token.SessionID != "":
			e.find(one.check, true, "%s", one.no)
		}
	}
	return e.freshness(err, why)
}

func (e *examination) userRevoked(why revocation.Why) string {
	switch {
	case why.Epoch && why.Time:
		return "All tokens of its user were revoked that were issued before now, by epoch, and once more by the time of issue."
	case why.Time:
		return "All tokens of its user were revoked that were issued before a moment, and this one was."
	}
	return "All tokens of its user were revoked at some moment, and this one was issued before: " +
		"somebody has revoked them or ended all sessions, or the password, a factor or the rights of the user changed, or the user was disabled or deleted."
}

// freshness adds how well this replica knows what was revoked.
func (e *examination) freshness(err error, why revocation.Why) error {
	seq, asOf := e.s.View.Confirmed()
	age := "has never read the log of revocations"
	if !asOf.IsZero() {
		age = fmt.Sprintf("has everything of the log of revocations up to number %d, as of %s ago", seq, max(0, revoked.Age(asOf, e.s.Now())).Round(time.Millisecond))
	}
	switch {
	case err == nil, errors.Is(err, revocation.ErrRevoked) && why.Any():
		e.find(CheckFreshness, true, "This replica %s.", age)
	case errors.Is(err, revocation.ErrRevoked):
		e.find(CheckRevokedToken, false, "It is revoked, as the shared memory of the replicas or the database says. This replica has not read yet by what.")
	default:
		e.Undecided = len(e.in.Faults) == 0
		e.find(CheckFreshness, false, "This replica %s. That is not enough to accept any token: %s.", age, problem.From(err).Detail)
	}
	return err
}
