package httpkit

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// A write that found no space says so, whichever backend it was for. An outage for
// another reason keeps its own code.
func TestNoSpaceLeft(t *testing.T) {
	unavailable := problem.New(problem.Unavailable, "directory_unavailable", "the database does not answer")
	for want, err := range map[string]error{
		"database_full":         unavailable.Because(fmt.Errorf("write: %w", store.ErrFull)),
		"directory_unavailable": unavailable.Because(store.ErrBusy),
		"state_unavailable":     state.ErrUnavailable.Because(store.ErrBusy),
	} {
		if p, header := answer(err); p.Code != want || p.Status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
			t.Errorf("%v: %+v %v, want %s", err, p, header, want)
		}
	}
	if p, _ := answer(state.ErrUnavailable.Because(fmt.Errorf("write: %w", state.ErrFull))); p.Code != "database_full" {
		t.Errorf("shared state: %+v", p)
	}
}
