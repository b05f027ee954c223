package login

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/internal/trace"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/known"
)

// People is what login asks of the directory.
type People interface {
	// Authenticate checks a password and returns the user as it was before the
	// check began, so that what changes meanwhile shows in the user's epochs. With
	// directory.ErrInvalidCredentials it returns the id of the user of that name, if there
	// is one, which is not for the client. It says of the attempt whether the password was
	// right.
	Authenticate(ctx context.Context, attempt *limit.Attempt, username, password string) (store.User, error)
	// ChangeOwnPassword gives the actor another password, ends their sessions and revokes
	// their tokens. epoch is that of the actor's token.
	ChangeOwnPassword(ctx context.Context, actor directory.Actor, epoch int64, current, next string) (store.User, error)
	// ClaimsOf returns a user's claims. To be called after the user was read, so
	// that a claim that was taken away meanwhile is never signed under the epoch
	// that follows.
	ClaimsOf(ctx context.Context, userID string) (map[string]string, error)
	// Subject returns a user and the claims as of one moment, or store.ErrNotFound.
	Subject(ctx context.Context, userID string) (store.User, map[string]string, error)
	// Authorize returns nil if the actor holds the permission at this moment.
	Authorize(ctx context.Context, actor directory.Actor, permission string) error
	// AuthorizeOn returns the user, named by id or username, if the actor holds the
	// permission and no right of the user is missing from the actor's.
	AuthorizeOn(ctx context.Context, actor directory.Actor, permission, user string) (store.User, error)
	// Administration returns the actor's user and rights if they hold at least one permission.
	Administration(ctx context.Context, actor directory.Actor) (store.User, directory.Rights, error)
}

// Keys are what this replica signs with.
type Keys interface {
	// Signer returns the key that signs now. The error is a problem that says why there is none.
	Signer() (*token.Signer, error)
	// ReplaceRevoked stops using a key that was revoked, and replaces it.
	ReplaceRevoked(ctx context.Context, kid string) error
	// Voucher authenticates the rows of keys for the other replicas.
	Voucher() keyring.Voucher
}

// Config is what a Service needs.
type Config struct {
	People   People
	Store    store.Store
	Sessions *session.Store
	Keys     Keys
	// Key finds the key of a token, whichever replica signed it.
	Key func(kid string) (accesstoken.Key, error)
	// SecretKids returns all kids of the signing secret that has the given one among them; none:
	// no secret has it.
	SecretKids  func(kid string) []string
	Revocations *revocation.Log
	View        *revocation.View
	Audit       *audit.Trail
	// Limits counts every credential that is presented.
	Limits *limit.Limiter
	// Factors decides who needs a second factor, and checks it.
	Factors *mfa.Service

	// Rules are those by which Verify checks a token.
	Rules accesstoken.Rules
	// ClockSkew is by how much the clock of a verifier may run behind.
	ClockSkew time.Duration
	// Issuer goes into every token.
	Issuer string
	// Audience is the default one of tokens. A client may also ask for a token for one of
	// it alone, or for the Issuer, which is the audience of this service's own API.
	Audience []string
	// UserInfo names the token's members that hold the username, the full name
	// and the e-mail address; an empty name leaves one out.
	UserInfo UserInfo
	// TokenDuration is an access token's life.
	TokenDuration time.Duration
	// SessionsReturn reports that a session which was deleted may return, as after a
	// failover of Redis or its start from an older snapshot.
	SessionsReturn bool

	Now        func() time.Time
	Rand       io.Reader
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// UserInfo names members of the token.
type UserInfo struct{ Username, FullName, Email string }

// A Client is where a request came from.
type Client struct {
	Address, UserAgent string
	// Browser: what begins a session begins a browser's, whose holder gets a cookie and no
	// tokens. No signing key is needed for that.
	Browser bool
}

// A Grant is the answer of a successful login or renewal.
type Grant struct {
	AccessToken  string
	ExpiresIn    time.Duration // until the access token's end, or the absolute end of a browser's session
	RefreshToken string
	SessionID    string
	Cookie       string // of a browser; then there are no tokens
}

// Service holds the use cases.
type Service struct {
	Config
	verified *known.Tokens
	metrics  metrics
	begun    budget             // sessions
	revokes  budget             // of single tokens
	ending   singleflight.Group // by session id
	refusals refusals
}

// knownTokens is how many verified tokens are remembered: 25 MB at most.
const knownTokens = 8192

// New makes a Service.
func New(c Config) *Service {
	tokens := known.New(knownTokens)
	return &Service{
		Config: c, verified: tokens, metrics: newMetrics(c.Registerer, tokens),
		begun: budget{rate: sessionRate}, revokes: budget{rate: revocationRate},
	}
}

// Renew spends a refresh token. The claims are those that the user has now. The audience is
// that of this one access token; empty: the session's. It refuses a user who is deleted,
// disabled, or whose sessions have been ended since.
func (s *Service) Renew(ctx context.Context, refreshToken, audience string, client Client) (Grant, error) {
	ctx, t := trace.Start(ctx, "renew")
	grant, err := s.renew(ctx, refreshToken, audience, client)
	t.End(err)
	s.metrics.count("renew", err)
	return grant, err
}

func (s *Service) renew(ctx context.Context, refreshToken, audience string, client Client) (Grant, error) {
	signer, err := s.Keys.Signer()
	if err != nil {
		return Grant{}, err
	}
	if err := s.Limits.Count(ctx, limit.Renew, client.Address, ""); err != nil {
		return Grant{}, err
	}
	var grant Grant
	sess, refresh, err := s.Sessions.Renew(store.WithWantedSubject(ctx), refreshToken, func(ctx context.Context, sess session.Session) error {
		if err := s.Limits.Count(ctx, limit.Renew, "", limit.UserAccount(sess.UserID)); err != nil {
			return err
		}
		user, claims, err := s.entitled(ctx, sess)
		if err != nil {
			return err
		}
		// Here, so that no refresh token is spent for an access token that cannot be made.
		if grant, err = s.grant(ctx, signer, user, claims, sess, cmp.Or(audience, sess.Audience)); err != nil {
			return problem.From(err)
		}
		return nil
	})
	if errors.Is(err, session.ErrReplayed) {
		if _, err := s.endSessions(ctx, "replay", sess); err != nil {
			return Grant{}, err
		}
		s.Logger.WarnContext(ctx, "a spent refresh token was presented; its session has been revoked", "session", sess.ID, "user", sess.UserID, "address", client.Address)
		s.Audit.Record(ctx, store.AuditEvent{Actor: sess.UserID, Action: "renew", Target: sess.ID, Outcome: audit.Denied, Address: client.Address, Detail: "refresh token replayed"})
		return Grant{}, session.ErrReplayed
	}
	if errors.Is(err, session.ErrEnded) { // by a request that could not finish it
		if _, err := s.endSessions(ctx, "session_ended", sess); err != nil {
			return Grant{}, err
		}
		return Grant{}, session.ErrInvalid
	}
	if err != nil {
		return Grant{}, unavailable(err)
	}
	grant.RefreshToken = refresh
	return grant, nil
}

// entitled returns the user of a session with their present claims, if the session may
// still be renewed. A later revocation of the user concerns the new token too, because the
// token carries the epoch that is read here.
func (s *Service) entitled(ctx context.Context, sess session.Session) (store.User, map[string]string, error) {
	user, claims, err := s.People.Subject(ctx, sess.UserID)
	gone := errors.Is(err, store.ErrNotFound)
	if err != nil && !gone {
		return store.User{}, nil, err
	}
	if gone || user.Disabled || sess.Epoch < user.SessionEpoch {
		return store.User{}, nil, s.dead(ctx, sess)
	}
	moved, err := s.renewable(ctx, &user, sess)
	if moved {
		return s.entitled(ctx, sess)
	}
	if err == nil && !s.Factors.Suffices(sess.AMR, sess.Remembered, claims) {
		err = errFactorNeeded
	}
	return user, claims, err
}

// errFactorNeeded: the session began when its user need not have a second factor. It is not
// ended, because a step-up may still mend it, and so may another policy.
var errFactorNeeded = problem.New(problem.Unauthenticated, "second_factor_required",
	"this account needs a second factor by now, and the session began without one; log in again")

// noteTooLong logs that a user's claims are the reason why there is no token.
func (s *Service) noteTooLong(ctx context.Context, err error, user store.User) {
	if errors.Is(err, token.ErrTooLong) {
		s.Logger.WarnContext(ctx, "a user gets no token, because the claims are too many or too long for one", "user", user.ID)
	}
}

// errAudience: RFC 8707 §2 has the code.
var errAudience = problem.New(problem.Malformed, "invalid_target",
	"tokens are not issued for this audience; ask for the issuer or for one of tokens.audience")

// audience returns the aud of a token for an audience that a client may ask for; empty: the
// default. A token that somebody asks for has one audience. If it also had the issuer's,
// then every service that is given the token could use it at this service's own API.
func (s *Service) audience(asked string) ([]string, error) {
	switch {
	case asked == "":
		return s.Audience, nil
	case asked == s.Issuer || slices.Contains(s.Audience, asked):
		return []string{asked}, nil
	}
	return nil, errAudience
}

// grant signs an access token that ends with its session at the latest. The caller adds
// the refresh token.
func (s *Service) grant(ctx context.Context, signer *token.Signer, user store.User, claims map[string]string, sess session.Session, audience string) (Grant, error) {
	aud, err := s.audience(audience)
	if err != nil {
		return Grant{}, err
	}
	now := s.Now()
	expires := s.expiry(sess, now)
	if expires.Unix() <= now.Unix() { // tokens count whole seconds
		return Grant{}, session.ErrInvalid
	}
	id, err := token.NewID(s.Rand)
	if err != nil {
		return Grant{}, fmt.Errorf("login: token id: %w", err)
	}
	var compact string
	reduced, err := fitting(claims, func(claims map[string]string) (err error) {
		compact, err = signer.Sign(s.claims(user, claims, id, aud, sess, now, expires))
		return err
	})
	if reduced {
		s.Logger.WarnContext(ctx, "a superuser gets a token without claims other than for administration, because all of them are too many or too long for one", "user", user.ID)
	}
	if err != nil {
		s.noteTooLong(ctx, err, user)
		return Grant{}, fmt.Errorf("login: sign: %w", err)
	}
	s.metrics.issued.WithLabelValues(signer.Algorithm()).Inc()
	return Grant{AccessToken: compact, ExpiresIn: expires.Sub(now), SessionID: sess.ID}, nil
}

// expiry returns when an access token of a session expires that is issued now.
func (s *Service) expiry(sess session.Session, now time.Time) time.Time {
	expires := now.Add(s.TokenDuration)
	if sess.ExpiresAt.Before(expires) {
		expires = sess.ExpiresAt
	}
	return expires
}

// fitting has issue make a token of a user's claims. Those of a superuser may be too long: then
// it is made of the claims for administration alone, which reduced reports. Nobody may lock
// superusers out by what they are given. They can mend it.
func fitting(claims map[string]string, issue func(map[string]string) error) (reduced bool, err error) {
	err = issue(claims)
	if errors.Is(err, token.ErrTooLong) && isSuperuser(claims) {
		return true, issue(map[string]string{directory.Admin: claims[directory.Admin]})
	}
	return false, err
}

// claims returns the claims of an access token.
func (s *Service) claims(user store.User, claims map[string]string, id string, aud []string, sess session.Session, now, expires time.Time) token.Access {
	var verified *bool
	if s.UserInfo.Email != "" && user.Email != "" {
		verified = &user.EmailVerified
	}
	return token.Access{
		Issuer: s.Issuer, Audience: aud, Subject: user.ID, ClientID: token.FirstParty,
		ID: id, SessionID: sess.ID, Epoch: user.Epoch,
		// A resource server whose clock runs behind has to accept the token at once.
		IssuedAt: now, NotBefore: now.Add(-s.ClockSkew), ExpiresAt: expires,
		// A session begins with an authentication, and no renewal is one.
		AuthTime: sess.AuthTime, AMR: sess.AMR, ACR: mfa.Class(sess.AMR),
		EmailVerified: verified, User: s.userInfo(user, claims),
	}
}

// userInfo adds the fields of the user's identity to the user's claims. A claim with the
// name of such a field is left out, also if the field is empty, and also if the name differs
// in case only, because some readers ignore case.
func (s *Service) userInfo(user store.User, claims map[string]string) map[string]string {
	members := maps.Clone(claims)
	if members == nil {
		members = map[string]string{}
	}
	for name, value := range map[string]string{
		s.UserInfo.Username: user.Username,
		s.UserInfo.FullName: fullName(user),
		s.UserInfo.Email:    user.Email,
	} {
		maps.DeleteFunc(members, func(claim, _ string) bool { return strings.EqualFold(claim, name) })
		if value = oneValue(value); name != "" && value != "" {
			members[name] = value
		}
	}
	return members
}

// oneValue removes commas, which separate the values of a claim: a user with the name
// "Ester,root" is not root.
func oneValue(s string) string {
	if !strings.Contains(s, ",") {
		return s
	}
	return strings.Join(strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c == ' ' }), " ")
}

func fullName(u store.User) string {
	switch {
	case u.FirstName == "":
		return u.LastName
	case u.LastName == "":
		return u.FirstName
	}
	return u.FirstName + " " + u.LastName
}

// unavailable turns an error of a store into an answer that says no more than that the
// client can try again. An error that is an answer already is returned as it is.
func unavailable(err error) error {
	var p *problem.Error
	if errors.As(err, &p) {
		return err
	}
	return problem.New(problem.Unavailable, "storage_unavailable", "the storage does not answer at the moment").Because(err)
}
