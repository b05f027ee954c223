package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb"
)

var (
	// ErrNotEmpty: the database has content that would mix with the backup's.
	ErrNotEmpty = errors.New("the database is not empty, and a backup is restored into an empty one: name a new database in database.url (DATABASE_URL)")
	// ErrSealed: the storage keys of this configuration do not open the private keys in
	// the backup.
	ErrSealed = errors.New("the signing keys in the backup are encrypted under a storage key that this configuration does not have: add it to storage.previous_keys (AUTH_STORAGE_KEY_PREVIOUS), or leave the signing keys out with --sign-out")
	// ErrKept: neither the storage keys nor the cluster's secret of this configuration authenticate
	// what the backup says of signing keys that an HSM or a signer keeps.
	ErrKept = errors.New("what the backup says of the signing keys is authenticated under a storage key or a cluster.secret that this configuration does not have: add the key to storage.previous_keys (AUTH_STORAGE_KEY_PREVIOUS), or leave the signing keys out with --sign-out")
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
	kept := map[string]bool{}
	checked, err := read(file, secret, func(t table, raw []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		args, err := decode(t, raw)
		if err != nil {
			return err
		}
		return to.checkSealed(t, args, kept)
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

// keptPrefix begins what is in the place of a private key that is not in the database.
const keptPrefix = "kept:"

// checkSealed refuses a private key and a second factor that the keys do not open, and a key that
// is kept elsewhere and whose row they do not authenticate. It collects the ids of the latter in
// kept.
func (to Target) checkSealed(t table, args []any, kept map[string]bool) error {
	if to.SignOut {
		return nil
	}
	known := func(box *seal.Box, value []byte) bool { return box != nil && box.Knows(value) }
	switch t.name {
	case keysTable:
		sealed, ok := t.value(args, "sealed").([]byte)
		switch {
		case ok && strings.HasPrefix(string(sealed), keptPrefix):
			kept[t.value(args, "id").(string)] = true
		case ok && !known(to.Keys, sealed):
			return ErrSealed
		}
	case statesTable:
		mac, ok := t.value(args, "source_mac").([]byte)
		if ok && kept[t.value(args, "id").(string)] && !known(to.Keys, mac) && !known(to.Factors, mac) {
			return ErrKept
		}
	case factorsTable:
		data, _ := t.value(args, "data").([]byte)
		if !known(to.Keys, data) && !known(to.Factors, data) {
			return ErrSealedFactors
		}
	}
	return nil
}

// value returns the value of a column of a row; nil: it is null.
func (t table) value(args []any, name string) any {
	return args[slices.IndexFunc(t.columns, func(c column) bool { return c.name == name })]
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
