package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrNotFound: there is no such record.
	ErrNotFound = errors.New("store: not found")
	// ErrConflict: a name or an id is taken.
	ErrConflict = errors.New("store: conflict")
	// ErrStale: the record changed since the caller read it.
	ErrStale = errors.New("store: changed meanwhile")
	// ErrBusy: the database is away, gave no connection in time, or refused for now.
	// Nothing was written. A later attempt may work.
	ErrBusy = errors.New("store: busy")
	// ErrFull: the database has no space for the write. It is an ErrBusy, too.
	ErrFull = fmt.Errorf("%w: no space is left", ErrBusy)
	// ErrReadOnly: the server takes no writes, so that what it answers may be old. It is an
	// ErrBusy, too.
	ErrReadOnly = fmt.Errorf("%w: the server takes no writes", ErrBusy)
)

// A Store is the durable memory of a deployment, shared by all its replicas.
//
// A method of Records that is called on the Store itself is one transaction. When a
// method that writes returns nil, what it wrote is on disk, and every replica reads it
// from then on. When it returns one of this package's errors, nothing was written. After
// any other error, it may or may not have been written.
//
// Times are kept in microseconds (Micros).
type Store interface {
	Records

	// Update runs f in one transaction: two concurrent Updates that read and write the
	// same rows behave as if one came after the other. An error of f rolls everything
	// back. The database may ask for f to run several times, so f may have no other
	// effect than on r.
	Update(ctx context.Context, f func(r Records) error) error

	// Ping returns nil if the database answers and takes writes: the latter is known of a
	// write that has succeeded a moment ago, or of one that Ping makes.
	Ping(ctx context.Context) error

	// Close releases what the store opened. What its maker passed to it stays open.
	Close() error
}

// Records are all operations, inside or outside a transaction.
type Records interface {
	Users
	Marks
	Factors
	Groups
	Claims
	Keys
	Revocations
	Audit
	AuditSeals
	Settings
}

// A Page selects part of a list that is ordered by name: up to Limit records whose name
// key comes after After and, if Prefix is set, starts with Prefix. Both are folded names.
// The cost depends on the number of records that are returned, not on the size of the
// table.
type Page struct {
	After  string // empty: from the start
	Prefix string
	// Descending turns the order round: the last name comes first, and what comes after After
	// are the lower keys.
	Descending bool
	Limit      int
}

// A Grant is a claim that a user holds, and one of the groups through which they hold it.
type Grant struct {
	Claim Claim
	Group Group
}

// A User is a person or a machine that logs in.
type User struct {
	ID       string // UUIDv7, the token's sub; never used again
	Username string // as it was entered
	// NameKey is the username in lower case (RFC 8265 UsernameCaseMapped); unique.
	NameKey string
	Email   string
	// EmailVerified reports whether Email was proven to be the user's.
	EmailVerified bool
	FirstName     string
	LastName      string
	PasswordHash  string // PHC string; empty: no login with a password
	Disabled      bool
	// Epoch is in every token of the user. Revoking "everything until now" raises it,
	// so that such a revocation needs no clock.
	// It is a time in milliseconds since 1970, by the database's clock, except before the
	// user's first login (revocation.View.Floor).
	Epoch int64
	// SessionEpoch is the lowest epoch of a living session. A session that started
	// under a lower epoch has ended, whether or not its record is still there.
	SessionEpoch int64
	CreatedAt    time.Time
	UpdatedAt    time.Time
	Version      int64 // raised by every change; UpdateUser compares it
}

// A Mark is the digest of something by which a user is recognised, such as the e-mail
// address. Who may have which mark is not the store's matter: two users may have the same.
type Mark struct {
	Kind   string
	Digest string
	UserID string // also of a user who is gone
	// Until is zero while the user has it. Then it says until when nobody else gets it.
	Until time.Time
}

// MaxNamed is how many users of one mark UsersNamed returns.
const MaxNamed = 10

// Marks are by what users are recognised.
type Marks interface {
	// MarksOfUser returns the marks that the user has or had, ordered by kind, digest.
	MarksOfUser(ctx context.Context, userID string) ([]Mark, error)
	// TakenMark returns a mark of the kind and digest that another user than userID has,
	// or that is kept for the time after at; ErrNotFound: there is none. A transaction
	// that has found none is the only one that writes such a mark. A user who is gone has
	// no mark, also if the version that deleted the user left it behind.
	TakenMark(ctx context.Context, kind, digest, userID string, at time.Time) (Mark, error)
	// PutMark writes a mark, also over the same user's mark of that kind and digest.
	PutMark(ctx context.Context, m Mark) error
	// DeleteMark returns nil when there is no such mark.
	DeleteMark(ctx context.Context, kind, digest, userID string) error
	// DeleteExpiredMarks removes up to limit marks whose Until is before t.
	DeleteExpiredMarks(ctx context.Context, t time.Time, limit int) (int, error)
	// ClaimsOfMarked returns the claims of all users other than userID who have a mark
	// with the digest, of whatever kind. Each claim is there once, in the order of
	// ClaimsOfUser.
	ClaimsOfMarked(ctx context.Context, digest, userID string) ([]Claim, error)
	// UsersNamed returns the user with the name key, and up to MaxNamed users who have the
	// mark of the kind and digest, in no order. One user may be there twice. Its cost is the
	// same whether there are any.
	UsersNamed(ctx context.Context, nameKey, kind, digest string) ([]User, error)
	// UsersWithoutMark returns up to limit users, ordered by id, with an id after the
	// given one, who have no mark of the kind. It looks at all users.
	UsersWithoutMark(ctx context.Context, kind, after string, limit int) ([]User, error)
}

// HashBegins is how many bytes of a password hash PasswordHashes tells at most: the longest scheme and
// cost have no more ($pbkdf2-sha512$i=2000000$), and a short one is followed by few bytes of the salt.
const HashBegins = 25

// Users are people and machines. A new user has Version 1, whatever the record says; so
// do a new group and a new claim.
type Users interface {
	// CreateUser adds a user. ErrConflict when the id or the name key is taken.
	CreateUser(ctx context.Context, u User) error
	// User by id, or ErrNotFound.
	User(ctx context.Context, id string) (User, error)
	// UsersWithIDs returns those of the users who are there, each once, in the order of their ids.
	UsersWithIDs(ctx context.Context, ids []string) ([]User, error)
	// UserByName by name key, or ErrNotFound.
	UserByName(ctx context.Context, nameKey string) (User, error)
	// Users in the order of their name keys.
	Users(ctx context.Context, p Page) ([]User, error)
	// UpdateUser replaces everything but ID, CreatedAt and the epochs if Version is
	// still u.Version, and raises Version by one. It returns ErrStale otherwise (also
	// when the user is gone), and ErrConflict when the name key is taken.
	UpdateUser(ctx context.Context, u User) error
	// NextEpoch raises the user's epoch to the time in milliseconds since 1970, but by one at
	// least, and returns it, or ErrNotFound. The time makes sure that no history of the
	// database that was lost has had the epoch before. With
	// endSessions, SessionEpoch becomes the new epoch, too, which ends all sessions of
	// the user. Version stays.
	NextEpoch(ctx context.Context, id string, endSessions bool) (int64, error)
	// RaiseEpoch raises the user's epoch to a greater one if it is still the given one, and
	// reports whether it did. With endSessions it does the same to SessionEpoch as NextEpoch.
	// It revokes nothing by itself.
	RaiseEpoch(ctx context.Context, id string, from, to int64, endSessions bool) (bool, error)
	// DeleteUser and its memberships and factors, or ErrNotFound.
	DeleteUser(ctx context.Context, id string) error
	// AddMember and RemoveMember return nil when there is nothing to change. AddMember
	// returns ErrNotFound when the user or the group is missing.
	AddMember(ctx context.Context, userID, groupID string) error
	RemoveMember(ctx context.Context, userID, groupID string) error
	GroupsOfUser(ctx context.Context, userID string) ([]Group, error)
	// GroupsOfUsers returns what GroupsOfUser returns of each of the users who has groups.
	GroupsOfUsers(ctx context.Context, userIDs []string) (map[string][]Group, error)
	// GrantsOfUser returns each claim of ClaimsOfUser once for every group that gives it,
	// ordered by short name, value, claim and the group's name.
	GrantsOfUser(ctx context.Context, userID string) ([]Grant, error)
	MembersOfGroup(ctx context.Context, groupID string, p Page) ([]User, error)
	// ClaimsOfMembers returns the claims of all members of a group, through all groups of
	// theirs, each once, in the order of ClaimsOfUser.
	ClaimsOfMembers(ctx context.Context, groupID string) ([]Claim, error)
	// ClaimsOfUser through all groups, each once, ordered by short name, value.
	ClaimsOfUser(ctx context.Context, userID string) ([]Claim, error)
	// UserWithClaims is User and ClaimsOfUser as of one moment: the claims are never
	// older or newer than the epoch.
	UserWithClaims(ctx context.Context, id string) (User, []Claim, error)
	// AnyoneHolds reports whether an enabled user holds the claim.
	AnyoneHolds(ctx context.Context, shortName, value string) (bool, error)
	// AnyoneHoldsAny reports whether an enabled user holds a claim of the short name,
	// whatever its value.
	AnyoneHoldsAny(ctx context.Context, shortName string) (bool, error)
	// PasswordHashes returns how many users have a password hash that begins so: by its first
	// HashBegins bytes or fewer, of which the scheme and the cost can be read. It looks at all
	// users.
	PasswordHashes(ctx context.Context) (map[string]int64, error)
}

// A Factor is what a user authenticates with besides the password or in its place (package
// mfa), or a way to recover.
type Factor struct {
	ID     string // UUIDv7
	UserID string
	Kind   string // "totp", "backup_codes", "passkey", "recovery": [a-z_]+, 32 characters at most
	// Digest is by what the factor is found, of 128 characters at most; unique for the kind.
	Digest    string
	Data      []byte // sealed (package seal)
	CreatedAt time.Time
	Version   int64 // raised by every change; UpdateFactor compares it
}

// Factors are what users authenticate with besides a password. Each belongs to one user, for
// ever, and is deleted with the user.
//
// What is read of factors in a transaction stays so until the transaction ends: of two
// transactions that read the same factor and then change or delete it, the second one reads
// what the first one has left.
type Factors interface {
	// CreateFactor adds a factor. A new one has Version 1, whatever the record says.
	// ErrNotFound: there is no such user. ErrConflict: the id is taken, or the digest by
	// another factor of the kind, whosever it is; of several concurrent calls with one
	// digest, exactly one succeeds.
	CreateFactor(ctx context.Context, f Factor) error
	// FactorsOfUser returns the user's factors, ordered by ID.
	FactorsOfUser(ctx context.Context, userID string) ([]Factor, error)
	// FactorByDigest returns the factor of the kind with the digest, or ErrNotFound.
	FactorByDigest(ctx context.Context, kind, digest string) (Factor, error)
	// UpdateFactor replaces Data if Version is still f.Version, and raises Version by one.
	// It returns ErrStale otherwise (also when the factor is gone): of several concurrent
	// calls with one version, exactly one succeeds.
	UpdateFactor(ctx context.Context, f Factor) error
	// DeleteFactor returns ErrNotFound if there is no such factor: of several concurrent
	// calls, exactly one succeeds.
	DeleteFactor(ctx context.Context, id string) error
	// Factors returns up to limit factors of all users, ordered by ID, with an ID after the
	// given one.
	Factors(ctx context.Context, after string, limit int) ([]Factor, error)
}

// A Group gives its members its claims.
type Group struct {
	ID        string // UUIDv7
	Name      string
	NameKey   string // as it is compared; unique
	CreatedAt time.Time
	UpdatedAt time.Time
	Version   int64
}

// Groups link users to claims.
type Groups interface {
	CreateGroup(ctx context.Context, g Group) error // ErrConflict
	Group(ctx context.Context, id string) (Group, error)
	GroupByName(ctx context.Context, nameKey string) (Group, error)
	Groups(ctx context.Context, p Page) ([]Group, error)
	UpdateGroup(ctx context.Context, g Group) error // as UpdateUser
	// DeleteGroup and its memberships and links, or ErrNotFound.
	DeleteGroup(ctx context.Context, id string) error
	// AddClaim and RemoveClaim return nil when there is nothing to change. AddClaim
	// returns ErrNotFound when the group or the claim is missing.
	AddClaim(ctx context.Context, groupID, claimID string) error
	RemoveClaim(ctx context.Context, groupID, claimID string) error
	ClaimsOfGroup(ctx context.Context, groupID string) ([]Claim, error)
}

// A Claim is one right: Value under ShortName in the token.
type Claim struct {
	ID        string // UUIDv7
	Name      string
	NameKey   string // as it is compared; unique
	ShortName string // the token's claim name
	Value     string // one value; has no comma
	CreatedAt time.Time
	UpdatedAt time.Time
	Version   int64
}

// Claims are the rights that groups can give to their members.
type Claims interface {
	CreateClaim(ctx context.Context, c Claim) error // ErrConflict
	Claim(ctx context.Context, id string) (Claim, error)
	ClaimByName(ctx context.Context, nameKey string) (Claim, error)
	Claims(ctx context.Context, p Page) ([]Claim, error)
	UpdateClaim(ctx context.Context, c Claim) error // as UpdateUser
	// DeleteClaim and its links, or ErrNotFound.
	DeleteClaim(ctx context.Context, id string) error
	GroupsWithClaim(ctx context.Context, claimID string) ([]Group, error)
}

// A Key is a signing key as the database holds it: its public half and its times. It has
// the private half only when the operator chose stored keys.
type Key struct {
	ID        string // kid
	Instance  string // the replica that generated it
	Algorithm string
	PublicJWK []byte // RFC 7517, JSON
	Sealed    []byte // private half, PKCS #8, sealed (package seal); nil: in memory only
	// The state of a key is a function of its times, so that all readers see the same
	// state at the same moment: it is published from CreatedAt, active from
	// ActivateAt, retiring from RetireAt, and gone after RemoveAt.
	CreatedAt  time.Time
	ActivateAt time.Time
	RetireAt   time.Time
	RemoveAt   time.Time
	RevokedAt  time.Time // zero: it was not revoked
	// MAC is under the cluster's secret, over what the key is and its times: all fields but
	// Sealed, RevokedAt and the other MACs. StateMAC is over RevokedAt as well. SourceMAC is
	// over the same, under a key of where the private half comes from (package keysource).
	// Nil: there is none.
	MAC       []byte
	StateMAC  []byte
	SourceMAC []byte
}

// Keys are the signing keys.
type Keys interface {
	CreateKey(ctx context.Context, k Key) error // ErrConflict: a kid is never used again
	Keys(ctx context.Context) ([]Key, error)    // ordered by CreatedAt, ID
	// UpdateKey replaces everything but ID, or returns ErrNotFound.
	UpdateKey(ctx context.Context, k Key) error
	DeleteKey(ctx context.Context, id string) error
}

// A Revocation is one entry of the revocation log.
type Revocation struct {
	Seq  int64
	Kind string // "jti", "sid", "user", "kid" (package verify/revoked)
	// Subject is the jti, session id, user id or kid.
	Subject string
	// Epoch and IssuedBefore say which tokens of a user are revoked: those with a lower
	// epoch, and those with an earlier iat (zero: none by time).
	Epoch        int64
	IssuedBefore time.Time
	// ExpiresAt is when the last token that the entry concerns has expired, including
	// the leeway. After it the entry means nothing and may be deleted.
	ExpiresAt time.Time
	CreatedAt time.Time
	Actor     string // id of the user who revoked; empty: the system
	Reason    string // a stable word: "logout", "admin", "replay"…
}

// A LogHead identifies a log and its newest entry. ID changes when the database is
// another one. Seq never falls while ID stays, unless a failover or a restored backup
// has lost entries.
type LogHead struct {
	ID  string
	Seq int64
	// Now is the time by the database's clock; zero: it has none of its own.
	Now time.Time
}

// Revocations is the revocation log.
//
// Its promise: sequence numbers start at 1, have no gaps at the time of writing, and
// become visible in their order. A reader that has read up to Seq n and then reads after
// n has missed nothing, however many writers there are and in whatever order their
// transactions began.
type Revocations interface {
	// AppendRevocation gives the entry the next number, which it returns. Inside a
	// transaction it locks the log until the end, so it should be the last step.
	AppendRevocation(ctx context.Context, r Revocation) (seq int64, err error)
	// RevocationsAfter returns up to limit entries with Seq > after, in their order,
	// and the head as of the same moment: with fewer than limit entries, the caller has
	// everything up to that head. Expired entries may be missing.
	RevocationsAfter(ctx context.Context, after int64, limit int) ([]Revocation, LogHead, error)
	// RevocationsBefore returns up to limit entries with Seq < before, the newest first;
	// before 0: from the newest on. It is for people: an entry that is being written
	// meanwhile may be missing before a later one. Its cost depends on limit alone.
	RevocationsBefore(ctx context.Context, before int64, limit int) ([]Revocation, error)
	// DeleteExpiredRevocations removes up to limit entries whose ExpiresAt is before t,
	// but never the last entry of the log: by it readers see whether the log is still
	// the one that they have read. The head stays.
	DeleteExpiredRevocations(ctx context.Context, t time.Time, limit int) (int, error)
	// RenewLog gives the log a new id, if its id is still the given one, so that all
	// readers begin anew. It returns nil if the id is another one.
	RenewLog(ctx context.Context, id string) error
}

// An AuditEvent is one entry of the audit trail: who did what.
type AuditEvent struct {
	ID      string // UUIDv7, whose time is At
	At      time.Time
	Actor   string // user id; empty: the user is unknown
	Action  string // "login", "user.create"…
	Target  string // the id of what the action changed; never a secret
	Outcome string // "ok", "denied", "failed"
	Address string // of the client
	Detail  string // short text; never a secret
}

// An AuditQuery asks for events of the audit trail. An empty field asks for nothing.
type AuditQuery struct {
	// Before and After bound the ids from above and from below; neither bound is
	// included, and neither need be the id of an event. Ids are compared byte by byte.
	Before string
	After  string

	Actor   string
	Action  string
	Target  string
	Outcome string
	Address string

	Limit int
}

// An AuditPage is a part of the audit trail, newest event first.
type AuditPage struct {
	Events []AuditEvent
	// Next is AuditQuery.Before of the next page. Empty: no event is left.
	Next string
}

// AuditScan is how many events one AuditEvents looks at, at most.
const AuditScan = 10_000

// Audit is the trail.
type Audit interface {
	AppendAudit(ctx context.Context, e AuditEvent) error
	// AuditEvents returns the q.Limit events with the highest ids that q asks for, the
	// highest first. It costs what it returns if q names nothing but bounds, and an
	// actor or a target. Any other query looks at the AuditScan events with the highest
	// ids that lie within the bounds, and that are the target's, or the actor's where q
	// names no target: its page may have fewer events than q.Limit, or none, and a Next.
	AuditEvents(ctx context.Context, q AuditQuery) (AuditPage, error)
	// AuditRange returns the limit events with the lowest ids above after and not above
	// upto, the lowest first. Ids are compared byte by byte.
	AuditRange(ctx context.Context, after, upto string, limit int) ([]AuditEvent, error)
	// AuditIDs is AuditRange for the ids alone. It costs much less.
	AuditIDs(ctx context.Context, after, upto string, limit int) ([]string, error)
	DeleteAuditBefore(ctx context.Context, t time.Time, limit int) (int, error)
}

// An AuditSeal says which events the audit trail has, and which seal was before it (package
// audit). The store does not look into it.
type AuditSeal struct {
	Seq     int64 // from 1 on
	Content []byte
	MAC     []byte
}

// AuditSeals are the seals of the audit trail.
type AuditSeals interface {
	// AppendAuditSeal writes a seal. It returns ErrConflict, and changes nothing, if there is
	// one with its number.
	AppendAuditSeal(ctx context.Context, s AuditSeal) error
	// AuditSeals returns the limit seals with the lowest numbers above after, the lowest first.
	AuditSeals(ctx context.Context, after int64, limit int) ([]AuditSeal, error)
	// LastAuditSeal returns the seal with the highest number, or one with the number 0 if there
	// is none, and the time by the database's clock.
	LastAuditSeal(ctx context.Context) (AuditSeal, time.Time, error)
	// PutAuditSealMAC replaces the MAC of a seal, or returns ErrNotFound.
	PutAuditSealMAC(ctx context.Context, seq int64, mac []byte) error
	// DeleteAuditSeals deletes the limit seals with the lowest numbers below a number, and
	// returns how many these were.
	DeleteAuditSeals(ctx context.Context, below int64, limit int) (int, error)
}

// Settings are single values that all replicas share.
type Settings interface {
	// Setting returns the value, or ErrNotFound. A value that is read in a transaction
	// stays until the transaction ends.
	Setting(ctx context.Context, name string) (string, error)
	// PutSetting writes the value.
	PutSetting(ctx context.Context, name, value string) error
	// CreateSetting writes the value if there is none. It returns the value that is
	// there afterwards, whichever replica wrote it.
	CreateSetting(ctx context.Context, name, value string) (string, error)
}

// A Replica is what one replica of a cluster says about itself. Its MAC covers all fields
// but BeatAt.
type Replica struct {
	Instance    string // cluster.instance_id, which begins its kids
	Incarnation string // made anew at each start
	URL         string // where other replicas reach it; empty: they cannot
	Version     string // of the binary
	Config      string // digest of the settings that replicas share
	// MaxAge is how long a key set that it has served may be used.
	MaxAge    time.Duration
	StartedAt time.Time // by its own clock
	ClockAt   time.Time // its own clock when it last wrote
	Seen      int64     // the newest version of the registry that it has read
	// Secrets are the kids of the signing secrets that it accepts, and once more in front that
	// of the one that it signs with; they contain no spaces.
	Secrets []string
	// EnteredAt is its first BeatAt. Zero: it has not read that yet, or has had no secrets.
	EnteredAt time.Time
	MAC       []byte
	BeatAt    time.Time // when it last wrote, by the database's clock, which sets it
}

// A RegisteredKey is a signing key with the version of the registry that brought it.
type RegisteredKey struct {
	Key
	Version int64
}

// Registered is the content of the registry in Version: all keys that were made up to
// that version, and none that was made later.
type Registered struct {
	Version  int64
	Now      time.Time // by the database's clock
	Replicas []Replica // ordered by Instance
	Keys     []RegisteredKey
	Stop     Stop
}

// A Stop says since when all replicas had stopped, if all of Registered.Replicas are silent that
// have not started since. It holds until a key changes, or a replica enters while another one is
// live.
type Stop struct {
	// CachesEnd is when the last cache ends of a key set that a replica has served before they
	// stopped, by the database's clock. Zero: that is not known.
	CachesEnd time.Time
	Started   []string // the incarnations that have entered since
}

// A Registry is where the replicas of a cluster find each other and each other's public
// keys. A store for a cluster implements it in addition to Store; the same rules about
// errors hold.
//
// Each change of Keys, and each replica that enters or leaves, raises the version of the
// registry in the same transaction. A beat does not.
type Registry interface {
	// RegistryVersion reads one row.
	RegistryVersion(ctx context.Context) (int64, error)
	// Registered reads everything, as of one moment.
	Registered(ctx context.Context) (Registered, error)
	// EnterRegistry writes the replica's row. If another incarnation's row is there,
	// and that incarnation wrote it less than within ago, EnterRegistry returns that row
	// and ErrConflict. If within is zero, it replaces the row in any case.
	EnterRegistry(ctx context.Context, r Replica, within time.Duration) (Replica, error)
	// Beat replaces the replica's row and its BeatAt. It returns ErrStale if the row is
	// gone or another incarnation's. With news, it rings the bell, because other
	// replicas wait for what the row says.
	Beat(ctx context.Context, r Replica, news bool) error
	// LeaveRegistry deletes the row of this incarnation, which ends now. It returns nil if
	// there is none. If it was the last live one, that is a Stop.
	LeaveRegistry(ctx context.Context, instance, incarnation string) error
	// ForgetReplica deletes the row of another incarnation that has ended. It returns nil if
	// there is none.
	ForgetReplica(ctx context.Context, instance, incarnation string) error
}

// The notifications (NOTIFY) that a store on PostgreSQL sends on BellChannel, in the
// transaction that makes the news. Package bell hears them.
const (
	BellChannel     = "watchword"
	BellRegistry    = "registry"
	BellRevocations = "revocations"
)
