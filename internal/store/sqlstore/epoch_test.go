package sqlstore

import (
	"context"
	"fmt"
	"testing"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// MariaDB divides the time with a fraction and rounds what it keeps. Each epoch is greater than
// the one before all the same, whichever parts of a millisecond they come in.
func TestEpochsWithinAMillisecond(t *testing.T) {
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: testenv.MariaDB(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := New(db).CreateUser(t.Context(), store.User{ID: "u", NameKey: "u"}); err != nil {
		t.Fatal(err)
	}
	err = db.InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error {
		last := int64(0)
		for _, micros := range []int{0, 100, 400, 500, 600, 900, 1300, 1700, 2400, 2500, 4600, 5100, 7900, 9200} {
			if _, err := q.Exec(ctx, fmt.Sprintf("SET @@timestamp = 1795973812.%06d", micros)); err != nil {
				return err
			}
			epoch, err := within(q).NextEpoch(ctx, "u", false)
			if err != nil {
				return err
			}
			if epoch <= last {
				t.Errorf("after %d µs the epoch is %d, and it was %d", micros, epoch, last)
			}
			last = epoch
		}
		_, err := q.Exec(ctx, "SET @@timestamp = DEFAULT")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
