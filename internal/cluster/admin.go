package cluster

import (
	"context"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// ErrAlone: this replica belongs to no cluster.
var ErrAlone = problem.New(problem.NotFound, "no_cluster", "this replica is alone: cluster.enabled is false")

var errRegistry = problem.New(problem.Unavailable, "storage_unavailable", "the registry of replicas does not answer at the moment")

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

// Admin shows a cluster to users who may see it.
type Admin struct {
	Cluster Viewer
	Rights  Rights
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
