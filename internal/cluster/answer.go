package cluster

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// The headers of a question to a peer and of its answer.
const (
	HeaderNonce    = "Watchword-Nonce"    // chosen by the replica that asks
	HeaderInstance = "Watchword-Instance" // the replica that answers
	HeaderMAC      = "Watchword-MAC"      // over the nonce, the instance and the body, in base64url
)

// minNonce and maxNonce bound the length of what a peer may have authenticated.
const minNonce, maxNonce = 16, 128

// An answer is what a replica answers to a peer: a JWK Set, and which keys it has seen revoked.
type answer struct {
	Keys    []json.RawMessage   `json:"keys"`
	Revoked []keyring.Tombstone `json:"revoked,omitempty"`
}

// An answeredKey is a key in an answer. These are additional members of the JWK.
type answeredKey struct {
	Kid string `json:"kid"`
	Alg string `json:"alg"`
	// Exp is when the last token that the key can have signed has expired, in Unix
	// time.
	Exp int64 `json:"exp"`
	// Registered is the key's row in the registry. Replicas that store their keys
	// share them, so that one signs with what another one made. The MAC shows that
	// a replica which has the key vouches for the row.
	Registered *registered `json:"registered,omitempty"`
}

// registered is what a row in the registry has besides the key. Times are in
// microseconds since 1970.
type registered struct {
	CreatedAt  int64  `json:"created_at"`
	ActivateAt int64  `json:"activate_at"`
	RetireAt   int64  `json:"retire_at"`
	RemoveAt   int64  `json:"remove_at"`
	MAC        []byte `json:"mac"`
}

var errNonce = problem.New(problem.Malformed, "nonce_invalid", "the header "+HeaderNonce+" has %d to %d printable characters", minNonce, maxNonce)

// AnswerKeys returns the keys of this replica for a peer that chose the nonce, and
// what authenticates them. The error is for the peer: its nonce is none.
func (c *Cluster) AnswerKeys(nonce string) (body []byte, instance, mac string, err error) {
	if !validNonce(nonce) {
		return nil, "", "", errNonce
	}
	body = c.answers.body(c.registry.local.Published(), c.cfg.Revoked.All(), c.secret.key)
	instance, mac, err = c.vouch(nonce, body, c.secret.answer)
	return body, instance, mac, err
}

// answers has the last answer, since strangers ask, too: for them an answer costs its MAC
// alone.
type answers struct {
	mu      sync.Mutex // guards everything below
	keys    []keyring.PublicKey
	revoked []keyring.Tombstone
	last    []byte
}

func (a *answers) body(keys []keyring.PublicKey, revoked []keyring.Tombstone, mac func(store.Key) []byte) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	same := func(a, b keyring.PublicKey) bool {
		return a.ID == b.ID && bytes.Equal(keyring.Statement(a.Row), keyring.Statement(b.Row))
	}
	if a.last == nil || !slices.EqualFunc(keys, a.keys, same) || !slices.Equal(revoked, a.revoked) {
		body, err := encodeAnswer(keys, revoked, mac)
		if err != nil {
			panic(err) // each key is a Signer's
		}
		a.keys, a.revoked, a.last = keys, revoked, body
	}
	return a.last
}

// AnswerFeed returns what authenticates a page of revocations for a peer that asked
// for what comes after a number of a log. The error is for the peer: its nonce is none.
func (c *Cluster) AnswerFeed(nonce, log string, after int64, body []byte) (instance, mac string, err error) {
	return c.vouch(nonce, body, c.feedMAC(log, after))
}

func validNonce(nonce string) bool {
	return len(nonce) >= minNonce && len(nonce) <= maxNonce && !strings.ContainsFunc(nonce, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (c *common) vouch(nonce string, body []byte, mac func(nonce, instance string, body []byte) []byte) (instance, text string, err error) {
	if !validNonce(nonce) {
		return "", "", errNonce
	}
	return c.cfg.Instance, base64.RawURLEncoding.EncodeToString(mac(nonce, c.cfg.Instance, body)), nil
}

// encodeAnswer makes the body of an answer. This replica has each key, so it vouches for the
// key's row itself, with the JWK as the answer has it.
func encodeAnswer(keys []keyring.PublicKey, revoked []keyring.Tombstone, mac func(store.Key) []byte) ([]byte, error) {
	set := answer{Keys: []json.RawMessage{}, Revoked: revoked}
	for _, k := range keys {
		jwk, err := k.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("cluster: key set: %w", err)
		}
		row := k.Row
		row.PublicJWK = jwk
		more, err := json.Marshal(struct {
			Exp        int64      `json:"exp"`
			Registered registered `json:"registered"`
		}{
			k.Row.RemoveAt.Add(time.Second - 1).Unix(), // rounded up
			registered{
				store.Micros(k.Row.CreatedAt), store.Micros(k.Row.ActivateAt), store.Micros(k.Row.RetireAt), store.Micros(k.Row.RemoveAt), mac(row),
			},
		})
		if err != nil {
			return nil, fmt.Errorf("cluster: key set: %w", err)
		}
		set.Keys = append(set.Keys, append(append(jwk[:len(jwk)-1], ','), more[1:]...))
	}
	return json.Marshal(set)
}

// takeInAnswer takes in the keys that a replica has answered. If there is one that it
// may not speak for, the others are taken in none the less.
func (r *registry) takeInAnswer(ctx context.Context, instance string, body []byte) error {
	var set answer
	if err := json.Unmarshal(body, &set); err != nil {
		return &disbelief{wrongKey, "the answer is not a key set"}
	}
	r.cfg.Revoked.Merge(set.Revoked)
	r.mu.Lock()
	defer r.mu.Unlock()
	var wrong error
	for _, raw := range set.Keys {
		k, err := r.readAnswered(instance, raw)
		if err != nil {
			wrong = err
			continue
		}
		r.takeInLocked(ctx, k)
	}
	r.mergeLocked()
	return wrong
}

// readAnswered returns a key that a replica has answered as a row. The replica may
// speak for its own keys, those included that it shares with others, and for keys of others
// whose row is vouched for.
func (c *common) readAnswered(instance string, raw []byte) (store.Key, error) {
	var about answeredKey
	if err := json.Unmarshal(raw, &about); err != nil {
		return store.Key{}, &disbelief{wrongKey, "the answer has a key that cannot be read"}
	}
	k := store.Key{ID: about.Kid, Instance: instance, Algorithm: about.Alg, PublicJWK: raw, CreatedAt: c.cfg.Now(), RemoveAt: time.Unix(about.Exp, 0)}
	if maker, ours := makerOf(about.Kid); ours && maker != "" && maker != instance && about.Registered != nil {
		row, err := about.row(maker, raw)
		if err != nil {
			return k, &disbelief{wrongKey, "the answer has a key that is none"}
		}
		if !c.secret.ownsKey(row) {
			return k, &disbelief{wrongMAC, fmt.Sprintf("the answer has a key of another replica that the cluster's secret does not vouch for: %.80q", about.Kid)}
		}
		k = row
	}
	if about.Registered != nil {
		k.RemoveAt = time.UnixMicro(about.Registered.RemoveAt).UTC() // which Exp rounds up
	}
	if _, reason := c.check(k); reason != "" {
		return k, &disbelief{reason, fmt.Sprintf("the answer has a key that %s may not speak for, or that is none: %.80q", instance, about.Kid)}
	}
	return k, nil
}

// row is the row of the registry that the key has at its maker.
func (a answeredKey) row(maker string, raw []byte) (store.Key, error) {
	key, err := accesstoken.ParseJWK(raw)
	if err != nil {
		return store.Key{}, err
	}
	jwk, err := key.MarshalJSON() // without the additional members
	return store.Key{
		ID: a.Kid, Instance: maker, Algorithm: a.Alg, PublicJWK: jwk,
		CreatedAt: time.UnixMicro(a.Registered.CreatedAt).UTC(), ActivateAt: time.UnixMicro(a.Registered.ActivateAt).UTC(),
		RetireAt: time.UnixMicro(a.Registered.RetireAt).UTC(), RemoveAt: time.UnixMicro(a.Registered.RemoveAt).UTC(), MAC: a.Registered.MAC,
	}, err
}
