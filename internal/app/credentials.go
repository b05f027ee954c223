package app

import (
	"log/slog"
	"sync"

	"github.com/watchword-auth/watchword/internal/config"
)

// A backendURL is database.url or redis.url. The user and the password in it may change
// while the replica runs, and nothing else: if replicas changed to another server one after
// the other, or one connection after the other, what one of them revoked would be unknown
// to the next.
type backendURL struct {
	key    string // of the setting
	file   string // from which the setting is read; "": none
	logger *slog.Logger

	mu      sync.Mutex
	url     string
	refused string // the reason that was logged last
}

// newBackendURL returns a setting's URL. files are those of the secrets, by key.
func newBackendURL(key, url string, files map[string]string, logger *slog.Logger) *backendURL {
	u := &backendURL{key: key, file: files[key], logger: logger, url: url}
	if text, err := config.ReadSecret(u.file); u.file != "" && err == nil && !config.SameBackend(text, url) {
		u.file = "" // a program that embeds the replica has named another server itself
	}
	return u
}

// now returns the URL for a connection that is about to be made. It reads the file again, so
// that a connection which is denied is followed by one with the new password.
func (u *backendURL) now() string {
	if u.file != "" {
		if text, err := config.ReadSecret(u.file); err != nil {
			u.refuse(err.Error())
		} else {
			u.offer(text)
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.url
}

// offer takes over the user and the password of a URL. It reports whether it did, or had
// done so before.
func (u *backendURL) offer(text string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case text == u.url:
		u.refused = ""
		return true
	case !config.SameBackend(text, u.url):
		u.refuseLocked("it names another server, database or option; only the user and the password are taken over without a restart")
		return false
	}
	u.url, u.refused = text, ""
	u.logger.Info("new connections will use other credentials", "key", u.key)
	return true
}

func (u *backendURL) refuse(why string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.refuseLocked(why)
}

// refuseLocked logs a reason once.
func (u *backendURL) refuseLocked(why string) {
	if u.refused != why {
		u.logger.Error("the changed setting cannot be used; going on with the one before", "key", u.key, "err", why)
	}
	u.refused = why
}
