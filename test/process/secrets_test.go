package process

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// The files of secrets are read again when they change, also behind a link into another
// directory, and on SIGHUP. What a running replica cannot take over, it says.
func TestSecretsChange(t *testing.T) {
	t.Parallel()
	dir, hidden := t.TempDir(), t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(hidden, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(file); err != nil {
			if err := os.Symlink(filepath.Join(hidden, name), file); err != nil {
				t.Fatal(err)
			}
		}
		return file
	}
	const url, key = "DATABASE_URL_FILE", "AUTH_STORAGE_KEY_FILE"
	database := testenv.Postgres(t)
	n := start(t, t.TempDir(),
		url+"="+write(url, "\xef\xbb\xbf"+database+"\r\n"), key+"="+write(key, strings.Repeat("0123456789abcdef", 4)),
		"ADMIN_GUI_USERNAME=root", "ADMIN_GUI_PASSWORD=correct horse")
	says := func(when string, what ...string) {
		t.Helper()
		waitUntil(t, when, func() bool {
			for line := range strings.Lines(n.log.String()) {
				found := true
				for _, w := range what {
					found = found && strings.Contains(line, w)
				}
				if found {
					return true
				}
			}
			return false
		})
	}
	hangUp := func() {
		t.Helper()
		if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	write(url, strings.Replace(database, "@", "2@", 1))
	says("without a signal", "new connections will use other credentials", "database.url")
	write(key, strings.Repeat("fedcba9876543210", 4))
	hangUp()
	says("on SIGHUP", "needs a restart", "storage.key")
	write(key, "\n")
	hangUp()
	says("of an empty file", "going on with the one before", key, "is empty")
	write(key, strings.Repeat("0123456789abcdef", 4))
	write(url, strings.Replace(database, "@127.0.0.1", "@127.0.0.2", 1))
	hangUp()
	says("of another server", "going on with the one before", "database.url", "it names another server")
	write(url, database)
	hangUp()
	n.login("root", "correct horse")
	if strings.Contains(n.log.String(), "fedcba98") {
		t.Error("the log has a secret")
	}
}
