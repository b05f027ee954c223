package app

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/sharedsecret"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// signingKeys are what this replica signs with: a ring of keys, or a secret that all replicas
// share.
type signingKeys struct {
	*keyring.Ring
	secrets *sharedsecret.Secrets // accepted; nil: none
	secret  bool                  // one of them signs
}

// Signer returns the key that signs now. A ring that is there besides the secrets signs until
// every replica accepts one of these.
func (k *signingKeys) Signer() (*token.Signer, error) {
	if !k.secret {
		return k.Ring.Signer()
	}
	signer, err := k.secrets.Signer()
	if err != nil {
		if own, ringErr := k.Ring.Signer(); ringErr == nil {
			return own, nil
		}
	}
	return signer, err
}

// kids returns the kids of all secrets that are accepted, as cluster.Config.Secrets has them.
func (k *signingKeys) kids() []string {
	if k.secrets == nil {
		return nil
	}
	kids := k.secrets.Kids()
	if k.secret && k.Ring != nil { // before, it is not known what the other replicas accept
		if signer, err := k.secrets.Signer(); err == nil {
			kids = slices.Insert(kids, 0, signer.KeyID())
		}
	}
	return kids
}

// find returns the key of a token: a secret's, or one of any replica.
func (n *Node) find(kid string) (accesstoken.Key, error) {
	if n.keys.secrets != nil {
		if key, ok := n.keys.secrets.Find(kid); ok {
			return key, nil
		}
	}
	return n.cluster.Find(kid)
}

// openSecrets returns the secrets under which tokens are accepted, and one of which signs if
// tokens.keys says so; nil: there are none.
func (n *Node) openSecrets(o Options, registry prometheus.Registerer) (*sharedsecret.Secrets, error) {
	list := sharedSecrets(o.Config)
	if len(list) == 0 {
		return nil, nil
	}
	algorithm := "" // none signs
	if o.Config.KeysIn() == config.KeysSecret {
		algorithm = o.Config.SigningAlgorithms()[0]
	}
	return sharedsecret.New(sharedsecret.Config{
		Algorithm: algorithm, Accepted: func(kid string) bool { return n.cluster.Accepted(kid) }, Revoked: n.revoked.Has,
		Now: o.Now, Logger: o.Logger, Registerer: registry,
	}, list)
}

func sharedSecrets(cfg *config.Config) (list []sharedsecret.Secret) {
	for _, s := range cfg.SharedSecrets() {
		list = append(list, sharedsecret.Secret{Text: s.Text, End: s.End})
	}
	return list
}

// openKeys joins the cluster, if there is one, and opens the keys of this replica.
func (n *Node) openKeys(ctx context.Context, o Options, registry *prometheus.Registry, start *startup) error {
	cfg := o.Config
	source, err := n.keySource(ctx, o)
	if err != nil {
		return err
	}
	secrets, err := n.openSecrets(o, registry)
	if err != nil {
		return err
	}
	n.keys = &signingKeys{secrets: secrets, secret: cfg.KeysIn() == config.KeysSecret}
	if secrets != nil || n.keeper != nil {
		n.onSecrets = n.replaceSecrets
	}
	c := keyring.Config{
		Source: source, Algorithms: cfg.SigningAlgorithms(), InstanceID: n.instance,
		KeyDuration: cfg.Tokens.KeyDuration, TokenDuration: cfg.Tokens.TokenDuration, Leeway: operator.Leeway,
		MaxAge: keySetAge(cfg), PublishAhead: cfg.PublishAhead(), Revoked: n.revoked,
		Store: n.store, Now: o.Now, Logger: o.Logger, Registerer: registry,
	}
	if cfg.Cluster.Enabled {
		if err := n.join(ctx, o, registry, n.instance, c.MaxAge, start); err != nil {
			return err
		}
	}
	if n.keys.secret {
		c.Algorithms = nil
		if !slices.ContainsFunc(secrets.Kids(), n.cluster.Accepted) {
			// The cluster changes from keys to a secret: until all replicas have it, a key signs.
			c.Algorithms = []string{accesstoken.ES256}
		}
	}
	// So that no key signs, not even for a moment, that the log says is revoked. If it fails, the
	// view goes on trying.
	_ = n.view.Refresh(ctx)
	c.Peers = n.cluster
	if err := start.await(ctx, "open the signing keys", func(ctx context.Context) (err error) {
		n.keys.Ring, err = keyring.Open(ctx, c)
		return err
	}); err != nil {
		return err
	}
	n.cluster.Serve(n.keys)
	if cfg.Cluster.Enabled {
		return nil // keys of other sources are in the registry, and verify
	}
	return n.warnOfOtherSource(ctx, cfg, o.Now())
}

// warnOfOtherSource says at the start of a replica alone which tokens it refuses because
// tokens.keys was another one when they were signed.
func (n *Node) warnOfOtherSource(ctx context.Context, cfg *config.Config, now time.Time) error {
	rows, err := n.store.Keys(ctx)
	if err != nil {
		return fmt.Errorf("signing keys: %w", err)
	}
	var kids []string
	var until time.Time
	for _, row := range rows {
		state, source := keyring.State(row, now), keysource.NameOf(row.Sealed)
		if source == string(cfg.KeysIn()) || state != keyring.Active && state != keyring.Retiring {
			continue
		}
		kids = append(kids, row.ID)
		if row.RemoveAt.After(until) {
			until = row.RemoveAt
		}
	}
	if len(kids) > 0 {
		n.logger.Warn("tokens of signing keys from another source than tokens.keys are refused; their users renew",
			"tokens.keys", cfg.KeysIn(), "kids", kids, "expired_at", until)
	}
	return nil
}

// keySource returns the source of the signing keys that tokens.keys names.
func (n *Node) keySource(ctx context.Context, o Options) (keysource.Source, error) {
	cfg := o.Config
	switch cfg.KeysIn() {
	case config.KeysDatabase:
		box, err := operator.StorageBox(ctx, cfg, n.store)
		return keysource.Sealed{Box: box, Rand: rand.Reader}, err
	case config.KeysPKCS11, config.KeysRemote:
		box, err := operator.KeptBox(ctx, cfg, n.holders(o))
		if err != nil {
			return nil, err
		}
		if n.keeper, err = operator.OpenKeeper(ctx, n.present, o.Logger); err != nil {
			return nil, err
		}
		return keysource.Outside{Name: string(cfg.KeysIn()), Keeper: n.keeper, Box: box}, nil
	}
	return keysource.Memory{Rand: rand.Reader}, nil
}

// replaceSecrets takes over the secrets of another configuration. Keepers ask for theirs when they
// need one.
func (n *Node) replaceSecrets(next *config.Config) error {
	if n.keys.secrets == nil {
		return nil
	}
	if err := n.keys.secrets.Replace(sharedSecrets(next)); err != nil {
		return err
	}
	n.cluster.SecretsChanged()
	return nil
}

// present returns the configuration as it was loaded last.
func (n *Node) present() *config.Config {
	n.reload.Lock()
	defer n.reload.Unlock()
	return n.loaded
}

// holders are the records of a database to which a key file may belong; nil: the program
// brings its own store.
func (n *Node) holders(o Options) operator.Holders {
	if o.Store != nil {
		return nil
	}
	return n.store
}
