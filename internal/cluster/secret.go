package cluster

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/store"
)

// MinSecret is how long the cluster's secret must be, in bytes.
const MinSecret = 32

// A secret is the cluster's secret as a key for each purpose, so that a MAC that was
// made for one purpose means nothing for another (RFC 5869).
type secret struct {
	keys     []byte // rows of signing keys: what the key is, and its times
	states   []byte // rows of signing keys: all of it
	replicas []byte // rows of replicas
	answers  []byte // answers to peers that ask for keys
	feeds    []byte // answers to peers that ask what was revoked
	asked    []byte // questions about a token
	verdicts []byte // answers to those
	traces   []byte // of questions
	examines []byte // questions how a replica is, and answers to those, sealed
	examinee []byte // the same answers
}

// purposePrefix begins what a key of the secret is for.
const purposePrefix = "watchword cluster 1: "

// checkSecret returns an error if a secret is too short.
func checkSecret(text string) error {
	if len(text) < MinSecret {
		return fmt.Errorf("cluster.secret has %d bytes: give it %d at least (openssl rand -base64 32)", len(text), MinSecret)
	}
	return nil
}

func newSecret(text string) (*secret, error) {
	if err := checkSecret(text); err != nil {
		return nil, err
	}
	s := &secret{}
	for purpose, key := range map[string]*[]byte{
		"signing key":       &s.keys,
		"signing key state": &s.states,
		"replica":           &s.replicas,
		"answer":            &s.answers,
		"revocations":       &s.feeds,
		"token":             &s.asked,
		"verdict":           &s.verdicts,
		"trace":             &s.traces,
		"examination":       &s.examines,
		"examined":          &s.examinee,
	} {
		var err error
		if *key, err = hkdf.Key(sha256.New, []byte(text), nil, purposePrefix+purpose, sha256.Size); err != nil {
			return nil, fmt.Errorf("cluster.secret: %w", err)
		}
	}
	return s, nil
}

// key is the MAC of a signing key's row over everything that says what the key is and how
// long it lives. State is over that it was revoked, or was not, as well. There are two, because
// versions before the second one know the first alone.
func (s *secret) key(k store.Key) []byte {
	return sum(s.keys, k.ID, k.Instance, k.Algorithm, string(k.PublicJWK),
		store.Micros(k.CreatedAt), store.Micros(k.ActivateAt), store.Micros(k.RetireAt), store.Micros(k.RemoveAt))
}

func (s *secret) state(k store.Key) []byte { return sum(s.states, string(keyring.Statement(k))) }

// Authenticate implements keyring.Voucher.
func (s *secret) Authenticate(k store.Key) store.Key {
	k.MAC, k.StateMAC = s.key(k), s.state(k)
	return k
}

// Vouched implements keyring.Voucher: ownsKey.
func (s *secret) Vouched(k store.Key) bool { return s.ownsKey(k) }

// NewVoucher returns what authenticates the rows of signing keys, for a process that is no
// replica.
func NewVoucher(clusterSecret string) (keyring.Voucher, error) { return newSecret(clusterSecret) }

// replica is the MAC of a replica's row. Versions before replicas had secrets believe the row
// of one that has had none.
func (s *secret) replica(r store.Replica) []byte {
	fields := []any{r.Instance, r.Incarnation, r.URL, r.Version, r.Config,
		r.MaxAge.Microseconds(), store.Micros(r.StartedAt), store.Micros(r.ClockAt), r.Seen}
	if len(r.Secrets) > 0 || !r.EnteredAt.IsZero() {
		fields = append(fields, strings.Join(r.Secrets, " "), store.Micros(r.EnteredAt))
	}
	return sum(s.replicas, fields...)
}

// feed is the MAC of a page of revocations after a number of a log, for a peer that
// chose the nonce. The number is in it because the page does not name it: whoever can
// change the question could have a part of the log left out.
func (s *secret) feed(nonce, instance, log string, after int64, body []byte) []byte {
	return sum(s.feeds, nonce, instance, log, after, string(body))
}

// answer is the MAC of the keys that a replica answers, for a peer that chose the
// nonce.
func (s *secret) answer(nonce, instance string, body []byte) []byte {
	return sum(s.answers, nonce, instance, string(body))
}

// question returns what seals the question about a token that has the nonce.
func (s *secret) question(nonce string) *seal.Box { return boxFor(s.asked, nonce) }

// examination returns what seals the question that has the nonce, and its answer, for a doctor.
func (s *secret) examination(nonce string) *seal.Box { return boxFor(s.examines, nonce) }

// boxFor returns what seals under a nonce. Each nonce has a key of its own, so that there is no
// bound on how many questions a cluster may seal.
func boxFor(key []byte, nonce string) *seal.Box {
	box, err := seal.New(sum(key, nonce))
	if err != nil {
		panic(err) // the key has the length of a sum
	}
	return box
}

// verdict is the MAC of a replica's answer about a token, for a peer that chose the nonce.
// The nonce stands for the token: no other question can be sealed under it.
func (s *secret) verdict(nonce, instance string, body []byte) []byte {
	return sum(s.verdicts, nonce, instance, string(body))
}

// examined is the MAC of a replica's sealed answer to a doctor that chose the nonce. Without it,
// whoever asks the same nonce of two replicas could give the answer of one for that of the other.
func (s *secret) examined(nonce, instance string, body []byte) []byte {
	return sum(s.examinee, nonce, instance, string(body))
}

// ownsKey and ownsReplica report whether the secret vouches for a row. A row that an older
// version made has no MAC of its state, and its own MAC says so.
func (s *secret) ownsKey(k store.Key) bool {
	return hmac.Equal(k.MAC, s.key(k)) && (!keyring.NeedsStateMAC(k) || hmac.Equal(k.StateMAC, s.state(k)))
}

func (s *secret) ownsReplica(r store.Replica) bool { return hmac.Equal(r.MAC, s.replica(r)) }

// sum is HMAC-SHA-256 over the fields, which are strings and numbers. Each follows its
// length.
func sum(key []byte, fields ...any) []byte {
	h := hmac.New(sha256.New, key)
	for _, f := range fields {
		var b []byte
		switch f := f.(type) {
		case string:
			b = []byte(f)
		case int64:
			b = binary.BigEndian.AppendUint64(nil, uint64(f))
		}
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	return h.Sum(nil)
}
