package verify

import (
	"errors"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// The feed was away while something was revoked. In the moment in which it is
// there again, the list of before must not pass for the knowledge of after.
func TestReconnectingAcceptsNothingLate(t *testing.T) {
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	f := newFollower(Config{MaxStaleness: 5 * time.Second, Now: now, Logger: slog.New(slog.DiscardHandler)})
	close(f.tried)
	bound := &conditions{maxStaleness: MaxStaleness(5 * time.Second)}
	rounds := 1_000
	if os.Getenv("WATCHWORD_SOAK") != "" {
		rounds = 20_000
	}
	for i := range rounds {
		id := strconv.Itoa(i)
		ahead.Add(int64(time.Hour)) // nothing was heard for so long
		token := &accesstoken.Token{ID: id, IssuedAt: now()}
		var stop atomic.Bool
		var asking sync.WaitGroup
		for range 4 {
			asking.Go(func() {
				for ids := revoked.IDsOf(token); !stop.Load(); {
					switch err := f.check(t.Context(), token, &ids, bound); {
					case err == nil:
						t.Errorf("token %d, revoked meanwhile, is accepted", i)
						return
					case errors.Is(err, ErrRevoked):
						return
					}
				}
			})
		}
		entry := revoked.Entry{Seq: int64(i + 1), Kind: revoked.Token, ID: revoked.Digest(revoked.Token, id), ExpiresAt: now().Add(time.Hour).Unix()}
		if err := f.list.Apply(entry); err != nil {
			t.Fatal(err)
		}
		f.confirm(now())
		stop.Store(true)
		asking.Wait()
	}
}
