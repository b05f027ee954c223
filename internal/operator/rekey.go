package operator

import (
	"context"
	"errors"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/store"
)

// A Rekeyed is what became of one kind of sealed values.
type Rekeyed struct {
	Kind string // "signing keys", "second factors", "seals of the audit trail"
	seal.Resealed
}

// Rekey seals everything anew that is sealed under another storage key than the
// primary one of cfg. It may be stopped at any moment and called again, and
// replicas may run meanwhile if they were given both keys. What was done before an
// error is reported with it.
func (p *Parts) Rekey(ctx context.Context, cfg *config.Config) ([]Rekeyed, error) {
	if _, err := StorageBox(ctx, cfg, p.Store); err != nil {
		return nil, err
	}
	// It also knows the key that follows from the cluster's secret, under which the rows of kept
	// keys and the factors were before there was a storage key.
	box, err := FactorBox(ctx, cfg, p.Store)
	if err != nil {
		return nil, err
	}
	var done []Rekeyed
	var errs []error
	for _, h := range []seal.Holder{keyring.Sealed{Store: p.Store, Now: time.Now}, mfa.Sealed{Store: p.Store}, audit.Sealed{Store: p.Store}} {
		counts, err := h.Reseal(ctx, box)
		done = append(done, Rekeyed{h.Sealed(), counts})
		errs = append(errs, err)
	}
	event := store.AuditEvent{Action: "storage.rekey", Outcome: audit.OK}
	err = errors.Join(errs...)
	if err != nil {
		event.Outcome = audit.Failed
	}
	p.Audit.Record(ctx, event)
	return done, err
}
