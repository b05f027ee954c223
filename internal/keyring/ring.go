package keyring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/poll"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/internal/trace"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// ErrNoSigningKey: no key may sign now. Tokens signed with another key would be refused
// by some verifiers.
var ErrNoSigningKey = problem.New(problem.Unavailable, "no_signing_key",
	"this server has no key that it may sign with at the moment")

var errNoNewKey = problem.New(problem.Unavailable, "no_signing_key",
	"every signing key that is there was used before or is revoked; the operator has to make another one").Because(keysource.ErrNoNewKey)

// Store is what a Ring needs of package store.
type Store interface {
	store.Keys
	store.Settings
	Update(ctx context.Context, f func(r store.Records) error) error
}

// Config is what a Ring is made of. All of it is required, but Algorithms and Revoked.
type Config struct {
	Source keysource.Source
	// Algorithms are those of new keys, of accesstoken.Algorithms. The ring holds a key for each;
	// the first one signs. None: the ring makes no keys.
	Algorithms    []string
	KeyDuration   time.Duration // how long a key is active
	PublishAhead  time.Duration // how long a key that follows another is published before it signs, MaxAge at least
	TokenDuration time.Duration // how long a token lives at most
	Leeway        time.Duration // by which verifiers accept a token after its exp
	MaxAge        time.Duration // of the served key set (Cache-Control)
	InstanceID    string        // prefix of the kids made here, if the Source's keys are not shared
	Store         Store
	Peers         Peers // Alone, or the cluster
	// Revoked are the keys that were seen revoked. Nil: none were.
	Revoked    *Tombstones
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Peers are the other replicas, as a ring sees them.
type Peers interface {
	Voucher
	// Have reports whether every other replica has served the key for as long as a
	// cache may keep a key set.
	Have(kid string) bool
	// Patience is how long Have may stay false beyond that time.
	Patience() time.Duration
	// AnyKey reports whether there is a key, of whichever replica, that a cache may hold and
	// that was made after the given moment, or whether a cache may hold a key set that a replica
	// serves without any key, since it signs with a secret.
	AnyKey(after time.Time) bool
	// Stopped is the moment since which no replica had served a key set when this one started.
	// It is zero if another one was running, or if that is not known.
	Stopped() time.Time
	// Changed is called when keys came, went or were revoked. It does not block.
	Changed()
}

// A Ring holds the keys of this replica. Signer, Public and Key may be called by
// any number of goroutines; they take no lock and never wait.
//
// What it promises at every moment after Open:
//
//   - At most one key signs for each of Config.Algorithms. Of the ring's keys for the same
//     algorithm, at most one is published and does not sign yet, unless a clock was put back.
//   - One key signs, with these exceptions. The store has been away for a tenth of
//     KeyDuration longer than until the rotation that was due, or what was written meanwhile
//     is not ripe since it became known here. The first key is not ripe
//     yet (see Open). A clock was put back; then no key may sign for as long as a key
//     ripens.
//   - No key signs before every replica has published it for MaxAge, and a key that follows
//     another for PublishAhead. The exceptions are the very first key, if no cache can hold
//     another one, and the key that replaces a revoked one: one that, by its times, was the last
//     that came to sign. A key that Open finds in the store counts as published since it was made.
//   - A token that lives for TokenDuration at most expires, Leeway included, before its
//     key leaves the key set.
//   - A key is neither used nor published before it is known to be in the store.
//   - A removed key does not come back, and no other key gets its kid. The exception is a key of
//     a Keeper: while there is no other one, it goes on, also if its time ended because the store was
//     away or nobody ran. Then every token that it signed before has expired. By a clock
//     that was put back a key may not have been removed yet; then it is there again after a
//     restart, and one of a Keeper without.
//   - A key that has come to sign stays if its row is lost, for example because an older
//     backup was restored. Its row is written again.
//   - What the store says about a key counts only if a process with the same Source wrote it.
//     The exception is that the key is revoked. A key that was seen revoked stays revoked,
//     whatever the store says later.
type Ring struct {
	cfg     Config
	policy  policy
	metrics *metrics
	view    atomic.Pointer[view]
	bell    poll.Bell // wakes Run

	mu     sync.Mutex // guards everything below; held across a whole Refresh
	opened bool       // Open has returned
	held   map[string]*held
	gone   map[string]bool // kids removed here whose row is not yet deleted
	// unconfirmed are keys that were made here and are not known to be in the store, by
	// algorithm: the transaction may have failed, or may have been done all the same.
	unconfirmed map[string]*fresh
	used        map[string]bool      // kids that the store knows and has no row of
	missing     map[string]bool      // kids whose source does not have the key any more
	noNewKey    map[string]bool      // by algorithm: no key is left, and the source had no other one at the last attempt
	noneUntil   map[string]time.Time // by algorithm: the source had no other key, and is asked again then
	replaces    time.Time            // keys made before that may be of an algorithm that is no longer wanted
	// rejected are the rows that were counted and logged because they are not believed.
	rejected map[string]bool
}

// view is what callers see; it never changes.
type view struct {
	keys      *accesstoken.KeySet
	published []PublicKey
	signing   map[string]turn // by algorithm; without those for which no key may sign
	retryAt   time.Time       // when there may be a signer, if there is none
	noNewKey  bool            // there is none until the source has another key
}

// A turn is a key that signs, until it stops.
type turn struct {
	signer *token.Signer
	until  time.Time
}

// held is a key with its private half.
type held struct {
	row    store.Key
	signer *token.Signer
	since  time.Time // when it was first published here; zero: it was not
	until  time.Time // stop signing then, whatever row says; zero: row decides
	end    time.Time // the latest end of the key, whatever row says
	lost   bool      // row is no longer in the store
	barred bool      // row cannot be written there again
}

// Open loads the keys there are, makes what is missing, and returns a Ring that
// signs and publishes. Its keys stay as they are until Run.
//
// A process that keeps its keys in memory, and joins or restarts, can sign with none of
// the keys in the store. If verifiers may have some of those in a cache, the process's
// first key must be known everywhere before it signs. For MaxAge and a little more,
// Signer returns ErrNoSigningKey, and the replica is not ready.
//
// It is an error if the Source does not open a key that it should; then nothing is changed.
func Open(ctx context.Context, cfg Config) (*Ring, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	r := &Ring{
		cfg: cfg,
		policy: policy{
			keyDuration:   cfg.KeyDuration,
			tokenDuration: cfg.TokenDuration,
			leeway:        cfg.Leeway,
			maxAge:        cfg.MaxAge,
			ahead:         max(cfg.PublishAhead, cfg.MaxAge),
			patience:      cfg.Peers.Patience(),
		},
		bell: poll.NewBell(),
		held: map[string]*held{},
		gone: map[string]bool{}, rejected: map[string]bool{}, unconfirmed: map[string]*fresh{}, used: map[string]bool{}, missing: map[string]bool{}, noneUntil: map[string]time.Time{}, noNewKey: map[string]bool{},
	}
	if cfg.Revoked == nil {
		r.cfg.Revoked = NewTombstones(r.policy.longest(), cfg.Now)
	}
	r.metrics = newMetrics(r.cfg.Revoked)
	r.view.Store(&view{})
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	if err := r.refreshWithin(ctx, openTimeout); err != nil {
		return nil, err
	}
	if err := r.metrics.register(cfg.Registerer); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.opened = true
	r.mu.Unlock()
	return r, nil
}

// maxInstanceID leaves room for a thumbprint in a kid.
const maxInstanceID = 128

func (c Config) check() error {
	switch {
	case slices.ContainsFunc(c.Algorithms, func(a string) bool { return !slices.Contains(accesstoken.Algorithms(), a) }):
		return fmt.Errorf("tokens.algorithm or tokens.algorithms has %q: use %v", c.Algorithms, accesstoken.Algorithms())
	case c.TokenDuration <= 0 || c.KeyDuration < c.TokenDuration:
		return fmt.Errorf("keys live for %v and tokens for %v: make tokens.key_duration at least as long as tokens.token_duration", c.KeyDuration, c.TokenDuration)
	case c.MaxAge < 0 || c.KeyDuration < 2*c.MaxAge:
		return fmt.Errorf("keys live for %v, and the key set may be cached for %v: make tokens.key_duration at least twice as long", c.KeyDuration, c.MaxAge)
	case strings.ContainsFunc(c.InstanceID, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("cluster.instance_id is printable ASCII without spaces")
	case c.InstanceID == "" || len(c.InstanceID) > maxInstanceID:
		return fmt.Errorf("cluster.instance_id has %d characters: give it 1 to %d", len(c.InstanceID), maxInstanceID)
	}
	return nil
}

// Signer returns the key that signs now: the one for the first of Config.Algorithms for which
// a key may sign. The error is ErrNoSigningKey, with the time after which trying again may
// help; it is keysource.ErrNoNewKey, too, if the operator has to make a key.
func (r *Ring) Signer() (*token.Signer, error) {
	v, now := r.view.Load(), r.cfg.Now()
	for _, algorithm := range r.cfg.Algorithms {
		if s, ok := v.signing[algorithm]; ok && now.Before(s.until) {
			return s.signer, nil
		}
	}
	if v.noNewKey {
		return nil, errNoNewKey.After(r.policy.poll())
	}
	return nil, ErrNoSigningKey.After(max(r.policy.poll(), v.retryAt.Sub(now)))
}

// lane returns for which of Config.Algorithms a key signs. A key of an algorithm that is not
// among them any more goes on in the place of the first one, until that has a key.
func (r *Ring) lane(algorithm string) string {
	if len(r.cfg.Algorithms) > 0 && !slices.Contains(r.cfg.Algorithms, algorithm) {
		return r.cfg.Algorithms[0]
	}
	return algorithm
}

// A PublicKey is one that this replica publishes.
type PublicKey struct {
	accesstoken.Key
	// Row is the key's row in the store, without the private half. At its RemoveAt the
	// last token has expired that the key can have signed.
	Row store.Key
}

// Voucher authenticates rows for the other replicas.
func (r *Ring) Voucher() Voucher { return r.cfg.Peers }

// Published returns the published keys with their rows. It is not to be changed.
func (r *Ring) Published() []PublicKey { return r.view.Load().published }

// Public returns the published keys: those of this replica that verify. It is the
// same pointer until a key comes or goes, so that a caller may cache what it derives
// from it.
func (r *Ring) Public() *accesstoken.KeySet { return r.view.Load().keys }

// Key returns a published key by its kid.
func (r *Ring) Key(kid string) (accesstoken.Key, bool) { return r.Public().Key(kid) }

// Run keeps the keys up to date until ctx ends: it acts when something is due, and reads
// every second what other processes wrote. While the store is away, the key that signs
// goes on as long as it may.
func (r *Ring) Run(ctx context.Context) {
	poll.Loop{
		Do: r.Refresh, Every: r.policy.poll(), Due: r.untilDue, Bell: r.bell, Logger: r.cfg.Logger,
		Failing: "signing keys: cannot be kept up to date; trying on",
		Working: "signing keys: up to date again",
	}.Run(ctx)
}

// Wake has Run read the store now. It never blocks.
func (r *Ring) Wake() { r.bell.Ring() }

// storeTimeout bounds one Refresh. openTimeout bounds that of Open, for which only the
// starting replica waits.
const (
	storeTimeout = 5 * time.Second
	openTimeout  = 30 * time.Second
)

// Refresh does what is due now: it makes, activates, retires and removes keys, and takes
// over what other processes wrote. Run calls it again and again. A caller uses it to see
// at once what was just written to the store, such as a request for a rotation.
func (r *Ring) Refresh(ctx context.Context) error { return r.refreshWithin(ctx, storeTimeout) }

func (r *Ring) refreshWithin(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.refreshLocked(ctx)
	r.publishLocked(ctx) // also what time alone has changed, when the store is away
	if err != nil {
		r.metrics.failures.Inc()
	}
	return err
}

// ReplaceRevoked stops using a key in this process that was revoked, and replaces it. It is
// called when the transaction with RevokeIn is committed; other processes see the row
// within a second.
//
// The replacement signs at once. A verifier that keeps the key set for its max-age, and
// does not ask again for a kid that it does not know, may refuse the replacement's
// tokens until then.
func (r *Ring) ReplaceRevoked(ctx context.Context, kid string) error {
	r.mu.Lock()
	r.cfg.Revoked.Add(kid, r.wall())
	r.publishLocked(ctx)
	r.mu.Unlock()
	r.cfg.Peers.Changed()
	return r.Refresh(ctx)
}

// load reads the store for the first time. A key that is there counts as published since
// it was made, by this process before it restarted or by another one.
func (r *Ring) load(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	rows, _, err := r.rowsLocked(ctx, r.cfg.Store)
	if err != nil {
		return fmt.Errorf("signing keys: %w", err)
	}
	if err := r.adoptLocked(ctx, rows); err != nil {
		return err
	}
	if err := r.refuseLocked(ctx, rows); err != nil {
		return err
	}
	for _, h := range r.held {
		h.since = h.row.CreatedAt
	}
	// Rows with a private half may be from before the replica was in a cluster, or from
	// under another secret of the cluster.
	if err := r.vouchLocked(ctx, rows, func(k store.Key) bool { return r.cfg.Peers.Vouched(k) }); err != nil {
		return err
	}
	r.replaces = r.wall()
	return nil
}

// refuseLocked returns why the process must not start with what is not believed of the store:
// a storage key that is another one, or keys of an older version without which all tokens that
// are out would end.
func (r *Ring) refuseLocked(ctx context.Context, rows []store.Key) error {
	var former, foreign []string
	for _, row := range rows {
		if r.held[row.ID] != nil || !row.RevokedAt.IsZero() || State(row, r.wall()) == Removed || !r.cfg.Source.Opens(row.Sealed) {
			continue
		}
		switch _, err := r.cfg.Source.Open(ctx, row.ID, row.Algorithm, row.Sealed); {
		case errors.Is(err, seal.ErrUnknownKey):
			return err
		case errors.Is(err, keysource.ErrFormer) && !r.cfg.Peers.Vouched(row):
			former = append(former, row.ID)
		case r.cfg.Source.Foreign(row.SourceMAC):
			foreign = append(foreign, row.ID)
		}
	}
	if len(foreign) > 0 && len(r.held) == 0 {
		return fmt.Errorf("what the database says about the signing keys (%s) is authenticated under another storage key: "+
			"start with the storage key that was used before (AUTH_STORAGE_KEY; without it, AUTH_CLUSTER_SECRET or the key file beside the database): %w", strings.Join(foreign, ", "), seal.ErrUnknownKey)
	}
	if len(former) > 0 && len(r.held) == 0 {
		return fmt.Errorf("the signing keys in the database (%s) are from an older version, which did not authenticate what the database says about them: "+
			"run \"watchword keys adopt\" once, so that the tokens that are out stay valid, or revoke them with \"watchword keys revoke\"", strings.Join(former, ", "))
	}
	return nil
}

// refreshLocked brings held and the store together. What it learns before an error is
// kept.
func (r *Ring) refreshLocked(ctx context.Context) error {
	rows, revived, err := r.rowsLocked(ctx, r.cfg.Store)
	if err != nil {
		return fmt.Errorf("signing keys: %w", err)
	}
	adoptErr := r.adoptLocked(ctx, rows)
	r.publishLocked(ctx)
	if err := r.buryLocked(ctx, revived); err != nil {
		return errors.Join(adoptErr, err)
	}
	if restored, err := r.restoreLocked(ctx); err != nil {
		return errors.Join(adoptErr, err)
	} else if restored {
		if rows, _, err = r.rowsLocked(ctx, r.cfg.Store); err != nil {
			return errors.Join(adoptErr, fmt.Errorf("signing keys: %w", err))
		}
		adoptErr = r.adoptLocked(ctx, rows)
		r.cfg.Peers.Changed()
	}
	// Somebody else, or an older version, has written the row; or a process that is not in
	// the cluster yet has made the key since.
	if err := r.vouchLocked(ctx, rows, func(k store.Key) bool { return k.MAC != nil || r.cfg.Peers.Vouched(k) }); err != nil {
		return errors.Join(adoptErr, err)
	}
	asked, err := rotationAsked(ctx, r.cfg.Store)
	if err != nil {
		return errors.Join(adoptErr, err)
	}
	var failed error // of one algorithm, which does not hold up the others
	for i, algorithm := range r.cfg.Algorithms {
		if i > 0 && !r.opened {
			break // Open waits for the first one alone
		}
		changed, err := r.changeLaneLocked(ctx, algorithm, rows, asked)
		failed = errors.Join(failed, err)
		if !changed {
			continue
		}
		if rows, _, err = r.rowsLocked(ctx, r.cfg.Store); err != nil {
			return errors.Join(adoptErr, failed, fmt.Errorf("signing keys: %w", err))
		}
		adoptErr = r.adoptLocked(ctx, rows)
		r.publishLocked(ctx)
		r.cfg.Peers.Changed()
	}
	return errors.Join(adoptErr, failed, r.cleanLocked(ctx, rows))
}

// rowsLocked returns the keys in the store. A row of a key that is held here, which no process
// with the same source wrote, is replaced by what is known of the key, and comes without
// a SourceMAC. That a key is revoked is believed of any row, and remembered. The kids are those of
// rows that say nothing of it, although their keys were seen revoked.
func (r *Ring) rowsLocked(ctx context.Context, from store.Keys) (rows []store.Key, revived []string, err error) {
	rows, err = from.Keys(ctx)
	for i, row := range rows {
		if !row.RevokedAt.IsZero() {
			r.cfg.Revoked.Add(row.ID, row.RemoveAt)
		}
		if h := r.held[row.ID]; h != nil && !r.authentic(row) {
			k := h.row
			k.Sealed, k.MAC, k.StateMAC, k.SourceMAC = row.Sealed, row.MAC, row.StateMAC, nil
			k.RevokedAt = row.RevokedAt
			rows[i] = k
		}
		if row.RevokedAt.IsZero() && r.cfg.Revoked.Has(row.ID) {
			rows[i].RevokedAt = r.wall()
			revived = append(revived, row.ID)
		}
	}
	return rows, revived, err
}

// rejectLocked counts and logs once that a row is not believed.
func (r *Ring) rejectLocked(ctx context.Context, reason, kid, why string) {
	const most = 1000 // are remembered; those beyond are counted each time and not logged
	if r.rejected[reason+kid] {
		return
	}
	r.metrics.rejected.WithLabelValues(reason).Inc()
	if len(r.rejected) < most {
		r.rejected[reason+kid] = true
		r.cfg.Logger.ErrorContext(ctx, "not believed: the row of a signing key in the database", "kid", kid, "reason", reason, "why", why)
	}
}

// buryLocked makes the rows of keys that were seen revoked tombstones again, so that replicas
// which start later see it, too. A row that nobody vouches for stays as it is.
func (r *Ring) buryLocked(ctx context.Context, kids []string) error {
	if len(kids) == 0 {
		return nil
	}
	var buried []string
	err := r.cfg.Store.Update(ctx, func(rec store.Records) error {
		buried = nil
		rows, err := rec.Keys(ctx)
		if err != nil {
			return err
		}
		for _, k := range rows {
			if !k.RevokedAt.IsZero() || !slices.Contains(kids, k.ID) || !r.authentic(k) && !r.cfg.Peers.Vouched(k) {
				continue
			}
			buried = append(buried, k.ID)
			if err := rec.UpdateKey(ctx, bury(k, true, r.authenticate, r.wall())); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("signing keys: %w", err)
	}
	for _, kid := range buried {
		r.rejectLocked(ctx, rejectedRevoked, kid, "it says that a revoked key is not revoked; an older state of it was put back")
	}
	if len(buried) > 0 {
		r.cfg.Peers.Changed()
	}
	return nil
}

// adoptLocked takes over from the store: times, revocations, and keys that other processes
// made. A key that is no longer in the store is dropped if it has not come to sign.
// Otherwise its row was lost.
func (r *Ring) adoptLocked(ctx context.Context, rows []store.Key) error {
	var first error
	there := make(map[string]bool, len(rows))
	for _, row := range rows {
		there[row.ID] = true
		h, made := r.held[row.ID], r.unconfirmed[row.Algorithm]
		if made != nil && made.row.ID == row.ID {
			delete(r.unconfirmed, row.Algorithm) // it is in the store after all
		} else {
			made = nil
		}
		switch {
		case r.gone[row.ID] && !(keysource.IsKept(row.Sealed) && State(row, r.wall()) != Removed): // else it goes on after all
		case h != nil:
			if row.SourceMAC == nil && row.RevokedAt.IsZero() {
				r.rejectLocked(ctx, rejectedMAC, row.ID, "nobody who has its key wrote it; what was known of the key before stays")
			}
			h.row, h.until, h.lost, h.barred = r.bounded(row, h.end), time.Time{}, false, false
		case !row.RevokedAt.IsZero(), State(row, r.wall()) == Removed:
		case made == nil && !r.cfg.Source.Opens(row.Sealed):
			if r.cfg.Source.Shared() && r.authentic(row) {
				r.rejectLocked(ctx, rejectedMAC, row.ID, "its private half was deleted, or replaced by that of another source of keys")
			}
		case !r.authentic(row):
			r.rejectLocked(ctx, r.unauthentic(row), row.ID, "nobody who has its key wrote it; it neither signs nor verifies here")
		case made != nil:
			r.held[row.ID] = &held{row: r.bounded(row, made.end), signer: made.signer, end: made.end}
		default:
			signer, end, err := openKey(ctx, r.cfg.Source, row)
			if r.missing[row.ID] = errors.Is(err, keysource.ErrGone); r.missing[row.ID] {
				r.rejectLocked(ctx, rejectedGone, row.ID, err.Error())
				continue
			}
			if err != nil {
				first = cmp.Or(first, err)
				continue
			}
			r.held[row.ID] = &held{row: r.bounded(row, end), signer: signer, end: end}
		}
	}
	now := r.wall()
	maps.DeleteFunc(r.held, func(kid string, h *held) bool {
		h.lost = !there[kid]
		signs := r.view.Load().signing[r.lane(h.row.Algorithm)].signer == h.signer // by a clock that was put back since
		return h.lost && h.row.ActivateAt.After(now) && !signs
	})
	maps.DeleteFunc(r.gone, func(kid string, _ bool) bool { return !there[kid] || r.held[kid] != nil })
	return first
}

// unauthentic is the reason why a row with a private half is not believed.
func (r *Ring) unauthentic(row store.Key) string {
	if row.SourceMAC == nil && row.StateMAC == nil && !NeedsStateMAC(row) {
		return rejectedFormer
	}
	return rejectedMAC
}

// bounded returns a row that lets its key live until end at most.
func (r *Ring) bounded(row store.Key, end time.Time) store.Key {
	if !end.IsZero() {
		row.RemoveAt = earliest(row.RemoveAt, end)
	}
	return row
}

// restoreLocked writes the rows again that the store has lost. It reports whether they are
// there now, written by this process or by another one that shares the keys. A row whose
// kid the store knows as used is barred: its key goes on signing until another one is
// ripe.
func (r *Ring) restoreLocked(ctx context.Context) (bool, error) {
	restored := false
	for _, h := range r.inOrderLocked() {
		if !h.lost || h.barred || !r.mayBeCached(h) {
			continue
		}
		err := r.cfg.Store.CreateKey(ctx, r.authenticate(h.row))
		if errors.Is(err, store.ErrConflict) {
			var rows []store.Key
			rows, err = r.cfg.Store.Keys(ctx)
			if slices.ContainsFunc(rows, func(k store.Key) bool { return k.ID == h.row.ID }) {
				restored = true // another process was faster
				continue
			}
			h.barred = err == nil
		}
		if err != nil {
			return restored, fmt.Errorf("signing keys: %w", err)
		}
		restored = restored || !h.barred
		r.cfg.Logger.WarnContext(ctx, "the store has lost a signing key that is in use (an older state of it was restored?)", "kid", h.row.ID, "written_again", !h.barred)
	}
	return restored, nil
}

// mayBeCached reports whether a cache may hold the key and go on to trust it.
func (r *Ring) mayBeCached(h *held) bool {
	return h.row.RevokedAt.IsZero() && r.wall().Before(h.row.RemoveAt)
}

// vouchLocked writes those rows again, of keys that are held here, that have not the MACs of
// their source, or not those of the cluster.
func (r *Ring) vouchLocked(ctx context.Context, rows []store.Key, vouched func(store.Key) bool) error {
	wanted := func(k store.Key) bool {
		return r.held[k.ID] != nil && k.RevokedAt.IsZero() && (k.SourceMAC == nil || !vouched(k))
	}
	for _, k := range rows {
		if !wanted(k) {
			continue
		}
		// The row is read again: it may have been sealed anew or revoked meanwhile.
		err := r.cfg.Store.Update(ctx, func(rec store.Records) error {
			rows, _, err := r.rowsLocked(ctx, rec)
			if err != nil {
				return err
			}
			for _, now := range rows {
				if now.ID == k.ID && wanted(now) {
					return rec.UpdateKey(ctx, r.authenticate(now))
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("signing keys: %w", err)
		}
		r.cfg.Peers.Changed()
	}
	return nil
}

// changeLaneLocked writes what is due for one algorithm, and reports whether it wrote. It does
// so in one transaction, which reads the store again: of two processes that share their keys,
// one does it.
func (r *Ring) changeLaneLocked(ctx context.Context, algorithm string, rows []store.Key, asked rotation) (_ bool, err error) {
	due := r.planLocked(algorithm, rows, asked, false)
	if !due.empty() {
		var t trace.Step
		ctx, t = trace.Begin(ctx, "rotate a signing key", trace.Text("algorithm", algorithm))
		defer func() { t.End(err) }()
	}
	if !due.create {
		delete(r.unconfirmed, algorithm)
	}
	if made := r.unconfirmed[algorithm]; made != nil && !made.end.IsZero() && made.end.Before(r.wall().Add(r.policy.longest()-r.policy.keyDuration)) {
		delete(r.unconfirmed, algorithm) // the store has been away for so long that what is left of its life is too short
	}
	none := false // the source has no new key
	r.noNewKey[algorithm] = false
	if due.create && r.unconfirmed[algorithm] == nil {
		without := r.planLocked(algorithm, rows, asked, true)
		none = !without.create && r.wall().Before(r.noneUntil[algorithm])
		if !none {
			made, err := r.newKeyLocked(ctx, algorithm, rows)
			none = errors.Is(err, keysource.ErrNoNewKey) && !without.create
			switch {
			case none:
				r.noneUntil[algorithm] = r.wall().Add(askSourceEvery)
				r.cfg.Logger.InfoContext(ctx, "the source of signing keys has no other key; the present one goes on", "algorithm", algorithm)
			case err != nil:
				r.noNewKey[algorithm] = errors.Is(err, keysource.ErrNoNewKey)
				return false, fmt.Errorf("signing keys: %s: %w", algorithm, err)
			default:
				r.unconfirmed[algorithm] = made
			}
		}
		if none {
			due = without
		}
	}
	if due.empty() {
		return false, nil
	}
	// The new ends of active times hold here from now on, also if it does not become known
	// whether the transaction succeeded.
	for _, k := range due.updates {
		if h := r.held[k.ID]; h != nil {
			h.until = r.policy.lastSigning(k)
		}
	}
	err = r.cfg.Store.Update(ctx, func(rec store.Records) error {
		rows, _, err := r.rowsLocked(ctx, rec)
		if err != nil {
			return err
		}
		return r.applyLocked(ctx, rec, r.planLocked(algorithm, rows, asked, none), r.unconfirmed[algorithm])
	})
	if made := r.unconfirmed[algorithm]; made != nil && errors.Is(err, store.ErrConflict) {
		r.used[made.row.ID] = true
		delete(r.unconfirmed, algorithm) // it was in the store and is gone again
		if keysource.IsKept(made.row.Sealed) {
			err = keysource.ErrNoNewKey
		}
	}
	if err != nil {
		return false, fmt.Errorf("signing keys: %w", err)
	}
	return true, nil
}

// askSourceEvery is how often a source that makes no keys is asked whether it has another one,
// while the present one goes on.
const askSourceEvery = time.Minute

// newKeyLocked has the source make a key that was never used.
func (r *Ring) newKeyLocked(ctx context.Context, algorithm string, rows []store.Key) (*fresh, error) {
	used := func(kid string) bool {
		return r.used[kid] || r.gone[kid] || r.cfg.Revoked.Has(kid) || slices.ContainsFunc(rows, func(k store.Key) bool { return k.ID == kid })
	}
	return newKey(ctx, r.cfg, algorithm, r.wall().Add(r.policy.longest()), used)
}

// planLocked returns what is due for one algorithm. The parameter none says that the source has
// no new key.
func (r *Ring) planLocked(algorithm string, rows []store.Key, asked rotation, none bool) plan {
	now := r.wall()
	// A tombstone does not say which source its key had.
	onlySource := r.cfg.Source.Shared() && !slices.ContainsFunc(rows, func(k store.Key) bool {
		return k.RevokedAt.IsZero() && now.Before(k.RemoveAt) && !r.cfg.Source.Opens(k.Sealed)
	})
	d := demand{
		before: asked.before, atOnce: asked.atOnce, none: none, stopped: r.cfg.Peers.Stopped(),
		ours: func(k store.Key) bool {
			switch {
			case r.lane(k.Algorithm) != algorithm:
				return false
			case r.held[k.ID] != nil:
				return true
			case !k.RevokedAt.IsZero(): // before this process started
				return onlySource && !strings.HasPrefix(k.ID, k.Instance+"-")
			default:
				return !r.missing[k.ID] && r.cfg.Source.Opens(k.Sealed) && r.authentic(k)
			}
		},
		wrong: func(k store.Key) bool { return k.Algorithm != algorithm && k.CreatedAt.Before(r.replaces) },
	}
	// A request that is from a clock that is ahead holds when this one gets there.
	if d.before.After(now) {
		d.before = time.Time{}
	}
	if d.atOnce.After(now) {
		d.atOnce = time.Time{}
	}
	d.elsewhere = r.cfg.Peers.AnyKey(d.stopped)
	for _, h := range r.held {
		d.elsewhere = d.elsewhere || h.lost && r.mayBeCached(h)
	}
	for other, s := range r.view.Load().signing {
		d.follows = d.follows || other != algorithm && r.cfg.Now().Before(s.until)
	}
	return r.policy.plan(rows, d, now)
}

// errMeanwhile: the keys changed between the first look and the transaction.
var errMeanwhile = errors.New("another process is changing the keys; trying again")

// applyLocked writes a plan; made is the key that it creates, if it creates one.
func (r *Ring) applyLocked(ctx context.Context, rec store.Records, p plan, made *fresh) error {
	for _, kid := range p.deletes {
		if err := rec.DeleteKey(ctx, kid); err != nil {
			return err
		}
	}
	for _, k := range p.updates {
		if err := rec.UpdateKey(ctx, r.authenticate(k)); err != nil {
			return err
		}
	}
	if !p.create {
		return nil
	}
	if made == nil {
		return errMeanwhile
	}
	return rec.CreateKey(ctx, r.authenticate(r.policy.date(made.row, r.wall(), p.at)))
}

// clean deletes the rows of removed keys.
//
// The last row of a keeper's keys stays for each algorithm: if no replica runs for so long that
// its time ends, the key goes on afterwards, since it is the only one that the keeper has.
func (r *Ring) cleanLocked(ctx context.Context, rows []store.Key) error {
	last := map[string]string{} // kids, by source and algorithm
	for _, row := range slices.SortedFunc(slices.Values(rows), byActivation) {
		if keysource.IsKept(row.Sealed) && row.RevokedAt.IsZero() {
			last[keysource.NameOf(row.Sealed)+row.Algorithm] = row.ID
		}
	}
	for _, row := range rows {
		if last[keysource.NameOf(row.Sealed)+row.Algorithm] == row.ID {
			continue
		}
		end := row.RemoveAt
		if row.Instance != r.cfg.InstanceID && !r.cfg.Source.Opens(row.Sealed) {
			end = end.Add(timing.ForeignRows)
		}
		if r.wall().Before(end) && !r.gone[row.ID] {
			continue
		}
		if err := r.cfg.Store.DeleteKey(ctx, row.ID); err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("signing keys: %w", err)
		}
	}
	return nil
}

// publishLocked makes the view anew from what is held now.
func (r *Ring) publishLocked(ctx context.Context) {
	now, old := r.cfg.Now(), r.view.Load()
	var keys []accesstoken.Key
	var published []PublicKey
	for _, h := range r.inOrderLocked() {
		if h.row.RevokedAt.IsZero() && r.cfg.Revoked.Has(h.row.ID) {
			h.row.RevokedAt = r.wall()
		}
		switch State(h.row, now) {
		case Removed:
			delete(r.held, h.row.ID)
			r.gone[h.row.ID] = true
			r.cfg.Logger.InfoContext(ctx, "signing key removed", "kid", h.row.ID)
			continue
		case Revoked:
			continue
		}
		if h.since.IsZero() {
			h.since = now
			r.cfg.Logger.InfoContext(ctx, "signing key published", "kid", h.row.ID, "active_at", h.row.ActivateAt)
		}
		h.since = earliest(h.since, now) // after a clock was put back, count again
		keys = append(keys, h.signer.Public())
		row := h.row
		row.Sealed = nil
		published = append(published, PublicKey{h.signer.Public(), row})
	}
	v := &view{keys: old.keys, published: published}
	if old.keys == nil || !sameKeys(keys, old.keys.Keys()) {
		v.keys = keySet(keys)
	}
	v.signing = make(map[string]turn, len(r.cfg.Algorithms))
	var first *held
	for _, algorithm := range r.cfg.Algorithms {
		h := r.chooseLocked(algorithm, now, old.signing[algorithm].signer)
		if h == nil {
			continue
		}
		v.signing[algorithm] = turn{h.signer, h.lastSigning(r.policy)}
		first = cmp.Or(first, h)
		if h.signer != old.signing[algorithm].signer {
			r.cfg.Logger.InfoContext(ctx, "signing key active", "kid", h.row.ID, "algorithm", h.row.Algorithm, "retires_at", h.row.RetireAt)
		}
	}
	if newest := r.newestLocked(); newest != nil && first == nil {
		v.retryAt = newest.row.ActivateAt
	}
	if first == nil && len(r.cfg.Algorithms) > 0 {
		v.noNewKey = r.noNewKey[r.cfg.Algorithms[0]]
	}
	r.view.Store(v)
	r.metrics.show(r.held, len(r.unconfirmed), first, now)
}

// chooseLocked returns the key that signs now for one algorithm: the newest one whose active
// time has begun and that every cache has. A key that signs already stays, also if a clock was
// put back. The keys before a revoked one do not sign again.
func (r *Ring) chooseLocked(algorithm string, now time.Time, signing *token.Signer) *held {
	var revoked []store.Key
	for _, h := range slices.Backward(r.inOrderLocked()) {
		switch {
		case r.lane(h.row.Algorithm) != algorithm:
		case !h.row.RevokedAt.IsZero():
			revoked = append(revoked, h.row)
		case h.signer != signing && (h.row.ActivateAt.After(now) || !r.ripe(h, now)):
		case !now.Before(h.lastSigning(r.policy)) || superseded(&h.row, revoked, now):
			return nil
		default:
			return h
		}
	}
	return nil
}

// ripe reports whether no cache holds a key set without the key, or no key was before it
// that a cache could hold.
func (r *Ring) ripe(h *held, now time.Time) bool {
	return r.policy.first(h.row) ||
		r.policy.ripe(h.since, now) && r.cfg.Peers.Have(h.row.ID)
}

func (h *held) lastSigning(p policy) time.Time {
	end := p.lastSigning(h.row)
	if !h.until.IsZero() {
		end = earliest(end, h.until)
	}
	return end
}

// inOrderLocked returns the held keys in the order in which they come to sign.
func (r *Ring) inOrderLocked() []*held {
	return slices.SortedFunc(maps.Values(r.held), func(a, b *held) int { return byActivation(a.row, b.row) })
}

// newestLocked returns the last in that order, or nil if there is none.
func (r *Ring) newestLocked() *held {
	if keys := r.inOrderLocked(); len(keys) > 0 {
		return keys[len(keys)-1]
	}
	return nil
}

// wall is the time as the store keeps it.
func (r *Ring) wall() time.Time { return r.cfg.Now().UTC().Truncate(time.Microsecond) }

// untilDue is for how long no key changes its phase by time alone.
func (r *Ring) untilDue() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, least := r.cfg.Now(), r.policy.poll()
	for _, h := range r.held {
		for _, due := range []time.Time{h.row.ActivateAt, h.row.RemoveAt} {
			if until := due.Sub(now); until > 0 {
				least = min(least, until)
			}
		}
	}
	return least
}

func sameKeys(a, b []accesstoken.Key) bool {
	return slices.EqualFunc(a, b, func(a, b accesstoken.Key) bool { return a.ID == b.ID })
}

func keySet(keys []accesstoken.Key) *accesstoken.KeySet {
	set, err := accesstoken.NewKeySet(keys...)
	if err != nil {
		panic(err) // each key is a Signer's, under its own kid
	}
	return set
}
