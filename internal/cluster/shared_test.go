package cluster

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/timing"
)

// holder is the incarnation that has the row of a replica.
func holder(t testing.TB, r *testRegistry, instance string) (incarnation string) {
	t.Helper()
	all, err := r.Registered(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all.Replicas {
		if one.Instance == instance {
			incarnation = one.Incarnation
		}
	}
	return incarnation
}

// A replica with shared keys that was killed is back at once under its instance id, and has its
// row when the former one is silent. One with keys of its own waits for that.
func TestKilled(t *testing.T) {
	for name, shared := range map[string]bool{"shared keys": true, "keys of its own": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, r := &clock{}, openRegistry(t)
				killed := join(t, config(r, c, "auth-0"))
				look(t, killed)
				cfg := config(r, c, "auth-0")
				cfg.Shared = shared
				began := time.Now()
				back := join(t, cfg)
				if took := time.Since(began); shared && took > 0 || !shared && took < timing.LiveFor-timing.Beat {
					t.Errorf("it joins after %v", took)
				}
				run(t, back)
				if err := back.Ready(); err != nil {
					t.Errorf("it is not ready: %v", err)
				}
				for range 12 {
					time.Sleep(time.Second)
					synctest.Wait()
					if err := back.Ready(); err != nil {
						t.Fatalf("after %v: %v", time.Since(began), err)
					}
				}
				if got := holder(t, r, "auth-0"); got != cfg.Incarnation {
					t.Errorf("the row is still that of %s", got)
				}
				// Now that it has its row, nobody takes it unnoticed.
				usurper := config(r, c, "auth-0")
				usurper.Shared = true
				if _, err := r.EnterRegistry(t.Context(), sign(t, newRegistry(&common{cfg: usurper, secret: back.secret}).self), 0); err != nil {
					t.Fatal(err)
				}
				time.Sleep(timing.Beat + timing.RegistryPoll)
				synctest.Wait()
				if !errors.Is(back.Ready(), errTwice) {
					t.Errorf("its row was taken: %v", back.Ready())
				}
			})
		})
	}
}

// Of two live replicas with one instance id and shared keys, the one that came later takes no
// traffic from the other one's next beat on, and the other one goes on.
func TestTwiceWithSharedKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := &clock{}, openRegistry(t)
		running, newcomer := config(r, c, "auth-0"), config(r, c, "auth-0")
		running.Shared, newcomer.Shared = true, true
		a := join(t, running)
		run(t, a)
		time.Sleep(timing.Beat / 2)
		b := join(t, newcomer)
		run(t, b)
		time.Sleep(2*timing.Beat + timing.RegistryPoll)
		for range 20 {
			synctest.Wait()
			if err := a.Ready(); err != nil {
				t.Fatalf("the running one: %v", err)
			}
			if !errors.Is(b.Ready(), errTwice) {
				t.Fatalf("the newcomer: %v", b.Ready())
			}
			if holder(t, r, "auth-0") != running.Incarnation {
				t.Fatal("the newcomer has taken the row")
			}
			time.Sleep(timing.Beat)
		}
	})
}
