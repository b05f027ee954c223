package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

func factor(name, user string) store.Factor {
	return store.Factor{
		ID: "id-" + name, UserID: "id-" + user, Kind: "passkey", Digest: "digest-" + name,
		Data: []byte{1, 0, 0xff, '\'', byte(len(name))}, CreatedAt: now, Version: 1,
	}
}

func factors(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	for _, name := range []string{"alice", "bob"} {
		ok(t, a.CreateUser(ctx, user(name)))
	}
	one, two, bobs := factor("1", "alice"), factor("2", "alice"), factor("3", "bob")
	two.Kind, two.Digest = "totp", one.Digest // a digest of another kind
	two.Data = bytes.Repeat([]byte{0, 0xff, 7, '\\'}, 4<<10)
	asked := two
	asked.Version = 77
	for _, f := range []store.Factor{asked, one, bobs} {
		ok(t, a.CreateFactor(ctx, f))
	}
	equal(t, must(b.FactorsOfUser(ctx, "id-alice"))(t), []store.Factor{one, two})
	equal(t, must(b.FactorsOfUser(ctx, "id-bob"))(t), []store.Factor{bobs})
	equal(t, len(must(b.FactorsOfUser(ctx, "nobody"))(t)), 0)
	equal(t, must(b.FactorByDigest(ctx, "totp", one.Digest))(t), two)
	equal(t, must(b.FactorByDigest(ctx, "passkey", one.Digest))(t), one)
	for _, none := range [][2]string{{"recovery", one.Digest}, {"passkey", "none"}, {"passkey", "Digest-1"}, {"Passkey", one.Digest}, {"passkey", one.Digest + " "}} {
		is(t, second(b.FactorByDigest(ctx, none[0], none[1])), store.ErrNotFound)
	}
	equal(t, must(b.Factors(ctx, "", 2))(t), []store.Factor{one, two})
	equal(t, must(b.Factors(ctx, two.ID, 2))(t), []store.Factor{bobs})
	equal(t, len(must(b.Factors(ctx, bobs.ID, 2))(t)), 0)

	sameID, sameDigest, stranger := factor("4", "bob"), factor("4", "bob"), factor("4", "nobody")
	sameID.ID, sameDigest.Digest = one.ID, one.Digest
	is(t, b.CreateFactor(ctx, sameID), store.ErrConflict)
	is(t, b.CreateFactor(ctx, sameDigest), store.ErrConflict)
	is(t, b.CreateFactor(ctx, stranger), store.ErrNotFound)
	equal(t, len(must(b.Factors(ctx, "", 9))(t)), 3)

	// Data is all that changes.
	changed := factor("9", "bob")
	changed.ID, changed.Data, changed.CreatedAt = one.ID, bytes.Repeat([]byte("data"), 4<<10), now.Add(time.Hour)
	ok(t, b.UpdateFactor(ctx, changed))
	one.Data, one.Version = changed.Data, 2
	equal(t, must(a.FactorsOfUser(ctx, "id-alice"))(t), []store.Factor{one, two})
	is(t, a.UpdateFactor(ctx, changed), store.ErrStale) // still version 1
	changed.Version = 3
	is(t, a.UpdateFactor(ctx, changed), store.ErrStale) // of the future
	ok(t, a.UpdateFactor(ctx, one))                     // with the same data
	one.Version = 3
	equal(t, must(b.FactorByDigest(ctx, one.Kind, one.Digest))(t), one)

	ok(t, a.DeleteFactor(ctx, one.ID))
	is(t, b.DeleteFactor(ctx, one.ID), store.ErrNotFound)
	is(t, b.UpdateFactor(ctx, one), store.ErrStale)
	is(t, second(b.FactorByDigest(ctx, one.Kind, one.Digest)), store.ErrNotFound)
	ok(t, b.CreateFactor(ctx, sameDigest)) // the digest is free again

	ok(t, a.DeleteUser(ctx, "id-alice"))
	is(t, second(b.FactorByDigest(ctx, two.Kind, two.Digest)), store.ErrNotFound)
	is(t, b.DeleteFactor(ctx, two.ID), store.ErrNotFound)
	is(t, b.CreateFactor(ctx, one), store.ErrNotFound)
	equal(t, must(b.Factors(ctx, "", 9))(t), []store.Factor{bobs, sameDigest})

	for _, name := range []string{"a\x00b", "\xff\xfe", "\xc3"} { // no text
		equal(t, len(must(a.FactorsOfUser(ctx, name))(t)), 0)
		is(t, second(a.FactorByDigest(ctx, "passkey", name)), store.ErrNotFound)
		is(t, a.UpdateFactor(ctx, store.Factor{ID: name}), store.ErrStale)
		is(t, a.DeleteFactor(ctx, name), store.ErrNotFound)
		is(t, a.CreateFactor(ctx, store.Factor{ID: "id", UserID: name}), store.ErrNotFound)
	}
}

// factorsInUpdate: an expected error inside a transaction does not end it, and an error of
// the transaction undoes everything.
func factorsInUpdate(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	ok(t, a.CreateUser(ctx, user("alice")))
	one, two, three := factor("1", "alice"), factor("2", "alice"), factor("3", "alice")
	ok(t, a.CreateFactor(ctx, one))
	ok(t, a.CreateFactor(ctx, two))
	change := func(r store.Records) error {
		is(t, r.CreateFactor(ctx, two), store.ErrConflict)
		is(t, r.CreateFactor(ctx, factor("9", "nobody")), store.ErrNotFound)
		is(t, r.DeleteFactor(ctx, "none"), store.ErrNotFound)
		is(t, r.UpdateFactor(ctx, three), store.ErrStale)
		is(t, second(r.FactorByDigest(ctx, three.Kind, three.Digest)), store.ErrNotFound)
		changed := one
		changed.Data = []byte("changed")
		if err := errors.Join(r.UpdateFactor(ctx, changed), r.DeleteFactor(ctx, two.ID), r.CreateFactor(ctx, three)); err != nil {
			return err
		}
		list, err := r.FactorsOfUser(ctx, "id-alice")
		changed.Version = 2
		equal(t, list, []store.Factor{changed, three})
		return err
	}
	errUndo := errors.New("undo")
	is(t, a.Update(ctx, func(r store.Records) error { return errors.Join(change(r), errUndo) }), errUndo)
	equal(t, must(b.FactorsOfUser(ctx, "id-alice"))(t), []store.Factor{one, two})
	ok(t, a.Update(ctx, change))
	equal(t, len(must(b.FactorsOfUser(ctx, "id-alice"))(t)), 2)
	is(t, second(b.FactorByDigest(ctx, two.Kind, two.Digest)), store.ErrNotFound)
}

// factorCreatedOnce: of many who bring the same digest, each for another user, one succeeds.
// Afterwards all of them create one of their own at the same moment.
func factorCreatedOnce(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	for i := range callers {
		ok(t, a.CreateUser(ctx, user(fmt.Sprint("user", i))))
	}
	for round := range times(2, 5) {
		once(t, store.ErrConflict, func(i int) error {
			f := factor(fmt.Sprint(round, "-", i), fmt.Sprint("user", i))
			f.Digest = fmt.Sprint("d", round)
			return pick(i, a, b).CreateFactor(ctx, f)
		})
		must(b.FactorByDigest(ctx, "passkey", fmt.Sprint("d", round)))(t)
		once(t, store.ErrConflict, func(i int) error { // the same id, and the same user
			f := factor(fmt.Sprint("same", round), "user0")
			f.Digest = fmt.Sprint("same", round, "-", i)
			return pick(i, a, b).CreateFactor(ctx, f)
		})
	}
	together(callers, func(i int) {
		if err := pick(i, a, b).CreateFactor(ctx, factor(fmt.Sprint("own", i), fmt.Sprint("user", i))); err != nil {
			t.Error(err)
		}
	})
}

func factorUpdatedOnce(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	ok(t, a.CreateUser(ctx, user("alice")))
	f := factor("1", "alice")
	ok(t, a.CreateFactor(ctx, f))
	for round := range times(3, 10) {
		same := round == 1 // a database may count a row that stays as it is as none
		winner := once(t, store.ErrStale, func(i int) error {
			mine := f
			if !same {
				mine.Data = fmt.Append(nil, round, "-", i)
			}
			return pick(i, a, b).UpdateFactor(ctx, mine)
		})
		if f.Version++; !same {
			f.Data = fmt.Append(nil, round, "-", winner)
		}
		equal(t, must(b.FactorsOfUser(ctx, "id-alice"))(t), []store.Factor{f})
	}
}

func factorDeletedOnce(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	ok(t, a.CreateUser(ctx, user("alice")))
	for round := range times(3, 10) {
		f := factor(fmt.Sprint(round), "alice")
		ok(t, a.CreateFactor(ctx, f))
		once(t, store.ErrNotFound, func(i int) error { return pick(i, a, b).DeleteFactor(ctx, f.ID) })
	}
}

// factorTakenOnce: a link is found and deleted in one transaction.
func factorTakenOnce(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	ok(t, a.CreateUser(ctx, user("alice")))
	for round := range times(3, 10) {
		f := factor(fmt.Sprint(round), "alice")
		ok(t, a.CreateFactor(ctx, f))
		once(t, store.ErrNotFound, func(i int) error {
			return pick(i, a, b).Update(ctx, func(r store.Records) error {
				found, err := r.FactorByDigest(ctx, f.Kind, f.Digest)
				if err != nil {
					return err
				}
				return r.DeleteFactor(ctx, found.ID)
			})
		})
	}
}

// factorsCounted: each caller adds a factor if there are fewer than some. Two callers that do
// not see each other would add too many.
func factorsCounted(t *testing.T, a, b store.Store) {
	ctx := t.Context()
	ok(t, a.CreateUser(ctx, user("alice")))
	const most, writers = 3, 8
	errMany := errors.New("too many")
	var added atomic.Int64
	together(writers, func(i int) {
		err := pick(i, a, b).Update(ctx, func(r store.Records) error {
			list, err := r.FactorsOfUser(ctx, "id-alice")
			if err != nil {
				return err
			}
			if len(list) >= most {
				return errMany
			}
			return r.CreateFactor(ctx, factor(fmt.Sprint(i), "alice"))
		})
		if err == nil {
			added.Add(1)
		} else if !errors.Is(err, errMany) {
			t.Error(err)
		}
	})
	equal(t, added.Load(), most)
	equal(t, len(must(a.FactorsOfUser(ctx, "id-alice"))(t)), most)
}

// once has callers do the same thing at the same moment. One must succeed, and all others
// return the error. It returns which one has succeeded.
func once(t *testing.T, lost error, do func(i int) error) (winner int) {
	t.Helper()
	var winners, last atomic.Int64
	together(callers, func(i int) {
		if err := do(i); err == nil {
			winners.Add(1)
			last.Store(int64(i))
		} else if !errors.Is(err, lost) {
			t.Errorf("%v, want %v", err, lost)
		}
	})
	equal(t, winners.Load(), 1)
	return int(last.Load())
}
