package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/watchword-auth/watchword/internal/sqldb"
)

// databaseFiles are the database, what SQLite keeps beside it, and the storage key.
var databaseFiles = []string{"", "-wal", "-shm", ".key"}

func (d *Deployment) sqliteFile() (string, error) {
	if _, err := d.database(sqldb.SQLite); err != nil {
		return "", err
	}
	file, _ := sqldb.SQLiteFile(d.Config.Database.URL)
	return file, nil
}

func databaseFile(_ context.Context, d *Deployment) (found []Finding, err error) {
	file, err := d.sqliteFile()
	if err != nil {
		return nil, err
	}
	for _, end := range databaseFiles {
		info, err := os.Stat(file + end)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case info.Mode().Perm()&0o077 != 0:
			found = append(found, Finding{
				Subject: file + end, Seen: fmt.Sprintf("%s has the mode %#o: other users of this machine can read or change it", file+end, info.Mode().Perm()),
				Mend: fmt.Sprintf("chmod 600 '%s'", file+end),
			})
		}
	}
	return found, nil
}

func databaseFileSystem(_ context.Context, d *Deployment) ([]Finding, error) {
	file, err := d.sqliteFile()
	if err != nil {
		return nil, err
	}
	disk, err := diskOf(file)
	if err != nil {
		return nil, err
	}
	return remoteDisk(file, disk), nil
}

// A disk is the file system of a file.
type disk struct {
	network           string // its kind, if it is one of the network; empty: it is not
	free, whole, file uint64 // bytes: for this user, in all, and of the file
}

func remoteDisk(file string, on disk) []Finding {
	if on.network == "" {
		return nil
	}
	return []Finding{{
		Seen: fmt.Sprintf("%s is on %s, whose locks and shared memory SQLite cannot rely on: the database may be destroyed", file, on.network),
		Mend: "stop the replica, watchword backup, set database.url to a file on a disk of this machine (or to PostgreSQL), and watchword restore",
	}}
}

func databaseSpace(_ context.Context, d *Deployment) ([]Finding, error) {
	file, err := d.sqliteFile()
	if err != nil {
		return nil, err
	}
	on, err := diskOf(file)
	if err != nil {
		return nil, err
	}
	return scarceSpace(file, on), nil
}

// leastSpace is below which space is scarce on any disk: a backup and the log of a busy day
// take some hundred megabytes.
const leastSpace = 256 << 20

// scarceSpace returns a finding if there is less space than a copy of the database takes.
func scarceSpace(file string, on disk) []Finding {
	need := max(leastSpace, on.file)
	if on.free >= need {
		return nil
	}
	return []Finding{{
		Seen: fmt.Sprintf("%s has %d MiB, and its disk has %d MiB left of %d: when it is full, logins, renewals and logouts are answered 503",
			file, on.file>>20, on.free>>20, on.whole>>20),
		Mend: fmt.Sprintf("free %d MiB or enlarge the disk; a shorter audit.retention lets the file grow less", (need-on.free)>>20),
	}}
}
