package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/newfile"
	pw "github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/sqldb"
)

const firstAdministrator = "admin"

// firstAdministrator makes an administrator whose password the node makes up, unless
// there is one. It is shown on the terminal. Where out is none, it may end in a log that
// many read, so the password goes into a file beside the database, and out is told which.
func (n *Node) firstAdministrator(ctx context.Context, cfg *config.Config, out io.Writer) error {
	d := n.parts.Directory
	if has, err := d.HasAdministrator(ctx); err != nil || has {
		return err
	}
	create := func(password string) (bool, error) {
		return d.EnsureAdministrator(ctx, directory.Bootstrap{Username: firstAdministrator, Password: password})
	}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		password, err := pw.Generate(rand.Reader)
		if err != nil {
			return err
		}
		if created, err := create(password); err != nil || !created {
			return err
		}
		_, err = fmt.Fprintf(out, "\nThis database was empty, so an administrator was made. The password is shown only now:\n\n    username: %s\n    password: %s\n\n", firstAdministrator, password)
		return err
	}
	path := adminPasswordFile(cfg)
	password, err := passwordFile(path)
	if err != nil {
		return fmt.Errorf("the first administrator's password: %w", err)
	}
	created, err := create(password)
	if err != nil {
		return fmt.Errorf("the first administrator, with the password in the file %s: %w", path, err)
	}
	if !created {
		return nil
	}
	_, err = fmt.Fprintf(out, "\nThis database was empty, so an administrator was made. Read the password and delete its file:\n\n    username: %s\n    password in the file: %s\n\n", firstAdministrator, path)
	return err
}

// adminPasswordFile is where the password goes when there is no terminal.
func adminPasswordFile(cfg *config.Config) string {
	file, _ := sqldb.SQLiteFile(cfg.Database.URL)
	return file + ".admin-password"
}

// passwordFile returns the password in the file, which is written to disk, where nobody
// else may read it, before there is an administrator: after that nobody else knows it. So
// whenever the process is killed, the file has its name when there is one. What another
// process has written, or a former life of this one, is taken.
func passwordFile(path string) (string, error) {
	password, err := pw.Generate(rand.Reader)
	if err != nil {
		return "", err
	}
	err = newfile.Write(path, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, password)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if err := ours(path); err != nil {
		return "", err
	}
	written, err := os.ReadFile(path)
	return strings.TrimSpace(string(written)), err
}

// ours says whether a file with a password may be believed: nobody else can have written
// it, as in a directory that others may write to.
func ours(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || !ownedByUs(info) {
		return fmt.Errorf("%s is no file that this user alone can read: remove it", path)
	}
	return nil
}
