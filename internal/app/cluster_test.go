package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/test/kit"
)

// kids are those of the merged key set of a replica, as it serves it.
func (w *world) kids() []string { w.t.Helper(); return w.KeyIDs() }

// Every replica signs with a key of its own and accepts the tokens of all; the
// multi-step exchanges go on at any of them; a token outlives its issuer.
func TestCluster(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		worlds := []*world{b.join(nil), b.join(nil), b.join(nil)}
		makers := map[string]bool{}
		var tokens []string
		for _, w := range worlds {
			grant := w.login("admin")
			makers[kidOf(t, grant.AccessToken)] = true
			for _, other := range worlds {
				other.verify(grant.AccessToken)
				// Renew at another one each time.
				next, a := other.renew(grant.RefreshToken)
				other.want(a, 200, "")
				grant.RefreshToken = next
			}
			tokens = append(tokens, grant.AccessToken)
		}
		if len(makers) != len(worlds) {
			t.Errorf("%d replicas signed with the keys %v", len(worlds), makers)
		}
		kit.SameKeySet(t, len(worlds), &worlds[0].Client, &worlds[1].Client, &worlds[2].Client)

		// Log out at one, refused by all with the next poll.
		gone := worlds[0].login("admin").AccessToken
		worlds[1].want(worlds[1].do("POST", "/api/logout", gone, nil), 204, "")
		since := time.Now()
		for _, w := range worlds {
			w.refuses(gone, "token_revoked", since, w.cfg.Revocation.Poll)
		}
		if took := time.Since(since); took > worlds[0].cfg.Revocation.Poll+100*time.Millisecond {
			t.Errorf("all refuse the token %v after its logout", took)
		}

		// The issuer ends, and a replica joins that never met it.
		worlds[2].stop()
		late := b.join(nil)
		for _, w := range []*world{worlds[0], worlds[1], late} {
			for _, token := range tokens {
				w.verify(token)
			}
		}
		worlds[2].start() // for its own stop
	})
}

// The first replica is ready at once. One that joins is not until its key has been
// in every key set for as long as caches keep one, and says why.
func TestJoiningReplicaWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		const maxAge = 30 * time.Second
		var cached time.Duration // for how long a key set may be in a cache
		start := func() *world {
			w := b.world(func(cfg *config.Config) { cfg.Tokens.KeySetMaxAge = maxAge })
			cached = w.cfg.Tokens.KeySetMaxAge + w.cfg.Tokens.KeySetStaleFor()
			w.begin()
			t.Cleanup(w.stop)
			return w
		}
		first := start()
		if _, err := first.node.keys.Signer(); err != nil {
			t.Fatalf("the first replica of an empty cluster: %v", err)
		}
		first.isReady()
		joining := time.Now()
		second := start()
		if err := second.node.Ready(); err == nil || !strings.Contains(err.Error(), "this replica's key") {
			t.Fatalf("a replica that joins is ready: %v", err)
		}
		eventually(t, func() error {
			if first.node.cluster.Keys().Len() != 2 {
				return errors.New("the first replica does not publish the key of the second")
			}
			return nil
		})
		published := time.Now()
		second.isReady()
		if waited := time.Since(published) + 50*time.Millisecond; waited < cached { // which eventually may be late
			t.Errorf("it signs %v after the others published its key, and the key set may be cached for %v", waited, cached)
		}
		if took := time.Since(joining); took > cached+5*time.Second {
			t.Errorf("it was ready %v after it had joined", took)
		}
	})
}

// A key that was written straight into the database verifies nothing, nor does one
// in another replica's name; both are logged and counted.
func TestForeignRows(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.join(func(cfg *config.Config) { cfg.Cluster.InstanceID = "auth-0" })
		other := newQuietWorld(t, func(cfg *config.Config) { // a server of its own, whose keys nobody here knows
			cfg.Cluster.InstanceID, cfg.Server.PublicURL = "auth-0", w.cfg.Server.PublicURL
		})
		rows, err := other.node.parts.Store.Keys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		forged := rows[0]
		forged.Sealed, forged.MAC = nil, make([]byte, 32)
		if err := b.store.CreateKey(t.Context(), forged); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if !strings.Contains(w.log.String(), "not believed") {
				return errors.New("nothing in the log")
			}
			return nil
		})
		token := other.login("admin").AccessToken
		other.verify(token)
		w.want(w.do("GET", "/api/verify", token, nil), 401, "invalid_token")
		if kids := w.kids(); slices.Contains(kids, forged.ID) {
			t.Errorf("the key set has the forged key: %v", kids)
		}
		metrics := string(w.do("GET", "/metrics", "", nil).body)
		if !strings.Contains(metrics, `watchword_cluster_rejected_total{reason="mac"} 1`) {
			t.Error("it was not counted once")
		}
	})
}

// The second of two replicas with one id is refused; after the first has left, it
// may start at once.
func TestOneInstanceID(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.join(func(cfg *config.Config) { cfg.Cluster.InstanceID = "auth-0" })
		begun := time.Now()
		_, err := New(t.Context(), Options{Config: w.cfg, Logger: discard, Store: b.store, State: b.state})
		if err == nil || !strings.Contains(err.Error(), `another replica runs as "auth-0"`) {
			t.Fatalf("got %v", err)
		}
		if took := time.Since(begun); took > timing.LiveFor {
			t.Errorf("it was refused after %v", took)
		}
		w.stop()
		// Nothing is left that a start would wait for.
		registered, err := b.store.Registered(t.Context())
		if err != nil || len(registered.Replicas) != 0 {
			t.Errorf("after an orderly end there are %+v, %v", registered.Replicas, err)
		}
		begun = time.Now()
		w.start()
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("it was ready %v after the first had left", took)
		}
	})
}

// A replica that was killed is waited for no longer than it counts as alive; its
// tokens stay valid, and another may take its place.
func TestKilledReplica(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.join(nil)
		victim := b.join(func(cfg *config.Config) { cfg.Cluster.InstanceID = "auth-9" })
		token := victim.login("admin").AccessToken
		victim.kill()
		began := time.Now()
		heir := b.join(func(cfg *config.Config) { cfg.Cluster.InstanceID = "auth-9" })
		// It waits until the killed one counts as dead, for those who still may wait for it
		// to take in a key, and until its own key is in every cache.
		most := heir.node.cluster.Patience() + timing.LiveFor + 2*heir.cfg.Tokens.KeySetMaxAge + 2*time.Second
		if took := time.Since(began); took < timing.LiveFor-3*time.Second || took > most {
			t.Errorf("ready %v after the kill, want %v at most", took, most)
		}
		w.verify(token)
		heir.verify(token)
		w.verify(heir.login("admin").AccessToken)
	})
}

// A row without a valid MAC is no obstacle to a replica of that name, even if the row is kept
// fresh.
func TestForgedReplica(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.join(nil)
		forged := store.Replica{Instance: "auth-9", Incarnation: "x", Version: "v9", MAC: make([]byte, 32)}
		if _, err := b.store.EnterRegistry(t.Context(), forged, 0); err != nil {
			t.Fatal(err)
		}
		var beats sync.WaitGroup
		beats.Go(func() { // until another one has the row
			for t.Context().Err() == nil && b.store.Beat(t.Context(), forged, false) == nil {
				time.Sleep(100 * time.Millisecond)
			}
		})
		t.Cleanup(beats.Wait)
		b.join(func(cfg *config.Config) { cfg.Cluster.InstanceID = "auth-9" })
		beats.Wait()
	})
}

// A replica with stored keys becomes the first replica of a cluster: its tokens stay
// valid.
func TestStoredKeysBecomeACluster(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		alone := b.join(func(cfg *config.Config) { storedKeys(cfg); cfg.Cluster.Enabled = false })
		token := alone.login("admin").AccessToken
		first, second := b.join(storedKeys), b.join(storedKeys)
		for _, w := range []*world{first, second} {
			w.verify(token)
			for _, other := range []*world{first, second} {
				other.verify(w.login("admin").AccessToken)
			}
		}
		if len(first.kids()) != 1 {
			t.Errorf("replicas that share their keys have %v", first.kids())
		}
		// Its public half is vouched for now, so that one with keys in memory knows it.
		b.join(nil).verify(token)
	})
}

// Under another secret, replicas that share their keys sign and verify with those that
// they had.
func TestAnotherSecret(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		first := b.join(storedKeys)
		oldest := kidOf(t, first.login("admin").AccessToken)
		time.Sleep(time.Second)                // what is made later replaces it
		insist(t, first.node.parts.RotateKeys) // the very first needs nobody's knowing it
		eventually(t, func() error {
			if s, err := first.node.keys.Signer(); err != nil || s.KeyID() == oldest {
				return errors.New("the next key does not sign")
			}
			return nil
		})
		token := first.login("admin").AccessToken
		first.stop()
		another := func(cfg *config.Config) { storedKeys(cfg); cfg.Cluster.Secret = "another " + clusterSecret }
		another(first.cfg)
		first.start()
		second := b.join(another)
		for _, w := range []*world{first, second} {
			w.verify(token)
			eventually(t, func() error { // when it is vouched for and known
				if s, err := w.node.keys.Signer(); err != nil || s.KeyID() != kidOf(t, token) {
					return errors.New("the key of before does not sign")
				}
				return nil
			})
		}
	})
}

// opened returns a URL at which a replica that is started later can be served. Until
// then, a client that asks there waits.
func opened(t *testing.T) (url string, l net.Listener) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return "http://" + l.Addr().String(), l
}

// The registry and Redis are gone: the key set is the same bytes, tokens verify,
// and peers are known by their URLs.
func TestEverythingIsAway(t *testing.T) {
	t.Parallel()
	database, toDatabase := linkTo(t, testenv.Postgres(t))
	redis, toRedis := linkTo(t, testenv.Redis(t))
	shared := func(cfg *config.Config) {
		cfg.Redis.URL = toRedis
		cfg.Revocation.OnOutage.Allow = true
		cfg.Cluster.RefreshSec = 1
	}
	worlds := []*world{join(t, toDatabase, shared), join(t, toDatabase, shared)}
	var tokens []string
	for _, w := range worlds {
		tokens = append(tokens, w.login("admin").AccessToken)
	}
	before := worlds[0].do("GET", "/api/pkeys", "", nil)
	kid := decode[httpapi.JWKS](t, before).Keys[0].KeyID
	ask := func() (took time.Duration) {
		began := time.Now()
		for i := range 50 {
			// A kid that nobody knows, in the form of one that a replica may have made, is not looked
			// for: without the registry, the answer would be late, and 503.
			worlds[0].want(worlds[0].do("GET", "/api/pkeys/"+kid+".pem", "", nil), 200, "")
			worlds[0].want(worlds[0].do("GET", fmt.Sprintf("/api/pkeys/%043d.pem", i), "", nil), 404, "unknown_key")
			after := worlds[0].want(worlds[0].do("GET", "/api/pkeys", "", nil), 200, "")
			if !bytes.Equal(after.body, before.body) || after.header.Get("Etag") != before.header.Get("Etag") {
				t.Fatalf("the key set was\n%s\nand is\n%s", before.body, after.body)
			}
		}
		return time.Since(began)
	}
	usual := ask()
	database.Set(testenv.Fault{Cut: true})
	redis.Set(testenv.Fault{Cut: true})
	worlds[1].kill()
	eventually(t, func() error {
		if !strings.Contains(worlds[0].log.String(), "out of reach") {
			return errors.New("the replica has not noticed")
		}
		return nil
	})
	for _, token := range tokens {
		worlds[0].verify(token)
	}
	if took := ask(); took > 10*time.Second+10*usual { // far less than if each waited for somebody
		t.Errorf("50 key sets took %v, and %v before", took, usual)
	}
	database.Set(testenv.Fault{}) // so that the replicas can leave
}

// Static peers ask each other over HTTP, believe each other, also when they share their
// keys, and recognise themselves.
func TestStaticPeers(t *testing.T) {
	for name, keys := range map[string]func(*config.Config){"own keys": func(*config.Config) {}, "shared keys": storedKeys} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			askStaticPeers(t, keys)
		})
	}
}

func askStaticPeers(t *testing.T, keys func(*config.Config)) {
	database := testenv.Postgres(t)
	var urls []string
	var listeners []net.Listener
	for range 2 {
		url, l := opened(t)
		urls, listeners = append(urls, url), append(listeners, l)
	}
	var worlds []*world
	for _, l := range listeners {
		w := join(t, database, func(cfg *config.Config) {
			keys(cfg)
			cfg.Cluster.Discovery, cfg.Cluster.StaticPeers, cfg.Cluster.RefreshSec = "static", urls, 1
		})
		server := &http.Server{Handler: w.node.Handler()}
		go server.Serve(l)
		t.Cleanup(func() { server.Close() })
		worlds = append(worlds, w)
	}
	for _, w := range worlds {
		eventually(t, func() error {
			metrics := string(w.do("GET", "/metrics", "", nil).body)
			for _, want := range []string{`peer_fetches_total{result="self"} 1`, `peer_fetches_total{result="rejected"} 0`} {
				if !strings.Contains(metrics, want) {
					return errors.New("no " + want)
				}
			}
			if strings.Contains(metrics, `peer_fetches_total{result="ok"} 0`) {
				return errors.New("no answer of the other one")
			}
			return nil
		})
	}
	a := worlds[0].want(worlds[0].do("GET", "/api/pkeys?local=true", "", nil), 200, "")
	if n := strings.Count(string(a.body), `"exp":`); n != 1 || a.header.Get("Watchword-MAC") != "" || strings.Contains(string(a.body), "registered") {
		t.Errorf("to anybody it answers %s with %v", a.body, a.header)
	}
}

// With mutual TLS replicas show each other their certificates, and answer no peer
// that shows none; clients need none.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	certFile, keyFile := testenv.SelfSigned(t, "127.0.0.1")
	urls := []string{"https://" + testenv.Address(t), "https://" + testenv.Address(t)}
	var worlds []*world
	for _, url := range urls {
		w := join(t, database, func(cfg *config.Config) {
			cfg.Server.Address = strings.TrimPrefix(url, "https://")
			cfg.Server.TLS = config.TLS{CertFile: certFile, KeyFile: keyFile}
			cfg.Cluster.CAFile, cfg.Cluster.CertFile, cfg.Cluster.KeyFile = certFile, certFile, keyFile
			cfg.Cluster.Discovery, cfg.Cluster.StaticPeers, cfg.Cluster.RefreshSec = "static", urls, 1
		})
		serve(t, w.cfg, w.node.Handler())
		worlds = append(worlds, w)
	}
	for _, w := range worlds {
		eventually(t, func() error {
			metrics := string(w.do("GET", "/metrics", "", nil).body)
			if strings.Contains(metrics, `peer_fetches_total{result="ok"} 0`) || !strings.Contains(metrics, `peer_fetches_total{result="self"} 1`) {
				return errors.New("no answer: " + w.log.Tail())
			}
			return nil
		})
	}
	roots, err := operator.Certificates("cluster.ca_file", certFile)
	if err != nil {
		t.Fatal(err)
	}
	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer stranger.CloseIdleConnections()
	for _, path := range []string{"/api/pkeys?local=true", "/api/revocations"} {
		for nonce, want := range map[string]int{"": 200, "0123456789abcdef": 403} {
			r, err := http.NewRequestWithContext(t.Context(), "GET", urls[0]+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if nonce != "" {
				r.Header.Set("Watchword-Nonce", nonce)
			}
			a, err := stranger.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			a.Body.Close()
			if a.StatusCode != want {
				t.Errorf("%s, nonce %q: %d", path, nonce, a.StatusCode)
			}
		}
	}
}

// A peer is believed over TLS only if its certificate is for the host of its URL or, of
// those that the DNS names, for that name, and an authority of ca_file vouches for it.
func TestPeerCertificates(t *testing.T) {
	database := testenv.Postgres(t)
	peer := join(t, database, storedKeys)
	ipCert, ipKey := testenv.SelfSigned(t, "127.0.0.1")
	nameCert, nameKey := testenv.SelfSigned(t, "localhost")
	strangers, _ := testenv.SelfSigned(t, "127.0.0.1")
	at := func(cert, key string) (port string) {
		l := serve(t, &config.Config{Server: config.Server{Address: "127.0.0.1:0", TLS: config.TLS{CertFile: cert, KeyFile: key}}}, peer.node.Handler())
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return port
	}
	byIP, byName := at(ipCert, ipKey), at(nameCert, nameKey)
	for name, test := range map[string]struct {
		ca        string
		discovery config.Discovery
		url       string
		refused   string // why; empty: believed
	}{
		"good":               {ipCert, "static", "https://127.0.0.1:" + byIP, ""},
		"good by name":       {nameCert, "dns", "https://localhost:" + byName, ""},
		"unknown authority":  {strangers, "static", "https://127.0.0.1:" + byIP, "unknown authority"},
		"another host":       {nameCert, "static", "https://127.0.0.1:" + byName, "127.0.0.1"},
		"not the DNS's name": {ipCert, "dns", "https://localhost:" + byIP, "localhost"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := join(t, database, func(cfg *config.Config) {
				storedKeys(cfg)
				c := &cfg.Cluster
				c.CAFile, c.Discovery, c.RefreshSec = test.ca, test.discovery, 1
				if c.ServiceURL = test.url; test.discovery == "static" {
					c.ServiceURL, c.StaticPeers = "", []string{test.url}
				}
			})
			result := "ok"
			if test.refused != "" {
				result = "failed"
			}
			fetches := func(result string) float64 {
				return w.metric(`watchword_cluster_peer_fetches_total{result="` + result + `"}`)
			}
			eventually(t, func() error {
				if fetches(result) < 1 {
					return errors.New("nobody was asked: " + w.log.Tail())
				}
				return nil
			})
			if test.refused == "" {
				return
			}
			admin := w.login("admin").AccessToken
			eventually(t, func() error { // a busy machine may have been too slow for it at first
				view := decode[httpapi.ClusterView](t, w.want(w.do("GET", "/api/cluster", admin, nil), 200, ""))
				if p := view.Peers; len(p) != 1 || !strings.Contains(p[0].Problem, "x509: ") || !strings.Contains(p[0].Problem, test.refused) {
					return fmt.Errorf("it is not said why: %+v", p)
				}
				return nil
			})
			if n := fetches("ok"); n != 0 {
				t.Errorf("%v answers were believed", n)
			}
			if !strings.Contains(w.log.String(), "cannot be asked for its keys") {
				t.Errorf("the log does not say it: %s", w.log.Tail())
			}
		})
	}
}

// Where the others are is looked for as the configuration says.
func TestFinder(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") != "" {
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(w, `{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a"},"endpoints":[{"addresses":["10.0.0.7"]}],"ports":[{"port":8080}]}]}`)
	}))
	defer api.Close()
	pod := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(pod, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	inCluster := func() (*discovery.Kubernetes, error) {
		return &discovery.Kubernetes{API: api.URL, Namespace: "auth", Token: pod, Client: api.Client()}, nil
	}
	for _, test := range []struct {
		cfg  config.Cluster
		want discovery.Peer
	}{
		{config.Cluster{Discovery: "static", StaticPeers: []string{"http://auth-0:8080"}}, discovery.Peer{URL: "http://auth-0:8080"}},
		{config.Cluster{Discovery: "dns", ServiceURL: "https://localhost:8080", RefreshSec: 1}, discovery.Peer{URL: "https://127.0.0.1:8080", Name: "localhost"}},
		{config.Cluster{Discovery: "kubernetes", ServiceURL: "https://watchword:8080"}, discovery.Peer{URL: "https://10.0.0.7:8080", Name: "watchword"}},
	} {
		t.Run(string(test.cfg.Discovery), func(t *testing.T) {
			found := discovery.NewList(discard, func() {})
			find, err := finder(test.cfg, found, inCluster)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { find.run(ctx) })
			defer running.Wait()
			defer cancel()
			eventually(t, func() error {
				if got := found.Peers(); !slices.Contains(got, test.want) {
					return fmt.Errorf("found %v", got)
				}
				return nil
			})
		})
	}
}

// A running replica takes over another list of peers, and says what it does not
// take over.
func TestReload(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.join(func(cfg *config.Config) {
			cfg.Cluster.Discovery, cfg.Cluster.StaticPeers = "static", []string{"http://127.0.0.1:1"}
		})
		next := *w.cfg
		next.Cluster.StaticPeers = []string{"http://127.0.0.1:1", "http://127.0.0.1:2"}
		next.Log.Level = "debug"
		w.node.Reload(&next)
		if n := len(w.node.found.Peers()); n != 2 {
			t.Errorf("%d peers", n)
		}
		log := w.log.String()
		if strings.Count(log, "needs a restart") != 1 || !strings.Contains(log, `"key":"log.level"`) || !strings.Contains(log, `"key":"cluster.static_peers"`) {
			t.Errorf("the log says %s", log)
		}
		w.node.Reload(&next)
		if strings.Count(w.log.String(), "needs a restart") != 1 {
			t.Error("it says so again, and nothing has changed")
		}

		// Another way of finding them needs a restart, and until then this list stays.
		database := next
		database.Cluster.Discovery, database.Cluster.StaticPeers = "database", nil
		w.node.Reload(&database)
		if n := len(w.node.found.Peers()); n != 2 {
			t.Errorf("%d peers, before the restart that it takes", n)
		}
		if n := strings.Count(w.log.String(), "needs a restart"); n != 3 {
			t.Errorf("it says %d times what needs a restart", n)
		}
	})
}

// A key that is revoked at one replica is replaced by its own at once: no
// user who logs in there meanwhile gets a token that is refused.
func TestRevokedElsewhere(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		one, two := b.join(nil), b.join(nil)
		token := two.login("admin").AccessToken
		kid := kidOf(t, token)
		began := time.Now()
		one.revoke(one.login("admin").AccessToken, map[string]any{"kid": kid})
		eventually(t, func() error {
			signer, err := two.node.keys.Signer()
			if err != nil || signer.KeyID() == kid {
				return fmt.Errorf("it still signs with it (%v)", err)
			}
			return nil
		})
		if took := time.Since(began); took > 2*time.Second { // two polls, without a bell
			t.Errorf("it was replaced after %v", took)
		}
		for _, w := range []*world{one, two} {
			eventually(t, func() error {
				if a := w.do("GET", "/api/verify", token, nil); a.status != 401 {
					return fmt.Errorf("a token of the key: %d", a.status)
				}
				if slices.Contains(w.kids(), kid) {
					return errors.New("the key is still published")
				}
				return nil
			})
			w.verify(two.login("admin").AccessToken)
		}
	})
}

// A file is noticed when it is written, when another one takes its place, and on
// SIGHUP.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "watchword.yaml")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("watchword.yaml", "one")
	changes := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	hangup := make(chan os.Signal, 1)
	running.Go(func() { watch(ctx, []string{file}, hangup, discard, func() { changes <- struct{}{} }) })
	defer running.Wait()
	defer cancel()
	expect := func(what string, do func()) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; { // until the watch stands
			do()
			select {
			case <-changes:
				return
			case <-time.After(5 * settleTime):
				if time.Now().After(deadline) {
					t.Fatalf("%s: not noticed", what)
				}
			}
		}
	}
	<-changes // what has changed before it began
	n := 0
	expect("written", func() { n++; write("watchword.yaml", fmt.Sprint("written ", n)) })
	expect("replaced", func() {
		n++
		write("other", fmt.Sprint("replaced ", n))
		if err := os.Rename(filepath.Join(dir, "other"), file); err != nil {
			t.Fatal(err)
		}
	})
	expect("SIGHUP", func() { hangup <- syscall.SIGHUP })
}

// Administrators see the replicas; others do not, and a replica that is alone says so.
func TestClusterStatus(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		one := b.join(func(cfg *config.Config) {
			cfg.Cluster.InstanceID, cfg.Cluster.AdvertiseURL = "auth-0", "http://127.0.0.1:1"
		})
		two := b.join(func(cfg *config.Config) { cfg.Cluster.InstanceID, cfg.Sessions.TTL = "auth-1", 23*time.Hour })
		gone := b.join(func(cfg *config.Config) { cfg.Cluster.InstanceID = "auth-2" })
		gone.stop()
		forged := store.Replica{Instance: "auth-9", Incarnation: "x", MAC: make([]byte, 32)}
		if _, err := b.store.EnterRegistry(t.Context(), forged, 0); err != nil {
			t.Fatal(err)
		}
		admin := one.login("admin").AccessToken
		eventually(t, func() error {
			view := decode[httpapi.ClusterView](t, two.want(two.do("GET", "/api/cluster", admin, nil), 200, ""))
			if view.Instance != "auth-1" || view.Rejected != 1 || len(view.Replicas) != 3 || len(view.Peers) != 1 {
				return fmt.Errorf("%+v", view)
			}
			for i, r := range view.Replicas {
				state := []string{"live", "live", "gone"}[i]
				if r.Instance != fmt.Sprint("auth-", i) || r.State != state || len(r.Keys) != 1 || len(r.Unseen) != 0 {
					return fmt.Errorf("%+v", r)
				}
				if k := r.Keys[0]; k.State != "active" || !strings.HasPrefix(k.Kid, r.Instance) || k.RemoveAt.Before(time.Now()) {
					return fmt.Errorf("%+v", k)
				}
				if state == "live" && (r.Version != "test" || r.Seen != view.Version || r.StartedAt.IsZero() || r.ClockMS < -1000 || r.ClockMS > 1000) {
					return fmt.Errorf("%+v, version %d", r, view.Version)
				}
			}
			if a, b := view.Replicas[0].Config, view.Replicas[1].Config; a == b || a == "" {
				return fmt.Errorf("configurations %q and %q", a, b)
			}
			if p := view.Peers[0]; p.URL != "http://127.0.0.1:1" || p.Problem == "" {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
		if !strings.Contains(two.log.String(), "has other settings") {
			t.Error("that the settings differ is not in the log")
		}
		one.user("tester")
		one.want(one.do("GET", "/api/cluster", one.login("tester").AccessToken, nil), 403, "permission_missing")
		one.want(one.do("GET", "/api/cluster", "", nil), 401, "token_missing")
		alone := newQuietWorld(t, nil)
		alone.want(alone.do("GET", "/api/cluster", alone.login("admin").AccessToken, nil), 404, "no_cluster")
		gone.start() // for its own stop
	})
}

// What changes at one replica is seen at once by the others, by either bell: the registry
// without waiting for the poll, which comes every second, and what was revoked although
// the next poll is far away.
func TestBells(t *testing.T) {
	t.Parallel()
	const rare = time.Minute
	for name, open := range map[string]func(t *testing.T, cfg *config.Config){
		"postgres": func(t *testing.T, cfg *config.Config) { cfg.Database.URL = testenv.Postgres(t) },
		"redis": func(t *testing.T, cfg *config.Config) {
			cfg.Database.URL, cfg.Redis.URL = testenv.MariaDB(t), testenv.Redis(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			where := config.Default()
			open(t, where)
			rarely := func(c *config.Config) {
				storedKeys(c)
				c.Redis.URL = where.Redis.URL
				c.Revocation.Poll, c.Revocation.MaxStaleness = rare, 5*time.Minute
			}
			one, two := join(t, where.Database.URL, rarely), join(t, where.Database.URL, rarely)

			token := one.login("admin").AccessToken
			two.verify(token)
			since := time.Now()
			one.want(one.do("POST", "/api/logout", token, nil), 204, "")
			two.refuses(token, "token_revoked", since, patience)
			if took := time.Since(since); took > rare/2 {
				t.Errorf("a logout was seen after %v: by polling, not by a bell", took)
			}

			// A row without a valid MAC is news like any other, and is logged.
			news := func(at *world) {
				key := store.Key{ID: "auth-9-" + rand.Text(), Instance: "auth-9", Algorithm: "ES256", PublicJWK: []byte("{}"), MAC: make([]byte, 32),
					CreatedAt: since, ActivateAt: since, RetireAt: since.Add(time.Hour), RemoveAt: since.Add(time.Hour)}
				insist(t, func(ctx context.Context) error { return one.node.parts.Store.CreateKey(ctx, key) })
				one.node.cluster.Changed() // as after a key of its own
				eventually(t, func() error {
					if !strings.Contains(at.log.String(), key.ID) {
						return errors.New("the news is not seen")
					}
					return nil
				})
			}
			// Of three pieces that are written one after the other, polls see the last one a poll after the
			// first was written, or later.
			const pieces = 20
			var wrote []time.Time
			best := patience
			for len(wrote) < pieces && best >= timing.RegistryPoll {
				wrote = append(wrote, time.Now())
				news(two)
				if n := len(wrote); n >= 3 {
					best = min(best, time.Since(wrote[n-3]))
				}
			}
			t.Logf("%d pieces of news until three were seen within %v", len(wrote), best)
			// What a replica has written it looks at without a bell.
			kit.Within(t, "by a bell, three pieces of news in the registry are seen", best, timing.RegistryPoll, func() { news(one) })
			if two.metric("watchword_bell_rings_total") == 0 {
				t.Error("no bell was heard")
			}
		})
	}
}
