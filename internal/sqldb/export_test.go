package sqldb

import "io/fs"

// SetMigrations puts others in the place of the binary's own.
func (db *DB) SetMigrations(files fs.FS) { db.files = files }

// MigrationFiles are the binary's own.
func MigrationFiles() fs.FS { return migrationFiles }

// Columns are the names of the columns that Scan reads.
func (r *Rows) Columns() ([]string, error) {
	names, err := r.rows.Columns()
	if r.role && err == nil {
		names = names[1:]
	}
	return names, err
}
