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
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// The results of asking a peer.
const (
	fetchOK       = "ok"
	fetchFailed   = "failed"   // no answer, or none of a replica
	fetchRejected = "rejected" // an answer that is not believed
	fetchSelf     = "self"     // this replica answered
)

const (
	// maxPeers bounds how many peers are asked.
	maxPeers = 256
	// selfFor is how long a URL at which this replica answered itself is not asked
	// again. Another replica may come to answer there. On plain http, whoever is
	// between two replicas can also send a question back to the replica that asked.
	selfFor = 10 * time.Minute
)

// peers are the other replicas as they are reached over HTTP.
type peers struct {
	*common
	registry *registry
	wanted   chan struct{} // holds a wish to ask them now

	// mu guards everything below. It is not held while a peer is asked.
	mu       sync.Mutex
	known    map[string]*peer // by base URL
	answered chan struct{}    // closed and replaced when a question has ended
	tooMany  int              // how many are beyond maxPeers, as it was logged last
}

// A peer is what became of asking one of them.
type peer struct {
	inFlight chan struct{} // closed when the present question has ended; nil: there is none
	instance string        // which replica answered last
	self     time.Time     // when this replica answered last; zero: another one has since
	asked    time.Time     // when the last question began that has ended
	believed time.Time     // when an answer was last believed
	problem  string        // why the last question failed; empty: it did not
}

func newPeers(shared *common, r *registry) *peers {
	return &peers{
		common: shared, registry: r, wanted: make(chan struct{}, 1),
		known: map[string]*peer{}, answered: make(chan struct{}),
	}
}

func (p *peers) askNow() {
	select {
	case p.wanted <- struct{}{}:
	default:
	}
}

// run asks the peers for their keys, at the start and then at each refresh, until ctx
// ends. Replicas that were started together do not ask together.
func (p *peers) run(ctx context.Context) {
	var questions sync.WaitGroup
	defer questions.Wait()
	next := time.NewTimer(mathrand.N(p.cfg.Refresh))
	defer next.Stop()
	for {
		for _, at := range p.others() {
			questions.Go(func() { p.ask(ctx, at) })
		}
		select {
		case <-ctx.Done():
			return
		case <-next.C:
			next.Reset(p.cfg.Refresh)
		case <-p.wanted:
		}
	}
}

// askAll: see Cluster.AskAll.
func (p *peers) askAll(ctx context.Context) {
	var questions sync.WaitGroup
	for _, at := range p.others() {
		questions.Go(func() { p.ask(ctx, at) })
	}
	questions.Wait()
}

// anyAnswered reports whether another replica has answered.
func (p *peers) anyAnswered() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.known {
		if !one.believed.IsZero() {
			return true
		}
	}
	return false
}

// others: see Cluster.Others.
func (p *peers) others() []discovery.Peer {
	var list []discovery.Peer
	if p.cfg.Peers != nil {
		list = slices.Clone(p.cfg.Peers())
	} else {
		for _, base := range p.registry.urls() {
			list = append(list, discovery.Peer{URL: base})
		}
	}
	if p.cfg.OwnURLs != nil {
		own := p.cfg.OwnURLs()
		list = slices.DeleteFunc(list, func(at discovery.Peer) bool { return slices.Contains(own, at.URL) })
	}
	now := p.cfg.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	list = p.limitLocked(list)
	for base := range p.known {
		if !slices.ContainsFunc(list, func(at discovery.Peer) bool { return at.URL == base }) {
			delete(p.known, base)
		}
	}
	return slices.DeleteFunc(list, func(at discovery.Peer) bool {
		one := p.known[at.URL]
		return one != nil && !one.self.IsZero() && now.Sub(one.self) < selfFor
	})
}

// limitLocked cuts the list to maxPeers. Each time the number of those beyond it
// changes, that is logged.
func (p *peers) limitLocked(list []discovery.Peer) []discovery.Peer {
	tooMany := max(len(list)-maxPeers, 0)
	if tooMany != p.tooMany && tooMany > 0 {
		p.cfg.Logger.Warn("there are more peers than are asked for their keys; the keys of the others come by the registry alone", "peers", len(list), "asked", maxPeers)
	}
	p.tooMany = tooMany
	return list[:len(list)-tooMany]
}

// ask takes in the keys of a peer. If it is being asked already, ask waits for that
// answer.
func (p *peers) ask(ctx context.Context, at discovery.Peer) {
	one, inFlight := p.begin(at.URL)
	if inFlight != nil {
		select {
		case <-inFlight:
		case <-ctx.Done():
		}
		return
	}
	began := p.cfg.Now()
	instance, err := p.fetch(ctx, at)
	p.end(ctx, one, at.URL, began, instance, err)
}

// begin returns the peer that the caller is to ask, or what is closed when the
// question has ended that it is being asked already.
func (p *peers) begin(base string) (one *peer, inFlight <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one = p.known[base]
	if one == nil {
		one = &peer{}
		p.known[base] = one
	}
	if one.inFlight != nil {
		return nil, one.inFlight
	}
	one.inFlight = make(chan struct{})
	return one, nil
}

// end takes in what became of asking a peer, which may have left the list meanwhile.
func (p *peers) end(ctx context.Context, one *peer, base string, began time.Time, instance string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.answered)
	p.answered = make(chan struct{})
	close(one.inFlight)
	one.inFlight = nil
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return // nothing was learned
	}
	one.asked = began
	var rejected *disbelief
	result := fetchOK
	switch {
	case err == nil && instance == p.cfg.Instance:
		one.instance, one.self, result = instance, p.cfg.Now(), fetchSelf
	case err == nil:
		one.instance, one.self, one.believed = instance, time.Time{}, p.cfg.Now()
	case errors.As(err, &rejected):
		result = fetchRejected
		p.metrics.rejected.WithLabelValues(rejected.reason).Inc()
	default:
		result = fetchFailed
	}
	p.metrics.fetches.WithLabelValues(result).Inc()
	p.logLocked(ctx, base, one, err)
}

// logLocked logs that a peer begins to fail, or fails in another way than before, or
// no longer fails.
func (p *peers) logLocked(ctx context.Context, base string, one *peer, err error) {
	was := one.problem
	one.problem = ""
	if err != nil {
		one.problem = err.Error()
	}
	var rejected *disbelief
	switch {
	case one.problem == was:
	case errors.As(err, &rejected):
		p.cfg.Logger.WarnContext(ctx, "not believed: the answer of a peer", "url", base, "reason", rejected.reason, "err", err)
	case err != nil && was == "":
		p.cfg.Logger.WarnContext(ctx, "a peer cannot be asked for its keys", "url", base, "err", err)
	case err == nil && was != "":
		p.cfg.Logger.InfoContext(ctx, "a peer answers again", "url", base, "replica", one.instance)
	}
}

// nextAnswer returns a channel that is closed when the next question has ended.
func (p *peers) nextAnswer() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answered
}

// heardFromMaker reports whether the maker of a key has answered a question that was put at
// that time or later. Without a maker, it reports whether all peers have.
func (p *peers) heardFromMaker(maker string, since time.Time) bool {
	if maker != "" {
		return p.heardFrom(maker, since)
	}
	asked := p.others()
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(asked) > 0 && !slices.ContainsFunc(asked, func(at discovery.Peer) bool {
		one := p.known[at.URL]
		return one == nil || one.problem != "" || one.asked.Before(since)
	})
}

// heardFrom reports whether a replica has answered a question that was put at that
// time or later.
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

// A disbelief is why the answer of a peer is not believed.
type disbelief struct{ reason, text string }

func (d *disbelief) Error() string { return d.text }

// A refusal is an answer that is none: the status, and the code of the problem.
type refusal struct {
	status int
	code   string
}

func refusalOf(status int, body []byte) *refusal {
	var p struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(body, &p) // else it has no code
	return &refusal{status, p.Code}
}

// codes are what the code of a problem looks like. Nothing else that a server says is told.
var codes = regexp.MustCompile(`^[a-z][a-z_]{0,49}$`)

func (r *refusal) Error() string {
	if codes.MatchString(r.code) {
		return fmt.Sprintf("it answers %d (%s)", r.status, r.code)
	}
	return fmt.Sprintf("it answers %d", r.status)
}

// HasNoAnswer reports whether an error of asking a replica means that what answered does not know
// such questions, as a replica of an older version does not.
func HasNoAnswer(err error) bool {
	var refused *refusal
	return errors.As(err, &refused) && refused.status == http.StatusNotFound
}

// IsStranger reports whether an error of asking a replica means that what answered does not have
// the secret of this cluster.
func IsStranger(err error) bool {
	var refused *refusal
	var rejected *disbelief
	return errors.As(err, &refused) && refused.code == errNoReplica.Code || errors.As(err, &rejected)
}

// fetch asks a peer for its keys and takes them in. It returns the id of the replica
// that answered.
func (p *peers) fetch(ctx context.Context, at discovery.Peer) (instance string, err error) {
	instance, body, err := p.get(ctx, at, "/api/pkeys?local=true", nil, accesstoken.MaxKeySetLength, p.secret.answer)
	if err != nil || instance == p.cfg.Instance {
		return instance, err
	}
	return instance, p.registry.takeInAnswer(ctx, instance, body)
}

// get asks a peer. It returns the id of the replica that answered, and its answer, if
// the cluster's secret vouches for them and for this question.
func (p *peers) get(ctx context.Context, at discovery.Peer, path string, header http.Header, longest int64, mac func(nonce, instance string, body []byte) []byte) (instance string, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, timing.PeerTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.URL+path, nil)
	if err != nil {
		return "", nil, err
	}
	if header != nil {
		r.Header = header.Clone()
	}
	nonce := rand.Text()
	p.secret.traced(r, nonce)
	return ask(p.cfg.Client(at.Name), r, nonce, longest, mac)
}

// ask sends a question with a nonce. It returns the id of the replica that answered, and its
// answer, if the MAC vouches for them and for this question.
func ask(client *http.Client, r *http.Request, nonce string, longest int64, mac func(nonce, instance string, body []byte) []byte) (instance string, body []byte, err error) {
	r.Header.Set(HeaderNonce, nonce)
	answer, err := client.Do(r)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err // without the URL, which the log entry has
		}
		return "", nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(io.LimitReader(answer.Body, longest+1))
	switch {
	case err != nil:
		return "", nil, err
	case answer.StatusCode != http.StatusOK:
		return "", nil, refusalOf(answer.StatusCode, body)
	case int64(len(body)) > longest:
		return "", nil, errors.New("its answer is too long")
	}
	instance = answer.Header.Get(HeaderInstance)
	got, err := base64.RawURLEncoding.Strict().DecodeString(answer.Header.Get(HeaderMAC))
	if err != nil || instance == "" || !hmac.Equal(got, mac(nonce, instance, body)) {
		return "", nil, &disbelief{wrongMAC, "the answer is not vouched for by the cluster's secret for this question"}
	}
	return instance, body, nil
}
