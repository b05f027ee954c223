package api

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/test/replica"
)

// An uncounting is a state that does not count while it is away.
type uncounting struct {
	state.Store
	away atomic.Pointer[error]
}

func (u *uncounting) Limit(ctx context.Context, key state.Key, rate state.Rate) (state.Decision, error) {
	if err := u.away.Load(); err != nil {
		return state.Decision{}, *err
	}
	return u.Store.Limit(ctx, key, rate)
}

// While it is not known how many requests there were, what is counted is refused with 503, and
// when to try again. Whether the token is good is not said. What is not counted goes on.
func TestTokensWhileNothingCounts(t *testing.T) {
	u := &uncounting{Store: memstate.New(time.Now)}
	w := replica.NewWith(t, replica.Options{State: u}, func(c *config.Config) { c.Limits.API.PerAccount, c.Limits.API.PerAddress = perHour(100), perHour(100) })
	token := w.Login("admin").AccessToken
	for name, err := range map[string]error{"away": state.ErrUnavailable, "full": state.ErrUnavailable.Because(state.ErrFull)} {
		u.away.Store(&err)
		for _, one := range []string{token, "garbage"} {
			a := w.Do("GET", "/api/verify", one, nil)
			if a.Status != 503 || a.Header.Get("Retry-After") == "" || a.Header.Get("X-Auth-Subject") != "" {
				t.Errorf("%s: %d %v %s", name, a.Status, a.Header, a.Body)
			}
		}
		if a := w.Do("GET", "/api/users", token, nil); a.Status != 200 {
			t.Errorf("%s, of another class: %d %s", name, a.Status, a.Body)
		}
	}
	u.away.Store(nil)
	w.Want(w.Do("GET", "/api/verify", token, nil), 200, "")
}
