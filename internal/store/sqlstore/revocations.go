package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"math"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

// AppendRevocation implements store.Revocations. Raising the head locks its row until the
// commit. The next writer waits for that, so numbers have no gaps and become visible in
// their order. Outside a larger transaction this lock suffices, and with read committed
// the writers queue up.
func (r records) AppendRevocation(ctx context.Context, rev store.Revocation) (seq int64, err error) {
	add := func(ctx context.Context, q sqldb.Q) error {
		if _, err := q.Exec(ctx, "UPDATE revocation_head SET seq = seq + 1 WHERE id = 1"); err != nil {
			return err
		}
		seq, err = one(ctx, q, readInt, "SELECT seq FROM revocation_head"+ring(q.Dialect(), store.BellRevocations)+" WHERE id = 1")
		if err != nil {
			return err
		}
		_, err := q.Exec(ctx, `INSERT INTO revocations (seq, kind, subject, epoch, issued_before, expires_at,
			created_at, actor, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			seq, rev.Kind, rev.Subject, rev.Epoch, store.Micros(rev.IssuedBefore), store.Micros(rev.ExpiresAt),
			store.Micros(rev.CreatedAt), rev.Actor, rev.Reason)
		return err
	}
	if r.db == nil {
		err = add(ctx, r.q)
	} else {
		err = r.db.InTxReadCommitted(ctx, add)
	}
	return seq, translate(err)
}

// RevocationsAfter implements store.Revocations.
//
// MariaDB takes a snapshot while other transactions commit: the snapshot may have a later
// transaction and lack the one before it, which shows as a gap before an entry. By then
// the missing transaction has committed, too, so a second read has every entry up to the
// head of the first. A gap that remains is one of expired entries.
func (r records) RevocationsAfter(ctx context.Context, after int64, limit int) ([]store.Revocation, store.LogHead, error) {
	revs, head, err := r.readLog(ctx, after, limit)
	if err != nil || r.q.Dialect() != sqldb.MySQL || r.db == nil || !gap(after, revs) {
		return revs, head, err
	}
	again, now, err := r.readLog(ctx, after, limit)
	if err != nil {
		return nil, store.LogHead{}, err
	}
	if now.ID != head.ID {
		return nil, store.LogHead{}, store.ErrBusy // another log: the caller has to begin anew
	}
	return slices.DeleteFunc(again, func(rev store.Revocation) bool { return rev.Seq > head.Seq }), head, nil
}

// gap reports whether a number is missing between after and the last of some entries.
func gap(after int64, revs []store.Revocation) bool {
	return len(revs) > 0 && revs[len(revs)-1].Seq != after+int64(len(revs))
}

// readLog reads the entries and the head in one statement, which has one snapshot on
// every database at every isolation level.
func (r records) readLog(ctx context.Context, after int64, limit int) ([]store.Revocation, store.LogHead, error) {
	var head store.LogHead
	revs := []store.Revocation{}
	_, err := list(ctx, r.prompt, func(scan sqldb.Scan) (struct{}, error) {
		var now int64
		var seq, epoch, before, expires, created sql.NullInt64
		var kind, subject, actor, reason sql.NullString
		err := scan(&head.ID, &head.Seq, &now, &seq, &kind, &subject, &epoch, &before, &expires, &created, &actor, &reason)
		head.Now = timeOf(now)
		if seq.Valid {
			revs = append(revs, store.Revocation{
				Seq: seq.Int64, Kind: kind.String, Subject: subject.String, Epoch: epoch.Int64,
				IssuedBefore: timeOf(before.Int64), ExpiresAt: timeOf(expires.Int64),
				CreatedAt: timeOf(created.Int64), Actor: actor.String, Reason: reason.String,
			})
		}
		return struct{}{}, err
	}, `SELECT h.log_id, h.seq, `+r.q.Dialect().Now()+`, r.seq, r.kind, r.subject, r.epoch, r.issued_before, r.expires_at,
		r.created_at, r.actor, r.reason FROM revocation_head h
		LEFT JOIN (SELECT * FROM revocations WHERE seq > ? ORDER BY seq LIMIT ?) r ON 1 = 1
		WHERE h.id = 1 ORDER BY r.seq`, after, limit)
	if err != nil {
		return nil, store.LogHead{}, err
	}
	return revs, head, nil
}

// RevocationsBefore implements store.Revocations.
func (r records) RevocationsBefore(ctx context.Context, before int64, limit int) ([]store.Revocation, error) {
	if before <= 0 {
		before = math.MaxInt64
	}
	return list(ctx, r.q, func(scan sqldb.Scan) (rev store.Revocation, err error) {
		var issued, expires, created int64
		err = scan(&rev.Seq, &rev.Kind, &rev.Subject, &rev.Epoch, &issued, &expires, &created, &rev.Actor, &rev.Reason)
		rev.IssuedBefore, rev.ExpiresAt, rev.CreatedAt = timeOf(issued), timeOf(expires), timeOf(created)
		return rev, err
	}, `SELECT seq, kind, subject, epoch, issued_before, expires_at, created_at, actor, reason FROM revocations
		WHERE seq < ? ORDER BY seq DESC LIMIT ?`, before, limit)
}

// DeleteExpiredRevocations implements store.Revocations.
func (r records) DeleteExpiredRevocations(ctx context.Context, t time.Time, limit int) (int, error) {
	// The head is read first, because within the DELETE it would block writers. It only
	// grows.
	head, err := one(ctx, r.q, readInt, "SELECT seq FROM revocation_head WHERE id = 1")
	if err != nil {
		return 0, err
	}
	n, err := r.q.Exec(ctx, r.q.Dialect().DeleteSome("revocations", "seq", "expires_at < ? AND seq < ?", "expires_at"),
		store.Micros(t), head, limit)
	return int(n), translate(err)
}

// RenewLog implements store.Revocations.
func (r records) RenewLog(ctx context.Context, id string) error {
	_, err := r.q.Exec(ctx, "UPDATE revocation_head SET log_id = ? WHERE id = 1 AND log_id = ?", rand.Text(), id)
	return translate(err)
}
