package keyring

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

// What somebody can do who writes the database, to keys that are stored and to those that a keeper
// keeps. (Package cluster changes single columns under replicas.)

// configured is the configuration for another ring.
func configured(cfg Config) Config {
	cfg.Registerer = prometheus.NewRegistry()
	return cfg
}

// A row that comes to look like one of another source is not used, which is said; put back, it is
// the key again. The rows of a source that was used before are no fault.
func TestRowsPassToNoOtherSource(t *testing.T) {
	hsm := &keeper{}
	kept := hsm.make(t)
	sources := map[string]keysource.Source{
		keysource.NameDatabase: source(t, inDatabase),
		keysource.NameHSM:      outside(t, hsm),
		keysource.NameRemote:   keysource.Outside{Name: keysource.NameRemote, Keeper: hsm, Box: newBox(t, 1)},
	}
	for name, from := range sources {
		for other, to := range map[string][]byte{
			keysource.NameDatabase: newBox(t, 1).Seal([]byte("another place"), "x"), keysource.NameHSM: []byte("kept:pkcs11:1"), keysource.NameRemote: []byte("kept:remote:1"), "none": nil,
		} {
			if name == other {
				continue
			}
			s, c := newStore(t), &clock{now: start}
			cfg := testConfig(t, s, c)
			cfg.Source = from
			r := open(t, cfg)
			kid := signing(t, r)
			was := row(t, s, kid)
			forged := was
			forged.Sealed = to
			if err := s.UpdateKey(t.Context(), forged); err != nil {
				t.Fatal(err)
			}
			live(t, r, c, 2*time.Second)
			if signing(t, r) != kid {
				t.Errorf("%s to %s: a ring that has the key does not go on", name, other)
			}
			later, err := Open(t.Context(), configured(cfg))
			if err == nil {
				if _, known := later.Key(kid); known {
					t.Errorf("%s to %s: it is used", name, other)
				}
				if value(t, later.metrics.rejected, rejectedMAC) != 1 {
					t.Errorf("%s to %s: nobody says so", name, other)
				}
			} else if !errors.Is(err, keysource.ErrNoNewKey) {
				t.Errorf("%s to %s: %v", name, other, err)
			}
			// The other source does not believe it either.
			if next := sources[other]; next != nil {
				cfg.Source = next
				if other, err := Open(t.Context(), configured(cfg)); err == nil {
					if _, known := other.Key(kid); known {
						t.Errorf("a row of %s is one of another source", name)
					}
				}
			}
			if err := s.UpdateKey(t.Context(), was); err != nil {
				t.Fatal(err)
			}
			cfg.Source = from
			if back := open(t, cfg); back.view.Load().keys.Len() == 0 {
				t.Errorf("%s to %s and back: the key is lost", name, other)
			}
			if next := sources[other]; next != nil && kid != kept {
				cfg.Source = next
				if changed := open(t, cfg); value(t, changed.metrics.rejected, rejectedMAC) != 0 {
					t.Errorf("a change from %s to %s counts as a fault", name, other)
				}
			}
		}
	}
}

// The rows of kept keys change their references: each goes on with its own private half.
func TestSwappedReferences(t *testing.T) {
	s, c, hsm := newStore(t), &clock{now: start}, &keeper{}
	cfg := testConfig(t, s, c)
	cfg.Source = outside(t, hsm)
	first := hsm.make(t)
	r := open(t, cfg)
	former := sign(t, r, c.Now())
	second := hsm.make(t)
	live(t, r, c, time.Second)
	if err := RequestRotation(t.Context(), s, c.Now(), true); err != nil {
		t.Fatal(err)
	}
	live(t, r, c, testPolicy.ripen()+2*time.Second)
	a, b := row(t, s, first), row(t, s, second)
	a.Sealed, b.Sealed = b.Sealed, a.Sealed
	if err := errors.Join(s.UpdateKey(t.Context(), a), s.UpdateKey(t.Context(), b)); err != nil {
		t.Fatal(err)
	}
	after := open(t, cfg)
	if signing(t, after) != second {
		t.Errorf("%q signs, want %q", signing(t, after), second)
	}
	for name, compact := range map[string]string{"former": former, "present": sign(t, after, c.Now())} {
		if err := check(r, compact, c.Now()); err != nil && name == "present" {
			t.Errorf("%s: %v", name, err)
		}
		if err := check(after, compact, c.Now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Their MACs change places as well: neither is believed.
	a.SourceMAC, b.SourceMAC = b.SourceMAC, a.SourceMAC
	if err := errors.Join(s.UpdateKey(t.Context(), a), s.UpdateKey(t.Context(), b)); err != nil {
		t.Fatal(err)
	}
	if r, err := Open(t.Context(), configured(cfg)); err == nil || !errors.Is(err, keysource.ErrNoNewKey) {
		t.Errorf("%v, %v", r, err)
	}
}

// A keeper still has a key that was revoked. Whatever is deleted of it in the database, it does not
// sign again as long as the log of revocations, or any replica, knows that it was revoked.
func TestRevokedKeyOfAKeeperStaysUnused(t *testing.T) {
	db := newDatabase(t)
	s, c, hsm := sqlstore.New(db), &clock{now: start}, &keeper{}
	cfg := testConfig(t, s, c)
	cfg.Source = outside(t, hsm)
	kid := hsm.make(t)
	r := open(t, cfg)
	if _, err := RevokeIn(t.Context(), s, Alone{}, kid, c.Now()); err != nil {
		t.Fatal(err)
	}
	refreshErr := r.ReplaceRevoked(t.Context(), kid)
	if !errors.Is(refreshErr, keysource.ErrNoNewKey) {
		t.Fatal(refreshErr)
	}
	for _, table := range []string{"key_states", "registered_keys", "signing_keys", "used_kids"} {
		if _, err := db.Exec(t.Context(), "DELETE FROM "+table); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		c.Move(time.Second)
		if err := r.Refresh(t.Context()); !errors.Is(err, keysource.ErrNoNewKey) {
			t.Fatalf("a ring that saw it revoked: %v", err)
		}
	}
	cfg = configured(cfg)
	cfg.Revoked = NewTombstones(time.Hour, c.Now)
	cfg.Revoked.Add(kid, c.Now()) // from the log
	if _, err := Open(t.Context(), cfg); !errors.Is(err, keysource.ErrNoNewKey) {
		t.Errorf("a ring that starts: %v", err)
	}
	if len(rows(t, s)) != 0 {
		t.Error("the key has a row again")
	}
}

// Requests for rotations from the future change nothing, also not how long another key is
// published before it signs; and requests without end make no more keys than can come to sign.
func TestRequestsOfAnAttacker(t *testing.T) {
	put := func(t *testing.T, s Store, name string, at time.Time) {
		t.Helper()
		if err := s.PutSetting(t.Context(), name, at.Format(time.RFC3339Nano)); err != nil {
			t.Fatal(err)
		}
	}
	for name, at := range map[string]time.Time{
		"tomorrow": start.Add(24 * time.Hour), "in 9999": time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), "never": {}, "in the year 1": time.Time{}.Add(time.Hour),
	} {
		s, c := newStore(t), &clock{now: start}
		cfg := testConfig(t, s, c)
		cfg.KeyDuration, cfg.PublishAhead = time.Hour, publishAhead
		r := open(t, cfg)
		first := signing(t, r)
		put(t, s, settingRotateBefore, at)
		put(t, s, settingRotateAtOnce, at)
		live(t, r, c, time.Minute)
		if n := len(rows(t, s)); n != 1 {
			t.Errorf("%s: %d keys", name, n)
		}
		if err := RequestRotation(t.Context(), s, c.Now(), false); err != nil {
			t.Fatal(err)
		}
		if got := publishedFor(t, r, c, first); got < publishAhead {
			t.Errorf("%s: a key signs after %v", name, got)
		}
	}
	s, c := newStore(t), &clock{now: start}
	cfg := testConfig(t, s, c)
	cfg.KeyDuration, cfg.PublishAhead = time.Hour, publishAhead
	r := open(t, cfg)
	kids := map[string]bool{}
	for i := range 300 {
		at := c.Now().Add(time.Duration(i%3-1) * time.Minute)
		put(t, s, settingRotateBefore, at)
		put(t, s, settingRotateAtOnce, at)
		live(t, r, c, time.Second)
		for _, k := range rows(t, s) {
			kids[k.ID] = true
		}
		if signing(t, r) == "" {
			t.Fatal("no key signs")
		}
	}
	if most := int(300*time.Second/testPolicy.maxAge) + 2; len(kids) > most || len(kids) < 3 {
		t.Errorf("%d keys in five minutes, want %d at most", len(kids), most)
	}
	// What is no time stops no key that signs, and is said.
	if err := s.PutSetting(t.Context(), settingRotateBefore, "garbage"); err != nil {
		t.Fatal(err)
	}
	c.Move(time.Second)
	if err := r.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), settingRotateBefore) {
		t.Errorf("garbage: %v", err)
	}
	if signing(t, r) == "" {
		t.Error("garbage: no key signs")
	}
}

// The storage key is another one than before: a start says so, also if the keeper has a key that was
// never used, and leaves the database as it is.
func TestWrongStorageKeyWithAKeeper(t *testing.T) {
	for name, spare := range map[string]bool{"one key": false, "a spare one": true} {
		db := newDatabase(t)
		s, c, hsm := sqlstore.New(db), &clock{now: start}, &keeper{}
		cfg := testConfig(t, s, c)
		cfg.Source = outside(t, hsm)
		kid := hsm.make(t)
		open(t, cfg)
		if spare {
			hsm.make(t)
		}
		columns := sqldbtest.Schema(t, db)
		before := sqldbtest.Dump(t, db, columns)
		cfg = configured(cfg)
		cfg.Source = keysource.Outside{Name: keysource.NameHSM, Keeper: hsm, Box: newBox(t, 2)}
		_, err := Open(t.Context(), cfg)
		if !errors.Is(err, seal.ErrUnknownKey) || !strings.Contains(err.Error(), "AUTH_STORAGE_KEY") || !strings.Contains(err.Error(), kid) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if after := sqldbtest.Dump(t, db, columns); len(after["signing_keys"]) != 1 || !bytes.Equal(after["signing_keys"][0]["sealed"].([]byte), before["signing_keys"][0]["sealed"].([]byte)) {
			t.Errorf("%s: the store was changed", name)
		}
		// It is revoked: what is left to say of it needs no storage key.
		if _, err := RevokeIn(t.Context(), s, Alone{}, kid, c.Now()); err != nil {
			t.Fatal(err)
		}
		_, err = Open(t.Context(), configured(cfg))
		if spare && err != nil || !spare && !errors.Is(err, keysource.ErrNoNewKey) {
			t.Errorf("%s: with the key revoked: %v", name, err)
		}
	}
}
