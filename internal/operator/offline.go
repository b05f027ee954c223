package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	return p.update(ctx, store.AuditEvent{Action: "key.rotate"}, func(r store.Records) error {
		return keyring.RequestRotation(ctx, r, time.Now())
	})
}

// RevokeKey revokes a signing key and every token that it signed. Running replicas replace
// it at their next poll.
func (p *Parts) RevokeKey(ctx context.Context, cfg *config.Config, kid string) error {
	by, err := voucher(cfg)
	if err != nil {
		return err
	}
	return p.update(ctx, store.AuditEvent{Action: "key.revoke", Target: kid}, func(r store.Records) error {
		_, err := login.RevokeKeyIn(ctx, r, p.Revocations, by, kid, "", time.Now())
		return err
	})
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
	longest := keyring.LongestLife(cfg.Tokens.KeyDuration, cfg.Tokens.TokenDuration, cfg.Tokens.KeySetMaxAge)
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

// InspectToken reports what is wrong with a token, by the rules of cfg, the signing keys in
// the database, and the revocation log.
func (p *Parts) InspectToken(ctx context.Context, cfg *config.Config, compact string) (token.Report, error) {
	keys, err := p.publicKeys(ctx, cfg)
	if err != nil {
		return token.Report{}, err
	}
	r, now := Rules(cfg), time.Now()
	report := token.Inspect(compact, now, keys.Find, &r)
	if !report.Valid {
		return report, nil
	}
	t, err := r.Check(compact, now, keys.Find)
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
			return nil, fmt.Errorf("the signing key %s in the database cannot be read: %w", row.ID, err)
		}
		keys = append(keys, key)
	}
	return accesstoken.NewKeySet(keys...)
}

// rowsBelieved returns what reports whether a replica of cfg believes the row of a key. A replica
// alone that keeps its keys in memory believes its own, and no other process can tell which
// those are.
func rowsBelieved(ctx context.Context, cfg *config.Config) (func(store.Key) bool, error) {
	switch {
	case cfg.Cluster.Enabled:
		by, err := voucher(cfg)
		if err != nil {
			return nil, err
		}
		return by.Vouched, nil
	case cfg.KeysIn() == config.KeysDatabase:
		box, err := StorageBox(ctx, cfg, nil)
		if err != nil {
			return nil, err
		}
		return func(k store.Key) bool { return keyring.Authentic(keysource.Sealed{Box: box}, k) }, nil
	}
	return func(store.Key) bool { return true }, nil
}

// checkRevoked reads the revocation log once and checks the token against it.
func (p *Parts) checkRevoked(ctx context.Context, cfg *config.Config, t *accesstoken.Token) error {
	view, err := revocation.NewView(revocation.Config{
		Store: p.Store, Poll: cfg.Revocation.Poll, MaxStaleness: cfg.Revocation.MaxStaleness, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	if err := view.Refresh(ctx); err != nil {
		return err
	}
	return view.Check(ctx, t)
}
