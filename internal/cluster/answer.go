package cluster

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

// The headers of a question to a peer and of its answer.
const (
	HeaderNonce    = "Watchword-Nonce"    // chosen by the replica that asks
	HeaderInstance = "Watchword-Instance" // the replica that answers
	HeaderMAC      = "Watchword-MAC"      // over the nonce, the instance and the body, in base64url
)

// minNonce and maxNonce bound the length of what a peer may have authenticated.
const minNonce, maxNonce = 16, 128

// Answer returns what authenticates this replica's keys for a peer that chose the
// nonce. It returns false if the nonce is none.
func (c *Cluster) Answer(nonce string, body []byte) (instance, mac string, ok bool) {
	return c.vouch(nonce, body, c.secret.answer)
}

// AnswerFeed returns what authenticates a page of revocations for a peer that asked
// for what comes after a number of a log. It returns false if the nonce is none.
func (c *Cluster) AnswerFeed(nonce, log string, after int64, body []byte) (instance, mac string, ok bool) {
	return c.vouch(nonce, body, c.feedMAC(log, after))
}

func (c *common) vouch(nonce string, body []byte, mac func(nonce, instance string, body []byte) []byte) (instance, text string, ok bool) {
	if len(nonce) < minNonce || len(nonce) > maxNonce || strings.ContainsFunc(nonce, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", "", false
	}
	return c.cfg.Instance, base64.RawURLEncoding.EncodeToString(mac(nonce, c.cfg.Instance, body)), true
}

// takeInAnswer takes in the keys that a replica has answered. If there is one that it
// may not speak for, the others are taken in none the less.
func (r *registry) takeInAnswer(ctx context.Context, instance string, body []byte) error {
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(body, &set); err != nil {
		return &disbelief{wrongKey, "the answer is not a key set"}
	}
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
// speak for its own keys.
func (c *common) readAnswered(instance string, raw []byte) (store.Key, error) {
	var about struct {
		Kid string
		Alg string
		Exp int64
	}
	if err := json.Unmarshal(raw, &about); err != nil {
		return store.Key{}, &disbelief{wrongKey, "the answer has a key that cannot be read"}
	}
	k := store.Key{ID: about.Kid, Instance: instance, Algorithm: about.Alg, PublicJWK: raw, CreatedAt: c.cfg.Now(), RemoveAt: time.Unix(about.Exp, 0)}
	if _, reason := c.check(k); reason != "" {
		return k, &disbelief{reason, fmt.Sprintf("the answer has a key that %s may not speak for, or that is none: %.80q", instance, about.Kid)}
	}
	return k, nil
}
