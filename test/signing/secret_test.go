package signing

import (
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// The secrets of the tests.
var (
	former  = strings.Repeat("former secret 0123", 2)
	present = strings.Repeat("present secret 4567", 2)
	third   = strings.Repeat("third secret 89abcd", 2)
)

// secret signs with the first secret and accepts the others.
func secret(text string, previous ...string) func(*config.Config) {
	return func(cfg *config.Config) {
		cfg.Tokens.Keys, cfg.Tokens.Secret, cfg.Tokens.PreviousSecrets = config.KeysSecret, text, previous
	}
}

// of reports whether a kid is that of a secret, as it signs here.
func of(t testing.TB, text string) func(kid string) bool {
	t.Helper()
	keys, err := accesstoken.SecretKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return func(kid string) bool { return kid == keys[0].ID }
}

// Each replica restarts with another secret, and accepts the former one. When the last token of
// the former one has expired, it is taken out.
func TestSecretChangesByRestarts(t *testing.T) {
	t.Parallel()
	f := newFleet(t, func(cfg *config.Config) {
		secret(former)(cfg)
		cfg.Tokens.TokenDuration = 3 * time.Second
	}, present, former)
	f.signs("the former secret", of(t, former))
	for i := range f.members {
		f.restart(i, secret(present, former))
	}
	f.signs("the present secret", of(t, present))
	f.expired(of(t, former))
	for i := range f.members {
		f.restart(i, secret(present))
	}
	f.report("rolling change of the secret by restarts")
}

// Each replica reads its files again at a moment of its own.
func TestSecretChangesWithoutRestarts(t *testing.T) {
	t.Parallel()
	f := newFleet(t, func(cfg *config.Config) {
		secret(former)(cfg)
		cfg.Tokens.TokenDuration = 3 * time.Second
	}, present, former)
	for i := range f.members {
		f.reload(i, secret(present, former))
	}
	f.signs("the present secret", of(t, present))
	f.expired(of(t, former))
	for i := range f.members {
		f.reload(i, secret(present))
	}
	f.report("change of the secret without a restart")
}
