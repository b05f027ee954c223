// Package statetest holds a backend of package state to what state.Store
// promises: every operation and every error, and what must stay true when many
// callers of two replicas meet.
package statetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
)

// callers is how many goroutines meet in the tests of concurrency; half of them
// on each of two stores.
const callers = 32

// patience is how long is waited for what should come at once.
const patience = time.Minute

// soak reports whether WATCHWORD_SOAK asks for the long form of what is repeated.
func soak() bool { return os.Getenv("WATCHWORD_SOAK") != "" }

// times is how often something is done, in the short form and in the long one.
func times(short, long int) int {
	if soak() {
		return long
	}
	return short
}

// Run tests a backend under the given name. Every call of open, within one test,
// opens the same backend anew, as another replica would (a backend of one process
// returns the same store again), and leaves the closing to t.Cleanup. Tests use
// owners of their own, so the backend need not be empty. With WATCHWORD_SOAK in the
// environment they go on for longer, and also measure List among many records.
func Run(t *testing.T, name string, open func(t *testing.T) state.Store) {
	type test struct {
		name string
		run  func(t *testing.T, a, b state.Store)
	}
	kept := t.Run(name, func(t *testing.T) {
		tests := []test{
			{"put and get", putAndGet},
			{"values", values},
			{"create", create},
			{"swap", swap},
			{"take", take},
			{"delete", deletes},
			{"list and delete by owner", owned},
			{"list page by page", pages},
			{"delete by owner in several steps", manyOwned},
			{"keys do not run into each other", keysApart},
			{"arguments that are refused", refused},
			{"expiry", expiry},
			{"a later write sets the expiry anew", renewedExpiry},
			{"versions are never used again", versions},
			{"sweep", sweep},
			{"a caller that has gone", cancelled},
			{"limit", limit},
			{"limit counts fractions of a second", limitFractions},
			{"limit: a bucket each", limitApart},
			{"limit: another rate for the same bucket", limitChanged},
			{"reset", reset},
			{"concurrent limit allows no more than the rate", limitConcurrent},
			{"concurrent limit of a fast rate", limitConcurrentFast},
			{"a reset is never undone by a limit", resetStays},
			{"concurrent put and limit of a new key succeed", newTogether},
			{"concurrent create succeeds once", createOnce},
			{"concurrent swap succeeds once for each version", swapOnce},
			{"concurrent take succeeds once", takeOnce},
			{"a delete is never undone by a swap", deleteStays},
			{"a sweep never takes a record that was made anew", sweepStays},
			{"a write that was answered is read everywhere", readYourWrites},
			{"ping", ping},
		}
		if soak() {
			tests = append(tests, test{"list costs what the owner has", listCost})
		}
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				test.run(t, open(t), open(t))
			})
		}
	})
	if kept {
		t.Logf("summary: state on %s keeps its promises", name)
	}
}

func putAndGet(t *testing.T, a, b state.Store) {
	ctx, key := t.Context(), newKey()
	if _, err := a.Get(ctx, key); !errors.Is(err, state.ErrNotFound) {
		t.Fatalf("Get of nothing: %v, want ErrNotFound", err)
	}
	v1 := must(a.Put(ctx, key, []byte("one"), time.Hour))(t)
	got := must(b.Get(ctx, key))(t)
	wantRecord(t, got, key, "one", v1)
	if got.Expires.Nanosecond()%int(time.Millisecond) != 0 {
		t.Errorf("Expires %v is not truncated to milliseconds", got.Expires)
	}
	v2 := must(b.Put(ctx, key, []byte("two"), time.Hour))(t)
	if v2 == v1 {
		t.Errorf("two writes, one version %d", v1)
	}
	wantRecord(t, must(a.Get(ctx, key))(t), key, "two", v2)
}

func values(t *testing.T, a, b state.Store) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	large := make([]byte, state.MaxValue)
	rand.Read(large)
	for name, value := range map[string][]byte{
		"nothing": nil, "every byte": all, "as large as may be": large,
		"not UTF-8": {0xff, 0xfe, 0}, "a number": []byte("0012"), "separators": []byte(":\r\n{}'\\\x00"),
	} {
		ctx, key := t.Context(), newKey()
		must(a.Put(ctx, key, value, time.Hour))(t)
		if got := must(b.Get(ctx, key))(t); !bytes.Equal(got.Value, value) {
			t.Errorf("%s: %d bytes came back as other %d bytes", name, len(value), len(got.Value))
		}
		list := must(b.List(ctx, key.Kind, key.Owner, "", state.MaxPage))(t)
		if len(list) != 1 || !bytes.Equal(list[0].Value, value) {
			t.Errorf("%s: List returned another value", name)
		}
		if got := must(b.Take(ctx, key))(t); !bytes.Equal(got.Value, value) {
			t.Errorf("%s: Take returned another value", name)
		}
	}

	ctx, key, value := t.Context(), newKey(), []byte("mine")
	must(a.Put(ctx, key, value, time.Hour))(t)
	value[0] = 'X'
	got := must(a.Get(ctx, key))(t)
	if string(got.Value) != "mine" {
		t.Errorf("the store kept the caller's slice: %q", got.Value)
	}
	got.Value[0] = 'X'
	if again := must(a.Get(ctx, key))(t); string(again.Value) != "mine" {
		t.Errorf("the store gave away its own slice: %q", again.Value)
	}
}

func create(t *testing.T, a, b state.Store) {
	ctx, key := t.Context(), newKey()
	v := must(a.Create(ctx, key, []byte("one"), time.Hour))(t)
	if _, err := b.Create(ctx, key, []byte("two"), time.Hour); !errors.Is(err, state.ErrExists) {
		t.Fatalf("second Create: %v, want ErrExists", err)
	}
	wantRecord(t, must(b.Get(ctx, key))(t), key, "one", v)
	check(t, a.Delete(ctx, key))
	v2 := must(b.Create(ctx, key, []byte("three"), time.Hour))(t)
	wantRecord(t, must(a.Get(ctx, key))(t), key, "three", v2)
}

func swap(t *testing.T, a, b state.Store) {
	ctx, key := t.Context(), newKey()
	if _, err := a.Swap(ctx, key, 1, nil, time.Hour); !errors.Is(err, state.ErrChanged) {
		t.Fatalf("Swap of nothing: %v, want ErrChanged", err)
	}
	if _, err := a.Swap(ctx, key, 0, nil, time.Hour); !errors.Is(err, state.ErrChanged) {
		t.Fatalf("Swap of nothing with version zero: %v, want ErrChanged", err)
	}
	if _, err := a.Get(ctx, key); !errors.Is(err, state.ErrNotFound) {
		t.Fatalf("a Swap that failed wrote something: %v", err)
	}
	v1 := must(a.Put(ctx, key, []byte("one"), time.Hour))(t)
	v2 := must(b.Swap(ctx, key, v1, []byte("two"), time.Hour))(t)
	for _, stale := range []int64{v1, 0, v2 + 1, -v2} {
		if _, err := a.Swap(ctx, key, stale, []byte("stale"), time.Hour); !errors.Is(err, state.ErrChanged) {
			t.Errorf("Swap with a version that is not the record's: %v, want ErrChanged", err)
		}
	}
	wantRecord(t, must(a.Get(ctx, key))(t), key, "two", v2)

	// Delete and make anew: the old version stays dead (ABA).
	check(t, a.Delete(ctx, key))
	must(a.Create(ctx, key, []byte("two"), time.Hour))(t)
	if _, err := b.Swap(ctx, key, v2, []byte("stale"), time.Hour); !errors.Is(err, state.ErrChanged) {
		t.Errorf("Swap with the version of a record that was deleted: %v, want ErrChanged", err)
	}
}

func take(t *testing.T, a, b state.Store) {
	ctx, key := t.Context(), newKey()
	if _, err := a.Take(ctx, key); !errors.Is(err, state.ErrNotFound) {
		t.Fatalf("Take of nothing: %v, want ErrNotFound", err)
	}
	v := must(a.Put(ctx, key, []byte("one"), time.Hour))(t)
	wantRecord(t, must(b.Take(ctx, key))(t), key, "one", v)
	if _, err := a.Take(ctx, key); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("second Take: %v, want ErrNotFound", err)
	}
	if _, err := a.Get(ctx, key); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("Get after Take: %v, want ErrNotFound", err)
	}
	if list := must(a.List(ctx, key.Kind, key.Owner, "", state.MaxPage))(t); len(list) != 0 {
		t.Errorf("List after Take: %d records", len(list))
	}
}

func deletes(t *testing.T, a, b state.Store) {
	ctx, key := t.Context(), newKey()
	check(t, a.Delete(ctx, key)) // nothing there: no error
	v := must(a.Put(ctx, key, []byte("one"), time.Hour))(t)
	check(t, b.Delete(ctx, key))
	if _, err := a.Get(ctx, key); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("Get after Delete: %v, want ErrNotFound", err)
	}
	if _, err := a.Swap(ctx, key, v, []byte("two"), time.Hour); !errors.Is(err, state.ErrChanged) {
		t.Errorf("Swap after Delete: %v, want ErrChanged", err)
	}
	check(t, a.Delete(ctx, key))
}

func owned(t *testing.T, a, b state.Store) {
	ctx, first := t.Context(), newKey()
	var want []string
	for i := range 5 {
		key := first
		key.ID = fmt.Sprintf("%s-%d", first.ID, i)
		must(a.Put(ctx, key, []byte(key.ID), time.Hour))(t)
		want = append(want, key.ID)
	}
	otherKind, otherOwner := first, newKey()
	otherKind.Kind += "_other"
	must(a.Put(ctx, otherKind, []byte("kind"), time.Hour))(t)
	must(a.Put(ctx, otherOwner, []byte("owner"), time.Hour))(t)

	var got []string
	for _, r := range must(b.List(ctx, first.Kind, first.Owner, "", state.MaxPage))(t) {
		wantRecord(t, r, r.Key, r.Key.ID, must(a.Get(ctx, r.Key))(t).Version)
		if one := must(a.Get(ctx, r.Key))(t); !one.Expires.Equal(r.Expires) {
			t.Errorf("List says it expires at %v, Get at %v", r.Expires, one.Expires)
		}
		got = append(got, r.Key.ID)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("List: %v, want %v", got, want)
	}
	if n := must(b.DeleteOwned(ctx, first.Kind, first.Owner))(t); n != 5 {
		t.Errorf("DeleteOwned says %d, want 5", n)
	}
	if n := must(b.DeleteOwned(ctx, first.Kind, first.Owner))(t); n != 0 {
		t.Errorf("second DeleteOwned says %d, want 0", n)
	}
	if list := must(a.List(ctx, first.Kind, first.Owner, "", state.MaxPage))(t); len(list) != 0 {
		t.Errorf("List after DeleteOwned: %d records", len(list))
	}
	for _, id := range want {
		if _, err := a.Get(ctx, state.Key{Kind: first.Kind, Owner: first.Owner, ID: id}); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("Get after DeleteOwned: %v, want ErrNotFound", err)
		}
	}
	for _, key := range []state.Key{otherKind, otherOwner} {
		if _, err := a.Get(ctx, key); err != nil {
			t.Errorf("DeleteOwned reached a record of another kind or owner: %v", err)
		}
	}
}

// pages reads pages of every size, in the order of the bytes of the ids. Some records have
// expired, and the one after which a page begins need not be there.
func pages(t *testing.T, a, b state.Store) {
	ctx, first := t.Context(), newKey()
	ids := []string{"-", "-a", "0", "00", "09", "1", "10", "9", "A", "Z", "Za", "_", "a", "aa", "b", "z", "zz"}
	var expired []string
	for i, id := range ids {
		key := first
		key.ID = id
		ttl := time.Hour
		if i%5 == 1 {
			expired, ttl = append(expired, id), time.Millisecond
		}
		must(a.Put(ctx, key, []byte(id), ttl))(t)
	}
	live := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return slices.Contains(expired, id) })
	for _, id := range expired {
		key := first
		key.ID = id
		gone(t, a, key)
	}
	for limit := 1; limit <= len(live)+1; limit++ {
		var got []string
		for after := ""; ; {
			page := must(b.List(ctx, first.Kind, first.Owner, after, limit))(t)
			for _, r := range page {
				if r.Key.Kind != first.Kind || r.Key.Owner != first.Owner || string(r.Value) != r.Key.ID {
					t.Fatalf("a page has %v with the value %q", r.Key, r.Value)
				}
				got, after = append(got, r.Key.ID), r.Key.ID
			}
			if len(page) > limit {
				t.Fatalf("a page of %d has %d records", limit, len(page))
			}
			if len(page) < limit {
				break
			}
		}
		if !slices.Equal(got, live) {
			t.Fatalf("by pages of %d: %v, want %v", limit, got, live)
		}
	}
	for i, id := range ids {
		rest := slices.DeleteFunc(slices.Clone(ids[i+1:]), func(id string) bool { return slices.Contains(expired, id) })
		var got []string
		for _, r := range must(b.List(ctx, first.Kind, first.Owner, id, state.MaxPage))(t) {
			got = append(got, r.Key.ID)
		}
		if !slices.Equal(got, rest) {
			t.Errorf("after %q come %v, want %v", id, got, rest)
		}
	}
}

// manyOwned deletes more records than a backend deletes in one step.
func manyOwned(t *testing.T, a, b state.Store) {
	const many = state.MaxPage + 100
	ctx, first := t.Context(), newKey()
	together(t, 16, func(caller int) {
		for i := caller; i < many; i += 16 {
			key := first
			key.ID = fmt.Sprint(i)
			if _, err := a.Put(ctx, key, nil, time.Hour); err != nil {
				t.Error(err)
				return
			}
		}
	})
	if list := must(b.List(ctx, first.Kind, first.Owner, "", state.MaxPage))(t); len(list) != state.MaxPage {
		t.Errorf("a page has %d records", len(list))
	}
	if n := must(b.DeleteOwned(ctx, first.Kind, first.Owner))(t); n != many {
		t.Errorf("DeleteOwned says %d, want %d", n, many)
	}
	if list := must(a.List(ctx, first.Kind, first.Owner, "", state.MaxPage))(t); len(list) != 0 {
		t.Errorf("List after DeleteOwned: %d records", len(list))
	}
}

// listCost compares the time of List before and after other owners have got
// many records. A walk over all of them would take hundreds of times as long.
func listCost(t *testing.T, a, _ state.Store) {
	ctx, mine := t.Context(), newKey()
	must(a.Put(ctx, mine, []byte("mine"), time.Hour))(t)
	fastest := func() time.Duration {
		best := time.Duration(math.MaxInt64)
		for range 50 {
			begin := time.Now()
			if list := must(a.List(ctx, mine.Kind, mine.Owner, "", state.MaxPage))(t); len(list) != 1 {
				t.Fatalf("List: %d records, want 1", len(list))
			}
			best = min(best, time.Since(begin))
		}
		return best
	}
	before := fastest()
	together(t, 16, func(int) {
		for range 500 {
			if _, err := a.Put(ctx, newKey(), make([]byte, 512), time.Hour); err != nil {
				t.Error(err)
				return
			}
		}
	})
	after := fastest()
	for deadline := time.Now().Add(patience); after > 10*before+2*time.Millisecond; after = fastest() { // a busy machine
		if time.Now().After(deadline) {
			t.Fatalf("List took %v, and %v once others had 8,000 records", before, after)
		}
	}
}

func keysApart(t *testing.T, a, b state.Store) {
	ctx, o := t.Context(), newKey().Owner
	keys := []state.Key{
		{Kind: "test", Owner: o + "-a", ID: "b"},
		{Kind: "test", Owner: o, ID: "a-b"},
		{Kind: "test", Owner: o, ID: "A-b"},
		{Kind: "test", Owner: o + "-A", ID: "b"},
		{Kind: "test_index", Owner: o, ID: "a"},
		{Kind: "test", Owner: o, ID: "index"},
		{Kind: "rate", Owner: o, ID: "a"},
		{Kind: "rate", Owner: o, ID: "test"},
		{Kind: strings.Repeat("k", state.MaxKind), Owner: strings.Repeat("o", state.MaxName-8) + o[:8], ID: strings.Repeat("i", state.MaxName)},
	}
	for _, key := range keys {
		must(a.Create(ctx, key, []byte(fmt.Sprint(key)), time.Hour))(t)
		if d := must(a.Limit(ctx, key, state.Rate{Burst: 1, Period: time.Hour}))(t); !d.Allowed {
			t.Errorf("%v: somebody else's event was counted", key)
		}
	}
	for _, key := range keys {
		if got := must(b.Get(ctx, key))(t); string(got.Value) != fmt.Sprint(key) {
			t.Errorf("under %v is the value of %s", key, got.Value)
		}
		list := must(b.List(ctx, key.Kind, key.Owner, "", state.MaxPage))(t)
		if !slices.ContainsFunc(list, func(r state.Record) bool { return r.Key == key }) {
			t.Errorf("List does not know %v", key)
		}
	}
	for _, key := range keys {
		if got := must(b.Take(ctx, key))(t); string(got.Value) != fmt.Sprint(key) {
			t.Errorf("taken from %v: the value of %s", key, got.Value)
		}
	}
}

func refused(t *testing.T, a, _ state.Store) {
	ctx, good := t.Context(), newKey()
	want := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, state.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", what, err)
		}
	}
	for _, bad := range []string{"", "a:b", "a b", "{a}", "a*", "ä", "a\x00", "a\n", "a.b", "a/b", "'", "%", strings.Repeat("a", state.MaxName+1)} {
		for _, key := range []state.Key{
			{Kind: bad, Owner: good.Owner, ID: good.ID},
			{Kind: good.Kind, Owner: bad, ID: good.ID},
			{Kind: good.Kind, Owner: good.Owner, ID: bad},
		} {
			what := fmt.Sprintf("key %q", key)
			_, err := a.Get(ctx, key)
			want("Get "+what, err)
			_, err = a.Put(ctx, key, nil, time.Hour)
			want("Put "+what, err)
			_, err = a.Create(ctx, key, nil, time.Hour)
			want("Create "+what, err)
			_, err = a.Swap(ctx, key, 1, nil, time.Hour)
			want("Swap "+what, err)
			_, err = a.Take(ctx, key)
			want("Take "+what, err)
			want("Delete "+what, a.Delete(ctx, key))
			_, err = a.Limit(ctx, key, state.Rate{Burst: 1, Period: time.Second})
			want("Limit "+what, err)
			want("Reset "+what, a.Reset(ctx, key))
			if key.ID == bad {
				continue
			}
			_, err = a.List(ctx, key.Kind, key.Owner, "", state.MaxPage)
			want("List "+what, err)
			_, err = a.DeleteOwned(ctx, key.Kind, key.Owner)
			want("DeleteOwned "+what, err)
		}
		if bad != "" {
			_, err := a.List(ctx, good.Kind, good.Owner, bad, 1)
			want(fmt.Sprintf("List after %q", bad), err)
		}
	}
	for _, limit := range []int{0, -1, state.MaxPage + 1} {
		_, err := a.List(ctx, good.Kind, good.Owner, "", limit)
		want(fmt.Sprintf("List of %d", limit), err)
	}
	for _, kind := range []string{"Session", "session1", "a-b"} {
		_, err := a.Get(ctx, state.Key{Kind: kind, Owner: good.Owner, ID: good.ID})
		want("kind "+kind, err)
	}
	for _, ttl := range []time.Duration{0, -time.Second, state.MinTTL - 1, state.MaxTTL + 1} {
		_, err := a.Put(ctx, good, nil, ttl)
		want("Put for "+ttl.String(), err)
		_, err = a.Create(ctx, good, nil, ttl)
		want("Create for "+ttl.String(), err)
		_, err = a.Swap(ctx, good, 1, nil, ttl)
		want("Swap for "+ttl.String(), err)
	}
	_, err := a.Put(ctx, good, make([]byte, state.MaxValue+1), time.Hour)
	want("a value that is too large", err)
	for _, rate := range []state.Rate{
		{}, {Burst: 1}, {Period: time.Second}, {Burst: -1, Period: time.Second}, {Burst: 1, Period: -time.Second},
		{Burst: state.MaxBurst + 1, Period: time.Second}, {Burst: 1, Period: state.MaxPeriod + 1},
	} {
		_, err := a.Limit(ctx, good, rate)
		want(fmt.Sprintf("rate %+v", rate), err)
	}
	if _, err := a.Get(ctx, good); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("something that was refused was written: %v", err)
	}
}

func expiry(t *testing.T, a, b state.Store) {
	ctx, key := t.Context(), newKey()
	ttl := 150 * time.Millisecond
	begin := time.Now()
	v := must(a.Put(ctx, key, []byte("short"), ttl))(t)
	gone(t, b, key)
	if lived := time.Since(begin); lived < ttl-5*time.Millisecond {
		t.Errorf("a record for %v lived %v", ttl, lived)
	}
	if list := must(a.List(ctx, key.Kind, key.Owner, "", state.MaxPage))(t); len(list) != 0 {
		t.Errorf("List has %d expired records", len(list))
	}
	if _, err := a.Swap(ctx, key, v, nil, time.Hour); !errors.Is(err, state.ErrChanged) {
		t.Errorf("Swap of an expired record: %v, want ErrChanged", err)
	}
	if _, err := a.Take(ctx, key); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("Take of an expired record: %v, want ErrNotFound", err)
	}
	if n := must(a.DeleteOwned(ctx, key.Kind, key.Owner))(t); n != 0 {
		t.Errorf("DeleteOwned counts %d expired records", n)
	}
	check(t, a.Delete(ctx, key))

	must(a.Put(ctx, key, []byte("short"), ttl))(t)
	gone(t, b, key)
	v = must(a.Create(ctx, key, []byte("anew"), time.Hour))(t)
	wantRecord(t, must(b.Get(ctx, key))(t), key, "anew", v)
}

func renewedExpiry(t *testing.T, a, b state.Store) {
	ctx, first := t.Context(), newKey()
	probe := first
	probe.ID += "-probe"
	short := 100 * time.Millisecond
	for _, write := range []func(state.Key, int64) (int64, error){
		func(k state.Key, _ int64) (int64, error) { return a.Put(ctx, k, []byte("long"), time.Hour) },
		func(k state.Key, v int64) (int64, error) { return a.Swap(ctx, k, v, []byte("long"), time.Hour) },
	} {
		key := newKey()
		v := must(a.Put(ctx, key, []byte("short"), time.Minute))(t)
		early := must(b.Get(ctx, key))(t).Expires
		v = must(write(key, v))(t)
		must(a.Put(ctx, probe, nil, short))(t)
		gone(t, b, probe)
		got := must(b.Get(ctx, key))(t)
		wantRecord(t, got, key, "long", v)
		if d := got.Expires.Sub(early); d < 58*time.Minute || d > 61*time.Minute {
			t.Errorf("an hour instead of a minute moved the expiry by %v", d)
		}
		// And back: the shorter life counts, also for List.
		must(a.Swap(ctx, key, v, []byte("short"), short))(t)
		gone(t, b, key)
		if list := must(b.List(ctx, key.Kind, key.Owner, "", state.MaxPage))(t); len(list) != 0 {
			t.Errorf("List has %d expired records", len(list))
		}
	}
}

func versions(t *testing.T, a, b state.Store) {
	ctx, key := t.Context(), newKey()
	seen := make(map[int64]bool)
	note := func(v int64, err error) {
		t.Helper()
		check(t, err)
		if v == 0 || seen[v] {
			t.Fatalf("version %d is zero or was used before", v)
		}
		seen[v] = true
	}
	for range 10 {
		note(a.Create(ctx, key, []byte("same"), time.Hour))
		note(b.Put(ctx, key, []byte("same"), time.Hour))
		got := must(a.Get(ctx, key))(t)
		note(a.Swap(ctx, key, got.Version, []byte("same"), time.Hour))
		if len(seen)%2 == 0 {
			check(t, b.Delete(ctx, key))
		} else {
			must(b.Take(ctx, key))(t)
		}
	}
}

func sweep(t *testing.T, a, b state.Store) {
	ctx, key := t.Context(), newKey()
	for i := range 10 {
		k := key
		k.ID = fmt.Sprintf("%s-%d", key.ID, i)
		must(a.Put(ctx, k, nil, time.Millisecond))(t)
	}
	long := newKey()
	must(a.Put(ctx, long, []byte("long"), time.Hour))(t)
	must(a.Limit(ctx, long, state.Rate{Burst: 2, Period: time.Hour}))(t)
	gone(t, b, state.Key{Kind: key.Kind, Owner: key.Owner, ID: key.ID + "-9"})
	if n := must(a.Sweep(ctx, 3))(t); n > 3 {
		t.Errorf("Sweep of at most 3 says %d", n)
	}
	for deadline := time.Now().Add(patience); must(a.Sweep(ctx, 100))(t) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("Sweep finds no end")
		}
	}
	if _, err := b.Get(ctx, long); err != nil {
		t.Errorf("Sweep took a record that is alive: %v", err)
	}
	if d := must(b.Limit(ctx, long, state.Rate{Burst: 2, Period: time.Hour}))(t); d.Remaining != 0 {
		t.Errorf("Sweep took a bucket that is not empty: %+v", d)
	}
}

func cancelled(t *testing.T, a, _ state.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	key := newKey()
	must(a.Put(ctx, key, []byte("one"), time.Hour))(t)
	cancel()
	for what, err := range map[string]error{
		"Get":    second(a.Get(ctx, key)),
		"Put":    second(a.Put(ctx, key, []byte("two"), time.Hour)),
		"Take":   second(a.Take(ctx, key)),
		"Delete": a.Delete(ctx, key),
		"Limit":  second(a.Limit(ctx, key, state.Rate{Burst: 1, Period: time.Second})),
		"Reset":  a.Reset(ctx, key),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a context that is over: %v", what, err)
		}
		if errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrInvalid) {
			t.Errorf("%s with a context that is over claims to know: %v", what, err)
		}
	}
}

func limit(t *testing.T, a, b state.Store) {
	ctx, key := t.Context(), newKey()
	rate := state.Rate{Burst: 3, Period: 3 * time.Hour}
	for i, s := range []state.Store{a, b, a} {
		d := must(s.Limit(ctx, key, rate))(t)
		if !d.Allowed || d.Remaining != 2-i || d.RetryAfter != 0 {
			t.Fatalf("event %d of 3: %+v", i+1, d)
		}
		if full := time.Duration(i+1) * time.Hour; d.ResetAfter > full || d.ResetAfter < full-time.Minute {
			t.Errorf("event %d: reset after %v, want about %v", i+1, d.ResetAfter, full)
		}
	}
	for range 5 { // what is not allowed is not counted
		d := must(b.Limit(ctx, key, rate))(t)
		if d.Allowed || d.Remaining != 0 {
			t.Fatalf("the fourth of three was allowed: %+v", d)
		}
		if d.RetryAfter > time.Hour || d.RetryAfter < time.Hour-time.Minute {
			t.Errorf("retry after %v, want about an hour", d.RetryAfter)
		}
		if d.ResetAfter > 3*time.Hour || d.ResetAfter < 3*time.Hour-time.Minute {
			t.Errorf("reset after %v, want about three hours", d.ResetAfter)
		}
	}
}

// limitFractions asks for a bucket whose events are less than a second apart:
// windows of whole seconds have been fooled by it.
func limitFractions(t *testing.T, a, b state.Store) {
	ctx, key := t.Context(), newKey()
	rate := state.Rate{Burst: 2, Period: 200 * time.Millisecond}
	interval := rate.Period / time.Duration(rate.Burst)
	begin, allowed := time.Now(), 0
	for time.Since(begin) < 500*time.Millisecond || allowed <= rate.Burst && time.Since(begin) < patience {
		d := must(a.Limit(ctx, key, rate))(t)
		if d.Allowed {
			allowed++
		} else if d.RetryAfter <= 0 || d.RetryAfter > interval {
			t.Fatalf("retry after %v; events are %v apart", d.RetryAfter, interval)
		} else {
			pause(t, min(d.RetryAfter, 5*time.Millisecond))
		}
	}
	most := rate.Burst + int(time.Since(begin)/interval)
	if allowed > most {
		t.Errorf("%d events allowed in %v; %d at most", allowed, time.Since(begin), most)
	}
	if allowed < rate.Burst+1 {
		t.Errorf("%d events allowed in %v; the bucket does not drain", allowed, time.Since(begin))
	}

	// One event is allowed when the Decision says so, and no sooner.
	var said time.Time
	for d := (state.Decision{Allowed: true}); d.Allowed; {
		asked := time.Now()
		d = must(b.Limit(ctx, key, rate))(t)
		said = asked.Add(d.RetryAfter)
	}
	until(t, "the event that was promised", func() bool { return must(b.Limit(ctx, key, rate))(t).Allowed })
	if early := time.Until(said); early > 5*time.Millisecond {
		t.Errorf("an event was allowed %v before the time that was said", early)
	}
}

func limitApart(t *testing.T, a, b state.Store) {
	ctx, rate := t.Context(), state.Rate{Burst: 1, Period: time.Hour}
	key := newKey()
	other := []state.Key{
		key,
		{Kind: key.Kind + "_other", Owner: key.Owner, ID: key.ID},
		{Kind: key.Kind, Owner: key.Owner, ID: key.ID + "-other"},
		newKey(),
	}
	for _, k := range other {
		if d := must(a.Limit(ctx, k, rate))(t); !d.Allowed {
			t.Errorf("the first event of %v was not allowed", k)
		}
		if d := must(b.Limit(ctx, k, rate))(t); d.Allowed {
			t.Errorf("the second event of %v was allowed", k)
		}
	}
	// Buckets are no records.
	if _, err := a.Get(ctx, key); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("Get of a bucket: %v", err)
	}
	if n := must(a.DeleteOwned(ctx, key.Kind, key.Owner))(t); n != 0 {
		t.Errorf("DeleteOwned counts %d buckets", n)
	}
	if d := must(b.Limit(ctx, key, rate))(t); d.Allowed {
		t.Error("DeleteOwned emptied a bucket")
	}
}

func limitChanged(t *testing.T, a, b state.Store) {
	ctx, key := t.Context(), newKey()
	for range 10 {
		must(a.Limit(ctx, key, state.Rate{Burst: 10, Period: 100 * time.Hour}))(t)
	}
	d := must(b.Limit(ctx, key, state.Rate{Burst: 2, Period: 2 * time.Hour}))(t)
	if d.Allowed || d.RetryAfter > time.Hour {
		t.Errorf("a full bucket under a smaller rate: %+v, want one event within the hour", d)
	}
	fast := state.Rate{Burst: 2, Period: 100 * time.Millisecond}
	if d := must(a.Limit(ctx, key, fast))(t); d.Allowed || d.RetryAfter > 50*time.Millisecond {
		t.Errorf("a full bucket under a faster rate: %+v, want one event within 50 ms", d)
	}
	until(t, "the event that was promised", func() bool { return must(b.Limit(ctx, key, fast))(t).Allowed })
}

func reset(t *testing.T, a, b state.Store) {
	ctx, key, rate := t.Context(), newKey(), state.Rate{Burst: 2, Period: time.Hour}
	others := []state.Key{
		{Kind: key.Kind + "_other", Owner: key.Owner, ID: key.ID},
		{Kind: key.Kind, Owner: newKey().Owner, ID: key.ID},
		{Kind: key.Kind, Owner: key.Owner, ID: key.ID + "-other"},
	}
	check(t, a.Reset(ctx, key)) // nothing there: no error
	must(a.Put(ctx, key, []byte("a record is no bucket"), time.Hour))(t)
	for _, k := range append(others, key) {
		for range rate.Burst {
			must(a.Limit(ctx, k, rate))(t)
		}
	}
	for events := range rate.Burst + 1 { // of a full bucket, then of those with fewer
		check(t, b.Reset(ctx, key))
		for i := range events {
			if d := must(a.Limit(ctx, key, rate))(t); !d.Allowed || d.Remaining != rate.Burst-1-i {
				t.Errorf("event %d after a reset: %+v", i+1, d)
			}
		}
	}
	if d := must(b.Limit(ctx, key, rate))(t); d.Allowed {
		t.Error("after a reset more is allowed than the rate says")
	}
	for _, k := range others {
		if d := must(b.Limit(ctx, k, rate))(t); d.Allowed {
			t.Errorf("a reset emptied another bucket, of %v", k)
		}
	}
	if _, err := b.Get(ctx, key); err != nil {
		t.Errorf("a reset took the record: %v", err)
	}
	check(t, b.Reset(ctx, key))
	check(t, b.Reset(ctx, key))
}

func limitConcurrent(t *testing.T, a, b state.Store) {
	ctx, key := t.Context(), newKey()
	// Calls after the last allowed event only read. None is added meanwhile.
	rate, each := state.Rate{Burst: times(30, 100), Period: 24 * time.Hour}, times(10, 100)
	var allowed atomic.Int64
	together(t, callers, func(i int) {
		for range each {
			d, err := pick(i, a, b).Limit(ctx, key, rate)
			if err != nil {
				t.Error(err)
				return
			}
			if d.Allowed {
				allowed.Add(1)
			}
		}
	})
	if n := allowed.Load(); n != int64(rate.Burst) {
		t.Errorf("%d of %d concurrent events were allowed, want %d", n, each*callers, rate.Burst)
	}
}

func limitConcurrentFast(t *testing.T, a, b state.Store) {
	ctx, key := t.Context(), newKey()
	rate := state.Rate{Burst: 5, Period: 100 * time.Millisecond} // one in 20 ms
	var allowed atomic.Int64
	begin := time.Now()
	together(t, callers, func(i int) {
		for range times(5, 20) {
			d, err := pick(i, a, b).Limit(ctx, key, rate)
			if err != nil {
				t.Error(err)
				return
			}
			if d.Allowed {
				allowed.Add(1)
			}
		}
	})
	took := time.Since(begin) + 5*time.Millisecond // clocks are read apart
	most := int64(rate.Burst) + int64(took/(rate.Period/time.Duration(rate.Burst)))
	if n := allowed.Load(); n < int64(rate.Burst) || n > most {
		t.Errorf("%d events allowed in %v, want %d to %d", n, took, rate.Burst, most)
	}
}

// resetStays resets a bucket among callers that count. What was counted before is
// forgotten for good, and what comes after is counted in full.
func resetStays(t *testing.T, a, b state.Store) {
	ctx := t.Context()
	for range times(2, 10) {
		key, rate := newKey(), state.Rate{Burst: 2 * callers, Period: 24 * time.Hour}
		var (
			began, answered       atomic.Bool // of Reset
			before, amidst, after atomic.Int64
		)
		together(t, callers, func(i int) {
			s := pick(i, a, b)
			for i > 0 || before.Load() < callers {
				afterwards := answered.Load()
				d, err := s.Limit(ctx, key, rate)
				if err != nil {
					t.Error(err)
					began.Store(true)
					answered.Store(true)
					return
				}
				switch {
				case !d.Allowed && afterwards:
					return
				case !d.Allowed:
				case afterwards:
					after.Add(1)
				case began.Load():
					amidst.Add(1)
				default:
					before.Add(1)
				}
			}
			began.Store(true)
			if err := s.Reset(ctx, key); err != nil {
				t.Error(err)
			}
			answered.Store(true)
		})
		most := int64(rate.Burst)
		if n := before.Load() + amidst.Load(); n > 2*most {
			t.Errorf("%d events were allowed until a reset was answered, want %d at most", n, 2*most)
		}
		if n := after.Load(); n > most || n+amidst.Load() < most {
			t.Errorf("after a reset %d events were allowed, and %d beside it, want %d", n, amidst.Load(), most)
		}
	}
}

// newTogether: those who write a key first, at the same moment, do not hinder each other.
func newTogether(t *testing.T, a, b state.Store) {
	// One more than there are calls: on MariaDB a call that has waited for the record counts by the
	// moment at which it began to.
	ctx, rate := t.Context(), state.Rate{Burst: callers + 1, Period: time.Hour}
	for range times(8, 100) {
		key := newKey()
		together(t, callers, func(i int) {
			if _, err := pick(i, a, b).Put(ctx, key, nil, time.Hour); err != nil {
				t.Error("put:", err)
			}
			if d, err := pick(i, a, b).Limit(ctx, key, rate); err != nil || !d.Allowed {
				t.Error("limit:", d, err)
			}
		})
	}
}

func createOnce(t *testing.T, a, b state.Store) {
	ctx := t.Context()
	for range times(4, 10) {
		key := newKey()
		var winners atomic.Int64
		together(t, callers, func(i int) {
			_, err := pick(i, a, b).Create(ctx, key, []byte(fmt.Sprint(i)), time.Hour)
			switch {
			case err == nil:
				winners.Add(1)
			case !errors.Is(err, state.ErrExists):
				t.Error(err)
			}
		})
		if n := winners.Load(); n != 1 {
			t.Fatalf("%d of %d concurrent calls created the record", n, callers)
		}
	}
}

func swapOnce(t *testing.T, a, b state.Store) {
	ctx, key := t.Context(), newKey()
	v := must(a.Put(ctx, key, []byte("0"), time.Hour))(t)
	for range times(4, 10) {
		var winners, won atomic.Int64
		together(t, callers, func(i int) {
			next, err := pick(i, a, b).Swap(ctx, key, v, []byte(fmt.Sprint(i)), time.Hour)
			switch {
			case err == nil:
				winners.Add(1)
				won.Store(next)
			case !errors.Is(err, state.ErrChanged):
				t.Error(err)
			}
		})
		if n := winners.Load(); n != 1 {
			t.Fatalf("%d of %d concurrent swaps of one version succeeded", n, callers)
		}
		if v = must(a.Get(ctx, key))(t).Version; v != won.Load() {
			t.Fatalf("the record's version is %d, the winner's %d", v, won.Load())
		}
	}

	// A counter by compare and swap loses nothing.
	counter := newKey()
	must(a.Put(ctx, counter, []byte{0}, time.Hour))(t)
	together(t, callers, func(i int) {
		for s := pick(i, a, b); ; {
			r, err := s.Get(ctx, counter)
			if err == nil {
				_, err = s.Swap(ctx, counter, r.Version, []byte{r.Value[0] + 1}, time.Hour)
			}
			if err == nil {
				return
			}
			if !errors.Is(err, state.ErrChanged) {
				t.Error(err)
				return
			}
		}
	})
	if n := must(b.Get(ctx, counter))(t).Value[0]; n != callers {
		t.Errorf("%d increments counted %d", callers, n)
	}
}

func takeOnce(t *testing.T, a, b state.Store) {
	ctx := t.Context()
	for range times(4, 10) {
		key := newKey()
		must(a.Put(ctx, key, []byte("code"), time.Hour))(t)
		var winners atomic.Int64
		together(t, callers, func(i int) {
			r, err := pick(i, a, b).Take(ctx, key)
			switch {
			case err == nil && string(r.Value) == "code":
				winners.Add(1)
			case !errors.Is(err, state.ErrNotFound):
				t.Errorf("Take: %q, %v", r.Value, err)
			}
		})
		if n := winners.Load(); n != 1 {
			t.Fatalf("%d of %d concurrent calls took the record", n, callers)
		}
	}
}

// deleteStays is "touch": sessions are renewed while one caller logs out.
func deleteStays(t *testing.T, a, b state.Store) {
	ctx := t.Context()
	for round := range times(3, 6) {
		key := newKey()
		must(a.Put(ctx, key, []byte("session"), time.Hour))(t)
		var deleted atomic.Bool
		together(t, callers, func(i int) {
			s := pick(i, a, b)
			if i == round {
				var err error
				switch round % 3 {
				case 0:
					err = s.Delete(ctx, key)
				case 1:
					_, err = s.DeleteOwned(ctx, key.Kind, key.Owner)
				case 2:
					_, err = s.Take(ctx, key)
				}
				if err != nil {
					t.Error(err)
				}
				deleted.Store(true)
				return
			}
			for range 5 {
				over := deleted.Load()
				r, err := s.Get(ctx, key)
				if err == nil {
					if over {
						t.Error("a record was read after its deletion had been answered")
					}
					_, err = s.Swap(ctx, key, r.Version, []byte("touched"), time.Hour)
				}
				if err != nil && !errors.Is(err, state.ErrNotFound) && !errors.Is(err, state.ErrChanged) {
					t.Error(err)
				}
			}
		})
		if _, err := a.Get(ctx, key); !errors.Is(err, state.ErrNotFound) {
			t.Fatalf("the record is there again after its deletion: %v", err)
		}
	}
}

// sweepStays makes records anew at the moment when they have expired and are
// swept.
func sweepStays(t *testing.T, a, b state.Store) {
	ctx := t.Context()
	var done atomic.Bool
	var sweepers sync.WaitGroup
	for i := range 2 {
		sweepers.Go(func() {
			for !done.Load() {
				if _, err := pick(i, a, b).Sweep(ctx, 1000); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	together(t, 8, func(i int) {
		s, key := pick(i, a, b), newKey()
		for range times(4, 10) {
			if _, err := s.Put(ctx, key, nil, time.Millisecond); err != nil {
				t.Error(err)
				return
			}
			v, err := s.Create(ctx, key, []byte("anew"), time.Hour)
			for errors.Is(err, state.ErrExists) {
				v, err = s.Create(ctx, key, []byte("anew"), time.Hour)
			}
			if err != nil {
				t.Error(err)
				return
			}
			if r, err := s.Get(ctx, key); err != nil || r.Version != v {
				t.Errorf("a record that was just made: %v", err)
			}
		}
	})
	done.Store(true)
	sweepers.Wait()
}

// readYourWrites: after the answer to a write, every reader finds it, or a later one, on any
// replica.
func readYourWrites(t *testing.T, a, b state.Store) {
	ctx, key := t.Context(), newKey()
	must(a.Put(ctx, key, []byte{0}, time.Hour))(t)
	var (
		answered atomic.Int64
		done     = make(chan struct{})
	)
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				least := answered.Load()
				r, err := pick(i, a, b).Get(ctx, key)
				if err != nil {
					t.Error(err)
					return
				}
				if int64(r.Value[0]) < least {
					t.Errorf("read %d after %d had been answered", r.Value[0], least)
					return
				}
			}
		})
	}
	for n := int64(1); n <= int64(times(20, 50)); n++ {
		must(pick(int(n), a, b).Put(ctx, key, []byte{byte(n)}, time.Hour))(t)
		answered.Store(n)
	}
	close(done)
	readers.Wait()
}

func ping(t *testing.T, a, b state.Store) {
	check(t, a.Ping(t.Context()))
	check(t, b.Ping(t.Context()))
}

// newKey returns a key under an owner that no other test uses.
func newKey() state.Key {
	return state.Key{Kind: "test", Owner: rand.Text(), ID: rand.Text()}
}

// pick spreads callers over the two stores.
func pick(i int, a, b state.Store) state.Store {
	if i%2 == 0 {
		return a
	}
	return b
}

// together runs n goroutines that begin at the same moment, and waits for them.
func together(t *testing.T, n int, run func(i int)) {
	t.Helper()
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			run(i)
		})
	}
	close(start)
	wg.Wait()
}

// gone waits until the record under key has expired.
func gone(t *testing.T, s state.Store, key state.Key) {
	t.Helper()
	until(t, "expiry", func() bool {
		_, err := s.Get(t.Context(), key)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			t.Fatal(err)
		}
		return err != nil
	})
}

// until polls the condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		pause(t, time.Millisecond)
	}
}

// pause is the interval of polling.
func pause(t *testing.T, d time.Duration) {
	select {
	case <-t.Context().Done():
	case <-time.After(d):
	}
}

func wantRecord(t *testing.T, got state.Record, key state.Key, value string, version int64) {
	t.Helper()
	if got.Key != key || string(got.Value) != value || got.Version != version || got.Expires.IsZero() {
		t.Fatalf("record %+v, want %q in version %d under %v", got, value, version, key)
	}
}

// must makes must(f())(t) the value of f, or the end of the test.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }
