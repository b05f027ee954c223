package operator

import (
	"context"
	"errors"
	"slices"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/store"
)

// ReplicaURLs returns the base URLs of the live replicas of a cluster, or of the single
// replica.
func (p *Parts) ReplicaURLs(ctx context.Context, cfg *config.Config) ([]string, error) {
	if !cfg.Cluster.Enabled {
		return []string{cfg.Server.PublicURL}, nil
	}
	if cfg.Cluster.Discovery == config.DiscoveryStatic {
		return cfg.Cluster.StaticPeers, nil
	}
	status, err := cluster.ReadStatus(ctx, p.Store.(store.Registry), cfg.Cluster.Secret)
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, r := range status.Replicas {
		if r.URL != "" && r.Standing == cluster.Live {
			urls = append(urls, r.URL)
		}
	}
	if len(urls) == 0 {
		return nil, errors.New("no replica says where it is reached (cluster.advertise_url); name the URLs of all as arguments")
	}
	slices.Sort(urls)
	return urls, nil
}
