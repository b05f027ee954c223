package cluster

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
)

// A Standing is how a replica stands.
type Standing string

// How a replica stands.
const (
	Live   Standing = "live"
	Silent Standing = "silent" // it has not beaten for timing.LiveFor
	Gone   Standing = "gone"   // it has left, or was forgotten; some of its keys are still valid
)

// Status is the whole cluster as the registry has it. It holds only what is vouched
// for.
type Status struct {
	Version  int64     // of the registry
	AsOf     time.Time // by the database's clock
	Replicas []ReplicaStatus
	// Rejected is how many rows are not vouched for.
	Rejected int
}

// ReplicaStatus is one replica. For one that is gone it holds only the keys.
type ReplicaStatus struct {
	store.Replica
	Standing Standing
	// Clock is by how much its clock is ahead of the database's. The time that its last
	// beat took on the way is in it.
	Clock time.Duration
	Keys  []KeyStatus
	// Unseen are the keys of others that it has not yet taken in.
	Unseen []string
}

// KeyStatus is a key and where it stands in its life.
type KeyStatus struct {
	store.Key
	Phase keyring.Phase
}

// PeerStatus is what became of asking a peer over HTTP.
type PeerStatus struct {
	URL      string
	Instance string    // which replica answered last; empty: none yet
	Self     bool      // it is this replica
	Answered time.Time // when an answer was last believed
	Problem  string    // why the last question failed; empty: it did not
}

// ReadStatus reads the registry and checks what it holds with the cluster's secret.
func ReadStatus(ctx context.Context, r Registry, clusterSecret string) (Status, error) {
	s, err := newSecret(clusterSecret)
	if err != nil {
		return Status{}, err
	}
	all, err := r.Registered(ctx)
	if err != nil {
		return Status{}, wrap(err)
	}
	status := Status{Version: all.Version, AsOf: all.Now}
	byInstance := map[string]*ReplicaStatus{}
	for _, row := range all.Replicas {
		if !s.ownsReplica(row) {
			status.Rejected++
			continue
		}
		one := &ReplicaStatus{Replica: row, Standing: Live, Clock: row.ClockAt.Sub(row.BeatAt)}
		if all.Now.Sub(row.BeatAt) >= timing.LiveFor {
			one.Standing = Silent
		}
		byInstance[row.Instance] = one
	}
	for _, k := range all.Keys {
		if !s.ownsKey(k.Key) {
			status.Rejected++
			continue
		}
		now := all.Now
		if maker := byInstance[k.Instance]; maker != nil && maker.Standing == Live {
			now = now.Add(maker.Clock) // its times are by its own clock
		}
		phase := keyring.State(k.Key, now)
		if phase == keyring.Removed {
			continue
		}
		for _, r := range byInstance {
			if r.Standing != Gone && r.Seen < k.Version && k.Version <= all.Version {
				r.Unseen = append(r.Unseen, k.ID)
			}
		}
		if byInstance[k.Instance] == nil {
			byInstance[k.Instance] = &ReplicaStatus{Replica: store.Replica{Instance: k.Instance}, Standing: Gone}
		}
		k.Sealed = nil
		byInstance[k.Instance].Keys = append(byInstance[k.Instance].Keys, KeyStatus{k.Key, phase})
	}
	for _, one := range byInstance {
		status.Replicas = append(status.Replicas, *one)
	}
	slices.SortFunc(status.Replicas, func(a, b ReplicaStatus) int { return cmp.Compare(a.Instance, b.Instance) })
	return status, nil
}

// status is what became of asking the peers.
func (p *peers) status() (list []PeerStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for base, one := range p.known {
		list = append(list, PeerStatus{base, one.instance, !one.self.IsZero(), one.believed, one.problem})
	}
	slices.SortFunc(list, func(a, b PeerStatus) int { return cmp.Compare(a.URL, b.URL) })
	return list
}
