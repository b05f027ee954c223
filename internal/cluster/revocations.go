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

// maxFeedPage bounds a page of revocations in bytes, of which an entry has 150 at
// most.
const maxFeedPage = 1 << 20

// Revocations implements revocation.Peers: it asks the other replicas, side by
// side, what was taken back after a number of a log.
func (c *Cluster) Revocations(ctx context.Context, log string, after int64, take func(revoked.Page)) {
	var asking sync.WaitGroup
	for _, at := range c.Others() {
		asking.Go(func() {
			page, err := c.feed(ctx, at, log, after)
			var lie *liar
			switch {
			case err == nil:
				c.metrics.feeds.WithLabelValues(fetchOK).Inc()
				take(page)
			case errors.As(err, &lie):
				c.metrics.feeds.WithLabelValues(fetchRejected).Inc()
				c.mu.Lock()
				c.reject(ctx, lie.reason, "revocations", at.URL)
				c.mu.Unlock()
			case errors.Is(err, errOwnFeed):
			default:
				c.metrics.feeds.WithLabelValues(fetchFailed).Inc()
				c.cfg.Logger.DebugContext(ctx, "a peer does not say what was taken back", "url", at.URL, "err", err)
			}
		})
	}
	asking.Wait()
}

// errOwnFeed: the peer is this replica.
var errOwnFeed = errors.New("cluster: this replica answers")

func (c *Cluster) feed(ctx context.Context, at discovery.Peer, log string, after int64) (page revoked.Page, err error) {
	header := http.Header{"Last-Event-Id": {log + ":" + strconv.FormatInt(after, 10)}}
	instance, body, err := c.get(ctx, at, "/api/revocations", header, maxFeedPage, c.feedMAC(log, after))
	if err != nil {
		return page, err
	}
	if instance == c.cfg.Instance {
		return page, errOwnFeed
	}
	return page, json.Unmarshal(body, &page)
}

// AnswerFeed returns what authenticates a page of revocations for a peer that asked
// for what comes after a number of a log, or false if the nonce is none.
func (c *Cluster) AnswerFeed(nonce, log string, after int64, body []byte) (instance, mac string, ok bool) {
	return c.vouch(nonce, body, c.feedMAC(log, after))
}

func (c *Cluster) feedMAC(log string, after int64) func(nonce, instance string, body []byte) []byte {
	return func(nonce, instance string, body []byte) []byte {
		return c.secret.feed(nonce, instance, log, after, body)
	}
}
