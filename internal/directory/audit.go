package directory

import (
	"context"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/store"
)

// AuditEvents returns a page of the audit trail, newest event first. A page may have
// fewer events than were asked for, or none, and be followed by another one: see
// audit.Trail.Page.
func (s *Service) AuditEvents(ctx context.Context, actor Actor, q audit.Query) (List[store.AuditEvent], error) {
	if err := s.Authorize(ctx, actor, AuditRead); err != nil {
		return List[store.AuditEvent]{}, err
	}
	page, err := s.Audit.Page(ctx, q)
	return List[store.AuditEvent]{Items: page.Events, Next: page.Next}, fault(err)
}
