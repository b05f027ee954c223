package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"

	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// maxFeedPage bounds a page of revocations in bytes. An entry has 150 at most.
const maxFeedPage = 1 << 20

// Revocations implements revocation.Peers: it asks the other replicas, all at once,
// what was revoked after a number of a log.
func (c *Cluster) Revocations(ctx context.Context, log string, after int64, take func(revoked.Page)) {
	var questions sync.WaitGroup
	for _, at := range c.Others() {
		questions.Go(func() {
			page, err := c.peers.feed(ctx, at, log, after)
			var rejected *disbelief
			switch {
			case err == nil:
				c.metrics.feeds.WithLabelValues(fetchOK).Inc()
				take(page)
			case errors.As(err, &rejected):
				c.metrics.feeds.WithLabelValues(fetchRejected).Inc()
				c.rejected.add(ctx, rejected.reason, "revocations", at.URL)
			case errors.Is(err, errOwnFeed):
			default:
				c.metrics.feeds.WithLabelValues(fetchFailed).Inc()
				c.cfg.Logger.DebugContext(ctx, "a peer does not say what was revoked", "url", at.URL, "err", err)
			}
		})
	}
	questions.Wait()
}

// errOwnFeed: the peer is this replica.
var errOwnFeed = errors.New("cluster: this replica answers")

func (p *peers) feed(ctx context.Context, at discovery.Peer, log string, after int64) (page revoked.Page, err error) {
	header := http.Header{"Last-Event-Id": {log + ":" + strconv.FormatInt(after, 10)}}
	instance, body, err := p.get(ctx, at, "/api/revocations?version="+strconv.Itoa(revoked.Version), header, maxFeedPage, p.feedMAC(log, after))
	if err != nil {
		return page, err
	}
	if instance == p.cfg.Instance {
		return page, errOwnFeed
	}
	return page, json.Unmarshal(body, &page)
}

func (c *common) feedMAC(log string, after int64) func(nonce, instance string, body []byte) []byte {
	return func(nonce, instance string, body []byte) []byte {
		return c.secret.feed(nonce, instance, log, after, body)
	}
}
