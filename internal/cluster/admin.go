package cluster

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// ErrAlone: this replica belongs to no cluster.
var ErrAlone = problem.New(problem.NotFound, "no_cluster", "this replica is alone: cluster.enabled is false")

var errRegistry = problem.New(problem.Unavailable, "storage_unavailable", "the registry of replicas does not answer at the moment")

var errKeys = problem.New(problem.Unavailable, "storage_unavailable", "the database with the signing keys does not answer at the moment")

// Rights decides who may see the replicas and their keys.
type Rights interface {
	// MayReadKeys returns nil if the holder of a verified token may see signing keys, and
	// otherwise the reason for the client. The address is the client's.
	MayReadKeys(ctx context.Context, by *accesstoken.Token, address string) error
}

// A Viewer is a Cluster, or Alone.
type Viewer interface {
	// View returns the cluster as this replica sees it, or ErrAlone.
	View(ctx context.Context) (View, error)
}

// Admin shows a cluster, and the keys of this replica, to users who may see them.
type Admin struct {
	Cluster Viewer
	Rights  Rights
	// Own has the keys of this replica; nil: OwnKeys is not called.
	Own *Own
}

// Own is where the keys of this replica are.
type Own struct {
	Local Local
	Store store.Keys
	// Secrets are as in Config.
	Secrets func() []string
	Now     func() time.Time
}

// OwnKeys are the signing keys of a replica, by its own clock.
type OwnKeys struct {
	AsOf time.Time
	// Keys are those that it publishes, and those in the database that were revoked and whose
	// tokens may not have expired yet. The oldest is the first.
	Keys []KeyStatus
	// Secrets are the kids of the signing secrets that it accepts, as store.Replica has them.
	Secrets []string
}

// OwnKeys returns the keys of this replica, which may be alone, or an error of the rights of the
// token's holder.
func (a Admin) OwnKeys(ctx context.Context, by *accesstoken.Token, address string) (OwnKeys, error) {
	if err := a.Rights.MayReadKeys(ctx, by, address); err != nil {
		return OwnKeys{}, err
	}
	rows, err := a.Own.Store.Keys(ctx)
	if err != nil {
		return OwnKeys{}, errKeys.Because(err)
	}
	own := OwnKeys{AsOf: a.Own.Now()}
	if a.Own.Secrets != nil {
		own.Secrets = a.Own.Secrets()
	}
	published := map[string]bool{}
	add := func(k store.Key) {
		if phase := keyring.State(k, own.AsOf); phase != keyring.Removed {
			k.Sealed = nil
			own.Keys = append(own.Keys, KeyStatus{k, phase})
		}
	}
	for _, k := range a.Own.Local.Published() {
		published[k.ID] = true
		add(k.Row)
	}
	for _, k := range rows {
		if !published[k.ID] && !k.RevokedAt.IsZero() && own.AsOf.Before(k.RemoveAt) {
			add(k)
		}
	}
	slices.SortFunc(own.Keys, func(a, b KeyStatus) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return own, nil
}

// A View is a cluster as one replica sees it.
type View struct {
	Instance string // the replica
	Status
	Peers []PeerStatus
}

// View returns the cluster, ErrAlone, or an error of the rights of the token's holder.
func (a Admin) View(ctx context.Context, by *accesstoken.Token, address string) (View, error) {
	if err := a.Rights.MayReadKeys(ctx, by, address); err != nil {
		return View{}, err
	}
	return a.Cluster.View(ctx)
}

// View returns the replicas of the registry, and how this one reaches its peers.
func (c *Cluster) View(ctx context.Context) (View, error) {
	status, err := ReadStatus(ctx, c.cfg.Registry, c.cfg.Secret)
	if err != nil {
		return View{}, errRegistry.Because(err)
	}
	return View{c.Instance(), status, c.peers.status()}, nil
}
