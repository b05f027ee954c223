package keyring

import (
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

// What is due depends on the rows and on what is asked for, each alone.
func TestPlan(t *testing.T) {
	p := testPolicy
	p.ahead = publishAhead
	now := start
	key := func(created, activate time.Duration) store.Key {
		return p.date(store.Key{ID: "k"}, now.Add(created), now.Add(activate))
	}
	revoked := func(k store.Key) store.Key { k.RevokedAt = now; return k }
	foreign := func(k store.Key) store.Key { k.Instance = "other"; return k }
	lead := p.lead()
	for name, c := range map[string]struct {
		rows    []store.Key
		d       demand
		create  bool
		at      time.Duration // of the created key, from now
		updated []store.Key
	}{
		"nothing is there":                 {create: true},
		"all are removed":                  {rows: []store.Key{key(-time.Hour, -time.Hour)}, create: true},
		"a cache may hold another one":     {rows: []store.Key{foreign(key(-time.Second, -time.Second))}, create: true, at: p.ripen()},
		"another one is revoked":           {rows: []store.Key{revoked(foreign(key(-time.Second, -time.Second)))}, create: true},
		"stopped":                          {rows: []store.Key{foreign(key(-time.Minute, -time.Minute))}, d: demand{stopped: now.Add(-time.Second)}, create: true, at: p.maxAge - time.Second},
		"stopped, and it was revoked":      {rows: []store.Key{revoked(foreign(key(-time.Minute, -time.Minute)))}, d: demand{stopped: now.Add(-time.Second)}, create: true},
		"stopped long ago":                 {rows: []store.Key{foreign(key(-time.Minute, -time.Minute))}, d: demand{stopped: now.Add(-30 * time.Second)}, create: true},
		"revoked":                          {rows: []store.Key{revoked(key(-time.Minute, -time.Minute))}, create: true},
		"revoked, and others are there":    {rows: []store.Key{revoked(key(-time.Minute, -time.Minute)), foreign(key(-time.Second, -time.Second))}, create: true},
		"revoked, and other algorithms":    {rows: []store.Key{revoked(key(-time.Minute, -time.Minute))}, d: demand{follows: true}, create: true},
		"revoked, and the next one is due": {rows: []store.Key{revoked(key(-time.Minute, -time.Minute)), key(-time.Second, time.Minute), foreign(key(-time.Second, -time.Second))}, updated: []store.Key{key(-time.Second, 0)}},
		"revoked before it signed":         {rows: []store.Key{revoked(key(-time.Second, time.Minute)), foreign(key(-time.Second, -time.Second))}, create: true, at: p.ripen()},
		"to be replaced, and the next one is of a clock that is ahead": {
			rows: []store.Key{key(-time.Minute, -time.Minute), key(time.Hour, 2*time.Hour)}, d: demand{before: now},
			updated: []store.Key{p.date(store.Key{ID: "k"}, now, now.Add(p.follow())), p.retire(key(-time.Minute, -time.Minute), now.Add(p.follow()))},
		},
		"no other one, and there is time": {rows: []store.Key{key(-time.Minute, lead-p.keyDuration+time.Second)}, d: demand{none: true}},
		"no other one, and there is no time": {
			rows: []store.Key{key(-2*time.Minute, lead-p.keyDuration)}, d: demand{none: true},
			updated: []store.Key{p.retire(key(-2*time.Minute, lead-p.keyDuration), now.Add(p.keyDuration))},
		},
		"no other one, and the next one is there": {rows: []store.Key{key(-2*time.Minute, time.Second-p.keyDuration), key(-time.Minute, time.Second)}, d: demand{none: true}},
	} {
		c.d.ours = func(k store.Key) bool { return k.Instance == "" }
		c.d.wrong = func(store.Key) bool { return false }
		got := p.plan(c.rows, c.d, now)
		if got.create != c.create || c.create && !got.at.Equal(now.Add(c.at)) || len(got.deletes) > 0 {
			t.Errorf("%s: create %v at %v, deletes %v, want %v at %v", name, got.create, got.at.Sub(now), got.deletes, c.create, c.at)
		}
		same := len(got.updates) == len(c.updated)
		for i := 0; same && i < len(c.updated); i++ {
			a, b := got.updates[i], c.updated[i]
			same = a.CreatedAt.Equal(b.CreatedAt) && a.ActivateAt.Equal(b.ActivateAt) && a.RetireAt.Equal(b.RetireAt) && a.RemoveAt.Equal(b.RemoveAt)
		}
		if !same {
			t.Errorf("%s: updates %+v, want %+v", name, got.updates, c.updated)
		}
	}
}
