package session

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
)

// Kind is the kind of the session records in package state.
const Kind = "session"

var (
	// ErrInvalid: the refresh token names no live session, or was never ours.
	ErrInvalid = problem.New(problem.Unauthenticated, "invalid_refresh_token", "the refresh token is not valid; log in again")
	// ErrReplayed: the refresh token was spent longer ago than the grace period, and a
	// successor of it has been used; or it is a successor that was not used when another
	// one of the same token was. So two parties hold tokens of the family (RFC 9700
	// §4.14.2), and the session that comes with the error must be ended.
	ErrReplayed = problem.New(problem.Unauthenticated, "refresh_token_replayed", "the refresh token was used before; the session has been ended, log in again")
	// ErrEnded comes with a session that was stopped, whose access tokens have still to
	// be revoked.
	ErrEnded = errors.New("session: it has been stopped, but its tokens are not revoked yet")
	// ErrTooFast: more renewals in one grace period than anybody needs.
	ErrTooFast = problem.New(problem.TooMany, "renewing_too_fast", "this session renews too often")
)

const (
	// maxRecent bounds how many spent refresh tokens a record remembers.
	maxRecent = 64
	// maxOthers bounds how many unused successors a record remembers besides the newest.
	// There is one more with each grace period in which a client asks again.
	maxOthers = 16
	// slowAnswer is how much later than a rotation its answer may be sent, or a tenth of
	// the grace period if that is shorter. Otherwise the rotation is dated anew.
	slowAnswer = time.Second
	// maxRaces bounds how often a renewal that met another one is tried again. The
	// loser finds its token spent just now and is answered from the record. More than
	// a few rounds mean that something else is wrong.
	maxRaces = 16
	// minLife is what must be left of a session for a renewal to be of use: tokens
	// count whole seconds.
	minLife = time.Second
	// MaxSessions is how many sessions a user may have where there is no other bound.
	// Without one a single user could keep the replica busy. The bound is applied in
	// one of boundEvery sign-ins, because that costs reading them all.
	MaxSessions = 10000
	boundEvery  = 64
	// boundStep is how many sessions one sign-in ends at most, and how many beyond the
	// bound it reads. After the bound was lowered there may be many: later sign-ins end
	// the rest.
	boundStep = 100
	// eachPage is how many sessions Each reads at once.
	eachPage = 200
	// cleanUpTimeout is how long undoing a sign-in may take, whatever the caller has left.
	cleanUpTimeout = 5 * time.Second
	// maxUserAgent bounds what is kept of a client's description, in bytes.
	maxUserAgent = 256
)

// A Session is one sign-in of one user.
type Session struct {
	// ID is the token's sid. It names the session and opens nothing.
	ID     string `json:"id"`
	UserID string `json:"user_id"`
	// Epoch is the user's epoch at sign-in (store.User.SessionEpoch).
	Epoch     int64     `json:"epoch"`
	CreatedAt time.Time `json:"created_at"`
	// RenewedAt is when the session was renewed last. For a browser's it is the last use that
	// was noted (Used).
	RenewedAt time.Time `json:"renewed_at"`
	// ExpiresAt is the absolute end; no renewal moves it.
	ExpiresAt time.Time `json:"expires_at"`
	// AuthTime is when the user authenticated last: at sign-in, or later (Reauthenticated).
	// In a record without it, which a former version wrote, it is CreatedAt.
	AuthTime time.Time `json:"auth_time,omitzero"`
	// AMR are the methods by which the user has authenticated in this session (RFC 8176),
	// sorted. Empty: a former version wrote the record, and they are not known.
	AMR []string `json:"amr,omitempty"`
	// Remembered: no second factor was asked for, since the user had presented one on the
	// device before (mfa.remember_device).
	Remembered bool   `json:"remembered,omitempty"`
	Address    string `json:"address"`    // of the client at sign-in
	UserAgent  string `json:"user_agent"` // of the client at sign-in
	// Audience is the one that its access tokens are for; empty: the default one.
	Audience string `json:"audience,omitempty"`
	// Browser: its holder has a cookie. Otherwise they have a refresh token.
	Browser bool `json:"browser,omitempty"`
	// CookieID names the browser's present cookie, and opens nothing.
	CookieID string `json:"cookie_id,omitempty"`
	// Turn orders a user's sessions, because replicas' clocks differ by seconds: it is
	// greater than that of every session that the user had when this one began. Zero
	// without MaxPerUser.
	Turn int64 `json:"turn,omitempty"`
	// Ended: the session cannot be renewed any more. Its record stays until it is
	// certain that its access tokens are revoked.
	Ended bool `json:"ended,omitempty"`
	// Unreadable: another version, or something else, has written the record. Nothing
	// is known of the session but ID and UserID. It may be live, and counts as the
	// oldest.
	Unreadable bool `json:"-"`
}

// record is what package state keeps: the session and its family of refresh
// tokens, or its cookie, of which only hashes are kept.
type record struct {
	Session
	Family  []byte `json:"family"`  // hash of the family's part of the token
	Current []byte `json:"current"` // hash of the newest refresh token, which is not spent
	// Others are the hashes of the earlier successors of the token that was spent last: its
	// holder asked again after the grace period, when none of them had been used.
	Others [][]byte `json:"others,omitempty"`
	// Recent are the tokens that were spent within the grace period, and the one that was
	// spent last, however long ago.
	Recent []rotation `json:"recent,omitempty"`
	// Cookie is the hash of a browser's cookie, and Former that of the one before it.
	Cookie []byte `json:"cookie,omitempty"`
	Former []byte `json:"former_cookie,omitempty"`
}

// A rotation remembers a refresh token that was spent. With the salt, and the spent token
// itself, its newest successor can be made again; without the token, the record gives
// nothing away.
type rotation struct {
	Spent []byte    `json:"spent"`
	Salt  []byte    `json:"salt"`
	At    time.Time `json:"at"` // when the newest successor was made
}

// Config is what a Store needs.
type Config struct {
	State state.Store
	// TTL is the absolute life of a session.
	TTL time.Duration
	// Idle ends a session that was not renewed, or a browser's that was not used, for so long;
	// zero: never.
	Idle time.Duration
	// RefreshDuration is how long a refresh token, or a browser's cookie, may wait for its use.
	RefreshDuration time.Duration
	// RenewGrace is how long a spent refresh token still gives the same successor.
	RenewGrace time.Duration
	// MaxPerUser ends a user's oldest sessions beyond it; zero: no bound but
	// MaxSessions.
	MaxPerUser int
	// Revoked reports whether a session is known to be revoked, though its record
	// may still be there; nil: none is.
	Revoked func(id string) bool
	// Clear reports whether this replica's view of the revocation log is fresh and
	// lists neither the session nor an epoch of its user that is later than the
	// session's; nil: of no session, so that no copy of a record is used.
	Clear      func(Session) bool
	Now        func() time.Time
	Rand       io.Reader
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
}

// Store starts, renews, lists and ends sessions. It knows of outages while Run runs.
type Store struct {
	Config
	metrics metrics
	logged  loggedKeys
	outages outages
}

// New returns a Store.
func New(c Config) *Store { return &Store{Config: c, metrics: newMetrics(c.Registerer)} }

// Start begins a session and returns it with its first refresh token. Sessions
// of the user beyond MaxPerUser or MaxSessions are stopped, the oldest first. They
// are returned, together with those that were stopped before, because their tokens
// have still to be revoked. Before anything is written, issue is called with the session,
// whose Audience, AuthTime, AMR and Remembered it may set; nil: nothing is called. Its error leaves
// everything as it was.
func (s *Store) Start(ctx context.Context, userID string, epoch int64, address, userAgent string, issue func(*Session) error) (Session, string, []Session, error) {
	return s.begin(ctx, userID, epoch, address, userAgent, issue, s.giveFamily)
}

// giveFamily gives a record its family of refresh tokens, and returns the first one.
func (s *Store) giveFamily(rec *record) (string, error) {
	refresh, err := newRefreshToken(s.Rand, rec.UserID, rec.ID)
	if err != nil {
		return "", err
	}
	rec.Family, rec.Current = hash(refresh.family[:]), hash(refresh.secret[:])
	return refresh.String(), nil
}

// begin begins a session. give gives its record a secret, which it returns for the client.
func (s *Store) begin(
	ctx context.Context, userID string, epoch int64, address, userAgent string, issue func(*Session) error, give func(*record) (string, error),
) (Session, string, []Session, error) {
	now := s.Now()
	id, err := newID(now, s.Rand)
	if err != nil {
		return Session{}, "", nil, fmt.Errorf("session: id: %w", err)
	}
	rec := record{Session: Session{
		ID: id.String(), UserID: userID, Epoch: epoch,
		CreatedAt: now, RenewedAt: now, ExpiresAt: now.Add(s.TTL), AuthTime: now,
		Address: address, UserAgent: clip(userAgent, maxUserAgent),
	}}
	if issue != nil {
		if err := issue(&rec.Session); err != nil {
			return Session{}, "", nil, err
		}
	}
	if rec.Turn, err = s.nextTurn(ctx, userID); err != nil {
		return Session{}, "", nil, err
	}
	secret, err := give(&rec)
	if err != nil {
		return Session{}, "", nil, err
	}

	value, err := json.Marshal(rec)
	if err != nil {
		return Session{}, "", nil, fmt.Errorf("session: encode: %w", err)
	}
	if _, err := s.State.Create(ctx, key(userID, rec.ID), value, s.life(rec, now)); err != nil {
		return Session{}, "", nil, fmt.Errorf("session: start: %w", err)
	}
	ended, err := s.stopOldest(ctx, userID, id)
	if err != nil {
		s.Undo(ctx, userID, rec.ID)
		return Session{}, "", nil, err
	}
	s.metrics.begun.Inc()
	return rec.Session, secret, ended, nil
}

// Undo deletes a session whose refresh token or cookie was given to nobody, also when ctx has
// ended. If that fails, the session counts until it expires.
func (s *Store) Undo(ctx context.Context, userID, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	_ = s.End(ctx, userID, id)
}

// Renew spends a refresh token and returns its session and its successor. The same token
// gives the same successor, on whichever replica, until the grace period is over. That
// begins when the successor is returned, ends by when the token is presented, and does not
// run while this replica cannot reach the state. After it the token gives a new successor,
// as long as none has been used. Of several the one that is used first is good.
//
// ErrReplayed and ErrEnded come with the session that has to be ended. may is called before
// the token is spent, perhaps several times; its error leaves everything as it was. A
// session that ends meanwhile is not renewed, whatever may returned. After any other error
// the token may or may not be spent, and can be presented again.
func (s *Store) Renew(ctx context.Context, presented string, may func(context.Context, Session) error) (Session, string, error) {
	asked := s.Now()
	token, err := parseRefreshToken(presented)
	if err != nil {
		return Session{}, "", ErrInvalid
	}
	k := key(token.userID(), token.sessionID())
	for range maxRaces {
		stored, err := s.State.Get(ctx, k)
		if errors.Is(err, state.ErrNotFound) {
			return Session{}, "", ErrInvalid
		}
		if err != nil && !errors.Is(err, state.ErrUnreadable) {
			return Session{}, "", fmt.Errorf("session: renew: %w", err)
		}
		rec, ok := s.read(ctx, k, stored, err)
		if !ok {
			return Session{}, "", ErrInvalid
		}
		next, changed, err := s.rotate(&rec, token, asked)
		if err != nil {
			return rec.Session, "", err
		}
		if err := may(ctx, rec.Session); err != nil {
			return rec.Session, "", err
		}
		if !changed {
			return rec.Session, next.String(), nil
		}
		err = s.write(ctx, k, stored.Version, rec)
		if errors.Is(err, state.ErrChanged) {
			continue // another renewal, or a logout, was first: look again
		}
		if err != nil {
			return Session{}, "", fmt.Errorf("session: renew: %w", err)
		}
		return rec.Session, next.String(), nil
	}
	return Session{}, "", ErrTooFast
}

// write replaces a record by one with a new rotation. If that takes long, the rotation is
// dated anew, once, so that other callers with the same token have the whole grace period
// from the answer on.
func (s *Store) write(ctx context.Context, k state.Key, version int64, rec record) error {
	for {
		value, err := json.Marshal(rec)
		if err != nil {
			return fmt.Errorf("session: encode: %w", err)
		}
		last := &rec.Recent[len(rec.Recent)-1]
		version, err = s.State.Swap(ctx, k, version, value, s.life(rec, last.At))
		now := s.Now()
		inTime := s.RenewGrace == 0 || now.Sub(last.At) <= min(slowAnswer, s.RenewGrace/10)
		if err != nil || inTime || !last.At.Equal(rec.RenewedAt) {
			return err
		}
		last.At = now
	}
}

// rotate decides what a token is worth to a record that is presented at a time. One that is
// not spent is spent, and changes the record. The one that was spent last gives its newest
// successor again, or after the grace period another one, which changes the record. An
// earlier one gives its successor again for the grace period. Everything else is refused.
func (s *Store) rotate(rec *record, token refreshToken, asked time.Time) (next refreshToken, changed bool, err error) {
	now := s.Now()
	if rec.ExpiresAt.Sub(now) < minLife || !equal(rec.Family, hash(token.family[:])) {
		return refreshToken{}, false, ErrInvalid
	}
	if rec.Ended {
		return refreshToken{}, false, ErrEnded
	}
	presented := hash(token.secret[:])
	isPresented := func(h []byte) bool { return equal(h, presented) }
	recent := func(r rotation) bool { return s.inGrace(r.At, asked, now) }
	if isPresented(rec.Current) || slices.ContainsFunc(rec.Others, isPresented) {
		rec.Recent = slices.DeleteFunc(rec.Recent, func(r rotation) bool { return !recent(r) })
		if len(rec.Recent) >= maxRecent {
			return refreshToken{}, false, ErrTooFast.After(s.RenewGrace)
		}
		rec.Recent = append(rec.Recent, rotation{Spent: presented})
		rec.Others = nil
	} else {
		i := slices.IndexFunc(rec.Recent, func(r rotation) bool { return isPresented(r.Spent) })
		if i >= 0 && recent(rec.Recent[i]) {
			return token.successor(rec.Recent[i].Salt), false, nil
		}
		if i < 0 || i < len(rec.Recent)-1 {
			return refreshToken{}, false, ErrReplayed
		}
		rec.Others = append(rec.Others[max(0, len(rec.Others)+1-maxOthers):], rec.Current)
	}
	salt := make([]byte, 32)
	if _, err := io.ReadFull(s.Rand, salt); err != nil {
		return refreshToken{}, false, fmt.Errorf("session: salt: %w", err)
	}
	next = token.successor(salt)
	rec.Current = hash(next.secret[:])
	last := &rec.Recent[len(rec.Recent)-1]
	last.Salt, last.At = salt, now
	rec.RenewedAt = now
	return next, true, nil
}

// inGrace reports whether a token that is presented at a time was spent within the grace
// period. A caller who has waited may have been asked before it was spent; and replicas'
// clocks differ a little, so that it may seem to be spent in the time to come.
func (s *Store) inGrace(spent, asked, now time.Time) bool {
	age := max(asked.Sub(spent), spent.Sub(now), 0)
	return age-s.outages.between(spent, asked) < s.RenewGrace
}

// OfFamily returns the session of whose family a refresh token is, spent or not, ended or
// not. It returns ErrInvalid for what is no refresh token, and where the record cannot be read.
// If there is no such session, or the token is not of its family, it returns
// state.ErrNotFound with the ids that the token claims.
func (s *Store) OfFamily(ctx context.Context, refreshToken string) (Session, error) {
	token, err := parseRefreshToken(refreshToken)
	if err != nil {
		return Session{}, ErrInvalid
	}
	k := key(token.userID(), token.sessionID())
	claimed := Session{ID: k.ID, UserID: k.Owner}
	stored, err := s.State.Get(ctx, k)
	if errors.Is(err, state.ErrNotFound) {
		return claimed, err
	}
	if err != nil && !errors.Is(err, state.ErrUnreadable) {
		return Session{}, fmt.Errorf("session: of a refresh token: %w", err)
	}
	rec, ok := s.read(ctx, k, stored, err)
	if !ok {
		return Session{}, ErrInvalid
	}
	if !equal(rec.Family, hash(token.family[:])) {
		return claimed, state.ErrNotFound
	}
	return rec.Session, nil
}

// Get returns one session of a user, ended or not, unreadable or not, or
// state.ErrNotFound.
func (s *Store) Get(ctx context.Context, userID, id string) (Session, error) {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return Session{}, state.ErrNotFound
	}
	k := key(userID, parsed.String())
	stored, err := s.State.Get(ctx, k)
	if err != nil && !errors.Is(err, state.ErrUnreadable) {
		return Session{}, err
	}
	rec, _ := s.read(ctx, k, stored, err)
	return rec.Session, nil
}

// List returns a page of a user's sessions, the newest first, and where the next page
// begins, "" after the last. limit is at least 1 and below state.MaxPage; after is "" or
// what the page before has returned. Sessions that have ended, and whose tokens are not revoked
// yet, are among them, and those whose records cannot be read.
//
// Sessions that a version without newID has begun come after all others, in no order but
// within a page.
func (s *Store) List(ctx context.Context, userID, after string, limit int) (page []Session, next string, err error) {
	stored, err := s.State.List(ctx, Kind, userID, after, limit+1)
	if errors.Is(err, state.ErrInvalid) {
		return nil, "", problem.New(problem.Invalid, "invalid_cursor", "this is not where a page ended").Because(err)
	}
	if err != nil {
		return nil, "", fmt.Errorf("session: list: %w", err)
	}
	if len(stored) > limit {
		stored = stored[:limit]
		next = stored[limit-1].Key.ID
	}
	page = make([]Session, 0, len(stored))
	for _, r := range stored {
		rec, _ := s.read(ctx, r.Key, r, nil)
		page = append(page, rec.Session)
	}
	slices.SortFunc(page, newestFirst)
	return page, next, nil
}

// newestFirst is the order of a list. Two sessions that began at the same moment have
// an order, too.
func newestFirst(a, b Session) int {
	return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(a.ID, b.ID))
}

// Each calls f with all sessions of a user, some at a time, until f returns an error. f
// may end them.
func (s *Store) Each(ctx context.Context, userID string, f func([]Session) error) error {
	for after := ""; ; {
		page, next, err := s.List(ctx, userID, after, eachPage)
		if err != nil {
			return err
		}
		if err := f(page); err != nil || next == "" {
			return err
		}
		after = next
	}
}

// newest returns at most n of a user's sessions, the newest first.
func (s *Store) newest(ctx context.Context, userID string, n int) ([]Session, error) {
	var all []Session
	for after := ""; len(all) < n; {
		page, next, err := s.List(ctx, userID, after, min(n-len(all), state.MaxPage-1))
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if next == "" {
			break
		}
		after = next
	}
	slices.SortFunc(all, newestFirst)
	return all, nil
}

// idEnd is until when the ids of newID are in order: 2109. They come before 99 of 100 of
// the random ids of former versions.
var idEnd = time.UnixMilli(1 << 42)

// newID returns the id of a session that begins now: a UUIDv8 (RFC 9562 §5.8) that begins
// with the time left until idEnd, 48 bits of milliseconds and 12 of their fraction, before
// 62 random bits. So the order in which package state lists records has the newest session
// first.
func newID(now time.Time, rand io.Reader) (uuid.UUID, error) {
	id, err := uuid.NewRandomFromReader(rand)
	left := max(0, idEnd.Sub(now))
	fraction := uint16(left % time.Millisecond * 4096 / time.Millisecond)
	binary.BigEndian.PutUint64(id[:8], uint64(left/time.Millisecond)<<16)
	binary.BigEndian.PutUint16(id[6:8], 8<<12|fraction)
	return id, err
}

// Stop ends a session: it cannot be renewed any more. The record stays until End, so
// that a second attempt to end the session finds it. A session that does not exist is
// no error.
func (s *Store) Stop(ctx context.Context, userID, id string) error {
	k := key(userID, id)
	for { // renewals may be first, but no more than maxRecent in a grace period
		stored, err := s.State.Get(ctx, k)
		if errors.Is(err, state.ErrNotFound) {
			return nil
		}
		if err != nil && !errors.Is(err, state.ErrUnreadable) {
			return fmt.Errorf("session: stop: %w", err)
		}
		rec, ok := s.read(ctx, k, stored, err)
		if rec.Ended {
			return nil
		}
		if !ok { // its tokens may live for as long as any
			rec.ExpiresAt = s.Now().Add(s.TTL)
		}
		life := rec.ExpiresAt.Sub(s.Now())
		if life < state.MinTTL { // it has expired, and so have its tokens
			return s.End(ctx, userID, id)
		}
		// Without the hashes a replica that does not know Ended renews nothing either.
		rec.Ended, rec.Current, rec.Others, rec.Recent = true, nil, nil, nil
		rec.Cookie, rec.Former = nil, rec.Cookie // it is still good to end the session
		value, err := json.Marshal(rec)
		if err != nil {
			return fmt.Errorf("session: encode: %w", err)
		}
		if ok {
			_, err = s.State.Swap(ctx, k, stored.Version, value, life)
		} else { // there may be no version to compare, and nothing of it to lose
			_, err = s.State.Put(ctx, k, value, life)
		}
		if errors.Is(err, state.ErrChanged) {
			continue
		}
		if err != nil {
			return fmt.Errorf("session: stop: %w", err)
		}
		return nil
	}
}

// End deletes a session's record. That there is none is no error. Revoking its access
// tokens is the caller's part.
func (s *Store) End(ctx context.Context, userID, id string) error {
	if err := s.State.Delete(ctx, key(userID, id)); err != nil {
		return fmt.Errorf("session: end: %w", err)
	}
	return nil
}

// EndAll ends every session of a user.
func (s *Store) EndAll(ctx context.Context, userID string) error {
	n, err := s.State.DeleteOwned(ctx, Kind, userID)
	s.metrics.endedTogether.Add(float64(n))
	if err != nil {
		return fmt.Errorf("session: end all: %w", err)
	}
	return nil
}

// nextTurn is the turn of a session that begins.
func (s *Store) nextTurn(ctx context.Context, userID string) (turn int64, err error) {
	if s.MaxPerUser == 0 {
		return 0, nil
	}
	sessions, err := s.newest(ctx, userID, s.MaxPerUser+boundStep)
	for _, one := range sessions {
		turn = max(turn, one.Turn)
	}
	return turn + 1, err
}

// stopOldest reads the user's sessions after the new one was written, so that of two
// sign-ins at the same moment at least one sees both. All replicas agree on which are
// the oldest of those that are read, which are all unless the bound was lowered.
func (s *Store) stopOldest(ctx context.Context, userID string, started uuid.UUID) ([]Session, error) {
	limit := s.MaxPerUser
	if limit == 0 {
		if started[15]%boundEvery != 0 { // a random byte
			return nil, nil
		}
		limit = MaxSessions
	}
	sessions, err := s.newest(ctx, userID, limit+boundStep)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(sessions, func(a, b Session) int { return cmp.Compare(b.Turn, a.Turn) })
	live := 0
	beyond := slices.DeleteFunc(sessions, func(one Session) bool { // the newest first
		if one.Ended || s.Revoked != nil && s.Revoked(one.ID) {
			return false
		}
		live++
		return live <= limit
	})
	beyond = beyond[max(0, len(beyond)-boundStep):]
	for _, old := range beyond {
		if old.Ended { // by a sign-in that could not finish it
			continue
		}
		if err := s.Stop(ctx, userID, old.ID); err != nil {
			return nil, err
		}
	}
	return beyond, nil
}

// life is how long the record may lie unused: until the absolute end, but no
// longer than its refresh token or its cookie may wait.
func (s *Store) life(rec record, now time.Time) time.Duration {
	return min(rec.ExpiresAt.Sub(now), s.unused())
}

// unused is how long a session may lie unused.
func (s *Store) unused() time.Duration {
	if s.Idle > 0 {
		return min(s.RefreshDuration, s.Idle)
	}
	return s.RefreshDuration
}

func key(userID, id string) state.Key {
	return state.Key{Kind: Kind, Owner: userID, ID: id}
}
