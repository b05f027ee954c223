package cluster

import (
	"errors"
	"testing"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A replica that is alone knows its own keys, as they are now, and says itself why it
// cannot sign.
func TestAlone(t *testing.T) {
	c, own, alone := &clock{}, &keys{}, &Alone{}
	alone.Serve(own)
	key, err := accesstoken.ParseJWK(row(t, c.Now(), "auth-0", accesstoken.ES256).PublicJWK)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alone.Find(key.ID); !errors.Is(err, accesstoken.ErrUnknownKey) {
		t.Errorf("a key that is not there: %v", err)
	}
	set, err := accesstoken.NewKeySet(key)
	if err != nil {
		t.Fatal(err)
	}
	own.set.Store(set)
	if got, err := alone.Find(key.ID); err != nil || got.ID != key.ID || alone.Keys() != set {
		t.Errorf("found %v, %v", got.ID, err)
	}
	if err := alone.NoSigner(keyring.ErrNoSigningKey); !errors.Is(err, keyring.ErrNoSigningKey) {
		t.Errorf("no signer: %v", err)
	}
	if _, err := alone.View(t.Context()); !errors.Is(err, ErrAlone) {
		t.Errorf("its view of a cluster: %v", err)
	}
	if _, _, _, err := alone.AnswerKeys("0123456789abcdef"); !errors.Is(err, ErrAlone) {
		t.Errorf("its answer to a peer: %v", err)
	}
	if _, _, err := alone.AnswerFeed("0123456789abcdef", "log", 0, nil); !errors.Is(err, ErrAlone) {
		t.Errorf("its answer to a peer: %v", err)
	}
	if _, _, _, err := alone.AnswerToken("0123456789abcdef", TokenQuestion{}, nil); !errors.Is(err, ErrAlone) {
		t.Errorf("its answer to a peer: %v", err)
	}
	if err := alone.Ready(); err != nil || len(alone.Others()) > 0 {
		t.Errorf("ready: %v, with %v", err, alone.Others())
	}
}
