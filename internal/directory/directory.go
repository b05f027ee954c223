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
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/revoked"
)

var (
	// ErrInvalidCredentials: whatever it was about username and password, nobody
	// is told more.
	ErrInvalidCredentials = problem.New(problem.Unauthenticated, "invalid_credentials", "the username or the password is wrong")
	// ErrPermissionMissing: the actor lacks the claim for what he asked.
	ErrPermissionMissing = problem.New(problem.Denied, "permission_missing", "your account may not do this")
	// ErrBeyondOwnRights: something that would be changed holds, or would give, a
	// right that the actor does not hold himself.
	ErrBeyondOwnRights = problem.New(problem.Denied, "beyond_own_rights", "this touches rights that your own account does not hold")
	// ErrLastAdministrator: nobody could administer this deployment any more.
	ErrLastAdministrator = problem.New(problem.Conflict, "last_administrator", "this would leave no enabled administrator; make another one first")
	// ErrTooManyAffected: more than MaxAffected users would lose a right at once.
	ErrTooManyAffected = problem.New(problem.Conflict, "too_many_affected",
		"this takes rights from more than %d users at once; remove members in smaller steps first", MaxAffected)
	// ErrClaimsTooLarge: a token has no room for so many claims. Those whom a claim
	// reaches through several groups may still come to hold more together; their
	// login then says so.
	ErrClaimsTooLarge = problem.New(problem.Invalid, "claims_too_large",
		"all claims together would have more than %d bytes, for which a token has no room", MaxClaims)
	// ErrChangedMeanwhile: somebody else changed the same thing at the same moment.
	ErrChangedMeanwhile = problem.New(problem.Conflict, "changed_meanwhile", "somebody else changed this at the same moment; read it again")

	errBusy        = problem.New(problem.Unavailable, "database_busy", "the database is too busy at this moment; try again").After(time.Second)
	errUnavailable = problem.New(problem.Unavailable, "database_unavailable", "the database cannot be asked at this moment; try again").After(time.Second)
)

// MaxAffected bounds the users from whom one change of a group or claim may take
// rights. They are taken back in one transaction, during which no other
// revocation can be written, so that it has to end within seconds: about one for
// SQLite, two for PostgreSQL beside it, eight if that is a millisecond away.
const MaxAffected = 2000

// MaxClaims bounds all claims of a user or a group, in bytes as JSON in a token.
const MaxClaims = 4096

// An Auditor writes down who did what (package audit).
type Auditor interface {
	// Record writes an event that stands by itself.
	Record(ctx context.Context, e store.AuditEvent)
	// RecordIn writes an event that happens only if the transaction does.
	RecordIn(ctx context.Context, r store.Records, e store.AuditEvent) error
	// Log says in the log what RecordIn wrote, once the transaction is committed.
	Log(ctx context.Context, e store.AuditEvent)
}

// A Revoker is the log of what was taken back (package revocation).
type Revoker interface {
	// Append adds lines inside a transaction, which are kept for as long as a token
	// of now may be accepted anywhere, and returns the last one's number.
	Append(ctx context.Context, r store.Records, lines ...store.Revocation) (seq int64, err error)
	// Settle is called after the transaction, with its highest number.
	Settle(ctx context.Context, seq int64) error
}

// A Hasher computes the hashes of passwords (package password).
type Hasher interface {
	Hash(ctx context.Context, prepared string) (phc string, err error)
	Verify(ctx context.Context, prepared, phc string) (bool, error)
	Outdated(phc string) bool
}

// Config is what a Service needs.
type Config struct {
	Store       store.Store
	Hasher      Hasher
	Audit       Auditor
	Revocations Revoker
	// OnEnded is told of users whose sessions have all ended, so that their records
	// can go at once. It is a courtesy: the user's SessionEpoch has ended them.
	// Nil: nobody is told.
	OnEnded func(ctx context.Context, userID string) error
	Now     func() time.Time
	Rand    io.Reader
	Logger  *slog.Logger
}

// A Service is the use cases of this package. It may be used by any number of
// goroutines.
type Service struct{ Config }

// New makes a Service.
func New(c Config) *Service { return &Service{c} }

// An Actor is who asks for something. What he may do is read from the store in
// the transaction that does it, not from his token.
type Actor struct {
	ID      string // user id
	Address string // of the client; for the audit trail
	system  bool
}

// System is the operator at the command line and the node itself: he holds
// everything.
func System() Actor { return Actor{system: true} }

// Authorize says whether the actor holds the permission: nil, or
// ErrPermissionMissing.
func (s *Service) Authorize(ctx context.Context, actor Actor, permission string) error {
	_, err := authorize(ctx, s.Store, actor, permission)
	return fault(err)
}

// AuthorizeOn returns the user, named by id or username, if the actor holds the
// permission and may use it on him: also ErrBeyondOwnRights when the user is
// stronger than the actor.
func (s *Service) AuthorizeOn(ctx context.Context, actor Actor, permission, user string) (store.User, error) {
	own, err := authorize(ctx, s.Store, actor, permission)
	if err != nil {
		return store.User{}, fault(err)
	}
	u, err := findUser(ctx, s.Store, user)
	if err != nil {
		return store.User{}, fault(err)
	}
	return shown(u), fault(within(ctx, own, s.Store.ClaimsOfUser, u.ID))
}

// authorize returns the rights of an actor who holds the permission.
func authorize(ctx context.Context, r store.Records, actor Actor, permission string) (Rights, error) {
	if actor.system {
		return RightsOf([]store.Claim{{ShortName: Admin, Value: Superuser}}), nil
	}
	user, err := r.User(ctx, actor.ID)
	if errors.Is(err, store.ErrNotFound) || (err == nil && user.Disabled) {
		return Rights{}, ErrPermissionMissing
	}
	if err != nil {
		return Rights{}, err
	}
	claims, err := r.ClaimsOfUser(ctx, actor.ID)
	if err != nil {
		return Rights{}, err
	}
	own := RightsOf(claims)
	if !own.Can(permission) {
		return Rights{}, ErrPermissionMissing
	}
	return own, nil
}

// within is the rule that nobody touches what is stronger than himself: the
// claims of a user or group, which of returns, lie within one's own.
func within(ctx context.Context, own Rights, of func(context.Context, string) ([]store.Claim, error), id string) error {
	if own.Superuser() {
		return nil
	}
	claims, err := of(ctx, id)
	if err != nil {
		return err
	}
	if !own.Include(RightsOf(claims)) {
		return ErrBeyondOwnRights
	}
	return nil
}

// small is the rule that what somebody holds fits into a token.
func small(ctx context.Context, of func(context.Context, string) ([]store.Claim, error), id string) error {
	claims, err := of(ctx, id)
	if err != nil {
		return err
	}
	text, err := json.Marshal(joined(claims))
	if err == nil && len(text) > MaxClaims {
		err = ErrClaimsTooLarge
	}
	return err
}

// errNothing ends a change that finds everything as it should be.
var errNothing = errors.New("nothing to change")

// A change is one use case inside its transaction. It may be thrown away and done
// again, so it is all that a use case may write to.
type change struct {
	s     *Service
	r     store.Records
	actor Actor
	own   Rights
	now   time.Time
	// taken are the users who lost something, once each; the revocations come last
	// because writing one holds the log.
	taken       map[string]bool // whether the sessions ended
	revocations []store.Revocation
	events      []store.AuditEvent // that are written in the transaction
}

// change runs f in one transaction in the name of the actor, who needs the
// permission, and does what belongs to every change: nobody is left without an
// administrator, what was taken back is in the log, and who was refused is in the
// audit trail.
func (s *Service) change(ctx context.Context, actor Actor, permission, action, target string, f func(c *change) error) error {
	var done *change
	var seq int64 // of the last revocation
	err := s.Store.Update(ctx, func(r store.Records) error {
		own, err := authorize(ctx, r, actor, permission)
		if err != nil {
			return err
		}
		// As the store keeps times, so that an answer says what later ones say.
		now := s.Now().Truncate(time.Microsecond)
		c := &change{s: s, r: r, actor: actor, own: own, now: now, taken: map[string]bool{}}
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

// ended tells of the sessions that a change ended.
func (s *Service) ended(ctx context.Context, c *change) {
	if s.OnEnded == nil {
		return
	}
	for id, all := range c.taken {
		if !all {
			continue
		}
		if err := s.OnEnded(ctx, id); err != nil {
			s.Logger.WarnContext(ctx, "sessions have ended, but their records are still there", "user", id, "error", err)
		}
	}
}

// denied notes who was refused.
func (s *Service) denied(ctx context.Context, actor Actor, action, target string, err error) {
	if p := problem.From(err); p.Kind == problem.Denied {
		s.Audit.Record(ctx, store.AuditEvent{
			Actor: actor.ID, Action: action, Target: target, Outcome: audit.Denied, Address: actor.Address, Detail: p.Code,
		})
	}
}

// note writes the event of something done.
func (c *change) note(ctx context.Context, action, target, format string, args ...any) error {
	e := store.AuditEvent{
		Actor: c.actor.ID, Action: action, Target: target, Outcome: audit.OK, Address: c.actor.Address, Detail: fmt.Sprintf(format, args...),
	}
	c.events = append(c.events, e)
	return c.s.Audit.RecordIn(ctx, c.r, e)
}

// take makes every token of the user that was issued until now worthless, and
// with end his sessions too. To be called while the user is still there.
func (c *change) take(ctx context.Context, userID string, end bool, reason string) error {
	if _, ok := c.taken[userID]; ok {
		return nil
	}
	if len(c.taken) == MaxAffected {
		return ErrTooManyAffected
	}
	epoch, err := c.r.NextEpoch(ctx, userID, end)
	if err != nil {
		return err
	}
	c.taken[userID] = end
	c.revocations = append(c.revocations, store.Revocation{
		Kind: string(revoked.User), Subject: userID, Epoch: epoch,
		CreatedAt: c.now, Actor: c.actor.ID, Reason: reason,
	})
	return nil
}

// takeFromMembers is take for all members of a group, none of whom may be
// stronger than the actor.
func (c *change) takeFromMembers(ctx context.Context, groupID, reason string) error {
	page := store.Page{Limit: MaxPage}
	for {
		members, err := c.r.MembersOfGroup(ctx, groupID, page)
		if err != nil {
			return err
		}
		for _, m := range members {
			if err := within(ctx, c.own, c.r.ClaimsOfUser, m.ID); err != nil {
				return err
			}
			if err := c.take(ctx, m.ID, false, reason); err != nil {
				return err
			}
		}
		if len(members) < page.Limit {
			return nil
		}
		page.After = members[len(members)-1].NameKey
	}
}

// newID makes an id that is never used again.
func (s *Service) newID() (string, error) {
	id, err := uuid.NewV7FromReader(s.Rand)
	if err != nil {
		return "", fmt.Errorf("directory: id: %w", err)
	}
	return id.String(), nil
}

// fault gives every error of the store a face for the client.
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
