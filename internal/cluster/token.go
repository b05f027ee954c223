package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"

	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/timing"
)

// TokenPath is where a replica answers a TokenQuestion.
const TokenPath = "/api/cluster/verify"

const (
	// tokenPlace is what a question is sealed for (package seal).
	tokenPlace = "token question"
	// maxVerdict bounds a TokenAnswer in bytes.
	maxVerdict = 1 << 10
)

// A TokenQuestion asks a peer whether it accepts an access token. The token is sealed under
// the cluster's secret and the question's nonce, since a peer's URL may lead to somebody who
// is no replica.
type TokenQuestion struct {
	Sealed []byte `json:"question" doc:"the token, encrypted under the cluster's secret"`
}

// A TokenAnswer answers a TokenQuestion.
type TokenAnswer struct {
	Accepted bool `json:"accepted" doc:"whether this replica accepts the token"`
}

// errNoReplica: the question was not sealed under the cluster's secret for its nonce.
var errNoReplica = problem.New(problem.Denied, "not_a_replica", "only a replica of this cluster may ask this")

// AnswerToken answers a peer that chose the nonce and asks about a token, and returns what
// authenticates the answer. accepts reports whether a token is accepted; its error becomes
// AnswerToken's. The other errors are for the peer, too.
func (c *Cluster) AnswerToken(nonce string, q TokenQuestion, accepts func(token string) (bool, error)) (body []byte, instance, mac string, err error) {
	token, err := c.secret.question(nonce).Open(q.Sealed, tokenPlace)
	if err != nil {
		return nil, "", "", errNoReplica.Because(err)
	}
	accepted, err := accepts(string(token))
	if err != nil {
		return nil, "", "", err
	}
	if body, err = json.Marshal(TokenAnswer{accepted}); err != nil {
		return nil, "", "", err
	}
	instance, mac, err = c.vouch(nonce, body, c.secret.verdict)
	return body, instance, mac, err
}

// Accepts asks a peer whether it accepts a token.
func (c *Cluster) Accepts(ctx context.Context, at discovery.Peer, token string) (bool, error) {
	return (&Asker{c.secret, c.cfg.Client}).Accepts(ctx, at, token)
}

// An Asker asks replicas about tokens, and need not be one.
type Asker struct {
	secret *secret
	client func(name string) *http.Client
}

// NewAsker makes an Asker. clusterSecret is that of the replicas, and client that of a
// Config.
func NewAsker(clusterSecret string, client func(name string) *http.Client) (*Asker, error) {
	s, err := newSecret(clusterSecret)
	return &Asker{s, client}, err
}

// Accepts asks a replica whether it accepts a token. Nobody without the cluster's secret can
// read the token on the way, or be believed.
func (a *Asker) Accepts(ctx context.Context, at discovery.Peer, token string) (bool, error) {
	nonce := rand.Text()
	question, err := json.Marshal(TokenQuestion{a.secret.question(nonce).Seal([]byte(token), tokenPlace)})
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, timing.PeerTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, at.URL+TokenPath, bytes.NewReader(question))
	if err != nil {
		return false, err
	}
	r.Header.Set("Content-Type", "application/json")
	a.secret.traced(r, nonce)
	_, body, err := ask(a.client(at.Name), r, nonce, maxVerdict, a.secret.verdict)
	if err != nil {
		return false, err
	}
	var answer TokenAnswer
	err = json.Unmarshal(body, &answer)
	return answer.Accepted, err
}
