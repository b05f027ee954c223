package mfa

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

func resealStore(t *testing.T) store.Store {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: sqldbtest.SQLite(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := sqlstore.New(db)
	if err := s.CreateUser(t.Context(), store.User{ID: "alice", NameKey: "alice"}); err != nil {
		t.Fatal(err)
	}
	return s
}

// boxOf seals under a key of the first byte.
func boxOf(t *testing.T, first byte, previous ...byte) *seal.Box {
	t.Helper()
	var older [][]byte
	for _, p := range previous {
		older = append(older, bytes.Repeat([]byte{p}, seal.KeySize))
	}
	b, err := seal.New(bytes.Repeat([]byte{first}, seal.KeySize), older...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func putFactor(t *testing.T, s store.Store, b *seal.Box, id, text string) store.Factor {
	t.Helper()
	f := store.Factor{ID: id, UserID: "alice", Kind: "passkey", Digest: "of " + id, CreatedAt: time.UnixMicro(7).UTC(), Version: 1}
	f.Data = b.Seal([]byte(text), place(f))
	if err := s.CreateFactor(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	return f
}

func allFactors(t *testing.T, s store.Store) []store.Factor {
	t.Helper()
	all, err := s.Factors(t.Context(), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPlace(t *testing.T) {
	f := store.Factor{ID: "1", UserID: "u", Kind: "totp", Digest: "d"}
	if got := place(f); got != "factors/u/totp/d/1" {
		t.Error(got)
	}
}

func TestReseal(t *testing.T) {
	s := resealStore(t)
	const old = resealPage + 7 // on more than one page
	for i := range old {
		putFactor(t, s, boxOf(t, 1), fmt.Sprintf("%04d", i), fmt.Sprint(i))
	}
	putFactor(t, s, boxOf(t, 2), "new", "new")
	before := allFactors(t, s)
	for _, want := range []seal.Resealed{{Changed: old, Current: 1}, {Current: old + 1}} {
		if got, err := (Sealed{s}).Reseal(t.Context(), boxOf(t, 2, 1)); err != nil || got != want {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
	}
	for i, f := range allFactors(t, s) {
		was, data, version := before[i], f.Data, f.Version
		text, err := boxOf(t, 2).Open(data, place(f))
		wantText, wantVersion := fmt.Sprint(i), int64(2)
		if i == old {
			wantText, wantVersion = "new", 1
		}
		if err != nil || string(text) != wantText || version != wantVersion {
			t.Errorf("%s has %q in version %d, %v", f.ID, text, version, err)
		}
		if f.ID != was.ID || f.UserID != was.UserID || f.Kind != was.Kind || f.Digest != was.Digest || !f.CreatedAt.Equal(was.CreatedAt) {
			t.Errorf("more than the seal changed: %+v, was %+v", f, was)
		}
	}
}

// What does not open is named and left as it is, and does not keep the others from being done.
func TestResealNamesWhatDoesNotOpen(t *testing.T) {
	s := resealStore(t)
	foreign := putFactor(t, s, boxOf(t, 3), "1", "a")
	damaged := putFactor(t, s, boxOf(t, 1), "2", "b")
	damaged.Data[len(damaged.Data)-1] ^= 1
	moved := putFactor(t, s, boxOf(t, 2), "3", "c")
	moved.Data = boxOf(t, 2).Seal([]byte("c"), "factors/mallory/passkey/c/3")
	for _, f := range []store.Factor{damaged, moved} {
		if err := s.UpdateFactor(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	putFactor(t, s, boxOf(t, 1), "4", "d")
	got, err := Sealed{s}.Reseal(t.Context(), boxOf(t, 2, 1))
	if got != (seal.Resealed{Changed: 1}) || err == nil {
		t.Fatalf("got %+v, %v", got, err)
	}
	for _, want := range []string{"factor 1 of the user alice is sealed under a key that was not given", "factor 2 of the user alice is damaged", "factor 3 of the user alice is damaged"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	for i, f := range []store.Factor{foreign, damaged, moved} {
		if now := allFactors(t, s)[i]; !bytes.Equal(now.Data, f.Data) {
			t.Errorf("%s was changed", f.ID)
		}
	}
}

// A hooked store does something right after factors were read for sealing them anew, and lets
// a transaction fail.
type hooked struct {
	store.Store
	afterRead func()
	updates   int
	fail      func(update int) (fails, persists bool)
}

var errInjected = errors.New("injected")

func (h *hooked) Factors(ctx context.Context, after string, limit int) ([]store.Factor, error) {
	rows, err := h.Store.Factors(ctx, after, limit)
	if then := h.afterRead; then != nil {
		h.afterRead = nil
		then()
	}
	return rows, err
}

func (h *hooked) Update(ctx context.Context, f func(store.Records) error) error {
	h.updates++
	if h.fail == nil {
		return h.Store.Update(ctx, f)
	}
	fails, persists := h.fail(h.updates)
	if fails && !persists {
		return errInjected
	}
	err := h.Store.Update(ctx, f)
	if fails && err == nil {
		err = errInjected
	}
	return err
}

// It ends in the middle, whether or not the last step was persisted, and the next call goes
// on from there.
func TestResealGoesOn(t *testing.T) {
	for name, tt := range map[string]struct {
		persists bool
		want     seal.Resealed // of the second call
	}{
		"failed and not persisted": {false, seal.Resealed{Changed: 2, Current: 2}},
		"failed but persisted":     {true, seal.Resealed{Changed: 1, Current: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			s := resealStore(t)
			for _, id := range []string{"1", "2", "3", "4"} {
				putFactor(t, s, boxOf(t, 1), id, id)
			}
			broken := &hooked{Store: s, fail: func(update int) (bool, bool) { return update == 3, tt.persists }}
			if got, err := (Sealed{broken}).Reseal(t.Context(), boxOf(t, 2, 1)); !errors.Is(err, errInjected) || got != (seal.Resealed{Changed: 2}) {
				t.Fatalf("got %+v, %v", got, err)
			}
			if got, err := (Sealed{s}).Reseal(t.Context(), boxOf(t, 2, 1)); err != nil || got != tt.want {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
			for _, f := range allFactors(t, s) {
				if text, err := boxOf(t, 2).Open(f.Data, place(f)); err != nil || string(text) != f.ID {
					t.Errorf("%s has %q, %v", f.ID, text, err)
				}
			}
		})
	}
}

// Between the look at a factor and the moment when it is sealed anew, the factor is spent, by a
// replica that seals under either key, or removed, or made anew: the change stays.
func TestResealAgainstChanges(t *testing.T) {
	s := resealStore(t)
	spent, spentNew := putFactor(t, s, boxOf(t, 1), "1", "unspent"), putFactor(t, s, boxOf(t, 1), "2", "unspent")
	removed, again := putFactor(t, s, boxOf(t, 1), "3", "removed"), putFactor(t, s, boxOf(t, 1), "4", "before")
	h := &hooked{Store: s, afterRead: func() {
		spent.Data = boxOf(t, 1, 2).Seal([]byte("spent"), place(spent))
		spentNew.Data = boxOf(t, 2, 1).Seal([]byte("spent"), place(spentNew))
		another := again
		another.ID = "5"
		another.Data = boxOf(t, 1).Seal([]byte("made anew"), place(another))
		for _, err := range []error{
			s.UpdateFactor(t.Context(), spent), s.UpdateFactor(t.Context(), spentNew),
			s.DeleteFactor(t.Context(), removed.ID), s.DeleteFactor(t.Context(), again.ID), s.CreateFactor(t.Context(), another),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	}}
	if got, err := (Sealed{h}).Reseal(t.Context(), boxOf(t, 2, 1)); err != nil || got != (seal.Resealed{Changed: 2, Current: 1}) {
		t.Errorf("got %+v, %v", got, err)
	}
	var got []string
	for _, f := range allFactors(t, s) {
		text, err := boxOf(t, 2).Open(f.Data, place(f))
		if err != nil {
			t.Error(err)
		}
		got = append(got, f.ID+" "+string(text))
	}
	if want := []string{"1 spent", "2 spent", "5 made anew"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
