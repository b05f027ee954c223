package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb"
)

var (
	// ErrNotEmpty: the database has content that would mix with the backup's.
	ErrNotEmpty = errors.New("the database is not empty, and a backup is restored into an empty one: name a new database in database.url (DATABASE_URL)")
	// ErrSealed: the storage keys of this configuration do not open the private keys in
	// the backup.
	ErrSealed = errors.New("the signing keys in the backup are encrypted under a storage key that this configuration does not have: add it to storage.previous_keys (AUTH_STORAGE_KEY_PREVIOUS), or leave the signing keys out with --sign-out")
	// ErrSealedFactors: neither the storage keys nor the cluster's secret of this configuration
	// open the second factors in the backup.
	ErrSealedFactors = errors.New("the second factors in the backup are encrypted under a storage key or a cluster.secret that this configuration does not have: add the key to storage.previous_keys (AUTH_STORAGE_KEY_PREVIOUS), or restore with --sign-out: then users with a factor cannot log in until their factors are reset")
)

// Target says where to restore, and how.
type Target struct {
	DB *sqldb.DB // its schema is up to date
	// Keys opens the private keys and the second factors in the backup; nil: there is no
	// storage key.
	Keys *seal.Box
	// Factors opens second factors that are not under a storage key; nil: nothing does.
	Factors *seal.Box
	// SignOut leaves out the sessions and the signing keys, so that all former tokens
	// and sessions are refused. The installation gets another id, so that it finds no
	// session in Redis either. Second factors are restored, also those that do not open: a
	// factor that is lost does not let anybody in with the password alone.
	SignOut bool
}

// Restore checks a backup from its beginning to its end, and then writes it into the
// database in one transaction. It reads the file twice.
func Restore(ctx context.Context, file io.ReadSeeker, secret Secret, to Target) (Summary, error) {
	checked, err := read(file, secret, func(t table, raw []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		args, err := decode(t, raw)
		if err != nil {
			return err
		}
		return to.checkSealed(t, args)
	})
	if err != nil {
		return Summary{}, err
	}
	err = to.DB.InTx(ctx, func(ctx context.Context, q sqldb.Q) error {
		// The id of the installation is that of the backup, and no content.
		if _, err := q.Exec(ctx, "DELETE FROM settings WHERE name = ?", InstallationSetting); err != nil {
			return err
		}
		if err := checkEmpty(ctx, q); err != nil {
			return err
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		l := &loader{ctx: ctx, q: q}
		loaded, err := read(file, secret, func(t table, raw []byte) error {
			if to.SignOut && slices.Contains(signedOut, t.name) {
				return nil
			}
			return l.add(t, raw)
		})
		if err == nil {
			err = l.flush()
		}
		if err == nil && !maps.Equal(loaded.Rows, checked.Rows) {
			err = ErrDamaged // the file has changed between the two reads
		}
		if err == nil && to.SignOut {
			err = renameInstallation(ctx, q)
		}
		return err
	})
	if err != nil {
		return Summary{}, err
	}
	if to.SignOut {
		for _, table := range signedOut {
			checked.Rows[table] = 0
		}
	}
	return checked, nil
}

// checkSealed refuses a private key and a second factor that the keys do not open.
func (to Target) checkSealed(t table, args []any) error {
	column, refused := "sealed", ErrSealed
	switch {
	case to.SignOut:
		return nil
	case t.name == factorsTable:
		column, refused = "data", ErrSealedFactors
	case t.name != keysTable:
		return nil
	}
	for i, c := range t.columns {
		if c.name != column || args[i] == nil {
			continue
		}
		sealed := args[i].([]byte)
		opens := to.Keys != nil && to.Keys.Knows(sealed)
		if !opens && t.name == factorsTable {
			opens = to.Factors != nil && to.Factors.Knows(sealed)
		}
		if !opens {
			return refused
		}
	}
	return nil
}

// checkEmpty returns ErrNotEmpty unless the database is as the migrations made it.
func checkEmpty(ctx context.Context, q sqldb.Q) error {
	for _, t := range tables {
		query := "SELECT 1 FROM " + t.name
		switch {
		case t.head:
			query += " WHERE " + t.columns[0].name + " > 0"
		case t.where != "":
			query += " WHERE " + t.where
		}
		var one int
		switch err := q.QueryRow(ctx, query+" LIMIT 1").Scan(&one); {
		case err == nil:
			return fmt.Errorf("%w; there is something in its table %s", ErrNotEmpty, t.name)
		case !errors.Is(err, sqldb.ErrNoRows):
			return err
		}
	}
	return nil
}

// One statement inserts at most maxRows rows and about maxBytes of text.
const (
	maxRows  = 100
	maxBytes = 1 << 20
)

// A loader inserts rows, many in one statement.
type loader struct {
	ctx   context.Context
	q     sqldb.Q
	table table
	args  []any // of the waiting rows
	rows  int
	bytes int
}

func (l *loader) add(t table, raw []byte) error {
	args, err := decode(t, raw)
	if err != nil {
		return err
	}
	if t.head {
		_, err := l.q.Exec(l.ctx, "UPDATE "+t.name+" SET "+t.columns[0].name+" = ? WHERE id = 1", args...)
		return err
	}
	if t.name != l.table.name || l.rows == maxRows || l.bytes+len(raw) > maxBytes {
		if err := l.flush(); err != nil {
			return err
		}
	}
	l.table, l.args, l.rows, l.bytes = t, append(l.args, args...), l.rows+1, l.bytes+len(raw)
	return nil
}

// flush inserts the waiting rows: maxRows of them in one statement, and fewer one by one,
// so that there are few different statements.
func (l *loader) flush() error {
	at, n := 0, l.rows
	if l.rows < maxRows {
		n = 1
	}
	for width := len(l.table.columns) * n; at < len(l.args); at += width {
		if _, err := l.q.Exec(l.ctx, l.table.insert(n), l.args[at:at+width]...); err != nil {
			return fmt.Errorf("restore: %s: %w", l.table.name, err)
		}
	}
	l.args, l.rows, l.bytes = l.args[:0], 0, 0
	return nil
}
