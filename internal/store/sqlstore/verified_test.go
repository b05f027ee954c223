package sqlstore_test

import (
	"testing"

	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

// A replica of the version before knows nothing of verified addresses. One that it writes
// is not verified.
func TestAnAddressThatAnEarlierVersionWrites(t *testing.T) {
	db, ctx := sqldbtest.Open(t), t.Context()
	s := sqlstore.New(db)
	u := store.User{ID: "u", Username: "u", NameKey: "u", Email: "u@example.org", EmailVerified: true}
	if err := s.CreateUser(ctx, u); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"U@example.org", "other@example.org", ""} {
		if _, err := db.Exec(ctx, "UPDATE users SET email = ? WHERE id = ?", address, "u"); err != nil {
			t.Fatal(err)
		}
		if got, err := s.User(ctx, "u"); err != nil || got.EmailVerified {
			t.Errorf("%+v, %v", got, err)
		}
	}
}
