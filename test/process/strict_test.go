package process

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// Three replicas with stored keys are restarted one after the other, one is killed, and a rotation
// is asked for twice. Verifiers that read the key set at three quarters of tokens.key_publish_ahead,
// and never ask for an unknown kid, refuse no token.
func TestStrictVerifiersOfProcesses(t *testing.T) {
	t.Parallel()
	const ahead, every = 3200 * time.Millisecond, 2400 * time.Millisecond
	dir := t.TempDir()
	env := []string{
		"DATABASE_URL=" + testenv.Postgres(t), "WATCHWORD_CLUSTER_ENABLED=true", "WATCHWORD_CLUSTER_SECRET=" + kit.ClusterSecret,
		"WATCHWORD_TOKENS_KEYS=database", "AUTH_STORAGE_KEY=" + hex.EncodeToString(bytes.Repeat([]byte{1}, seal.KeySize)),
		"ADMIN_GUI_USERNAME=root", "ADMIN_GUI_PASSWORD=correct horse", "WATCHWORD_SERVER_PUBLIC_URL=http://auth.example.com",
		"WATCHWORD_TOKENS_KEY_SET_MAX_AGE=1s", "WATCHWORD_TOKENS_KEY_PUBLISH_AHEAD=" + ahead.String(),
	}
	begin := func(id string) *node {
		return start(t, dir, append([]string{"WATCHWORD_CLUSTER_INSTANCE_ID=" + id}, env...)...)
	}
	var mu sync.RWMutex // guards up; held for reading while a replica is asked
	up := []*node{begin("auth-0"), begin("auth-1"), begin("auth-2")}
	ask := func(f func(n *node)) {
		mu.RLock()
		defer mu.RUnlock()
		f(up[rand.IntN(len(up))])
	}
	down := func() (n *node) { // takes the first one from the balancer
		mu.Lock()
		defer mu.Unlock()
		n, up = up[0], up[1:]
		return n
	}
	back := func(n *node) {
		mu.Lock()
		defer mu.Unlock()
		up = append(up, n)
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var kids sync.Map  // that signed
	var signs sync.Map // the one that a replica signed by last
	var sets [6]atomic.Pointer[accesstoken.KeySet]
	var presented, refused atomic.Int64
	var clients sync.WaitGroup
	read := func(n *node) *accesstoken.KeySet {
		_, body, err := n.call("GET", "/api/pkeys", "", nil)
		set, parseErr := accesstoken.ParseKeySet(body)
		if err != nil || parseErr != nil {
			t.Errorf("the key set: %v, %v", err, parseErr)
		}
		return set
	}
	for i := range sets {
		ask(func(n *node) { sets[i].Store(read(n)) })
		clients.Go(func() {
			for wait := every * time.Duration(i) / time.Duration(len(sets)); ; wait = every {
				select {
				case <-ctx.Done():
					return
				case <-time.After(wait):
				}
				ask(func(n *node) { sets[i].Store(read(n)) })
			}
		})
	}
	clients.Go(func() {
		for ctx.Err() == nil {
			ask(func(n *node) {
				head, _, _ := strings.Cut(n.login("root", "correct horse").AccessToken, ".")
				var header struct{ Kid string }
				plain, err := base64.RawURLEncoding.DecodeString(head)
				if err = errors.Join(err, json.Unmarshal(plain, &header)); err != nil {
					t.Error(err)
					return
				}
				kids.Store(header.Kid, true)
				signs.Store(n, header.Kid)
				for i := range sets {
					presented.Add(1)
					if _, ok := sets[i].Load().Key(header.Kid); !ok {
						refused.Add(1)
					}
				}
			})
			time.Sleep(20 * time.Millisecond)
		}
	})
	rotate := func() {
		var before *accesstoken.KeySet
		ask(func(n *node) {
			before = read(n)
			n.command("keys", "rotate")
		})
		kit.Await(t, "the next key of each replica signs", func() bool {
			return !slices.ContainsFunc(up, func(n *node) bool {
				kid, _ := signs.Load(n)
				id, signed := kid.(string)
				_, former := before.Key(id)
				return !signed || former
			})
		})
	}
	for i := range 3 {
		n := down()
		if i == 1 {
			n.kill()
		} else if err := n.stop(); err != nil {
			t.Error(err)
		}
		back(begin([]string{"auth-0", "auth-1", "auth-2"}[i]))
		if i < 2 {
			rotate()
		}
	}
	stop()
	clients.Wait()
	made := 0
	kids.Range(func(any, any) bool { made++; return true })
	t.Logf("%d tokens presented, %d refused, %d keys signed", presented.Load(), refused.Load(), made)
	if refused.Load() > 0 || made < 3 || presented.Load() < 100 {
		t.Error("want none refused, and three keys at least")
	}
}
