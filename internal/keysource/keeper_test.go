package keysource

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A fakeKeeper has the keys that it was given.
type fakeKeeper struct {
	keys []Kept
	err  error
}

func (k *fakeKeeper) Keys(context.Context, string) ([]Kept, error) { return k.keys, k.err }
func (k *fakeKeeper) Ping(context.Context) error                   { return k.err }
func (*fakeKeeper) Close() error                                   { return nil }

// A failing signer cannot sign.
type failing struct {
	crypto.Signer
	err error
}

func (f failing) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, f.err }

func thumbprint(public crypto.PublicKey) string {
	return accesstoken.Key{Algorithm: accesstoken.EdDSA, Public: public}.Thumbprint()
}

func kept(t *testing.T, ref string, err error) Kept {
	t.Helper()
	_, private, e := ed25519.GenerateKey(rand.Reader)
	if e != nil {
		t.Fatal(e)
	}
	if err != nil {
		return Kept{failing{private, err}, ref}
	}
	return Kept{private, ref}
}

// The last key of a keeper is taken if it was never used, and is found again by its public half.
func TestOutside(t *testing.T) {
	for _, name := range []string{NameHSM, NameRemote} {
		k := &fakeKeeper{}
		o := Outside{Name: name, Keeper: k, Box: box(t, 1)}
		none := func(string) bool { return false }
		if _, _, err := o.New(t.Context(), accesstoken.EdDSA, time.Time{}, none, thumbprint); err == nil || errors.Is(err, ErrNoNewKey) ||
			!strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), accesstoken.EdDSA) {
			t.Errorf("%s: without a key: %v", name, err)
		}
		k.keys = []Kept{kept(t, "1", nil), kept(t, "2", nil)}
		first, second := thumbprint(k.keys[0].Public()), thumbprint(k.keys[1].Public())
		made, sealed, err := o.New(t.Context(), accesstoken.EdDSA, time.Time{}, func(kid string) bool { return kid == first }, thumbprint)
		if err != nil || thumbprint(made.Public()) != second || NameOf(sealed) != name || !strings.HasSuffix(string(sealed), ":2") || !o.Opens(sealed) {
			t.Errorf("%s: %q, %v", name, sealed, err)
		}
		// An older key never takes its turn again.
		_, _, err = o.New(t.Context(), accesstoken.EdDSA, time.Time{}, func(kid string) bool { return kid == second }, thumbprint)
		if !errors.Is(err, ErrNoNewKey) || strings.Contains(err.Error(), "watchword keys create --pkcs11") != (name == NameHSM) {
			t.Errorf("%s: the last one is used: %v", name, err)
		}
		for _, kid := range []string{first, second} {
			if opened, err := o.Open(t.Context(), kid, accesstoken.EdDSA, sealed); err != nil || thumbprint(opened.Public()) != kid {
				t.Errorf("%s: another key was opened, %v", name, err)
			}
		}
		if _, err := o.Open(t.Context(), "other", accesstoken.EdDSA, sealed); !errors.Is(err, ErrGone) {
			t.Errorf("%s: a key that is gone: %v", name, err)
		}
		k.err = ErrKeeperAway // nothing is gone or missing then, whatever else it answers
		if _, err := o.Open(t.Context(), second, accesstoken.EdDSA, sealed); !errors.Is(err, ErrKeeperAway) {
			t.Errorf("%s: away: %v", name, err)
		}
		if _, _, err := o.New(t.Context(), accesstoken.EdDSA, time.Time{}, none, thumbprint); !errors.Is(err, ErrKeeperAway) {
			t.Errorf("%s: away: %v", name, err)
		}
		if mac := o.MAC("a", []byte("b")); !o.Authentic("a", []byte("b"), mac) || o.Authentic("a", []byte("c"), mac) || o.Authentic("b", []byte("b"), mac) {
			t.Errorf("%s: a MAC of other data is taken", name)
		}
	}
}

// The store says of which source a key is, and no source opens what another one has kept.
func TestNameOf(t *testing.T) {
	s := Sealed{Box: box(t, 1), Rand: rand.Reader}
	_, sealed, err := s.New(t.Context(), accesstoken.EdDSA, end, nil, kid)
	if err != nil {
		t.Fatal(err)
	}
	for want, sealed := range map[string][]byte{
		NameMemory: nil, NameDatabase: sealed, NameHSM: reference(NameHSM, "1"), NameRemote: reference(NameRemote, "1"),
	} {
		if got := NameOf(sealed); got != want {
			t.Errorf("%s is said to be of %s", want, got)
		}
		for name, source := range map[string]Source{NameMemory: Memory{}, NameDatabase: s, NameHSM: Outside{Name: NameHSM}, NameRemote: Outside{Name: NameRemote}} {
			if source.Opens(sealed) != (name == want && name != NameMemory) {
				t.Errorf("%s opens %s: %v", name, want, source.Opens(sealed))
			}
		}
	}
}

// Whatever a keeper's failure to sign is, a client may try again; the cause stays in it. That
// holds of a key that was just taken and of one that was opened.
func TestKeeperCannotSign(t *testing.T) {
	cause := errors.New("the cause")
	for name, c := range map[string]struct{ err, cause error }{
		"any":  {cause, cause},
		"away": {ErrKeeperAway.Because(cause), cause},
	} {
		k := &fakeKeeper{keys: []Kept{kept(t, "1", c.err)}}
		o := Outside{Name: NameHSM, Keeper: k, Box: box(t, 1)}
		made, sealed, err := o.New(t.Context(), accesstoken.EdDSA, time.Time{}, func(string) bool { return false }, thumbprint)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := o.Open(t.Context(), thumbprint(made.Public()), accesstoken.EdDSA, sealed)
		if err != nil {
			t.Fatal(err)
		}
		for which, signer := range map[string]crypto.Signer{"made": made, "opened": opened} {
			_, err := signer.Sign(rand.Reader, []byte("m"), crypto.Hash(0))
			if !errors.Is(err, ErrKeeperAway) || !errors.Is(err, c.cause) {
				t.Errorf("%s, %s: %v", name, which, err)
			}
			if name == "away" && err.Error() != c.err.Error() {
				t.Errorf("%s, %s: %v was wrapped again: %v", name, which, c.err, err)
			}
		}
	}
}
