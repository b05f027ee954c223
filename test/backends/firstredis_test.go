package backends

import (
	"context"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

// A Redis that will never take this replica ends the start with what to change.
func TestFirstContactWithRedis(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	admin := kit.Redis(t, server)
	if err := admin.Do(t.Context(), admin.B().Arbitrary("ACL", "SETUSER", "weak", "on", ">weak-secret", "~*", "+@connection", "-ping").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	tls := testenv.RedisTLS(t, testenv.NewCA(t)).URL
	for name, c := range map[string]struct{ url, says string }{
		"wrong password":                        {edit(t, server, as("", "wrong-secret")), "Redis denies this user or password"},
		"no password":                           {edit(t, server, func(u *url.URL) { u.User = nil }), "Redis demands a password"},
		"a weak user":                           {edit(t, server, as("weak", "weak-secret")), "+@all"},
		"no such database":                      {edit(t, server, func(u *url.URL) { u.Path = "/99" }), "no database of this number"},
		"a certificate of an unknown authority": {tls, "redis.ca_file"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := kit.Config(t)
			cfg.Redis.URL, cfg.State.Backend = c.url, config.StateRedis
			cfg.Complete()
			ctx, cancel := context.WithTimeout(t.Context(), kit.Patience)
			defer cancel()
			_, err := app.New(ctx, app.Options{Config: cfg, Version: "test", Logger: slog.New(slog.DiscardHandler)})
			if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v, %v; want %q", err, ctx.Err(), c.says)
			}
		})
	}
}
