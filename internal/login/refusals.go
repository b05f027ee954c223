package login

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// refusalRate bounds the entries in the process's log about refused logins, which cost
// their senders nothing when the pool of hashes is full.
var refusalRate = state.Rate{Burst: 20, Period: 20 * time.Second}

// refusals are the refused logins of which there is to be an entry in the process's log.
type refusals struct {
	mu      sync.Mutex
	arrival int64 // of state.Rate.Decide
	left    int   // how many had no entry since the last one
}

// admit reports whether the log gets an entry, and how many have had none before it.
func (r *refusals) admit(now time.Time) (left int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	arrival, d := refusalRate.Decide(r.arrival, now.UnixMicro())
	if !d.Allowed {
		r.left++
		return 0, false
	}
	left, r.arrival, r.left = r.left, arrival, 0
	return left, true
}

// refused notes a refused login of a user, who has no id if there is none of the name. It
// takes the same time for every user, and waits for nothing. Neither the log nor the audit
// trail gets the name, because people type passwords into its field.
func (s *Service) refused(ctx context.Context, user store.User, err error, client Client) {
	code := problem.From(err).Code
	if left, ok := s.refusals.admit(s.Now()); ok {
		attrs := []any{slog.String("address", client.Address), slog.String("code", code)}
		if left > 0 {
			attrs = append(attrs, slog.Int("left_out", left))
		}
		s.Logger.InfoContext(ctx, "login refused", attrs...)
	}
	if user.ID != "" && (errors.Is(err, directory.ErrInvalidCredentials) || errors.Is(err, mfa.ErrInvalidCode) || errors.Is(err, mfa.ErrCodeUsed)) {
		s.Audit.RecordSoon(store.AuditEvent{Action: "login", Target: user.ID, Outcome: audit.Denied, Address: client.Address, Detail: code})
	}
}
