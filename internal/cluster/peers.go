package cluster

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// The headers of a question to a peer and of its answer.
const (
	HeaderNonce    = "Watchword-Nonce"    // chosen by who asks
	HeaderInstance = "Watchword-Instance" // who answers
	HeaderMAC      = "Watchword-MAC"      // over the nonce, the instance and the body, in base64url
)

// The results of asking a peer.
const (
	fetchOK       = "ok"
	fetchFailed   = "failed"   // no answer, or none of a replica
	fetchRejected = "rejected" // an answer that is not believed
	fetchSelf     = "self"     // it is this replica
)

const (
	// fetchTimeout bounds asking one peer.
	fetchTimeout = 2 * time.Second
	// maxPeers bounds how many are asked.
	maxPeers = 256
	// selfFor is how long a URL at which this replica answered itself is not asked
	// again. Another one may come to answer there, and who stands between them on
	// plain http can pass a question back.
	selfFor = 10 * time.Minute
	// maxNonce bounds what an asker may have authenticated.
	minNonce, maxNonce = 16, 128
)

// peers are the other replicas as they are reached over HTTP.
type peers struct {
	now chan struct{} // holds a wish to ask them now

	mu      sync.Mutex
	known   map[string]*peer // by base URL
	next    chan struct{}    // closed and replaced when a question has ended
	tooMany int              // those beyond maxPeers, as it was logged last
}

// A peer is what became of asking it.
type peer struct {
	asking   chan struct{} // closed when the question under way has ended; nil: there is none
	instance string        // who answered last
	self     time.Time     // when this replica answered last; zero: another one has since
	asked    time.Time     // when the last question began that has ended
	answered time.Time     // when it was last believed
	problem  string        // why the last question failed; empty: it did not
}

func (p *peers) askNow() {
	select {
	case p.now <- struct{}{}:
	default:
	}
}

// nextAnswer is closed when the next question has ended.
func (p *peers) nextAnswer() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next
}

// heardFrom says whether a replica has answered a question that was put since then.
func (p *peers) heardFrom(instance string, since time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.known {
		if one.instance == instance && one.problem == "" && !one.asked.Before(since) {
			return true
		}
	}
	return false
}

// runPeers asks the peers for their keys, at the start and then at each refresh,
// until ctx ends. Replicas that were started together do not ask together.
func (c *Cluster) runPeers(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	next := time.NewTimer(mathrand.N(c.cfg.Refresh))
	defer next.Stop()
	for {
		for _, at := range c.Others() {
			asking.Go(func() { c.ask(ctx, at) })
		}
		select {
		case <-ctx.Done():
			return
		case <-next.C:
			next.Reset(c.cfg.Refresh)
		case <-c.peers.now:
		}
	}
}

// Others are where the other replicas are reached; this one may be among them as long
// as it does not know a URL for its own and has not recognised itself.
func (c *Cluster) Others() []discovery.Peer {
	var list []discovery.Peer
	if c.cfg.Peers != nil {
		list = slices.Clone(c.cfg.Peers())
	} else {
		c.mu.Lock()
		for _, r := range c.replicas {
			if r.URL != "" && r.Instance != c.cfg.Instance {
				list = append(list, discovery.Peer{URL: r.URL})
			}
		}
		c.mu.Unlock()
	}
	if c.cfg.Own != nil {
		own := c.cfg.Own()
		list = slices.DeleteFunc(list, func(at discovery.Peer) bool { return slices.Contains(own, at.URL) })
	}
	list = c.few(list)
	now := c.cfg.Now()
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	for base := range c.peers.known {
		if !slices.ContainsFunc(list, func(at discovery.Peer) bool { return at.URL == base }) {
			delete(c.peers.known, base)
		}
	}
	return slices.DeleteFunc(list, func(at discovery.Peer) bool {
		p := c.peers.known[at.URL]
		return p != nil && !p.self.IsZero() && now.Sub(p.self) < selfFor
	})
}

// few are as many as are asked. It says once that there are more, and of each other
// number of them.
func (c *Cluster) few(list []discovery.Peer) []discovery.Peer {
	tooMany := max(len(list)-maxPeers, 0)
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	if tooMany != c.peers.tooMany && tooMany > 0 {
		c.cfg.Logger.Warn("there are more peers than are asked for their keys, which the registry alone brings", "peers", len(list), "asked", maxPeers)
	}
	c.peers.tooMany = tooMany
	return list[:len(list)-tooMany]
}

// ask takes in the keys of a peer. Who asks while a question is under way waits
// for its answer.
func (c *Cluster) ask(ctx context.Context, at discovery.Peer) {
	c.peers.mu.Lock()
	p := c.peers.known[at.URL]
	if p == nil {
		p = &peer{}
		c.peers.known[at.URL] = p
	}
	if asking := p.asking; asking != nil {
		c.peers.mu.Unlock()
		select {
		case <-asking:
		case <-ctx.Done():
		}
		return
	}
	asking := make(chan struct{})
	p.asking = asking
	c.peers.mu.Unlock()

	asked := c.cfg.Now()
	instance, err := c.fetch(ctx, at)
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	p.asking = nil
	close(asking)
	close(c.peers.next)
	c.peers.next = make(chan struct{})
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return // nothing was learned
	}
	p.asked = asked
	var lie *liar
	result := fetchOK
	switch {
	case err == nil && instance == c.cfg.Instance:
		p.instance, p.self, result = instance, c.cfg.Now(), fetchSelf
	case err == nil:
		p.instance, p.self, p.answered = instance, time.Time{}, c.cfg.Now()
	case errors.As(err, &lie):
		result = fetchRejected
		c.metrics.rejected.WithLabelValues(lie.reason).Inc()
	default:
		result = fetchFailed
	}
	c.metrics.fetches.WithLabelValues(result).Inc()
	c.logPeer(ctx, at.URL, p, err)
}

// logPeer says when a peer begins to fail, in another way than before, and when it
// ceases to. c.peers.mu is held.
func (c *Cluster) logPeer(ctx context.Context, base string, p *peer, err error) {
	was := p.problem
	p.problem = ""
	if err != nil {
		p.problem = err.Error()
	}
	var lie *liar
	switch {
	case p.problem == was:
	case errors.As(err, &lie):
		c.cfg.Logger.WarnContext(ctx, "not believed: the answer of a peer", "url", base, "reason", lie.reason, "err", err)
	case err != nil && was == "":
		c.cfg.Logger.WarnContext(ctx, "a peer cannot be asked for its keys", "url", base, "err", err)
	case err == nil && was != "":
		c.cfg.Logger.InfoContext(ctx, "a peer answers again", "url", base, "replica", p.instance)
	}
}

// A liar is a peer whose answer is not believed.
type liar struct{ reason, text string }

func (l *liar) Error() string { return l.text }

// fetch asks a peer for the keys of its own, and takes them in. It returns who
// answered.
func (c *Cluster) fetch(ctx context.Context, at discovery.Peer) (instance string, err error) {
	instance, body, err := c.get(ctx, at, "/api/pkeys?local=true", nil, accesstoken.MaxKeySetLength, c.secret.answer)
	if err != nil || instance == c.cfg.Instance {
		return instance, err
	}
	return instance, c.takeAnswer(ctx, instance, body)
}

// get asks a peer and returns who answered what, if the cluster's secret vouches for
// it and for this question.
func (c *Cluster) get(ctx context.Context, at discovery.Peer, path string, header http.Header, longest int64, mac func(nonce, instance string, body []byte) []byte) (instance string, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.URL+path, nil)
	if err != nil {
		return "", nil, err
	}
	if header != nil {
		r.Header = header.Clone()
	}
	nonce := rand.Text()
	r.Header.Set(HeaderNonce, nonce)
	answer, err := c.cfg.Client(at.Name).Do(r)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err // without the URL, which the log has
		}
		return "", nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(io.LimitReader(answer.Body, longest+1))
	switch {
	case err != nil:
		return "", nil, err
	case answer.StatusCode != http.StatusOK:
		return "", nil, fmt.Errorf("it answers %d", answer.StatusCode)
	case int64(len(body)) > longest:
		return "", nil, errors.New("its answer is too long")
	}
	instance = answer.Header.Get(HeaderInstance)
	got, err := base64.RawURLEncoding.Strict().DecodeString(answer.Header.Get(HeaderMAC))
	if err != nil || instance == "" || !hmac.Equal(got, mac(nonce, instance, body)) {
		return "", nil, &liar{wrongMAC, "the answer is not vouched for by the cluster's secret for this question"}
	}
	return instance, body, nil
}

// takeAnswer takes in the keys that a replica published over HTTP. If there is one
// that it may not speak for, the others are taken in none the less.
func (c *Cluster) takeAnswer(ctx context.Context, instance string, body []byte) error {
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(body, &set); err != nil {
		return &liar{wrongKey, "the answer is not a key set"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var wrong error
	for _, raw := range set.Keys {
		var about struct {
			Kid string
			Alg string
			Exp int64
		}
		if err := json.Unmarshal(raw, &about); err != nil {
			wrong = &liar{wrongKey, "the answer has a key that cannot be read"}
			continue
		}
		k := store.Key{ID: about.Kid, Instance: instance, Algorithm: about.Alg, PublicJWK: raw, CreatedAt: c.cfg.Now(), RemoveAt: time.Unix(about.Exp, 0)}
		if e := c.entries[k.ID]; e != nil && e.maker == instance {
			e.until = later(e.until, k.RemoveAt)
			continue
		}
		if _, reason := c.check(k); reason != "" {
			wrong = &liar{reason, fmt.Sprintf("the answer has a key that %s may not speak for, or that is none: %.80q", instance, about.Kid)}
			continue
		}
		c.takeIn(ctx, store.RegisteredKey{Key: k})
	}
	c.merge()
	return wrong
}

// Answer returns what authenticates this replica's keys for a peer, or false if the
// nonce is none.
func (c *Cluster) Answer(nonce string, body []byte) (instance, mac string, ok bool) {
	return c.vouch(nonce, body, c.secret.answer)
}

func (c *Cluster) vouch(nonce string, body []byte, mac func(nonce, instance string, body []byte) []byte) (instance, text string, ok bool) {
	if len(nonce) < minNonce || len(nonce) > maxNonce || strings.ContainsFunc(nonce, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", "", false
	}
	return c.cfg.Instance, base64.RawURLEncoding.EncodeToString(mac(nonce, c.cfg.Instance, body)), true
}
