package keyring

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

// fakePeers have what the test says.
type fakePeers struct {
	secret  string
	have    map[string]bool
	changes int
}

func (p *fakePeers) Authenticate(k store.Key) []byte {
	return fmt.Appendln(nil, p.secret, k.ID, sqldb.Micros(k.CreatedAt), sqldb.Micros(k.ActivateAt), sqldb.Micros(k.RetireAt), sqldb.Micros(k.RemoveAt))
}
func (p *fakePeers) Have(kid string) bool  { return p.have[kid] }
func (*fakePeers) Patience() time.Duration { return 9 * time.Second }
func (p *fakePeers) Changed()              { p.changes++ }

// A key does not sign before the peers have it, however long that takes; the one
// before it goes on meanwhile, as long as it may.
func TestPeersMustHaveAKey(t *testing.T) {
	for _, keys := range []string{InMemory, InDatabase} {
		t.Run(keys, func(t *testing.T) {
			c, s, peers := &clock{now: start}, newStore(t), &fakePeers{have: map[string]bool{}}
			cfg := testConfig(t, s, c)
			cfg.Keys, cfg.Peers = keys, peers
			r := open(t, cfg)
			first := signing(t, r)
			if first == "" {
				t.Fatal("the first key of all does not sign at once")
			}
			if peers.changes != 1 {
				t.Errorf("peers were told %d times that a key was made", peers.changes)
			}
			// The next one is made earlier, by their patience.
			live(t, r, c, testPolicy.keyDuration-testPolicy.lead()-9*time.Second+time.Second)
			next := rows(t, s)
			if len(next) != 2 {
				t.Fatalf("%d keys", len(next))
			}
			live(t, r, c, 36*time.Second)
			if c.Now().Before(next[1].ActivateAt) {
				t.Fatal("the test does not go far enough")
			}
			if got := signing(t, r); got != first {
				t.Fatalf("%q signs, before the peers have it", got)
			}
			peers.have[next[1].ID] = true
			live(t, r, c, time.Second)
			if got := signing(t, r); got != next[1].ID {
				t.Errorf("%q signs", got)
			}
			for _, k := range rows(t, s) {
				if !bytes.Equal(k.MAC, peers.Authenticate(k)) {
					t.Errorf("the row of %s has the MAC %q", k.ID, k.MAC)
				}
			}
		})
	}
}

// However short keys live, the present one signs until the peers have the next.
func TestPeersMayTakeTheirTime(t *testing.T) {
	for _, byHand := range []bool{false, true} {
		c, s, peers := &clock{now: start}, newStore(t), &fakePeers{have: map[string]bool{}}
		cfg := testConfig(t, s, c)
		cfg.Keys, cfg.Peers = InMemory, peers
		cfg.KeyDuration, cfg.TokenDuration, cfg.MaxAge = 40*time.Second, 10*time.Second, time.Second
		r := open(t, cfg)
		first := signing(t, r)
		live(t, r, c, time.Second)
		if byHand {
			if err := RequestRotation(t.Context(), s, c.Now()); err != nil {
				t.Fatal(err)
			}
		}
		for len(rows(t, s)) < 2 {
			live(t, r, c, time.Second)
		}
		next := slices.DeleteFunc(rows(t, s), func(k store.Key) bool { return k.ID == first })[0]
		for due := next.ActivateAt.Add(peers.Patience()); c.Now().Before(due); live(t, r, c, time.Second) {
			if got := signing(t, r); got != first {
				t.Fatalf("by hand %v: %q signs, %v before the peers had to have the next key", byHand, got, due.Sub(c.Now()))
			}
		}
		peers.have[next.ID] = true
		live(t, r, c, time.Second)
		if got := signing(t, r); got != next.ID {
			t.Errorf("by hand %v: %q signs", byHand, got)
		}
	}
}

// When peers come, the keys that this process shares with others get their MACs;
// rows of others, whose private half it cannot read, do not.
func TestKeysOfBeforeAreVouchedFor(t *testing.T) {
	c, s := &clock{now: start}, newStore(t)
	cfg := testConfig(t, s, c)
	old := signing(t, open(t, cfg))
	stranger := row(t, s, old)
	stranger.ID, stranger.Sealed = "stranger", nil
	if err := s.CreateKey(t.Context(), stranger); err != nil {
		t.Fatal(err)
	}
	live(t, open(t, cfg), c, time.Minute)
	cfg.Peers = &fakePeers{have: map[string]bool{old: true}}
	r := open(t, cfg)
	if got := signing(t, r); got != old {
		t.Errorf("%q signs, not the key of before", got)
	}
	vouched := slices.DeleteFunc(rows(t, s), func(k store.Key) bool { return k.MAC == nil })
	if len(vouched) != 1 || vouched[0].ID != old {
		t.Errorf("vouched for: %v", vouched)
	}
}

// Who can write the store cannot make a key live or sign for longer, nor end it
// early, and this process never vouches for what he wrote; but anybody may revoke.
func TestTimesOfAKeyAreVouchedFor(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, keys := range []string{InMemory, InDatabase} {
		for name, forge := range map[string]func(k *store.Key){
			"longer":     func(k *store.Key) { k.RetireAt, k.RemoveAt = k.RetireAt.Add(year), k.RemoveAt.Add(year) },
			"shorter":    func(k *store.Key) { k.RetireAt, k.RemoveAt = k.ActivateAt, k.ActivateAt },
			"unmarked":   func(k *store.Key) { k.RetireAt, k.RemoveAt, k.MAC = k.RetireAt.Add(year), k.RemoveAt.Add(year), nil },
			"not active": func(k *store.Key) { k.ActivateAt = k.ActivateAt.Add(year) },
		} {
			t.Run(keys+"/"+name, func(t *testing.T) {
				c, s, peers := &clock{now: start}, newStore(t), &fakePeers{}
				cfg := testConfig(t, s, c)
				cfg.Keys, cfg.Peers = keys, peers
				r := open(t, cfg)
				kid := signing(t, r)
				was := row(t, s, kid)
				forged := was
				forge(&forged)
				if err := s.UpdateKey(t.Context(), forged); err != nil {
					t.Fatal(err)
				}
				live(t, r, c, 2*time.Second)
				if got := signing(t, r); got != kid {
					t.Errorf("%q signs, not %q", got, kid)
				}
				if all := r.Published(); len(all) != 1 || !all[0].Until.Equal(was.RemoveAt) {
					t.Errorf("published: %v, and not until %v", all, was.RemoveAt)
				}
				// Rotated meanwhile, its row is written again: with the true times.
				live(t, r, c, testPolicy.keyDuration)
				if k := row(t, s, kid); k.RemoveAt.After(was.RemoveAt.Add(testPolicy.keyDuration)) && bytes.Equal(k.MAC, peers.Authenticate(k)) {
					t.Errorf("vouched for until %v, not %v", k.RemoveAt, was.RemoveAt)
				}
				forged.RevokedAt = c.Now()
				if err := s.UpdateKey(t.Context(), forged); err != nil {
					t.Fatal(err)
				}
				live(t, r, c, time.Second)
				if _, published := r.Key(kid); published {
					t.Error("it was revoked and is published")
				}
			})
		}
	}
}

// Under another secret of the peers, stored keys are vouched for anew.
func TestStoredKeysUnderAnotherSecret(t *testing.T) {
	c, s := &clock{now: start}, newStore(t)
	cfg := testConfig(t, s, c)
	cfg.Peers = &fakePeers{secret: "old"}
	kid := signing(t, open(t, cfg))
	peers := &fakePeers{secret: "new", have: map[string]bool{kid: true}}
	cfg.Peers = peers
	open(t, cfg)
	if k := row(t, s, kid); !bytes.Equal(k.MAC, peers.Authenticate(k)) {
		t.Errorf("its MAC is %q", k.MAC)
	}
}
