package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// RotateKeys asks every running replica to replace its signing keys. Each does so within
// about a second. Tokens stay valid.
func (p *Parts) RotateKeys(ctx context.Context) error {
	return p.rotateKeys(ctx, store.AuditEvent{Action: "key.rotate"}, false)
}

// RotateKeysAtOnce is RotateKeys with new keys that sign as soon as no cache that honours the key
// set's max-age lacks them. Verifiers that keep a key set for longer refuse their tokens until then.
func (p *Parts) RotateKeysAtOnce(ctx context.Context) error {
	return p.rotateKeys(ctx, store.AuditEvent{Action: "key.rotate", Detail: "now"}, true)
}

func (p *Parts) rotateKeys(ctx context.Context, event store.AuditEvent, atOnce bool) error {
	return p.update(ctx, event, func(r store.Records) error {
		return keyring.RequestRotation(ctx, r, time.Now(), atOnce)
	})
}

// RevokeKey revokes a signing key, or a signing secret of cfg, and every token that it signed. The reason goes into the audit
// trail. Running replicas replace the key at their next poll.
func (p *Parts) RevokeKey(ctx context.Context, cfg *config.Config, kid, reason string) error {
	by, err := voucher(cfg)
	if err != nil {
		return err
	}
	return p.update(ctx, store.AuditEvent{Action: "key.revoke", Target: kid, Detail: reason}, func(r store.Records) error {
		_, err := login.RevokeKeyIn(ctx, r, p.Revocations, by, kid, SecretKids(cfg, kid), "", time.Now())
		return err
	})
}

// SecretKids returns all kids, one for each algorithm, of the signing secret of cfg that has the given
// one among them; none: no secret has it.
func SecretKids(cfg *config.Config, kid string) []string {
	for _, keys := range secretKeys(cfg) {
		if slices.ContainsFunc(keys, func(k accesstoken.Key) bool { return k.ID == kid }) {
			kids := make([]string, len(keys))
			for i, k := range keys {
				kids[i] = k.ID
			}
			return kids
		}
	}
	return nil
}

// secretKeys returns the keys of each signing secret of cfg.
func secretKeys(cfg *config.Config) (all [][]accesstoken.Key) {
	for _, s := range cfg.SharedSecrets() {
		if keys, err := accesstoken.SecretKeys(s.Text); err == nil { // Config.Validate refuses the others
			all = append(all, keys)
		}
	}
	return all
}

// secretKey returns the key with that kid, of a signing secret of cfg that has not ended.
func secretKey(cfg *config.Config, kid string, now time.Time) (accesstoken.Key, bool) {
	for _, s := range cfg.SharedSecrets() {
		if !s.End.IsZero() && !now.Before(s.End) {
			continue
		}
		keys, _ := accesstoken.SecretKeys(s.Text) // Config.Validate refuses those that are too short
		if at := slices.IndexFunc(keys, func(k accesstoken.Key) bool { return k.ID == kid }); at >= 0 {
			return keys[at], true
		}
	}
	return accesstoken.Key{}, false
}

// AdoptKeys makes those signing keys of an older version, which a replica alone left in the
// database, keys of this one. It returns their kids.
func (p *Parts) AdoptKeys(ctx context.Context, cfg *config.Config) (kids []string, err error) {
	if cfg.KeysIn() != config.KeysDatabase {
		return nil, errors.New("tokens.keys: no key is kept in the database")
	}
	box, err := StorageBox(ctx, cfg, nil)
	if err != nil {
		return nil, err
	}
	longest := keyring.LongestLife(cfg.Tokens.KeyDuration, cfg.Tokens.TokenDuration, cfg.Tokens.KeySetMaxAge, cfg.PublishAhead())
	err = p.update(ctx, store.AuditEvent{Action: "key.adopt"}, func(r store.Records) error {
		kids, err = keyring.AdoptIn(ctx, r, keysource.Sealed{Box: box}, time.Now(), longest)
		return err
	})
	return kids, err
}

// voucher is what authenticates the rows of signing keys for the replicas of cfg.
func voucher(cfg *config.Config) (keyring.Voucher, error) {
	if !cfg.Cluster.Enabled {
		return keyring.Alone{}, nil
	}
	return cluster.NewVoucher(cfg.Cluster.Secret)
}

// update runs f and records the event in the audit trail, both or neither.
func (p *Parts) update(ctx context.Context, event store.AuditEvent, f func(r store.Records) error) error {
	event.Outcome = audit.OK
	err := p.Store.Update(ctx, func(r store.Records) error {
		if err := p.Audit.RecordIn(ctx, r, event); err != nil {
			return err
		}
		return f(r) // last: an entry of the revocation log locks the log until the commit
	})
	if err == nil {
		p.Audit.Log(ctx, event)
	}
	return err
}

// InspectToken reports what is wrong with a token, by the rules of cfg, its signing secrets, the
// signing keys in the database, and the revocation log.
func (p *Parts) InspectToken(ctx context.Context, cfg *config.Config, compact string) (token.Report, error) {
	keys, err := p.publicKeys(ctx, cfg)
	if err != nil {
		return token.Report{}, err
	}
	r, now := Rules(cfg), time.Now()
	find := func(kid string) (accesstoken.Key, error) {
		if key, ok := secretKey(cfg, kid, now); ok {
			return key, nil
		}
		return keys.Find(kid)
	}
	report := token.Inspect(compact, now, find, &r)
	if !report.Valid {
		return report, nil
	}
	t, err := r.Check(compact, now, find)
	if err != nil {
		return token.Report{}, err
	}
	switch err := p.checkRevoked(ctx, cfg, t); {
	case errors.Is(err, revocation.ErrRevoked):
		report.Valid = false
		report.Findings = append(report.Findings, "It has been revoked, by a logout or by an administrator.")
	case err != nil:
		return token.Report{}, err
	}
	return report, nil
}

// publicKeys returns the public keys whose tokens may not have expired yet, also revoked
// ones.
func (p *Parts) publicKeys(ctx context.Context, cfg *config.Config) (*accesstoken.KeySet, error) {
	rows, err := p.Store.Keys(ctx)
	if err != nil {
		return nil, err
	}
	believed, err := rowsBelieved(ctx, cfg)
	if err != nil {
		return nil, err
	}
	var keys []accesstoken.Key
	for _, row := range rows {
		if keyring.State(row, time.Now()) == keyring.Removed || row.RevokedAt.IsZero() && !believed(row) {
			continue
		}
		key, err := accesstoken.ParseJWK(row.PublicJWK)
		if err != nil {
			return nil, fmt.Errorf("the signing key %q in the database cannot be read: %w", row.ID, err)
		}
		keys = append(keys, key)
	}
	return accesstoken.NewKeySet(keys...)
}

// rowsBelieved returns what reports whether a replica of cfg believes the row of a key. A replica
// alone uses no key of another source than its own. If it keeps its keys in memory, no other process
// can tell which of those are its own.
func rowsBelieved(ctx context.Context, cfg *config.Config) (func(store.Key) bool, error) {
	if cfg.Cluster.Enabled {
		by, err := voucher(cfg)
		if err != nil {
			return nil, err
		}
		return by.Vouched, nil
	}
	var source keysource.Source
	switch keys := cfg.KeysIn(); keys {
	case config.KeysDatabase:
		box, err := StorageBox(ctx, cfg, nil)
		if err != nil {
			return nil, err
		}
		source = keysource.Sealed{Box: box}
	case config.KeysPKCS11, config.KeysRemote:
		open := KeptBox
		if cfg.Database.IsSQLite() {
			open = StorageBox // which reads the key file, and makes none without holders
		}
		box, err := open(ctx, cfg, nil)
		if err != nil {
			return nil, err
		}
		source = keysource.Outside{Name: string(keys), Box: box}
	default:
		return func(k store.Key) bool { return keysource.NameOf(k.Sealed) == keysource.NameMemory }, nil
	}
	return func(k store.Key) bool { return source.Opens(k.Sealed) && keyring.Authentic(source, k) }, nil
}

// checkRevoked reads the revocation log once and checks the token against it.
func (p *Parts) checkRevoked(ctx context.Context, cfg *config.Config, t *accesstoken.Token) error {
	view, err := p.readLog(ctx, cfg)
	if err != nil {
		return err
	}
	return view.Check(ctx, t)
}

// readLog reads the revocation log once.
func (p *Parts) readLog(ctx context.Context, cfg *config.Config) (*revocation.View, error) {
	view, err := revocation.NewView(revocation.Config{
		Store: p.Store, Poll: cfg.Revocation.Poll, MaxStaleness: cfg.Revocation.MaxStaleness, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	return view, view.Refresh(ctx)
}
