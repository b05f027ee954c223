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
	"github.com/watchword-auth/watchword/internal/doctor"
	"github.com/watchword-auth/watchword/internal/newfile"
	pw "github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/secretfile"
)

const (
	firstAdministrator = "admin"
	// maxPasswordFile bounds the file with the first password, in bytes.
	maxPasswordFile = 4096
)

// firstAdministrator creates an administrator with a generated password, unless there is an
// administrator. The password is shown on the terminal. If out is no terminal, it may be a
// log that many people read; then the password is written into a file in the directory of
// the database, and out receives the file's name.
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
	path := doctor.AdminPasswordFile(cfg)
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

// passwordFile writes a generated password into the file and returns it. The file is on disk,
// readable by this user alone, before the administrator is created: the password is known
// nowhere else, and the process may be killed at any moment. A file that another process or
// an earlier start has written is used as it is, unless another user may have written it.
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
	written, _, err := secretfile.Rules{Max: maxPasswordFile, Denied: 0o077, Own: true}.Read(path)
	if err != nil {
		return "", fmt.Errorf("%w; or remove the file, and another one is made", err)
	}
	return strings.TrimSpace(string(written)), nil
}
