package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/doctor"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/store"
)

// watched is a store that says when a transaction begins and has ended.
type watched struct {
	store.Store
	around func(begins bool)
}

func (w watched) Update(ctx context.Context, f func(store.Records) error) error {
	w.around(true)
	defer w.around(false)
	return w.Store.Update(ctx, f)
}

// Whenever the first start is killed, the password of the administrator is in the file
// with the name that is documented, and nowhere else after the next start.
func TestFirstPasswordOutlivesAKill(t *testing.T) {
	w := newWorld(t, func(cfg *config.Config) { cfg.Admin.Username, cfg.Admin.Password = "", "" })
	path := doctor.AdminPasswordFile(w.cfg)
	files := func() map[string]string {
		t.Helper()
		found, err := os.ReadDir(filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		files := map[string]string{}
		for _, f := range found {
			if !strings.HasPrefix(f.Name(), filepath.Base(path)) {
				continue
			}
			password, err := os.ReadFile(filepath.Join(filepath.Dir(path), f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			files[f.Name()] = string(password)
		}
		return files
	}
	// What a process has left that was killed in the middle of writing.
	if err := os.WriteFile(path+".123.partial", []byte("0000"), 0o600); err != nil {
		t.Fatal(err)
	}

	// What is on the disk at each moment at which it may be killed.
	var moments []map[string]string
	d := *w.node.parts.Directory
	d.Store = watched{d.Store, func(bool) { moments = append(moments, files()) }}
	parts := *w.node.parts
	parts.Directory = &d
	var said bytes.Buffer
	if err := (&Node{parts: &parts}).firstAdministrator(t.Context(), w.cfg, &said); err != nil {
		t.Fatal(err)
	}
	last := files()
	first := last[filepath.Base(path)]
	if len(moments) < 2 || first == "" || !strings.Contains(said.String(), path) || strings.Contains(said.String(), first) {
		t.Fatalf("%d moments, %v, said: %s", len(moments), last, &said)
	}
	for i, there := range moments {
		if there[filepath.Base(path)] != first {
			t.Errorf("at moment %d there is %v, and in the end %q", i, there, first)
		}
	}

	// The next start tidies up, and makes no user.
	said.Reset()
	next, err := New(t.Context(), Options{Config: w.cfg, Logger: slog.New(slog.DiscardHandler), Version: "test", Terminal: &said})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if now := files(); len(now) != 1 || now[filepath.Base(path)] != first || said.Len() > 0 {
		t.Errorf("there is %v, said: %s", now, &said)
	}
	w.want(w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: firstAdministrator, Password: strings.TrimSpace(first)}), 200, "")
}

// A process that was killed before the administrator was there has left a file: its
// password is the one. Of several processes at once, all have the same.
func TestFirstPasswordIsThatOfTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a[b].db.admin-password")
	passwords := make(chan string, 8)
	for range cap(passwords) {
		go func() {
			password, err := passwordFile(path)
			if err != nil {
				t.Error(err)
			}
			passwords <- password
		}()
	}
	first := <-passwords
	for range cap(passwords) - 1 {
		if next := <-passwords; next != first {
			t.Errorf("%q and %q", first, next)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("left are %v, %v", left, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := passwordFile(path); err == nil || errors.Is(err, os.ErrExist) {
		t.Errorf("a directory: %v", err)
	}
}

// A password file that another user of the machine may have written is refused.
func TestFirstPasswordThatWasPlanted(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"a link": func(path string) error {
			target := path + ".target"
			return errors.Join(os.WriteFile(target, []byte("planted"), 0o600), os.Symlink(target, path))
		},
		"open to others": func(path string) error {
			return errors.Join(os.WriteFile(path, []byte("planted"), 0o600), os.Chmod(path, 0o644))
		},
		"somebody else's": func(path string) error {
			return errors.Join(os.WriteFile(path, []byte("planted"), 0o600), os.Chown(path, 65534, -1))
		},
	} {
		path := filepath.Join(t.TempDir(), "w.db.admin-password")
		if err := plant(path); errors.Is(err, os.ErrPermission) {
			continue // only root can give files away
		} else if err != nil {
			t.Fatal(err)
		}
		if password, err := passwordFile(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %q, %v", name, password, err)
		}
	}
}
