package sqlstore

import (
	"context"

	"github.com/watchword-auth/watchword/internal/sqldb"
)

const selectSetting = "SELECT value FROM settings WHERE name = ?"

// Setting implements store.Settings. Inside a transaction it locks the row: a snapshot
// would not keep other replicas from changing the value before the commit.
func (r records) Setting(ctx context.Context, name string) (string, error) {
	query := selectSetting
	if r.db == nil {
		query += r.q.Dialect().ForUpdate()
	}
	return one(ctx, r.q, readString, query, name)
}

// PutSetting implements store.Settings.
func (r records) PutSetting(ctx context.Context, name, value string) error {
	return r.write(ctx, func(q sqldb.Q) error {
		_, err := q.Exec(ctx, q.Dialect().Upsert("settings", []string{"name"}, []string{"value"}), name, value)
		return err
	})
}

// CreateSetting implements store.Settings.
func (r records) CreateSetting(ctx context.Context, name, value string) (now string, err error) {
	err = r.write(ctx, func(q sqldb.Q) error {
		_, err := q.Exec(ctx, q.Dialect().InsertIfAbsent("settings", []string{"name"}, []string{"value"}), name, value)
		if err != nil {
			return err
		}
		now, err = one(ctx, q, readString, selectSetting, name)
		return err
	})
	return now, err
}
