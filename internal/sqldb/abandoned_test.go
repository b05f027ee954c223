package sqldb

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// A replica that is cut off in the middle of a transaction locks the others out of its
// rows for a while and not for good: its connection stands, as far as the server knows.
func TestAnAbandonedTransactionEnds(t *testing.T) {
	for name, direct := range map[string]string{"postgres": testenv.Postgres(t), "mariadb": testenv.MariaDB(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, err := url.Parse(direct)
			if err != nil {
				t.Fatal(err)
			}
			link := testenv.NewLink(t, u.Host)
			u.Host = link.Addr
			one, other := open(t, Config{URL: u.String()}), open(t, Config{URL: direct, Timeout: time.Minute})
			if _, err := other.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			const lock = "UPDATE registry_head SET version = version + 1 WHERE id = 1"
			ctx, abandon := context.WithCancel(t.Context())
			locked := make(chan struct{})
			ended := make(chan error)
			go func() {
				ended <- one.InTx(ctx, func(ctx context.Context, q Q) error {
					if _, err := q.Exec(ctx, lock); err != nil {
						return err
					}
					link.Set(testenv.Fault{HoldUp: true, HoldDown: true})
					close(locked)
					<-ctx.Done()
					return ctx.Err()
				})
			}()
			<-locked
			if _, err := other.Exec(t.Context(), lock); err != nil {
				t.Errorf("another client: %v", err)
			}
			abandon()
			link.Set(testenv.Fault{})
			if err := <-ended; err == nil {
				t.Error("it was committed after all")
			}
		})
	}
}
