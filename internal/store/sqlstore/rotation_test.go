package sqlstore_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// Replicas that rotate at the same moment change their keys one after the other: none is
// rolled back because another one reads the same keys.
func TestRotatingTogetherOnMariaDB(t *testing.T) {
	const replicas, rotations = 10, 10
	url := testenv.MariaDB(t)
	registry := prometheus.NewRegistry()
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, Registerer: registry, MaxConnections: replicas, Timeout: time.Minute, AcquireTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := sqlstore.New(db)
	var all sync.WaitGroup
	for i := range replicas {
		all.Go(func() {
			old := ""
			for n := range rotations {
				next := store.Key{ID: fmt.Sprintf("replica-%d-%d", i, n), Instance: fmt.Sprint(i), Algorithm: "ES256", PublicJWK: []byte("{}"), MAC: []byte("mac")}
				if err := s.Update(t.Context(), func(r store.Records) error { return rotate(t.Context(), r, old, next) }); err != nil {
					t.Errorf("%s: %v", next.ID, err)
				}
				if n > 0 && n%2 == 0 {
					if err := s.DeleteKey(t.Context(), old); err != nil {
						t.Errorf("delete %s: %v", old, err)
					}
				}
				old = next.ID
			}
		})
	}
	all.Wait()
	if n := metric(t, registry, "watchword_database_transaction_retries_total"); n > replicas {
		t.Errorf("%d rotations were tried again %v times", replicas*rotations, n)
	}
}

// rotate does in one transaction what a key ring does.
func rotate(ctx context.Context, r store.Records, old string, next store.Key) error {
	rows, err := r.Keys(ctx)
	if err != nil {
		return err
	}
	for _, k := range rows {
		if k.ID == old {
			k.RetireAt = time.Now()
			if err := r.UpdateKey(ctx, k); err != nil {
				return err
			}
		}
	}
	return r.CreateKey(ctx, next)
}

func metric(t *testing.T, from prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}
