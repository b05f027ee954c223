package keyring

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/store"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// sealedKeys puts keys into the store: made by different instances, so that they
// sign side by side.
func sealedKeys(t *testing.T, s store.Store, c *clock, box *seal.Box, names ...string) (kids []string) {
	t.Helper()
	for _, name := range names {
		cfg := testConfig(t, s, c)
		cfg.Source, cfg.InstanceID = sealed(box), name
		fresh, err := newKey(t.Context(), cfg, accesstoken.EdDSA, c.Now().Add(time.Hour), unused)
		if err != nil {
			t.Fatal(err)
		}
		row := testPolicy.date(fresh.row, c.Now(), c.Now())
		row.SourceMAC = cfg.Source.MAC(row.ID, Statement(row))
		if err := s.CreateKey(t.Context(), row); err != nil {
			t.Fatal(err)
		}
		kids = append(kids, fresh.row.ID)
	}
	return kids
}

func changingBox(t *testing.T) *seal.Box {
	t.Helper()
	box, err := seal.New(bytes.Repeat([]byte{2}, seal.KeySize), bytes.Repeat([]byte{1}, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func TestReseal(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	sealedKeys(t, s, c, newBox(t, 1), "a", "b", "c")
	sealedKeys(t, s, c, newBox(t, 2), "d")
	revoked := sealedKeys(t, s, c, newBox(t, 3), "e")[0] // of a key that nobody has any more
	if _, err := RevokeIn(t.Context(), s, Alone{}, revoked, c.Now()); err != nil {
		t.Fatal(err)
	}
	before := rows(t, s)

	for _, want := range []seal.Resealed{{Changed: 3, Current: 1}, {Current: 4}} {
		got, err := Sealed{s, c.Now}.Reseal(t.Context(), changingBox(t))
		if err != nil || got != want {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
	}
	for i, after := range rows(t, s) {
		if after.ID != before[i].ID || after.RetireAt != before[i].RetireAt || !bytes.Equal(after.PublicJWK, before[i].PublicJWK) {
			t.Errorf("more than the seal changed: %+v, was %+v", after, before[i])
		}
		if _, _, err := openKey(t.Context(), sealed(newBox(t, 2)), after); err != nil && after.ID != revoked {
			t.Error(err)
		}
	}
}

// What does not open is named, and does not keep the others from being done.
func TestResealNamesWhatDoesNotOpen(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	foreign := sealedKeys(t, s, c, newBox(t, 3), "a")[0]
	damaged := row(t, s, sealedKeys(t, s, c, newBox(t, 1), "b")[0])
	damaged.Sealed[len(damaged.Sealed)-1] ^= 1
	if err := s.UpdateKey(t.Context(), damaged); err != nil {
		t.Fatal(err)
	}
	sealedKeys(t, s, c, newBox(t, 1), "c")
	got, err := Sealed{s, c.Now}.Reseal(t.Context(), changingBox(t))
	if got != (seal.Resealed{Changed: 1}) || err == nil {
		t.Fatalf("got %+v, %v", got, err)
	}
	for _, want := range []string{foreign + " is sealed under a storage key that was not given", damaged.ID + " is damaged"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

// It ends in the middle, whether or not the last step was persisted, and the next
// call goes on from there. A ring signs all the while.
func TestResealGoesOn(t *testing.T) {
	for _, tt := range []struct {
		name string
		what fault
		want seal.Resealed // of the second call
	}{
		{"failed and not persisted", notPersisted, seal.Resealed{Changed: 2, Current: 2}},
		{"failed but persisted", persisted, seal.Resealed{Changed: 1, Current: 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, c := newStore(t), &clock{now: start}
			cfg := testConfig(t, s, c)
			changing := changingBox(t)
			cfg.Source = sealed(changing)
			sealedKeys(t, s, c, newBox(t, 1), "a", "b", "c", "d")
			ring := open(t, cfg)
			compact := sign(t, ring, c.Now())

			calls := 0
			broken := &faulty{Store: s, next: func() fault {
				if calls++; calls == 4 { // the third key
					return tt.what
				}
				return works
			}}
			if _, err := (Sealed{broken, c.Now}).Reseal(t.Context(), changing); !errors.Is(err, errInjected) {
				t.Fatalf("got %v", err)
			}
			refresh(t, ring)
			if err := check(ring, compact, c.Now()); err != nil {
				t.Error(err)
			}
			if got, err := (Sealed{s, c.Now}).Reseal(t.Context(), changing); err != nil || got != tt.want {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
			cfg.Source = sealed(newBox(t, 2))
			if err := check(open(t, cfg), compact, c.Now()); err != nil {
				t.Errorf("with the new key alone: %v", err)
			}
		})
	}
}

// between is a store in which something happens right after the first look at keys.
type between struct {
	store.Store
	then func()
}

func (b *between) Keys(ctx context.Context) ([]store.Key, error) {
	rows, err := b.Store.Keys(ctx)
	if then := b.then; then != nil {
		b.then = nil
		then()
	}
	return rows, err
}

// A ring that gives an older key its MAC undoes neither the change of the storage key
// nor the revocation that happen meanwhile.
func TestVouchingAgainstResealAndRevocation(t *testing.T) {
	for _, revokes := range []bool{false, true} {
		s, c := newStore(t), &clock{now: start}
		alone := testConfig(t, s, c)
		alone.Source = sealed(newBox(t, 1))
		open(t, alone) // it knows no peers: its rows have no MAC
		kid, box, peers := rows(t, s)[0].ID, changingBox(t), &fakePeers{}
		peers.have = map[string]bool{kid: true}
		cfg := testConfig(t, &between{s, func() {
			if _, err := (Sealed{s, c.Now}).Reseal(t.Context(), box); err != nil {
				t.Error(err)
			}
			if revokes {
				revoke(t, s, kid, c.Now())
			}
		}}, c)
		cfg.Source, cfg.Peers = sealed(box), peers
		open(t, cfg)
		after := row(t, s, kid)
		if after.RevokedAt.IsZero() == revokes {
			t.Errorf("revoked: %v, but at %v", revokes, after.RevokedAt)
		}
		if !revokes && !peers.Vouched(after) {
			t.Error("it has no MAC")
		}
		if _, _, err := openKey(t.Context(), sealed(newBox(t, 2)), after); err != nil && !revokes {
			t.Errorf("the key is sealed under the old storage key again: %v", err)
		}
	}
}
