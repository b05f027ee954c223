package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// OpenDatabase opens the database that cfg names and leaves its schema as it is.
func OpenDatabase(ctx context.Context, cfg *config.Config, logger *slog.Logger) (*sqldb.DB, error) {
	return openDatabase(ctx, cfg, logger, nil, 0)
}

// openDatabase is OpenDatabase with metrics, if a registry is given, and with a
// bound on one transaction other than sqldb's, if it is not zero.
func openDatabase(ctx context.Context, cfg *config.Config, logger *slog.Logger, registry prometheus.Registerer, timeout time.Duration) (*sqldb.DB, error) {
	if err := makeDataDirectory(cfg.Database.URL); err != nil {
		return nil, err
	}
	return sqldb.Open(ctx, sqldb.Config{
		URL: cfg.Database.URL, MaxConnections: cfg.Database.MaxConnections, AcquireTimeout: cfg.Database.AcquireTimeout,
		Timeout: timeout, Logger: logger, Registerer: registry,
	})
}

func migrate(ctx context.Context, db *sqldb.DB, logger *slog.Logger) error {
	applied, err := db.Migrate(ctx)
	for _, m := range applied {
		logger.Info("migrated the database", "migration", m.Name, "took", m.Took)
	}
	return err
}

// RotateKeys asks every running node to replace its signing keys; each does so
// within a second or so. Tokens stay valid.
func (p *Parts) RotateKeys(ctx context.Context) error {
	return p.update(ctx, store.AuditEvent{Action: "key.rotate"}, func(r store.Records) error {
		return keyring.RequestRotation(ctx, r, time.Now())
	})
}

// RevokeKey takes back a signing key and every token that it signed. Running nodes
// replace it at their next poll.
func (p *Parts) RevokeKey(ctx context.Context, kid string) error {
	return p.update(ctx, store.AuditEvent{Action: "key.revoke", Target: kid}, func(r store.Records) error {
		_, err := login.RevokeKeyIn(ctx, r, p.Revocations, kid, "", time.Now())
		return err
	})
}

// update does f and writes down that it was done, both or neither.
func (p *Parts) update(ctx context.Context, event store.AuditEvent, f func(r store.Records) error) error {
	event.Outcome = audit.OK
	err := p.Store.Update(ctx, func(r store.Records) error {
		if err := p.Audit.RecordIn(ctx, r, event); err != nil {
			return err
		}
		return f(r) // last: a line of the revocation log holds the log
	})
	if err == nil {
		p.Audit.Log(ctx, event)
	}
	return err
}

// InspectToken says of a token what is wrong with it, by the rules of cfg, the
// signing keys in the database, and the log of what was taken back.
func (p *Parts) InspectToken(ctx context.Context, cfg *config.Config, compact string) (token.Report, error) {
	keys, err := p.publicKeys(ctx)
	if err != nil {
		return token.Report{}, err
	}
	r, now := rules(cfg), time.Now()
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
		report.Findings = append(report.Findings, "It has been taken back: it was logged out or revoked.")
	case err != nil:
		return token.Report{}, err
	}
	return report, nil
}

// publicKeys are the public halves of all keys that may have signed a living
// token, revoked ones too.
func (p *Parts) publicKeys(ctx context.Context) (*accesstoken.KeySet, error) {
	rows, err := p.Store.Keys(ctx)
	if err != nil {
		return nil, err
	}
	var keys []accesstoken.Key
	for _, row := range rows {
		if keyring.State(row, time.Now()) == keyring.Removed {
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

// checkRevoked reads the log once and asks it.
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
