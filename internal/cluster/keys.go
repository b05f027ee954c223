package cluster

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// An entry is a public key that was taken in.
type entry struct {
	key      accesstoken.Key
	maker    string    // instance id
	made     time.Time // by its maker's clock
	until    time.Time // when the last token that it can have signed has expired
	takenIn  time.Time // by this replica's clock
	first    bool      // it need not ripen before it signs
	activate time.Time // when it may sign, by its maker's clock
	revoked  bool
	version  int64     // of the registry in which it was made; 0: it was never read there
	listed   bool      // it was in the registry at the last look
	knownAt  time.Time // when every other replica was seen to have it; zero: not yet
	warned   bool      // it was logged that a live replica takes long to take it in
}

// ownLocked reports whether this replica signs with the key, or will.
func (r *registry) ownLocked(e *entry) bool {
	_, local := r.local.Public().Key(e.key.ID)
	return local || e.maker == r.cfg.Instance
}

// awaited reports whether a replica may still have to learn of the key before it is
// used. From a registry that does not have the key any more, because the database was
// restored, no replica learns of it.
func (e *entry) awaited() bool {
	return e.knownAt.IsZero() && !e.revoked && e.listed
}

// merged is the merged set as callers see it. It never changes.
type merged struct {
	local *accesstoken.KeySet // the local part, as it was
	set   *accesstoken.KeySet
}

// noKeys is a replica that has no keys yet.
type noKeys struct{}

func (noKeys) Public() *accesstoken.KeySet    { return nil }
func (noKeys) Published() []keyring.PublicKey { return nil }

// serve reports whether other replicas may have started together with this one.
func (r *registry) serve(local Local) (together bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.local = local
	r.mergeLocked()
	return r.together
}

// current returns the keys of all replicas that may have signed a living token. It is
// the same pointer until a key comes or goes.
func (r *registry) current() *accesstoken.KeySet {
	if m := r.merged.Load(); m.local == r.local.Public() {
		return m.set
	}
	r.refresh()
	return r.merged.Load().set
}

// refresh makes the merged set anew, by the present time.
func (r *registry) refresh() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mergeLocked()
}

func (r *registry) mergeLocked() {
	now := r.cfg.Now()
	local := r.local.Public()
	// A ring drops its key when it looks the next time.
	keys := slices.DeleteFunc(local.Keys(), func(k accesstoken.Key) bool { return r.cfg.Revoked.Has(k.ID) })
	maps.DeleteFunc(r.keys, func(_ string, e *entry) bool { return !now.Before(e.until) })
	for kid, e := range r.keys {
		e.revoked = e.revoked || r.cfg.Revoked.Has(kid)
		if _, isLocal := local.Key(kid); !isLocal && !e.revoked {
			keys = append(keys, e.key)
		}
	}
	// In the same order on every replica, so that they serve the same bytes.
	slices.SortFunc(keys, func(a, b accesstoken.Key) int { return cmp.Compare(a.ID, b.ID) })
	old := r.merged.Load()
	if old.set != nil && slices.EqualFunc(keys, old.set.Keys(), func(a, b accesstoken.Key) bool { return a.ID == b.ID }) {
		r.merged.Store(&merged{local, old.set})
		return
	}
	set, err := accesstoken.NewKeySet(keys...)
	if err != nil {
		panic(err) // each key was checked when it was taken in, and is here once
	}
	r.merged.Store(&merged{local, set})
	r.metrics.keys.Set(float64(set.Len()))
}

// takeInLocked adds a key that is vouched for, or takes over what is new about it,
// and returns its entry, or the reason why the key is not accepted. A key that has
// ended has neither.
//
// A revoked key stays revoked, and no key's life is shortened: neither would come from
// the key's maker.
func (r *registry) takeInLocked(ctx context.Context, k store.Key) (e *entry, reason string) {
	if e = r.keys[k.ID]; e == nil {
		if !r.cfg.Now().Before(k.RemoveAt) {
			return nil, ""
		}
		key, reason := r.check(k)
		if reason != "" {
			r.rejected.add(ctx, reason, "signing key", k.ID)
			return nil, reason
		}
		e = &entry{key: key, maker: k.Instance, made: k.CreatedAt, activate: k.ActivateAt, takenIn: r.cfg.Now()}
		e.first = k.ActivateAt.Sub(k.CreatedAt) < r.cfg.MaxAge
		r.keys[k.ID] = e
		if k.Instance != r.cfg.Instance {
			r.cfg.Logger.InfoContext(ctx, "key of another replica", "kid", k.ID, "until", k.RemoveAt)
		}
	}
	e.until = later(e.until, k.RemoveAt)
	e.revoked = e.revoked || r.cfg.Revoked.Has(k.ID)
	return e, ""
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// check returns the public key of a row that is vouched for, or the reason why it is
// not taken in. A key that several replicas sign with has its thumbprint for a kid, and one
// that a single replica signs with has that replica's instance id in front of it.
func (c *common) check(k store.Key) (accesstoken.Key, string) {
	key, err := accesstoken.ParseJWK(k.PublicJWK)
	switch {
	case err != nil:
		return key, wrongKey
	case key.ID != k.ID || k.ID != key.Thumbprint() && k.ID != k.Instance+"-"+key.Thumbprint():
		return key, wrongOwner
	case key.Algorithm != k.Algorithm || !slices.Contains(c.cfg.Algorithms, key.Algorithm):
		return key, wrongAlgorithm
	}
	return key, ""
}
