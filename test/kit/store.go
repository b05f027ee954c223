package kit

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/store"
)

// Head is the latest number of a revocation log.
func Head(t testing.TB, s store.Store) int64 {
	t.Helper()
	_, head, err := s.RevocationsAfter(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	return head.Seq
}

// Outlives fails the test unless something was revoked after a number of the log, and stays
// so until a moment.
func Outlives(t testing.TB, s store.Store, after int64, until time.Time) {
	t.Helper()
	entries, _, err := s.RevocationsAfter(t.Context(), after, 100)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) == 0 {
		t.Error("nothing was revoked")
	}
	for _, e := range entries {
		if e.ExpiresAt.Before(until) {
			t.Errorf("%s %s (%s) is revoked until %v, and could live until %v", e.Kind, e.Subject, e.Reason, e.ExpiresAt, until)
		}
	}
}

// Overload gives a user of AddUser more claims than a token has room for, and returns the
// ids of the claims.
func Overload(t testing.TB, s store.Store, user string) (claims []string) {
	t.Helper()
	ctx := t.Context()
	group, err := s.GroupByName(ctx, "of "+user)
	if err != nil {
		t.Fatal(err)
	}
	// Past the directory, which refuses most of this but cannot refuse all.
	for i := range 80 {
		one := store.Claim{ID: fmt.Sprint("claim ", i), Name: fmt.Sprint(i), NameKey: fmt.Sprint(i), ShortName: fmt.Sprint("c", i), Value: strings.Repeat("v", 100)}
		if err := errors.Join(s.CreateClaim(ctx, one), s.AddClaim(ctx, group.ID, one.ID)); err != nil {
			t.Fatal(err)
		}
		claims = append(claims, one.ID)
	}
	return claims
}

// Redis opens a connection to a Redis.
func Redis(t testing.TB, url string) rueidis.Client {
	t.Helper()
	option, err := rueidis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	option.DisableCache = true
	c, err := rueidis.NewClient(option)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Flush deletes everything in a Redis.
func Flush(t testing.TB, url string) {
	t.Helper()
	c := Redis(t, url)
	if err := c.Do(t.Context(), c.B().Flushall().Build()).Error(); err != nil {
		t.Fatal(err)
	}
}
