package backup

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/watchword-auth/watchword/internal/sqldb"
)

// InstallationSetting is the name of the setting with the id of the installation, which is in
// the names of what its replicas keep in Redis.
const InstallationSetting = "installation"

// NewInstallation makes an id of an installation, of 80 random bits.
func NewInstallation() string { return strings.ToLower(rand.Text()[:16]) }

// signedOut are the tables without which nobody is signed in.
var signedOut = []string{recordsTable, keysTable, macsTable, statesTable}

// Separate makes the copy of a database an installation of its own. It has the users, what they
// authenticate with and what they may, and nothing that connects it with the original: another id and
// another log, no session, no signing key, no link by which a user recovers, and no replica.
//
// Second factors stay, as passwords do: without them, the copy would let users in with the password
// alone. They stay sealed under the key of the original.
func Separate(ctx context.Context, db *sqldb.DB) error {
	return db.InTx(ctx, func(ctx context.Context, q sqldb.Q) error {
		for _, table := range append(signedOut[:len(signedOut):len(signedOut)], "replicas", "replica_secrets") {
			if _, err := q.Exec(ctx, "DELETE FROM "+table); err != nil {
				return err
			}
		}
		if _, err := q.Exec(ctx, "DELETE FROM "+factorsTable+" WHERE "+recovery); err != nil {
			return err
		}
		if _, err := q.Exec(ctx, "UPDATE revocation_head SET log_id = ? WHERE id = 1", rand.Text()); err != nil {
			return err
		}
		return renameInstallation(ctx, q)
	})
}

// renameInstallation gives the installation another id.
func renameInstallation(ctx context.Context, q sqldb.Q) error {
	_, err := q.Exec(ctx, q.Dialect().Upsert("settings", []string{"name"}, []string{"value"}), InstallationSetting, NewInstallation())
	return err
}
