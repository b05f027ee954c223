package signing

import (
	"fmt"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/test/kit"
)

// The secret that signs is revoked: every replica and the resource server refuse its tokens within
// the bound, and the next secret signs at once.
func TestRevokedSecret(t *testing.T) {
	t.Parallel()
	f := newFleet(t, func(cfg *config.Config) {
		secret(present, former)(cfg)
		cfg.Revocation.MaxStaleness = config.Default().Revocation.MaxStaleness
	}, present, former, third)
	f.signs("the present secret", of(t, present))
	f.stop()
	f.load.Wait()
	admin := f.members[0].Login("admin").AccessToken
	stolen := f.members[1].Login("user0").AccessToken
	f.members[0].Revoke(admin, map[string]any{"kid": kit.KeyID(t, stolen), "reason": "it was in a repository"})
	since, bound := time.Now(), f.members[0].Config.Revocation.MaxStaleness
	if kid := kit.KeyID(t, f.members[0].Login("user0").AccessToken); !of(t, former)(kid) {
		t.Errorf("the replica that revoked the secret signs with %s", kid)
	}
	for _, m := range f.members {
		m.Refuses(stolen, "token_revoked", since, bound)
	}
	kit.Eventually(t, func() error {
		if _, err := f.resource.Verify(t.Context(), stolen); err == nil {
			return fmt.Errorf("the resource server accepts it")
		}
		return nil
	})
	if took := time.Since(since); took > bound {
		t.Errorf("it was accepted for %v", took)
	}
	fmt.Printf("signing: revoked secret refused by 3 replicas and a resource server after %v\n", time.Since(since).Round(time.Millisecond))
	f.mu.Lock()
	f.tokens = nil // all of the revoked secret
	f.mu.Unlock()
	f.again()
	f.signs("the next secret", of(t, former))
	for i := range f.members {
		f.reload(i, secret(third, former))
	}
	f.signs("a secret that replaces the revoked one", of(t, third))
	f.report("revocation of the secret that signs")
}
