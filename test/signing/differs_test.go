package signing

import (
	"fmt"
	"slices"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/kit"
)

// A replica with another secret takes no traffic and names one that has it; so does one without any
// secret. The others, which started earlier, go on. Given the secret, it is ready.
func TestDifferentSecrets(t *testing.T) {
	t.Parallel()
	f := newFleet(t, secret(former), former)
	m := f.members[2]
	for name, change := range map[string]func(*config.Config){"another secret": secret(present), "no secret": func(cfg *config.Config) {
		memory(cfg)
		cfg.Tokens.Secret = ""
	}} {
		f.begin(2, change)
		m.notReady(", which goes on, has other signing secrets than this one")
		for _, other := range f.members[:2] {
			if err := other.node().Ready(); err != nil {
				t.Errorf("with %s at the third replica, %s is not ready: %v", name, other.name, err)
			}
		}
		f.all(name)
	}
	f.restart(2, secret(former))
	f.signs("the secret", of(t, former))
	f.report("replicas with other secrets")
}

// A replica with the former secret alone is killed, and comes back when the others have changed to
// another secret: it takes no traffic until it accepts what they sign with. They go on.
func TestReturnWithTheFormerSecret(t *testing.T) {
	t.Parallel()
	f := newFleet(t, secret(former), present, former)
	f.kill(2)
	for i := range 2 {
		f.restart(i, secret(present, former))
	}
	kit.Eventually(t, func() error {
		for _, m := range f.members[:2] {
			if kid := kit.KeyID(t, m.Login("user0").AccessToken); !of(t, present)(kid) {
				return fmt.Errorf("%s signs with %s", m.name, kid)
			}
		}
		return nil
	})
	// Their rows say so, too. Before that, all would go on with the former secret, which the third
	// one has as well, and none would be kept out.
	kit.Eventually(t, func() error {
		view := kit.Decode[httpapi.ClusterView](t, f.members[0].Do("GET", "/api/cluster", f.members[0].Login("admin").AccessToken, nil))
		for _, m := range f.members[:2] {
			at := slices.IndexFunc(view.Replicas, func(r httpapi.ReplicaView) bool { return r.Instance == m.name })
			if at < 0 || !of(t, present)(view.Replicas[at].Secrets[0]) || !slices.Contains(view.Replicas[at].Secrets[1:], view.Replicas[at].Secrets[0]) {
				return fmt.Errorf("the row of %s says that it signs with another secret: %+v", m.name, view.Replicas)
			}
		}
		return nil
	})
	f.begin(2, func(*config.Config) {})
	f.members[2].notReady(", which goes on, has other signing secrets than this one")
	f.all("the return")
	f.reload(2, secret(former, present))
	f.members[2].IsReady()
	f.all("another file")
	for i := range f.members {
		f.reload(i, secret(present, former))
	}
	f.signs("the present secret", of(t, present))
	f.report("return of a killed replica with the former secret")
}
