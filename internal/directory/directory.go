package directory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

var (
	// ErrInvalidCredentials: the username or the password is wrong, or the user may not
	// log in. The answer is always the same, so that it reveals nothing.
	ErrInvalidCredentials = problem.New(problem.Unauthenticated, "invalid_credentials", "the username or the password is wrong")
	// ErrPermissionMissing: the actor lacks the permission for what was asked.
	ErrPermissionMissing = problem.New(problem.Denied, "permission_missing", "your account may not do this")
	// ErrNotAnAdministrator: the actor has no permission of administration.
	ErrNotAnAdministrator = problem.New(problem.Denied, "not_an_administrator", "your account has no right of administration")
	// ErrBeyondOwnRights: an object of the change holds, or would give, a right that the
	// actor does not hold.
	ErrBeyondOwnRights = problem.New(problem.Denied, "beyond_own_rights", "this touches rights that your own account does not hold")
	// ErrLastAdministrator: the change would leave nobody who can administer this
	// deployment.
	ErrLastAdministrator = problem.New(problem.Conflict, "last_administrator", "this would leave no enabled administrator; make another one first")
	// ErrTooManyAffected: more than MaxAffected users would lose a right at once.
	ErrTooManyAffected = problem.New(problem.Conflict, "too_many_affected",
		"this takes rights from more than %d users at once; remove members in smaller steps first", MaxAffected)
	// ErrClaimsTooLarge: a token of a user whom the change concerns would have no room for
	// so many claims.
	ErrClaimsTooLarge = problem.New(problem.Invalid, "claims_too_large",
		"all claims of a user together would have more than %d bytes, for which a token has no room", MaxClaims)
	// ErrTooManyMembers: the claims of more than MaxAffected members would have to be
	// measured one after the other. That is so only if the claims of all groups that any
	// of them is in would not fit into a token together.
	ErrTooManyMembers = problem.New(problem.Conflict, "too_many_members",
		"the group has more than %d members, and their other groups give so many claims that each member's would have to be measured; use a smaller group", MaxAffected)
	// ErrChangedMeanwhile: another change of the same object came first.
	ErrChangedMeanwhile = problem.New(problem.Conflict, "changed_meanwhile", "somebody else changed this at the same moment; read it again")

	errBusy        = problem.New(problem.Unavailable, "database_busy", "the database is too busy at this moment; try again").After(time.Second)
	errUnavailable = problem.New(problem.Unavailable, "database_unavailable", "the database cannot be asked at this moment; try again").After(time.Second)
)

// MaxAffected bounds the users whose tokens one change of a group or claim may revoke.
// All of them are revoked in one transaction. No other revocation can be written
// meanwhile, so it has to end within seconds. It takes about one second on SQLite, two on
// a PostgreSQL on the same machine, and eight on one that is a millisecond away.
const MaxAffected = 2000

// MaxClaims bounds all claims of a user or a group, in bytes as JSON in a token.
const MaxClaims = 4096

// An Auditor records who did what, and shows it (package audit).
type Auditor interface {
	// Record writes an event that belongs to no transaction.
	Record(ctx context.Context, e store.AuditEvent)
	// RecordIn writes an event in a transaction: it is kept if the transaction is.
	RecordIn(ctx context.Context, r store.Records, e store.AuditEvent) error
	// Log writes to the process's log what RecordIn wrote, after the commit.
	Log(ctx context.Context, e store.AuditEvent)
	// Page returns the newest events that q asks for.
	Page(ctx context.Context, q audit.Query) (audit.Page, error)
	// Follow calls do for the events since a time, the earliest first, and with forever set for
	// those that come.
	Follow(ctx context.Context, since time.Time, forever bool, do func([]store.AuditEvent) error) error
	// ChainStatus returns what this replica knows of the seals.
	ChainStatus() audit.Status
}

// A Revoker is the revocation log (package revocation).
type Revoker interface {
	// Append adds entries inside a transaction and returns the last one's number. They are
	// kept for as long as a token that is issued now may be accepted anywhere.
	Append(ctx context.Context, r store.Records, lines ...store.Revocation) (seq int64, err error)
	// Settle is called after the transaction, with its highest number.
	Settle(ctx context.Context, seq int64) error
	// Expiry returns when every token has expired that was issued until now.
	Expiry(ctx context.Context, r store.Records) (time.Time, error)
}

// A Hasher computes the hashes of passwords (package password).
type Hasher interface {
	Hash(ctx context.Context, prepared string) (phc string, err error)
	// HashNow is Hash for what can be done later: password.ErrNoWorker, instead of waiting for a worker.
	HashNow(ctx context.Context, prepared string) (phc string, err error)
	Verify(ctx context.Context, prepared, phc string) (bool, error)
	Outdated(phc string) bool
	// Pretend says what a name that nobody has should cost.
	Pretend(c password.Census)
}

// Config is what a Service needs.
type Config struct {
	Store       store.Store
	Hasher      Hasher
	Audit       Auditor
	Revocations Revoker
	// State has the progress of imports; nil: nothing can be imported.
	State state.Store
	// OnEnded is called for each user whose sessions have all ended, so that their records
	// can be deleted at once. It may fail: the user's SessionEpoch has ended the sessions.
	// It may be nil.
	OnEnded func(ctx context.Context, userID string) error
	// Limits counts the passwords that are presented.
	Limits *limit.Limiter
	// FreshFor is how long after an authentication its tokens may change something.
	FreshFor time.Duration
	Now      func() time.Time
	Rand     io.Reader
	Logger   *slog.Logger
}

// A Service has the use cases of this package. It may be used by any number of
// goroutines.
type Service struct{ Config }

// New makes a Service.
func New(c Config) *Service { return &Service{c} }

// Authorize returns nil if the actor holds the permission and may use it with the token
// that they have: ErrWrongAudience, ErrPermissionMissing, or ErrReauthenticate.
func (s *Service) Authorize(ctx context.Context, actor Actor, permission string) error {
	_, err := s.authorize(ctx, s.Store, actor, permission)
	return fault(err)
}

// MayReadKeys authorizes the holder of a token for KeysRead (cluster.Rights).
func (s *Service) MayReadKeys(ctx context.Context, by *accesstoken.Token, address string) error {
	return s.Authorize(ctx, Holder(by, address), KeysRead)
}

// AuthorizeOn returns the user, named by id or username, if the actor holds the
// permission and may use it on the user. ErrBeyondOwnRights: the user holds a right that
// the actor does not hold.
func (s *Service) AuthorizeOn(ctx context.Context, actor Actor, permission, user string) (store.User, error) {
	rights, err := s.authorize(ctx, s.Store, actor, permission)
	if err != nil {
		return store.User{}, fault(err)
	}
	u, err := findUser(ctx, s.Store, user)
	if err != nil {
		return store.User{}, fault(err)
	}
	return withoutHash(u), fault(within(ctx, rights, s.Store.ClaimsOfUser, u.ID))
}

// authorize returns the rights of an actor who may use the permission. Every use case that
// needs one comes here, so that none forgets what the actor's token is good for.
func (s *Service) authorize(ctx context.Context, r store.Records, actor Actor, permission string) (Rights, error) {
	_, rights, err := s.standing(ctx, r, actor)
	if err != nil || actor.system {
		return rights, err
	}
	if permission != own && permission != ownFresh && !rights.Can(permission) {
		return Rights{}, ErrPermissionMissing
	}
	if changes(permission) && s.Now().Sub(actor.AuthTime) > s.FreshFor {
		return Rights{}, ErrReauthenticate.Within(s.FreshFor)
	}
	return rights, nil
}

// standing returns the actor as a user, and the actor's rights. ErrPermissionMissing: there is
// no such user, or no enabled one.
func (s *Service) standing(ctx context.Context, r store.Records, actor Actor) (store.User, Rights, error) {
	if actor.system {
		return store.User{}, RightsOf([]store.Claim{{ShortName: Admin, Value: Superuser}}), nil
	}
	if err := actor.atHome(); err != nil {
		return store.User{}, Rights{}, err
	}
	user, err := r.User(ctx, actor.ID)
	if errors.Is(err, store.ErrNotFound) || (err == nil && user.Disabled) {
		return store.User{}, Rights{}, ErrPermissionMissing
	}
	if err != nil {
		return store.User{}, Rights{}, err
	}
	claims, err := r.ClaimsOfUser(ctx, actor.ID)
	if err != nil {
		return store.User{}, Rights{}, err
	}
	return user, RightsOf(claims), nil
}

// own stands in the place of a permission for what actors may do with what is their own, and
// ownFresh for what they may do after a fresh login. Neither is a value that the claim admin can
// have.
const (
	own      = "own"
	ownFresh = "own:fresh"
)

// within is the rule that an actor only touches what holds no right beyond the actor's
// own: the claims of the user or group, as claimsOf returns them, must lie within rights.
func within(ctx context.Context, rights Rights, claimsOf func(context.Context, string) ([]store.Claim, error), id string) error {
	if rights.Superuser() {
		return nil
	}
	claims, err := claimsOf(ctx, id)
	if err != nil {
		return err
	}
	if !rights.Include(RightsOf(claims)) {
		return ErrBeyondOwnRights
	}
	return nil
}

// fitToken is the rule that the claims of a user or group, as claimsOf returns them, fit
// into a token.
func fitToken(ctx context.Context, claimsOf func(context.Context, string) ([]store.Claim, error), id string) error {
	claims, err := claimsOf(ctx, id)
	if err == nil && !fit(claims) {
		err = ErrClaimsTooLarge
	}
	return err
}

// fit reports whether a token has room for the claims.
func fit(claims []store.Claim) bool {
	text, err := json.Marshal(joined(claims))
	return err == nil && len(text) <= MaxClaims
}

// errNothing ends a change that has nothing to do. The use case then succeeds.
var errNothing = errors.New("nothing to change")

// A change is one use case inside its transaction. The transaction may be run again with
// a new change, so a use case may write to nothing else.
type change struct {
	s      *Service
	r      store.Records
	actor  Actor
	rights Rights // of the actor
	now    time.Time
	// revoked has the users whose tokens the change revokes, and whether it ends their
	// sessions too. The entries for the log are written at the end of the transaction:
	// from the first one on, no other transaction can write to the log.
	revoked     map[string]bool
	revocations []store.Revocation
	events      []store.AuditEvent // that were written in the transaction
}

// change runs f in one transaction in the name of the actor, who needs the permission. It
// does what belongs to every change:
//
//   - A change that would leave no administrator is refused.
//   - Revocations are in the log when it returns.
//   - Refusals are in the audit trail.
func (s *Service) change(ctx context.Context, actor Actor, permission, action, target string, f func(c *change) error) error {
	var done *change
	var seq int64 // of the last revocation
	err := s.Store.Update(ctx, func(r store.Records) error {
		rights, err := s.authorize(ctx, r, actor, permission)
		if err != nil {
			return err
		}
		// The store keeps microseconds, and this answer has to say what later ones say.
		now := s.Now().Truncate(time.Microsecond)
		c := &change{s: s, r: r, actor: actor, rights: rights, now: now, revoked: map[string]bool{}}
		administered, err := r.AnyoneHolds(ctx, Admin, Superuser)
		if err != nil {
			return err
		}
		if err := f(c); err != nil {
			return err
		}
		if administered {
			if still, err := r.AnyoneHolds(ctx, Admin, Superuser); err != nil {
				return err
			} else if !still {
				return ErrLastAdministrator
			}
		}
		done, seq = c, 0
		if len(c.revocations) > 0 {
			seq, err = s.Revocations.Append(ctx, r, c.revocations...)
		}
		return err
	})
	switch {
	case errors.Is(err, errNothing):
		return nil
	case err != nil:
		err = fault(err)
		s.denied(ctx, actor, action, target, err)
		return err
	}
	for _, e := range done.events {
		s.Audit.Log(ctx, e)
	}
	s.ended(ctx, done)
	if seq == 0 {
		return nil
	}
	return s.Revocations.Settle(ctx, seq)
}

// ended calls OnEnded for the users whose sessions a change ended.
func (s *Service) ended(ctx context.Context, c *change) {
	if s.OnEnded == nil {
		return
	}
	for id, all := range c.revoked {
		if !all {
			continue
		}
		if err := s.OnEnded(ctx, id); err != nil {
			s.Logger.WarnContext(ctx, "sessions have ended, but their records are still there", "user", id, "err", err)
		}
	}
}

// denied records a refusal in the audit trail.
func (s *Service) denied(ctx context.Context, actor Actor, action, target string, err error) {
	if p := problem.From(err); p.Kind == problem.Denied || p.Kind == problem.Unauthenticated {
		s.Audit.Record(ctx, store.AuditEvent{
			Actor: actor.ID, Action: action, Target: target, Outcome: audit.Denied, Address: actor.Address, Detail: p.Code,
		})
	}
}

// note writes the event of what the change does.
func (c *change) note(ctx context.Context, action, target, format string, args ...any) error {
	e := store.AuditEvent{
		Actor: c.actor.ID, Action: action, Target: target, Outcome: audit.OK, Address: c.actor.Address, Detail: fmt.Sprintf(format, args...),
	}
	c.events = append(c.events, e)
	return c.s.Audit.RecordIn(ctx, c.r, e)
}

// revoke revokes every token of the user that was issued until now, and ends the user's
// sessions if end is true. It must be called while the user exists.
func (c *change) revoke(ctx context.Context, userID string, end bool, reason string) error {
	if _, ok := c.revoked[userID]; ok {
		return nil
	}
	if len(c.revoked) == MaxAffected {
		return ErrTooManyAffected
	}
	epoch, err := c.r.NextEpoch(ctx, userID, end)
	if err != nil {
		return err
	}
	c.revoked[userID] = end
	c.revocations = append(c.revocations, store.Revocation{
		Kind: string(revoked.User), Subject: userID, Epoch: epoch,
		CreatedAt: c.now, Actor: c.actor.ID, Reason: reason,
	})
	return nil
}

// revokeMembers is revoke for all members of a group, without ending their sessions.
func (c *change) revokeMembers(ctx context.Context, groupID, reason string) error {
	return c.eachMember(ctx, groupID, func(u store.User) error { return c.revoke(ctx, u.ID, false, reason) })
}

// eachMember calls f for the members of a group until it returns an error.
func (c *change) eachMember(ctx context.Context, groupID string, f func(store.User) error) error {
	page := store.Page{Limit: MaxPage}
	for {
		members, err := c.r.MembersOfGroup(ctx, groupID, page)
		if err != nil {
			return err
		}
		for _, m := range members {
			if err := f(m); err != nil {
				return err
			}
		}
		if len(members) < page.Limit {
			return nil
		}
		page.After = members[len(members)-1].NameKey
	}
}

// newID makes an id that nothing else ever has.
func (s *Service) newID() (string, error) {
	id, err := uuid.NewV7FromReader(s.Rand)
	if err != nil {
		return "", fmt.Errorf("directory: id: %w", err)
	}
	return id.String(), nil
}

// fault makes of every error of the store one that a client may read.
func fault(err error) error {
	var p *problem.Error
	switch {
	case err == nil || errors.As(err, &p):
		return err
	case errors.Is(err, store.ErrStale), errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrConflict):
		return ErrChangedMeanwhile.Because(err)
	case errors.Is(err, store.ErrBusy):
		return errBusy.Because(err)
	default:
		return errUnavailable.Because(err)
	}
}
