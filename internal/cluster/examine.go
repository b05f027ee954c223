package cluster

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/problem"
)

// ExaminePath is where a replica answers an ExamineQuestion.
const ExaminePath = "/api/cluster/examine"

const (
	// examinePlace and examinedPlace are what a question and its answer are sealed for
	// (package seal).
	examinePlace  = "examination"
	examinedPlace = "examination answer"
	// maxExamined bounds an ExamineAnswer in bytes. All settings of a replica are in it, among
	// them lists of addresses.
	maxExamined = 1 << 20
	// maxExaminations bounds how many nonces a replica remembers. A doctor puts some ten
	// questions, so that whoever wants a question forgotten has to have recorded hundreds of
	// doctors.
	maxExaminations = 4096
	// examineTimeout bounds an examination. A replica asks its database meanwhile, whose own
	// time-outs are longer than what a peer is given for its keys.
	examineTimeout = 10 * time.Second
)

// An ExamineQuestion asks a replica how it is. What is asked is sealed under the cluster's
// secret and the question's nonce, since what answers at a replica's URL may be no replica.
type ExamineQuestion struct {
	Sealed []byte `json:"question" doc:"what is asked, encrypted under the cluster's secret"`
}

// An ExamineAnswer answers an ExamineQuestion. It is sealed as well, since the replica's
// settings are in it.
type ExamineAnswer struct {
	Sealed []byte `json:"answer" doc:"what the replica says, encrypted under the cluster's secret"`
}

// errAskedTwice: the question was answered before. Whoever asks again chooses another nonce.
var errAskedTwice = problem.New(problem.Denied, "question_replayed", "this replica has answered this very question before")

// AnswerExamination answers a doctor that chose the nonce, and returns what authenticates the
// answer. Answer says what is answered; its error becomes AnswerExamination's. The other errors are
// for the doctor, too. A question is answered once: what it has a replica do is not done
// again for somebody who has recorded it.
func (c *Cluster) AnswerExamination(
	ctx context.Context, nonce string, q ExamineQuestion, answer func(ctx context.Context, question []byte) ([]byte, error),
) (body []byte, instance, mac string, err error) {
	if !validNonce(nonce) {
		return nil, "", "", errNonce
	}
	question, err := c.secret.examination(nonce).Open(q.Sealed, examinePlace)
	if err != nil {
		return nil, "", "", errNoReplica.Because(err)
	}
	if !c.examined.first(nonce) {
		return nil, "", "", errAskedTwice
	}
	said, err := answer(ctx, question)
	if err != nil {
		return nil, "", "", err
	}
	if body, err = json.Marshal(ExamineAnswer{c.secret.examination(nonce).Seal(said, examinedPlace)}); err != nil {
		return nil, "", "", err
	}
	instance, mac, err = c.vouch(nonce, body, c.secret.examined)
	return body, instance, mac, err
}

// nonces are those of the questions that were answered last.
type nonces struct {
	mu   sync.Mutex // guards everything below
	seen map[string]bool
	ring []string // the same, the oldest at next
	next int
}

// first notes a nonce and reports whether it is new.
func (n *nonces) first(nonce string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen[nonce] {
		return false
	}
	if n.seen == nil {
		n.seen, n.ring = map[string]bool{}, make([]string, maxExaminations)
	}
	delete(n.seen, n.ring[n.next])
	n.ring[n.next], n.seen[nonce] = nonce, true
	n.next = (n.next + 1) % len(n.ring)
	return true
}

// Examine asks a replica how it is, and returns its id and its answer. Nobody without the
// cluster's secret can read the question or the answer on the way, or be believed.
func (a *Asker) Examine(ctx context.Context, at discovery.Peer, question []byte) (instance string, answer []byte, err error) {
	return a.ExamineThrough(ctx, a.client(at.Name), at.URL, nil, question)
}

// ExamineThrough asks whichever replica answers at a base URL, such as that of a load balancer,
// with headers besides.
func (a *Asker) ExamineThrough(ctx context.Context, client *http.Client, base string, header http.Header, question []byte) (instance string, answer []byte, err error) {
	nonce := rand.Text()
	box := a.secret.examination(nonce)
	sealed, err := json.Marshal(ExamineQuestion{box.Seal(question, examinePlace)})
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+ExaminePath, bytes.NewReader(sealed))
	if err != nil {
		return "", nil, err
	}
	if header != nil {
		r.Header = header.Clone()
	}
	r.Header.Set("Content-Type", "application/json")
	a.secret.traced(r, nonce)
	instance, body, err := ask(client, r, nonce, maxExamined, a.secret.examined)
	if err != nil {
		return "", nil, err
	}
	var said ExamineAnswer
	if err := json.Unmarshal(body, &said); err != nil {
		return "", nil, err
	}
	answer, err = box.Open(said.Sealed, examinedPlace)
	return instance, answer, err
}

// SettingDigest returns a function that digests the text of a secret setting under the secret of
// the cluster. Two replicas have the same digest if they have the same text, and without the
// cluster's secret nobody can try texts out. With it, to try one that is shorter than a secret has to
// be, such as a password, costs as much as with a stolen hash of it.
func SettingDigest(clusterSecret string) (func(key, text string) string, error) {
	if err := checkSecret(clusterSecret); err != nil {
		return nil, err
	}
	under, err := hkdf.Key(sha256.New, []byte(clusterSecret), nil, purposePrefix+"setting", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("cluster.secret: %w", err)
	}
	var mu sync.Mutex               // guards short, and has one hash made at a time
	short := map[[2]string][]byte{} // hashes by key and text
	hash := func(key, text string) []byte {
		mu.Lock()
		defer mu.Unlock()
		is := [2]string{key, text}
		if short[is] == nil {
			if len(short) >= maxHashed {
				clear(short)
			}
			short[is] = argon2.IDKey([]byte(text), sum(under, key), 2, 19*1024, 1, sha256.Size)
		}
		return short[is]
	}
	return func(key, text string) string {
		if len(text) < MinSecret {
			text = string(hash(key, text))
		}
		return "hmac:" + base64.RawURLEncoding.EncodeToString(sum(under, key, text))
	}, nil
}

// maxHashed bounds how many hashes of settings are kept: a replica has fewer, and they change when
// its configuration is read again.
const maxHashed = 64
