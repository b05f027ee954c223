package store

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrNotFound: there is no such record.
	ErrNotFound = errors.New("store: not found")
	// ErrConflict: a name or an id is taken.
	ErrConflict = errors.New("store: conflict")
	// ErrStale: the record changed since the caller read it.
	ErrStale = errors.New("store: changed meanwhile")
	// ErrBusy: no connection could be had in time, or the database kept asking to
	// try again. Nothing was written; trying later may work.
	ErrBusy = errors.New("store: busy")
)

// A Store is the durable memory of a deployment, shared by all its replicas.
//
// A method of Records called on the Store itself is one transaction. When a
// method that writes returns nil, what it wrote is on disk and every replica
// reads it from then on. When it returns one of this package's errors, nothing
// was written. When it returns any other error, it may or may not have been.
type Store interface {
	Records

	// Update runs f in one serializable-enough transaction: two concurrent
	// Updates that read and write the same rows behave as if one came after the
	// other. f's error rolls everything back. f may be run several times, when
	// the database asks for it, so it may have no other effect than on r.
	Update(ctx context.Context, f func(r Records) error) error

	// Ping asks whether the database answers.
	Ping(ctx context.Context) error

	// Close releases what the store opened. What it was given stays open.
	Close() error
}

// Records are all operations, inside a transaction or outside.
type Records interface {
	Users
	Groups
	Claims
	Keys
	Revocations
	Audit
	Settings
}

// A Page asks for part of a list that is ordered by name: up to Limit records
// whose name key comes after After, and, if Prefix is set, starts with it. Both
// are folded names. It costs what it returns, not what the table holds.
type Page struct {
	After  string
	Prefix string
	Limit  int
}

// A User is a person or a machine that logs in.
type User struct {
	ID       string // UUIDv7, the token's sub; never used again
	Username string // as it was given
	// NameKey is the username as it is compared (RFC 8265 UsernameCaseMapped);
	// unique.
	NameKey      string
	Email        string
	FirstName    string
	LastName     string
	PasswordHash string // PHC string; empty: no login by password
	Disabled     bool
	// Epoch is carried by every token of the user; a revocation of "everything
	// until now" raises it, so that it needs no clock.
	Epoch int64
	// SessionEpoch is the epoch from which sessions count: one that was started
	// under a lower epoch has ended, whether or not its record is still there.
	SessionEpoch int64
	CreatedAt    time.Time
	UpdatedAt    time.Time
	Version      int64 // raised by every change; what UpdateUser compares
}

// Users are the people. What is created has Version 1, whatever the record says;
// it is the same for groups and claims.
type Users interface {
	// CreateUser adds a user. ErrConflict when the id or the name key is taken.
	CreateUser(ctx context.Context, u User) error
	// User by id, or ErrNotFound.
	User(ctx context.Context, id string) (User, error)
	// UserByName by name key, or ErrNotFound.
	UserByName(ctx context.Context, nameKey string) (User, error)
	// Users in the order of their name keys.
	Users(ctx context.Context, p Page) ([]User, error)
	// UpdateUser replaces everything but ID, CreatedAt and the epochs if Version
	// is still u.Version, and raises Version by one. ErrStale otherwise (also when
	// the user is gone), ErrConflict when the name key is taken.
	UpdateUser(ctx context.Context, u User) error
	// NextEpoch raises the user's epoch by one and returns it, or ErrNotFound.
	// With endSessions, SessionEpoch becomes the new epoch too: whoever is signed
	// in has to log in again. It does not touch Version.
	NextEpoch(ctx context.Context, id string, endSessions bool) (int64, error)
	// DeleteUser and its memberships, or ErrNotFound.
	DeleteUser(ctx context.Context, id string) error
	// Memberships: AddMember and RemoveMember are no error when it is so already;
	// AddMember gives ErrNotFound when the user or the group is missing.
	AddMember(ctx context.Context, userID, groupID string) error
	RemoveMember(ctx context.Context, userID, groupID string) error
	GroupsOfUser(ctx context.Context, userID string) ([]Group, error)
	MembersOfGroup(ctx context.Context, groupID string, p Page) ([]User, error)
	// ClaimsOfUser through all groups, each once, ordered by short name, value.
	ClaimsOfUser(ctx context.Context, userID string) ([]Claim, error)
	// UserWithClaims is User and ClaimsOfUser as of one moment, so that the claims
	// are never older or newer than the epoch that comes with them.
	UserWithClaims(ctx context.Context, id string) (User, []Claim, error)
	// AnyoneHolds says whether an enabled user holds the claim.
	AnyoneHolds(ctx context.Context, shortName, value string) (bool, error)
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

// Groups stand between users and claims.
type Groups interface {
	CreateGroup(ctx context.Context, g Group) error // ErrConflict
	Group(ctx context.Context, id string) (Group, error)
	GroupByName(ctx context.Context, nameKey string) (Group, error)
	Groups(ctx context.Context, p Page) ([]Group, error)
	UpdateGroup(ctx context.Context, g Group) error // as UpdateUser
	// DeleteGroup and its memberships and links, or ErrNotFound.
	DeleteGroup(ctx context.Context, id string) error
	// AddClaim and RemoveClaim are no error when it is so already; AddClaim gives
	// ErrNotFound when the group or the claim is missing.
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

// Claims are what groups can give.
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

// A Key is a signing key as the database knows it: its public half and its life.
// The private half is there only when the operator chose stored keys.
type Key struct {
	ID        string // kid
	Instance  string // who generated it
	Algorithm string
	PublicJWK []byte // RFC 7517, JSON
	Sealed    []byte // private half, PKCS #8, sealed (package seal); nil: in memory only
	// The life of a key is told by times, so that every reader sees the same
	// state at the same moment: published from CreatedAt, active from ActivateAt,
	// retiring from RetireAt, gone after RemoveAt.
	CreatedAt  time.Time
	ActivateAt time.Time
	RetireAt   time.Time
	RemoveAt   time.Time
	RevokedAt  time.Time // zero: it was not
	// MAC is of whoever made the key, over all but Sealed and RevokedAt; nil: none.
	MAC []byte
}

// Keys are the signing keys.
type Keys interface {
	CreateKey(ctx context.Context, k Key) error // ErrConflict: a kid is never used again
	Keys(ctx context.Context) ([]Key, error)    // ordered by CreatedAt, ID
	// UpdateKey replaces Sealed, the times and the MAC of the key, or ErrNotFound.
	UpdateKey(ctx context.Context, k Key) error
	DeleteKey(ctx context.Context, id string) error
}

// A Revocation is one line of the log of what was taken back.
type Revocation struct {
	Seq  int64
	Kind string // "jti", "sid", "user", "kid" (package verify/revoked)
	// Subject is the jti, session id, user id or kid.
	Subject string
	// Epoch and IssuedBefore say which tokens of a user: those with a lower
	// epoch, and those with an earlier iat (zero: none by time).
	Epoch        int64
	IssuedBefore time.Time
	// ExpiresAt is when the last token that it concerns has expired, leeway
	// included. After it the line means nothing and may be deleted.
	ExpiresAt time.Time
	CreatedAt time.Time
	Actor     string // user id of who did it; empty: the system
	Reason    string // a stable word: "logout", "admin", "replay"…
}

// A LogHead says which log it is and how far it has come. ID changes when the
// database is another one; Seq never falls while it is the same, unless a failover
// or a restored backup has lost lines.
type LogHead struct {
	ID  string
	Seq int64
	// Now is the time by the database's clock; zero: it has none of its own.
	Now time.Time
}

// Revocations is the log of what was taken back.
//
// Its promise: sequence numbers start at 1, have no gaps at the time of writing,
// and become visible in their order. Whoever has read up to Seq n, and then
// reads after n, has missed nothing, however many writers there are and in
// whatever order their transactions began.
type Revocations interface {
	// AppendRevocation gives the line the next number, which it returns. Inside a
	// transaction it holds the log until the end, so let it be the last step.
	AppendRevocation(ctx context.Context, r Revocation) (seq int64, err error)
	// RevocationsAfter returns up to limit lines with Seq > after in their order,
	// and the head as it was in the same moment: when fewer than limit lines come
	// back, the caller has everything up to that head. Lines that expired before
	// now may be missing.
	RevocationsAfter(ctx context.Context, after int64, limit int) ([]Revocation, LogHead, error)
	// DeleteExpiredRevocations removes up to limit lines whose ExpiresAt is
	// before t, but not the last line of the log: by it readers see whether it is
	// still the log that they have read. The head stays.
	DeleteExpiredRevocations(ctx context.Context, t time.Time, limit int) (int, error)
	// RenewLog gives the log another id, which it never had, if its id is still this
	// one, so that everybody reads it anew. If it is not, that is no error.
	RenewLog(ctx context.Context, id string) error
}

// An AuditEvent is one entry of the audit trail: who did what.
type AuditEvent struct {
	ID      string // UUIDv7, whose time is At
	At      time.Time
	Actor   string // user id; empty: nobody was known
	Action  string // "login", "user.create"…
	Target  string // what it was done to: an id; never a secret
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
	DeleteAuditBefore(ctx context.Context, t time.Time, limit int) (int, error)
}

// Settings are single values that all replicas share.
type Settings interface {
	// Setting, or ErrNotFound. Read in a transaction, a value that is there stays
	// until the transaction ends.
	Setting(ctx context.Context, name string) (string, error)
	// PutSetting writes it.
	PutSetting(ctx context.Context, name, value string) error
	// CreateSetting writes it if it is not there; the value that is there now,
	// whoever wrote it, comes back.
	CreateSetting(ctx context.Context, name, value string) (string, error)
}

// A Replica is one process of a cluster, as it says of itself. Its MAC covers all
// but BeatAt.
type Replica struct {
	Instance    string // cluster.instance_id, which begins its kids
	Incarnation string // made anew at each start
	URL         string // where other replicas reach it; empty: nowhere
	Version     string // of the binary
	Config      string // digest of the settings that replicas share
	// MaxAge is how long a key set that it served may be used.
	MaxAge    time.Duration
	StartedAt time.Time // by its own clock
	ClockAt   time.Time // its own clock when it last wrote
	Seen      int64     // the version of the registry that it has taken in
	MAC       []byte
	BeatAt    time.Time // when it last wrote, by the database's clock; the database sets it
}

// A RegisteredKey is a signing key with the version of the registry in which it
// was made.
type RegisteredKey struct {
	Key
	Version int64
}

// Registered is what the registry holds in Version: all keys that were made up to
// it, and none that was made later.
type Registered struct {
	Version  int64
	Now      time.Time // by the database's clock
	Replicas []Replica // ordered by Instance
	Keys     []RegisteredKey
}

// A Registry is where the replicas of a cluster find each other and each other's
// public keys. A store that has one implements it beside Store; the same rules
// about errors hold.
//
// Its version is raised, in the same transaction, by each change of Keys and by a
// replica that enters or leaves; not by a beat.
type Registry interface {
	// RegistryVersion costs one row.
	RegistryVersion(ctx context.Context) (int64, error)
	// Registered reads everything, as of one moment.
	Registered(ctx context.Context) (Registered, error)
	// EnterRegistry writes the replica's row. If there is one of another
	// incarnation that has written within the last while, the answer is that row
	// and ErrConflict. A while of zero takes its place, whatever it says.
	EnterRegistry(ctx context.Context, r Replica, within time.Duration) (Replica, error)
	// Beat replaces what the replica says of itself, and its BeatAt, or ErrStale if
	// the row is gone or another incarnation's. With news, others wait for it.
	Beat(ctx context.Context, r Replica, news bool) error
	// LeaveRegistry deletes the row of this incarnation; none is no error.
	LeaveRegistry(ctx context.Context, instance, incarnation string) error
}

// What a store that can notify (NOTIFY on PostgreSQL) says on BellChannel, in the
// transaction that makes the news. Package bell listens.
const (
	BellChannel     = "watchword"
	BellRegistry    = "registry"
	BellRevocations = "revocations"
)
