package cluster

import (
	"context"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// The signing secrets that replicas share (tokens.keys: secret). Each replica writes into its
// row which ones it accepts, by their kids; that of the one that it signs with stands in front,
// and again among them.

// errSecretDiffers: see Ready.
var errSecretDiffers = problem.New(problem.Unavailable, "secret_differs", "another replica has other signing secrets than this one").After(timing.Beat)

// secrets are the kids of the secrets that this replica accepts.
func (c *common) secrets() []string {
	if c.cfg.Secrets == nil {
		return nil
	}
	return c.cfg.Secrets()
}

// beatNow has the next look at the registry write this replica's row, and wake the others.
func (r *registry) beatNow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beatDue, r.awaited = time.Time{}, true
}

// takeAwaited reports whether other replicas wait for the next beat, and notes that it comes now.
func (r *registry) takeAwaited() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	awaited := r.awaited
	r.awaited = false
	return awaited
}

// presentLocked reports whether a row is that of another replica which is live. A beat that
// the replica's own clock contradicts is not its own: somebody kept the row and wrote it
// again.
func (r *registry) presentLocked(other store.Replica) bool {
	return r.isOther(other) && r.silentLocked(other) < timing.LiveFor
}

func (r *registry) isOther(other store.Replica) bool {
	return other.Instance != r.cfg.Instance && other.ClockAt.Sub(other.BeatAt).Abs() < timing.ClockSkew
}

// secretsChanged reports whether this replica's row has other secrets than it should.
func (r *registry) secretsChanged() bool {
	own := r.secrets()
	r.mu.Lock()
	defer r.mu.Unlock()
	return !slices.Equal(own, r.self.Secrets)
}

// accepted: see Cluster.Accepted. A replica counts as gone only when this one could have read
// for long enough that it goes on: after an outage of the database all others are silent.
func (r *registry) accepted(kid string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	steady := r.cfg.Now().Sub(r.readSince) >= timing.LiveFor
	return !slices.ContainsFunc(r.replicas, func(other store.Replica) bool {
		return !slices.Contains(other.Secrets, kid) && r.isOther(other) &&
			(!steady || r.silentLocked(other) < timing.LiveFor) && !r.keptOutLocked(other)
	})
}

// readLocked notes that the registry is read now.
func (r *registry) readLocked() {
	now := r.cfg.Now()
	if now.Sub(r.readAt) > 2*timing.Beat {
		r.readSince = now
	}
	r.readAt = now
}

// signsWith returns the kid of the secret that a replica with the row signs with; empty: none.
// That kid stands in front of those that the replica accepts, of which it is one.
func signsWith(row store.Replica) string {
	if len(row.Secrets) > 1 && slices.Contains(row.Secrets[1:], row.Secrets[0]) {
		return row.Secrets[0]
	}
	return ""
}

// keepsOut reports whether a replica takes no traffic for as long as another one is live: it
// would refuse what the other one signs, or neither can sign before the other one is gone. Of
// two that would refuse each other's tokens, only the one that entered later takes none.
func keepsOut(other, row store.Replica) bool {
	accepts := func(by store.Replica, kid string) bool { return slices.Contains(by.Secrets, kid) }
	if kid := signsWith(other); kid != "" && !accepts(row, kid) {
		own := signsWith(row)
		return own == "" || accepts(other, own) || enteredBefore(other, row)
	}
	inCommon := slices.ContainsFunc(row.Secrets, func(kid string) bool { return accepts(other, kid) })
	return len(other.Secrets) > 0 && len(row.Secrets) > 0 && !inCommon && enteredBefore(other, row)
}

// keptOutLocked reports whether another replica takes no traffic because of this one or a third.
func (r *registry) keptOutLocked(other store.Replica) bool {
	return keepsOut(r.rowLocked(r.self.Secrets), other) || slices.ContainsFunc(r.replicas, func(third store.Replica) bool {
		return r.presentLocked(third) && keepsOut(third, other)
	})
}

// rowLocked is the row of this replica with the secrets.
func (r *registry) rowLocked(secrets []string) store.Replica {
	return store.Replica{Instance: r.cfg.Instance, Secrets: secrets, EnteredAt: r.entered}
}

// compareSecretsLocked finds out whether another live replica keeps this one out of traffic.
func (r *registry) compareSecretsLocked(ctx context.Context, own []string) {
	was := r.differs
	r.differs = nil
	for _, other := range r.replicas {
		if !r.presentLocked(other) || !keepsOut(other, r.rowLocked(own)) {
			continue
		}
		differs := *errSecretDiffers
		differs.Detail = "replica " + other.Instance + ", which goes on, has other signing secrets than this one: " +
			"give all replicas the same AUTH_JWT_SECRET, or this one that of the other in AUTH_JWT_SECRET_PREVIOUS, too"
		r.differs = &differs
		if was == nil {
			r.cfg.Logger.ErrorContext(ctx, "another replica has other signing secrets than this one, which takes no traffic: give all the same AUTH_JWT_SECRET, or the former one in AUTH_JWT_SECRET_PREVIOUS, too", "replica", other.Instance)
		}
		return
	}
}

// enteredBefore reports whether a replica entered before another one. One that has not read its
// own row yet is the later one.
func enteredBefore(a, b store.Replica) bool {
	ofA, ofB := entryOf(a), entryOf(b)
	switch {
	case ofA.IsZero() || ofB.IsZero():
		return !ofA.IsZero()
	case !ofA.Equal(ofB):
		return ofA.Before(ofB)
	}
	return a.Instance < b.Instance
}

// entryOf is the moment at which the replica of a row entered.
func entryOf(row store.Replica) time.Time {
	if row.EnteredAt.IsZero() {
		return row.BeatAt // the first one
	}
	return row.EnteredAt
}

// signedElsewhere reports whether another live replica signs with the secret.
func (r *registry) signedElsewhere(kid string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.replicas, func(other store.Replica) bool { return r.presentLocked(other) && signsWith(other) == kid })
}

// secretKid is the length of a secret's kid.
const secretKid = 22

// findSecret says why a replica does not accept a secret: its tokens are no forgeries if another
// replica signs with it, or if nobody knows.
func (l *lookup) findSecret(kid string) error {
	if len(kid) == secretKid {
		l.awake()
		switch {
		case l.registry.signedElsewhere(kid):
			return errSecretDiffers
		case l.lastFailed():
			return ErrKeysUnavailable
		}
	}
	return accesstoken.ErrUnknownKey
}
