package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/graceful"
	"github.com/watchword-auth/watchword/internal/initfile"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// No file with a secret is read from a directory in which another user may replace it, and
// none is written there.
func TestSecretFilesThatOthersMayReplace(t *testing.T) {
	certFile, keyFile := testenv.SelfSigned(t, "127.0.0.1")
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		content string
		read    func(path string) error
	}{
		"a setting's file": {"a password for the administrator", func(path string) error {
			_, err := config.Load("", []string{"ADMIN_GUI_USERNAME=root", "ADMIN_GUI_PASSWORD_FILE=" + path})
			return err
		}},
		"the cluster's secret": {strings.Repeat("s", 64), func(path string) error {
			_, err := config.Load("", []string{"AUTH_CLUSTER_SECRET_FILE=" + path})
			return err
		}},
		"the init file":      {"claims: []", func(path string) error { _, _, err := initfile.Read(path); return err }},
		"the storage key":    {strings.Repeat("ab", 32), func(path string) error { _, err := seal.FromFile(path); return err }},
		"a new storage key":  {"", func(path string) error { _, err := seal.FromFile(path); return err }},
		"the first password": {"a password", func(path string) error { _, err := passwordFile(path); return err }},
		"a new password":     {"", func(path string) error { _, err := passwordFile(path); return err }},
		"the peers' TLS key": {string(key), func(path string) error {
			_, err := cluster.NewClients(cluster.ClientConfig{CertFile: certFile, KeyFile: path})
			return err
		}},
		"the server's TLS key": {string(key), func(path string) error {
			s, err := graceful.Listen(graceful.Config{Address: "127.0.0.1:0", CertFile: certFile, KeyFile: path, Logger: slog.New(slog.DiscardHandler)})
			if err == nil {
				s.Abort()
			}
			return err
		}},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "secret")
		if c.content != "" {
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, mode := range []os.FileMode{0o777, 0o755} { // the latter for comparison
			if err := os.Chmod(dir, mode); err != nil {
				t.Fatal(err)
			}
			err := c.read(path)
			if open := mode == 0o777; (err != nil) != open || open && !strings.Contains(err.Error(), "every user of this machine may write to the directory "+dir) {
				t.Errorf("%s, in a directory of mode %v: %v", name, mode, err)
			}
			if left, err := os.ReadDir(dir); mode == 0o777 && c.content == "" && (err != nil || len(left) > 0) {
				t.Errorf("%s: it was written: %v, %v", name, left, err)
			}
		}
	}
}
