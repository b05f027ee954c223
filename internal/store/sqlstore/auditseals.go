package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

// AppendAuditSeal implements store.AuditSeals.
func (r records) AppendAuditSeal(ctx context.Context, s store.AuditSeal) error {
	_, err := r.q.Exec(ctx, "INSERT INTO audit_seals (seq, content, mac) VALUES (?, ?, ?)", s.Seq, s.Content, s.MAC)
	if errors.Is(err, sqldb.ErrUnique) {
		return fmt.Errorf("%w: %w", store.ErrConflict, err)
	}
	return translate(err)
}

// AuditSeals implements store.AuditSeals.
func (r records) AuditSeals(ctx context.Context, after int64, limit int) ([]store.AuditSeal, error) {
	return list(ctx, r.q, func(scan sqldb.Scan) (s store.AuditSeal, err error) {
		return s, scan(&s.Seq, &s.Content, &s.MAC)
	}, "SELECT seq, content, mac FROM audit_seals WHERE seq > ? ORDER BY seq LIMIT ?", after, limit)
}

// LastAuditSeal implements store.AuditSeals.
func (r records) LastAuditSeal(ctx context.Context) (store.AuditSeal, time.Time, error) {
	var now int64
	s, err := one(ctx, r.q, func(scan sqldb.Scan) (s store.AuditSeal, err error) {
		var seq sql.NullInt64
		err = scan(&now, &seq, &s.Content, &s.MAC)
		s.Seq = seq.Int64
		return s, err
	}, "SELECT "+r.q.Dialect().Now()+`, s.seq, s.content, s.mac FROM (SELECT 1 AS one) o
		LEFT JOIN (SELECT seq, content, mac FROM audit_seals ORDER BY seq DESC LIMIT 1) s ON 1 = 1`)
	return s, timeOf(now), err
}

// PutAuditSealMAC implements store.AuditSeals.
func (r records) PutAuditSealMAC(ctx context.Context, seq int64, mac []byte) error {
	n, err := r.q.Exec(ctx, "UPDATE audit_seals SET mac = ? WHERE seq = ?", mac, seq)
	return translate(mustMatch(store.ErrNotFound, n, err))
}

// DeleteAuditSeals implements store.AuditSeals.
func (r records) DeleteAuditSeals(ctx context.Context, below int64, limit int) (int, error) {
	n, err := r.q.Exec(ctx, r.q.Dialect().DeleteSome("audit_seals", "seq", "seq < ?", "seq"), below, limit)
	return int(n), translate(err)
}
