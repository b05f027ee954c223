package keyring

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

// fakePeers have what the test says.
type fakePeers struct {
	secret  string
	have    map[string]bool
	any     bool
	stopped time.Time
	changes int
}

func (p *fakePeers) Authenticate(k store.Key) store.Key {
	k.MAC = fmt.Appendln(nil, p.secret, string(Statement(k)))
	return k
}
func (p *fakePeers) Vouched(k store.Key) bool { return bytes.Equal(k.MAC, p.Authenticate(k).MAC) }
func (p *fakePeers) Have(kid string) bool     { return p.have[kid] }
func (p *fakePeers) AnyKey(time.Time) bool    { return p.any }
func (p *fakePeers) Stopped() time.Time       { return p.stopped }
func (*fakePeers) Patience() time.Duration    { return 9 * time.Second }
func (p *fakePeers) Changed()                 { p.changes++ }

// A key does not sign before the peers have it, however long that takes; the one
// before it goes on meanwhile, as long as it may.
func TestPeersMustHaveAKey(t *testing.T) {
	for _, keys := range modes {
		t.Run(keys, func(t *testing.T) {
			c, s, peers := &clock{now: start}, newStore(t), &fakePeers{have: map[string]bool{}}
			cfg := testConfig(t, s, c)
			cfg.Source, cfg.Peers = source(t, keys), peers
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
				if !peers.Vouched(k) {
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
		cfg.Source, cfg.Peers = source(t, inMemory), peers
		cfg.KeyDuration, cfg.TokenDuration, cfg.MaxAge = 40*time.Second, 10*time.Second, time.Second
		r := open(t, cfg)
		first := signing(t, r)
		live(t, r, c, time.Second)
		if byHand {
			if err := RequestRotation(t.Context(), s, c.Now(), false); err != nil {
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

// Somebody who can write the store cannot make a key live or sign for longer, nor end it
// early, and this replica never vouches for what was written there; but they may revoke.
func TestTimesOfAKeyAreVouchedFor(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, keys := range modes {
		for name, forge := range map[string]func(k *store.Key){
			"longer":     func(k *store.Key) { k.RetireAt, k.RemoveAt = k.RetireAt.Add(year), k.RemoveAt.Add(year) },
			"shorter":    func(k *store.Key) { k.RetireAt, k.RemoveAt = k.ActivateAt, k.ActivateAt },
			"unmarked":   func(k *store.Key) { k.RetireAt, k.RemoveAt, k.MAC = k.RetireAt.Add(year), k.RemoveAt.Add(year), nil },
			"not active": func(k *store.Key) { k.ActivateAt = k.ActivateAt.Add(year) },
		} {
			t.Run(keys+"/"+name, func(t *testing.T) {
				c, s, peers := &clock{now: start}, newStore(t), &fakePeers{}
				cfg := testConfig(t, s, c)
				cfg.Source, cfg.Peers = source(t, keys), peers
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
				if all := r.Published(); len(all) != 1 || !all[0].Row.RemoveAt.Equal(was.RemoveAt) {
					t.Errorf("published: %v, and not until %v", all, was.RemoveAt)
				}
				// Rotated meanwhile, its row is written again: with the true times.
				live(t, r, c, testPolicy.keyDuration)
				if k := row(t, s, kid); k.RemoveAt.After(was.RemoveAt.Add(testPolicy.keyDuration)) && peers.Vouched(k) {
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
	if k := row(t, s, kid); !peers.Vouched(k) {
		t.Errorf("its MAC is %q", k.MAC)
	}
}

// A store that has lost its keys, as by the restore of an older backup, gets back
// those that are in use; while it takes none back, the key that signs goes on until
// another one is ripe.
func TestLostRows(t *testing.T) {
	for _, keys := range modes {
		for _, used := range []bool{false, true} {
			t.Run(fmt.Sprint(keys, " used ", used), func(t *testing.T) {
				db := newDatabase(t)
				c, s, peers := &clock{now: start}, sqlstore.New(db), &fakePeers{have: map[string]bool{}}
				cfg := testConfig(t, s, c)
				cfg.Source, cfg.Peers = source(t, keys), peers
				r := open(t, cfg)
				kid := signing(t, r)
				live(t, r, c, 2*time.Second)
				was := row(t, s, kid)
				lost := []string{"DELETE FROM signing_keys", "DELETE FROM registered_keys"}
				if !used {
					lost = append(lost, "DELETE FROM used_kids")
				}
				for _, statement := range lost {
					if _, err := db.Exec(t.Context(), statement); err != nil {
						t.Fatal(err)
					}
				}
				live(t, r, c, time.Second)
				if got := signing(t, r); got != kid {
					t.Fatalf("%q signs", got)
				}
				all := rows(t, s)
				if len(all) != 1 {
					t.Fatalf("%d rows", len(all))
				}
				if !used {
					if !reflect.DeepEqual(all[0], was) {
						t.Errorf("was %+v\nis  %+v", was, all[0])
					}
					return
				}
				next := all[0].ID
				live(t, r, c, testPolicy.ripen()+time.Second)
				if got := signing(t, r); got != kid {
					t.Fatalf("%q signs, before the peers have it", got)
				}
				peers.have[next] = true
				live(t, r, c, time.Second)
				if got := signing(t, r); got != next {
					t.Errorf("%q signs", got)
				}
				if _, published := r.Key(kid); !published {
					t.Error("tokens of the key before are no longer good")
				}
			})
		}
	}
}

// Of the processes that share their keys, one writes a lost row again, and none takes
// the key for lost because another was faster.
func TestLostRowThatSeveralShare(t *testing.T) {
	db := newDatabase(t)
	c, s, log := &clock{now: start}, sqlstore.New(db), &bytes.Buffer{}
	cfg := testConfig(t, s, c)
	first := open(t, cfg)
	kid := signing(t, first)
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	// The second one has looked when the first has yet to write the row.
	between := &betweenLooks{Store: s}
	cfg.Store = between
	second := open(t, cfg)
	if got := signing(t, second); got != kid {
		t.Fatalf("%q signs", got)
	}
	was := row(t, s, kid)
	for _, table := range []string{"signing_keys", "registered_keys", "used_kids"} {
		if _, err := db.Exec(t.Context(), "DELETE FROM "+table); err != nil {
			t.Fatal(err)
		}
	}
	between.next = func() { refresh(t, first) }
	refresh(t, second)
	if between.next != nil {
		t.Fatal("the first was not faster")
	}
	if got := rows(t, s); len(got) != 1 || !reflect.DeepEqual(got[0], was) {
		t.Errorf("was %+v\nare %+v", was, got)
	}
	if h := second.held[kid]; h == nil || h.lost || h.barred || len(second.unconfirmed) > 0 {
		t.Errorf("the second has %+v, and makes %+v", h, second.unconfirmed)
	}
	if strings.Contains(log.String(), "lost a signing key") {
		t.Errorf("the second said: %s", log)
	}
}

// betweenLooks lets something happen, once, after the keys were read.
type betweenLooks struct {
	store.Store
	next func()
}

func (b *betweenLooks) Keys(ctx context.Context) ([]store.Key, error) {
	keys, err := b.Store.Keys(ctx)
	if next := b.next; next != nil {
		b.next = nil
		next()
	}
	return keys, err
}

// The same with luck alone: many rounds of both at once.
func TestLostRowsUnderTwoAtOnce(t *testing.T) {
	db := newDatabase(t)
	c, s := &clock{now: start}, sqlstore.New(db)
	cfg := testConfig(t, s, c)
	log := &bytes.Buffer{}
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil)) // its handler locks
	rings := []*Ring{open(t, cfg), open(t, cfg)}
	kid := signing(t, rings[0])
	rounds := 25
	if soak() {
		rounds = 500
	}
	for range rounds {
		for _, table := range []string{"signing_keys", "registered_keys", "used_kids"} {
			if _, err := db.Exec(t.Context(), "DELETE FROM "+table); err != nil {
				t.Fatal(err)
			}
		}
		var both sync.WaitGroup
		for _, r := range rings {
			both.Go(func() {
				if err := r.Refresh(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		for _, r := range rings {
			refresh(t, r)
			if h := r.held[kid]; signing(t, r) != kid || h.lost || h.barred {
				t.Fatalf("%q signs, held is %+v", signing(t, r), h)
			}
		}
		if got := rows(t, s); len(got) != 1 || got[0].ID != kid {
			t.Fatalf("rows %+v", got)
		}
	}
	if n := strings.Count(log.String(), "written_again=false"); n > 0 {
		t.Errorf("%d times one of them said that the key is not written again", n)
	}
}

// A key that was revoked does not come back with its row, nor for want of it.
func TestLostRowOfARevokedKey(t *testing.T) {
	db := newDatabase(t)
	c, s := &clock{now: start}, sqlstore.New(db)
	cfg := testConfig(t, s, c)
	cfg.Source, cfg.Peers = source(t, inMemory), &fakePeers{}
	r := open(t, cfg)
	kid := signing(t, r)
	live(t, r, c, 2*time.Second)
	if _, err := RevokeIn(t.Context(), s, cfg.Peers, kid, c.Now()); err != nil {
		t.Fatal(err)
	}
	if err := r.ReplaceRevoked(t.Context(), kid); err != nil {
		t.Fatal(err)
	}
	next := signing(t, r)
	if next == kid || next == "" {
		t.Fatalf("%q signs", next)
	}
	for _, table := range []string{"signing_keys", "registered_keys", "used_kids"} {
		if _, err := db.Exec(t.Context(), "DELETE FROM "+table); err != nil {
			t.Fatal(err)
		}
	}
	live(t, r, c, 2*time.Second)
	if _, published := r.Key(kid); published || signing(t, r) != next {
		t.Errorf("the revoked key is published: %v; %q signs", published, signing(t, r))
	}
	if all := rows(t, s); len(all) != 1 || all[0].ID != next {
		t.Errorf("in the store: %v", all)
	}
}

// The first key of a process must be known everywhere if others have keys, though the
// store has none.
func TestFirstKeyAmongPeers(t *testing.T) {
	c := &clock{now: start}
	cfg := testConfig(t, newStore(t), c)
	cfg.Source, cfg.Peers = source(t, inMemory), &fakePeers{any: true}
	if got := signing(t, open(t, cfg)); got != "" {
		t.Errorf("%q signs at once", got)
	}
}
