package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/term"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/sqldb"
)

const firstAdministrator = "admin"

// firstAdministrator makes an administrator whose password the node makes up. It is
// shown on the terminal. Where out is none, it may end in a log that many read, so
// the password goes into a file beside the database, and out is told which.
func (n *Node) firstAdministrator(ctx context.Context, cfg *config.Config, out io.Writer) error {
	password, err := directory.GeneratePassword(rand.Reader)
	if err != nil {
		return err
	}
	create := func() (bool, error) {
		return n.parts.Directory.EnsureAdministrator(ctx, directory.Bootstrap{Username: firstAdministrator, Password: password})
	}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if created, err := create(); err != nil || !created {
			return err
		}
		_, err = fmt.Fprintf(out, "\nThis database was empty, so an administrator was made. The password is shown only now:\n\n    username: %s\n    password: %s\n\n", firstAdministrator, password)
		return err
	}
	path := adminPasswordFile(cfg)
	if created, err := withPasswordFile(path, password, create); err != nil || !created {
		return err
	}
	_, err = fmt.Fprintf(out, "\nThis database was empty, so an administrator was made. Read the password and delete its file:\n\n    username: %s\n    password in the file: %s\n\n", firstAdministrator, path)
	return err
}

// adminPasswordFile is where the password goes when there is no terminal.
func adminPasswordFile(cfg *config.Config) string {
	file, _ := sqldb.SQLiteFile(cfg.Database.URL)
	return file + ".admin-password"
}

// withPasswordFile writes the password to disk, where nobody else may read it, before
// the administrator is made: after that nobody else knows it. The file has its name
// only once the administrator is there.
func withPasswordFile(path, password string, create func() (bool, error)) (created bool, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.partial") // mode 0600
	if err != nil {
		return false, err
	}
	defer func() {
		if !created {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = fmt.Fprintln(f, password)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return false, err
	}
	if created, err = create(); err != nil || !created {
		return created, err
	}
	return true, os.Rename(f.Name(), path)
}
