package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// States of a SigningKey besides the phases of keyring.
const (
	stateAccepted    = "accepted"     // of a signing secret: it verifies, and does not sign
	stateNotBelieved = "not believed" // of a row: it is not authentic, or of another source
)

// A SigningKey is what is known of a signing key without its private half.
type SigningKey struct {
	ID            string    `json:"kid"`
	Algorithm     string    `json:"alg"`
	Source        string    `json:"source,omitempty"` // as in tokens.keys; "": it was deleted with the private half
	State         string    `json:"state"`
	SignsFrom     time.Time `json:"signs_from,omitzero"`
	SignsUntil    time.Time `json:"signs_until,omitzero"`
	VerifiesUntil time.Time `json:"verifies_until,omitzero"`
	Next          string    `json:"next_state,omitempty"`      // the state that follows; "": none
	NextIn        int64     `json:"next_in_seconds,omitempty"` // until then, in whole seconds, rounded up

	public []byte // a JWK; nil: a signing secret
}

// InKeySet reports whether the key is among the public keys that replicas serve.
func (k *SigningKey) InKeySet() bool {
	return k.public != nil && slices.Contains([]keyring.Phase{keyring.Published, keyring.Active, keyring.Retiring}, keyring.Phase(k.State))
}

// Public returns the public key of a key in the database.
func (k *SigningKey) Public() (accesstoken.Key, error) {
	key, err := accesstoken.ParseJWK(k.public)
	if err == nil && (key.ID != k.ID || key.Algorithm != k.Algorithm) {
		err = errors.New("its row is of another key")
	}
	if err != nil {
		return accesstoken.Key{}, fmt.Errorf("the signing key %q in the database cannot be read: %w", k.ID, err)
	}
	return key, nil
}

func (k *SigningKey) next(state string, at, now time.Time) {
	k.Next, k.NextIn = state, int64((at.Sub(now)+time.Second-1)/time.Second)
}

// SigningKeys returns the signing keys in the database, and after them those of the signing secrets
// of cfg.
func (p *Parts) SigningKeys(ctx context.Context, cfg *config.Config, now time.Time) (list []SigningKey, err error) {
	rows, err := p.Store.Keys(ctx)
	if err != nil {
		return nil, err
	}
	believed := func(store.Key) bool { return true }
	if len(rows) > 0 {
		if believed, err = rowsBelieved(ctx, cfg); err != nil {
			return nil, err
		}
	}
	for _, row := range rows {
		list = append(list, signingKeyOf(row, believed, now))
	}
	secrets, err := p.secretsIn(ctx, cfg, now)
	return append(list, secrets...), err
}

func signingKeyOf(row store.Key, believed func(store.Key) bool, now time.Time) SigningKey {
	phase := keyring.State(row, now)
	k := SigningKey{
		ID: row.ID, Algorithm: row.Algorithm, Source: keysource.NameOf(row.Sealed), State: string(phase),
		SignsFrom: row.ActivateAt, SignsUntil: row.RetireAt, VerifiesUntil: row.RemoveAt, public: row.PublicJWK,
	}
	ended := phase == keyring.Revoked || phase == keyring.Removed
	switch {
	case ended && row.Sealed == nil:
		k.Source = ""
	case !ended && !believed(row):
		k.State = stateNotBelieved
		return k
	}
	switch phase {
	case keyring.Pending:
		k.next(string(keyring.Published), row.CreatedAt, now)
	case keyring.Published:
		k.next(string(keyring.Active), row.ActivateAt, now)
	case keyring.Active:
		k.next(string(keyring.Retiring), row.RetireAt, now)
	case keyring.Retiring:
		k.next(string(keyring.Removed), row.RemoveAt, now)
	}
	return k
}

// secretsIn returns the keys of the signing secrets of cfg. The first secret that is neither revoked
// nor at its end signs, when all replicas accept it.
func (p *Parts) secretsIn(ctx context.Context, cfg *config.Config, now time.Time) (list []SigningKey, err error) {
	secrets := cfg.SharedSecrets()
	if len(secrets) == 0 {
		return nil, nil
	}
	view, err := p.readLog(ctx, cfg)
	if err != nil {
		return nil, err
	}
	signs := "" // the algorithm of the next secret that may sign; "": none does
	if cfg.KeysIn() == config.KeysSecret {
		signs = cfg.SigningAlgorithms()[0]
	}
	for _, secret := range secrets {
		keys, err := accesstoken.SecretKeys(secret.Text)
		if err != nil {
			continue // Config.Validate refuses it
		}
		algorithm := signs
		if len(secret.Text) < accesstoken.MinSecretLength(signs) { // a former one may be too short
			algorithm = keys[len(keys)-1].Algorithm
		}
		for _, key := range keys {
			k := SigningKey{ID: key.ID, Algorithm: key.Algorithm, Source: string(config.KeysSecret), State: stateAccepted, VerifiesUntil: secret.End}
			switch {
			case view.KeyRevoked(key.ID):
				k.State = string(keyring.Revoked)
			case !secret.End.IsZero() && !now.Before(secret.End):
				k.State = string(keyring.Removed)
			default:
				if key.Algorithm == algorithm {
					k.State, signs = string(keyring.Active), ""
				}
				if !secret.End.IsZero() {
					k.next(string(keyring.Removed), secret.End, now)
				}
			}
			list = append(list, k)
		}
	}
	return list, nil
}
