package signing

import (
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// A replica is killed in the middle of a change, and the database is away for longer than a replica
// may be silent. Nothing that is ready refuses a token, and the change goes on.
func TestFaultsInTheMiddleOfAChange(t *testing.T) {
	t.Parallel()
	f := newFleet(t, secret(former), present, former)
	f.reload(0, secret(present, former))
	f.kill(1)
	f.all("a kill")
	f.restart(1, secret(present, former))
	f.stop() // nobody can log in without the database
	f.load.Wait()
	for _, m := range f.members {
		m.link.Set(testenv.Fault{Cut: true})
	}
	time.Sleep(9 * time.Second) // the outage itself
	f.all("nine seconds without the database")
	for _, m := range f.members {
		m.link.Set(testenv.Fault{})
	}
	for _, m := range f.members {
		m.IsReady()
	}
	f.again()
	f.signs("the former secret, since one replica has no other", of(t, former))
	for _, m := range f.members {
		if err := m.node().Ready(); err != nil {
			t.Errorf("after the outage %s: %v", m.name, err)
		}
	}
	f.reload(2, secret(present, former))
	f.signs("the present secret", of(t, present))
	f.report("faults in the middle of a change of the secret")
}
