package sqldb

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// A replica that is cut off in the middle of a transaction keeps its rows locked for a
// bounded time, although its connection still stands for the server.
func TestAnAbandonedTransactionEnds(t *testing.T) {
	const raise = "UPDATE registry_head SET version = version + 1 WHERE id = 1"
	for name, test := range map[string]struct{ direct, lock string }{
		"postgres, written": {testenv.Postgres(t), raise},
		"postgres, locked":  {testenv.Postgres(t), "SELECT version FROM registry_head WHERE id = 1 FOR UPDATE"},
		"mariadb, written":  {testenv.MariaDB(t), raise},
		"mariadb, locked":   {testenv.MariaDB(t), "SELECT version FROM registry_head WHERE id = 1 FOR UPDATE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, err := url.Parse(test.direct)
			if err != nil {
				t.Fatal(err)
			}
			link := testenv.NewLink(t, u.Host)
			u.Host = link.Addr
			// The server's limit is two thirds of the timeout.
			one, other := open(t, Config{URL: u.String(), Timeout: 6 * time.Second}), open(t, Config{URL: test.direct, Timeout: time.Minute})
			if _, err := other.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			ctx, abandon := context.WithCancel(t.Context())
			locked := make(chan struct{})
			ended := make(chan error)
			go func() {
				ended <- one.InTx(ctx, func(ctx context.Context, q Q) error {
					if _, err := q.Exec(ctx, test.lock); err != nil {
						return err
					}
					link.Set(testenv.Fault{HoldUp: true, HoldDown: true})
					close(locked)
					<-ctx.Done()
					return ctx.Err()
				})
			}()
			select {
			case <-locked:
			case err := <-ended:
				t.Fatal(err)
			}
			if _, err := other.Exec(t.Context(), raise); err != nil {
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

// Open gives up on a server that accepts the connection and then is silent.
func TestOpeningWhatSaysNothing(t *testing.T) {
	for name, direct := range map[string]string{"postgres": testenv.Postgres(t), "mariadb": testenv.MariaDB(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, err := url.Parse(direct)
			if err != nil {
				t.Fatal(err)
			}
			link := testenv.NewLink(t, u.Host)
			link.Set(testenv.Fault{HoldUp: true, HoldDown: true})
			u.Host = link.Addr
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			db, err := Open(ctx, Config{URL: u.String(), Timeout: time.Second})
			if err == nil {
				db.Close()
			}
			if !errors.Is(err, ErrBusy) || ctx.Err() != nil {
				t.Errorf("error %v", err)
			}
		})
	}
}
