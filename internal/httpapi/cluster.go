package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/httpkit"
)

// Cluster shows administrators the replicas.
type Cluster struct{ Admin cluster.Admin }

// ClusterView is the cluster as its registry has it.
type ClusterView struct {
	Instance string        `json:"instance" doc:"the replica that answers"`
	Version  int64         `json:"version" doc:"of the registry, raised by every change of it"`
	AsOf     httpkit.Time  `json:"as_of" doc:"by the database's clock"`
	Rejected int           `json:"rejected" doc:"rows that are not vouched for by the cluster's secret"`
	Replicas []ReplicaView `json:"replicas"`
	Peers    []PeerView    `json:"peers" doc:"whom the replica that answers asks over HTTP"`
}

// ReplicaView is one replica.
type ReplicaView struct {
	Instance      string       `json:"instance"`
	State         string       `json:"state" enum:"live,silent,gone" doc:"silent: not heard of for 7 s; gone: only keys of its are left"`
	Version       string       `json:"version,omitempty"`
	URL           string       `json:"url,omitempty"`
	StartedAt     httpkit.Time `json:"started_at,omitzero"`
	UptimeSeconds int64        `json:"uptime_seconds,omitempty"`
	HeardAt       httpkit.Time `json:"heard_at,omitzero" doc:"by the database's clock"`
	ClockMS       int64        `json:"clock_ms" doc:"by how much its clock is ahead of the database's"`
	Config        string       `json:"config,omitempty" doc:"digest of the settings that all must share"`
	Secrets       []string     `json:"secrets,omitempty" doc:"the kids of the signing secrets that it accepts"`
	Seen          int64        `json:"seen" doc:"the version of the registry that it has taken in"`
	Unseen        []string     `json:"unseen" doc:"keys that it has not taken in yet"`
	Keys          []KeyView    `json:"keys"`
}

// KeyView is one key and its times.
type KeyView struct {
	Kid        string       `json:"kid"`
	Algorithm  string       `json:"alg"`
	State      string       `json:"state" enum:"pending,published,active,retiring,revoked"`
	CreatedAt  httpkit.Time `json:"created_at"`
	ActivateAt httpkit.Time `json:"activate_at"`
	RetireAt   httpkit.Time `json:"retire_at"`
	RemoveAt   httpkit.Time `json:"remove_at" doc:"when the last token that it can have signed has expired"`
	RevokedAt  httpkit.Time `json:"revoked_at,omitzero"`
}

// PeerView is one URL that is asked for keys.
type PeerView struct {
	URL        string       `json:"url"`
	Instance   string       `json:"instance,omitempty"`
	Self       bool         `json:"self"`
	AnsweredAt httpkit.Time `json:"answered_at,omitzero"`
	Problem    string       `json:"problem,omitempty"`
}

type clusterOutput struct{ Body ClusterView }

// Mount adds the route.
func (c *Cluster) Mount(api *httpkit.API) {
	httpkit.Register(api, httpkit.Administration(huma.Operation{
		OperationID: "cluster", Method: http.MethodGet, Path: "/api/cluster", Tags: []string{"cluster"},
		Summary: "The replicas, their keys, and what they have seen of each other",
		Errors:  []int{http.StatusForbidden, http.StatusNotFound},
	}), c.get)
}

func (c *Cluster) get(ctx context.Context, by httpkit.Caller, _ *struct{}) (*clusterOutput, error) {
	seen, err := c.Admin.View(ctx, by.Token, by.Client.Address)
	if err != nil {
		return nil, err
	}
	view := ClusterView{
		Instance: seen.Instance, Version: seen.Version, AsOf: httpkit.At(seen.AsOf), Rejected: seen.Rejected,
		Replicas: []ReplicaView{}, Peers: []PeerView{},
	}
	for _, r := range seen.Replicas {
		view.Replicas = append(view.Replicas, replicaView(r, seen.AsOf))
	}
	for _, p := range seen.Peers {
		view.Peers = append(view.Peers, PeerView{p.URL, p.Instance, p.Self, httpkit.At(p.Answered), p.Problem})
	}
	return &clusterOutput{view}, nil
}

func replicaView(r cluster.ReplicaStatus, asOf time.Time) ReplicaView {
	v := ReplicaView{
		Instance: r.Instance, State: string(r.Standing), Version: r.Version, URL: r.URL, StartedAt: httpkit.At(r.StartedAt),
		HeardAt: httpkit.At(r.BeatAt), ClockMS: r.Clock.Milliseconds(), Config: r.Config, Secrets: r.Secrets, Seen: r.Seen,
		Unseen: append([]string{}, r.Unseen...), Keys: []KeyView{},
	}
	if r.Standing != cluster.Gone {
		v.UptimeSeconds = int64(r.ClockAt.Sub(r.StartedAt) / time.Second)
	}
	for _, k := range r.Keys {
		v.Keys = append(v.Keys, KeyView{
			k.ID, k.Algorithm, string(k.Phase),
			httpkit.At(k.CreatedAt), httpkit.At(k.ActivateAt), httpkit.At(k.RetireAt), httpkit.At(k.RemoveAt), httpkit.At(k.RevokedAt),
		})
	}
	return v
}
