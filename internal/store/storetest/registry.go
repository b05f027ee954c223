package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

// A RegistryStore is a store that has a registry.
type RegistryStore interface {
	store.Store
	store.Registry
}

// RunRegistry is Run for stores that have a registry.
func RunRegistry(t *testing.T, name string, open func(t *testing.T) (a, b RegistryStore)) {
	kept := t.Run(name, func(t *testing.T) {
		for _, test := range []struct {
			name string
			run  func(t *testing.T, a, b RegistryStore)
		}{
			{"replicas enter, beat and leave", replicas},
			{"a replica has one incarnation at a time", oneIncarnation},
			{"of many incarnations one enters", enterOnce},
			{"the version is raised by every change", registryVersion},
			{"that all replicas have stopped is known until somebody is live again", stops},
			{"a version holds the keys that were made up to it, and no other", versionsInOrder},
		} {
			t.Run(test.name, func(t *testing.T) {
				a, b := open(t)
				test.run(t, a, b)
			})
		}
	})
	if kept {
		t.Logf("summary: registry on %s keeps its promises", name)
	}
}

func replica(instance, incarnation string) store.Replica {
	return store.Replica{
		Instance: instance, Incarnation: incarnation, URL: "https://" + instance + ":8080", Version: "v1", Config: "abc",
		MaxAge: 33 * time.Second, StartedAt: now, ClockAt: now.Add(time.Second), Seen: 3, MAC: []byte{0, 0xff},
	}
}

func replicas(t *testing.T, a, b RegistryStore) {
	ctx := t.Context()
	second, first := replica("auth-1", "x"), replica("auth-0", "y")
	for _, r := range []store.Replica{second, first} {
		must(a.EnterRegistry(ctx, r, time.Minute))(t)
	}
	all := must(b.Registered(ctx))(t)
	for i := range all.Replicas {
		r := &all.Replicas[i]
		if age := all.Now.Sub(r.BeatAt); age < 0 || age > time.Minute {
			t.Errorf("%s wrote %v ago by the database's clock", r.Instance, age)
		}
		r.BeatAt = time.Time{}
	}
	equal(t, all.Replicas, []store.Replica{first, second})

	before := must(b.Registered(ctx))(t).Replicas[0].BeatAt
	first.URL, first.Version, first.Config, first.Seen, first.MAC = "", "v2", "", 4, []byte{7}
	first.MaxAge, first.ClockAt = 0, now.Add(time.Hour)
	ok(t, a.Beat(ctx, first, true))
	got := must(b.Registered(ctx))(t).Replicas[0]
	if got.BeatAt.Before(before) {
		t.Errorf("it wrote at %v, and earlier at %v", got.BeatAt, before)
	}
	got.BeatAt = time.Time{}
	equal(t, got, first)

	is(t, b.Beat(ctx, replica("auth-0", "other"), false), store.ErrStale)
	ok(t, b.LeaveRegistry(ctx, "auth-0", "other"))
	equal(t, len(must(b.Registered(ctx))(t).Replicas), 2)
	ok(t, b.LeaveRegistry(ctx, "auth-0", "y"))
	equal(t, len(must(b.Registered(ctx))(t).Replicas), 1)
	is(t, a.Beat(ctx, first, false), store.ErrStale)
}

func oneIncarnation(t *testing.T, a, b RegistryStore) {
	ctx := t.Context()
	must(a.EnterRegistry(ctx, replica("auth-0", "one"), time.Minute))(t)
	holder, err := b.EnterRegistry(ctx, replica("auth-0", "two"), time.Minute)
	is(t, err, store.ErrConflict)
	equal(t, holder.Incarnation, "one")
	must(a.EnterRegistry(ctx, replica("auth-0", "one"), time.Minute))(t) // itself, again
	must(b.EnterRegistry(ctx, replica("auth-0", "two"), 0))(t)           // its former incarnation is silent
	is(t, a.Beat(ctx, replica("auth-0", "one"), false), store.ErrStale)
}

func stops(t *testing.T, a, b RegistryStore) {
	ctx := t.Context()
	enter := func(instance, incarnation string) {
		t.Helper()
		r := replica(instance, incarnation)
		r.Seen = 0
		must(a.EnterRegistry(ctx, r, 0))(t)
	}
	stop := func() store.Stop { return must(b.Registered(ctx))(t).Stop }
	enter("auth-0", "one")
	if got := stop(); !got.CachesEnd.IsZero() {
		t.Errorf("when nothing is known: %v", got)
	}
	ok(t, a.LeaveRegistry(ctx, "auth-0", "one"))
	left := stop()
	if age := must(b.Registered(ctx))(t).Now.Add(33 * time.Second).Sub(left.CachesEnd); age < 0 || age > time.Minute || len(left.Started) > 0 {
		t.Errorf("the last one has left: %v, which ended %v ago", left, age)
	}
	enter("auth-0", "two")
	enter("auth-1", "three")
	ok(t, a.ForgetReplica(ctx, "auth-9", "another"))
	equal(t, stop(), store.Stop{CachesEnd: left.CachesEnd, Started: []string{"two", "three"}})
	ok(t, a.ForgetReplica(ctx, "auth-1", "three"))
	equal(t, stop(), store.Stop{CachesEnd: left.CachesEnd, Started: []string{"two", "three"}})
	ok(t, a.CreateKey(ctx, store.Key{ID: "auth-0-abc", PublicJWK: []byte("{}")}))
	equal(t, stop(), store.Stop{})
	enter("auth-1", "four") // while another one is live
	equal(t, stop(), store.Stop{})
}

func enterOnce(t *testing.T, a, b RegistryStore) {
	var entered atomic.Int64
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			_, err := []RegistryStore{a, b}[i%2].EnterRegistry(t.Context(), replica("auth-0", fmt.Sprint(i)), time.Minute)
			switch {
			case err == nil:
				entered.Add(1)
			case !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrBusy):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	equal(t, entered.Load(), int64(1))
}

func registryVersion(t *testing.T, a, b RegistryStore) {
	ctx := t.Context()
	k := store.Key{ID: "auth-0-abc", PublicJWK: []byte("{}")}
	at := must(b.RegistryVersion(ctx))(t)
	for _, step := range []struct {
		name  string
		do    func() error
		raise int64
	}{
		{"enter", func() error { _, err := a.EnterRegistry(ctx, replica("auth-0", "one"), 0); return err }, 1},
		{"beat", func() error { return a.Beat(ctx, replica("auth-0", "one"), false) }, 0},
		{"create a key", func() error { return a.CreateKey(ctx, k) }, 1},
		{"update a key", func() error { return a.UpdateKey(ctx, k) }, 1},
		{"delete a key", func() error { return a.DeleteKey(ctx, k.ID) }, 1},
		{"leave", func() error { return a.LeaveRegistry(ctx, "auth-0", "one") }, 1},
		{"leave again", func() error { return a.LeaveRegistry(ctx, "auth-0", "one") }, 0},
	} {
		ok(t, step.do())
		now := must(b.RegistryVersion(ctx))(t)
		if now-at != step.raise {
			t.Errorf("%s raised the version by %d", step.name, now-at)
		}
		at = now
		if all := must(b.Registered(ctx))(t); all.Version != at {
			t.Errorf("%s: everything has the version %d, its head %d", step.name, all.Version, at)
		}
	}
}

// versionsInOrder: a reader of version n finds all keys that were made up to n, and none
// that was made later. A replica that says that it has seen n has seen exactly these.
func versionsInOrder(t *testing.T, a, b RegistryStore) {
	const makers, each = 8, 5
	start := must(b.RegistryVersion(t.Context()))(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range makers {
		wg.Go(func() {
			for j := 0; j < each; {
				kid := fmt.Sprintf("auth-%d-%d", i, j)
				err := []RegistryStore{a, b}[i%2].CreateKey(t.Context(), store.Key{ID: kid, PublicJWK: []byte("{}")})
				if err != nil && !errors.Is(err, store.ErrBusy) {
					t.Error(err)
					return
				}
				if err == nil {
					j++
				}
			}
		})
	}
	made := make(chan struct{})
	go func() { wg.Wait(); close(made) }()
	for done := false; !done; {
		select {
		case <-made:
			done = true
		default:
		}
		all := must(b.Registered(t.Context()))(t)
		there := map[int64]bool{}
		for _, k := range all.Keys {
			there[k.Version] = true
			if k.Version > all.Version {
				t.Fatalf("version %d was read with the key that was made in %d", all.Version, k.Version)
			}
		}
		for v := start + 1; v <= all.Version; v++ {
			if !there[v] {
				t.Fatalf("version %d was read without the key that was made in %d", all.Version, v)
			}
		}
	}
	equal(t, len(must(b.Registered(t.Context()))(t).Keys), makers*each)
}
