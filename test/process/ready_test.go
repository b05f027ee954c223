package process

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/test/kit"
)

// readyAge is tokens.key_set_max_age where replicas wait for no more than that.
const readyAge = time.Second

// How long a start takes, from the start of the process to the first 200 of /readyz.
type starts map[string]time.Duration

// startsInOrder are the situations, as the tables have them.
var startsInOrder = []string{"alone", "first", "joining", "killed", "all at once", "restarted", "all after a stop"}

func (s starts) String() string {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(startsInOrder, "\t"))
	for _, name := range startsInOrder {
		fmt.Fprintf(w, "%.2f s\t", s[name].Seconds())
	}
	w.Flush()
	return table.String()
}

// With keys that all replicas share no start waits for anything. It is measured again if it took
// long. Where the machine is slow or busy, a start may take as many times as long as it is given
// here as a bare command that makes one hash.
func TestReadyWithSharedKeys(t *testing.T) {
	const times = 12
	for keys, env := range map[string][]string{
		"database": {"AUTH_STORAGE_KEY=" + hex.EncodeToString(bytes.Repeat([]byte{1}, seal.KeySize))},
		"secret":   {"AUTH_JWT_SECRET=" + strings.Repeat("0123456789abcdef", 4)},
	} {
		t.Run(keys, func(t *testing.T) {
			env = append(env, "WATCHWORD_TOKENS_KEYS="+keys)
			for attempt := 1; ; attempt++ {
				all := startOneByOne(t, env).and(startTogether(t, env))
				bare := bareCommand(t)
				t.Logf("tokens.keys: %s; a bare command takes %v\n%v", keys, bare, all)
				var late []string
				for name, took := range all {
					most := 1200 * time.Millisecond
					if name == "killed" || strings.HasPrefix(name, "all") {
						most = 2 * time.Second
					}
					if most = max(most, times*bare); took > most {
						late = append(late, fmt.Sprintf("%s is ready after %v, want %v", name, took, most))
					}
				}
				if len(late) == 0 {
					return
				}
				if attempt == 3 {
					t.Fatal(late)
				}
			}
		})
	}
}

// bareCommand is how long a command that makes one hash takes, as a first start does.
func bareCommand(t *testing.T) time.Duration {
	t.Helper()
	hash := exec.Command(plain, "hash-password")
	hash.Env, hash.Stdin = ownersPasswords, strings.NewReader("correct horse battery staple\n")
	began := time.Now()
	if out, err := hash.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return time.Since(began)
}

// With keys in memory a replica waits until the others have its key, and then for as long as a
// cache may have a key set without it. After kill -9 it waits until its former row is silent as well.
// The very first replica waits for nothing.
func TestReadyWithMemoryKeys(t *testing.T) {
	t.Parallel()
	env := []string{"WATCHWORD_TOKENS_KEYS=memory"}
	var one, three starts
	t.Run("measure", func(t *testing.T) {
		t.Run("one by one", func(t *testing.T) {
			t.Parallel()
			one = startOneByOne(t, env)
		})
		t.Run("together", func(t *testing.T) {
			t.Parallel()
			three = startTogether(t, env)
		})
	})
	all := one.and(three)
	t.Logf("tokens.keys: memory, tokens.key_set_max_age: %v\n%v", readyAge, all)
	ripen := readyAge + 2*timing.KeyPoll
	for name, least := range map[string]time.Duration{
		"joining": ripen, "killed": ripen + timing.LiveFor - timing.Beat - time.Second, "restarted": ripen,
		"all after a stop": ripen, // which was shorter than the leeway; see TestTotalStop
	} {
		if got := all[name]; got < least {
			t.Errorf("%s is ready after %v, and caches may have a key set without its key for %v", name, got, least)
		}
		if got, most := all[name], least+8*time.Second; got > most {
			t.Errorf("%s is ready after %v, want %v at most", name, got, most)
		}
	}
}

func (s starts) and(others starts) starts {
	maps.Copy(s, others)
	return s
}

// startOneByOne starts replicas alone, as the first one of a cluster, as another one, and after a
// kill -9.
func startOneByOne(t *testing.T, env []string) starts {
	t.Helper()
	took := starts{}
	alone := timedStart(t, took, "alone", append([]string{"DATABASE_URL=" + testenv.Postgres(t)}, env...), "auth-0")
	stopAll(t, alone)
	env = inCluster(t, env)
	first := timedStart(t, took, "first", env, "auth-0")
	second := timedStart(t, took, "joining", env, "auth-1")
	second[0].kill()
	stopAll(t, append(first, timedStart(t, took, "killed", env, "auth-1")...))
	return took
}

// startTogether starts three replicas on an empty database, one of them again, and all of them again.
func startTogether(t *testing.T, env []string) starts {
	t.Helper()
	took := starts{}
	env = inCluster(t, env)
	all := timedStart(t, took, "all at once", env, "auth-0", "auth-1", "auth-2")
	stopAll(t, all[2:])
	stopAll(t, append(all[:2], timedStart(t, took, "restarted", env, "auth-2")...))
	stopAll(t, timedStart(t, took, "all after a stop", env, "auth-0", "auth-1", "auth-2"))
	return took
}

// inCluster adds the environment of a cluster on an empty database.
func inCluster(t *testing.T, env []string) []string {
	return append([]string{"DATABASE_URL=" + testenv.Postgres(t), "WATCHWORD_CLUSTER_ENABLED=true", "WATCHWORD_CLUSTER_SECRET=" + kit.ClusterSecret}, env...)
}

// timedStart starts replicas at once, and notes how long it took until all were ready.
func timedStart(t *testing.T, took starts, name string, env []string, ids ...string) []*node {
	t.Helper()
	nodes := prepareAll(t, env, ids...)
	began := time.Now()
	beginAll(t, nodes)
	took[name] = time.Since(began)
	return nodes
}

// prepareAll prepares replicas with these ids.
func prepareAll(t *testing.T, env []string, ids ...string) []*node {
	t.Helper()
	dir := t.TempDir()
	nodes := make([]*node, len(ids))
	for i, id := range ids {
		nodes[i] = prepare(t, plain, dir, append([]string{
			"ADMIN_GUI_USERNAME=root", "ADMIN_GUI_PASSWORD=correct horse", "WATCHWORD_SERVER_PUBLIC_URL=http://auth.example.com",
			"WATCHWORD_TOKENS_KEY_SET_MAX_AGE=" + readyAge.String(), "WATCHWORD_CLUSTER_INSTANCE_ID=" + id,
		}, env...)...)
	}
	return nodes
}

// beginAll starts replicas at once, and waits until all are ready.
func beginAll(t *testing.T, nodes []*node) {
	t.Helper()
	var all sync.WaitGroup
	for _, n := range nodes {
		n.begin()
		all.Go(n.answersReady)
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func stopAll(t *testing.T, nodes []*node) {
	t.Helper()
	for _, n := range nodes {
		if err := n.stop(); err != nil {
			t.Error(err)
		}
	}
}

// answersReady waits until /readyz answers 200; unlike ready it may run beside the test.
func (n *node) answersReady() {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if answer, err := n.client.Get(n.url + "/readyz"); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-n.ended:
			n.t.Errorf("it ended: %v\n%s", n.Err(), n.log.Tail())
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
	n.t.Errorf("%s does not become ready\n%s", n.url, n.log.Tail())
}
