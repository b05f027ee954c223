package signing

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

func memory(cfg *config.Config) { cfg.Tokens.Keys = config.KeysMemory }

// ofReplica reports whether a kid is that of a key which one replica has in its memory.
func ofReplica(kid string) bool { return strings.HasPrefix(kid, "auth-") }

// A signing key of each replica gives way to a secret that all share.
func TestMemoryToSecret(t *testing.T) {
	t.Parallel()
	f := newFleet(t, memory, present)
	f.signs("a key in memory", ofReplica)
	for i := range f.members {
		if i > 0 {
			f.signs("a key in memory, for as long as a replica is without the secret", ofReplica)
		}
		f.restart(i, secret(present))
	}
	f.signs("the secret", of(t, present))
	f.report("change from memory to a secret")
}

// A secret gives way to a signing key of each replica, and is taken out when its last token has
// expired. The first key waits as well, since caches hold a key set without any.
func TestSecretToMemory(t *testing.T) {
	t.Parallel()
	f := newFleet(t, func(cfg *config.Config) {
		secret(present)(cfg)
		cfg.Tokens.TokenDuration = 3 * time.Second
	}, present)
	for i := range f.members {
		f.restart(i, memory) // tokens.secret stays
	}
	f.signs("a key in memory", ofReplica)
	f.expired(of(t, present))
	f.restart(0, func(cfg *config.Config) { cfg.Tokens.Secret = "" }) // the others would as well
	f.report("change from a secret to memory")
}

// Keys in memory give way to one in the database.
func TestMemoryToDatabase(t *testing.T) {
	t.Parallel()
	f := newFleet(t, memory)
	for i := range f.members {
		f.restart(i, kit.StoredKeys)
	}
	shared := func(kid string) bool { return !ofReplica(kid) }
	f.signs("the key in the database", shared)
	f.report("change from memory to the database")
}

// A key in the database gives way to keys in memory.
func TestDatabaseToMemory(t *testing.T) {
	t.Parallel()
	f := newFleet(t, kit.StoredKeys)
	for i := range f.members {
		f.restart(i, memory)
	}
	f.signs("a key in memory", ofReplica)
	f.report("change from the database to memory")
}

// Keys in memory give way to one in an HSM.
func TestMemoryToPKCS11(t *testing.T) {
	hsm := testenv.StartSoftHSM(t, "watchword")
	hsm.Tool(t, "watchword", "--keypairgen", "--key-type", "EC:prime256v1", "--label", "watchword", "--id", "01")
	f := newFleet(t, memory)
	for i := range f.members {
		f.restart(i, func(cfg *config.Config) {
			cfg.Tokens.Keys = config.KeysPKCS11
			cfg.Tokens.PKCS11.Library, cfg.Tokens.PKCS11.PIN, cfg.Tokens.PKCS11.Token = hsm.Library, hsm.PIN, "watchword"
		})
	}
	var kids []string
	f.signs("the key in the HSM", func(kid string) bool {
		kids = append(kids, kid)
		return !ofReplica(kid)
	})
	kids = slices.DeleteFunc(kids, ofReplica)
	if slices.Sort(kids); len(slices.Compact(kids)) != 1 {
		t.Errorf("the key in the HSM has the kids %v", kids)
	}
	f.report("change from memory to pkcs11")
}
