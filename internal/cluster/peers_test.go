package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A fakePeer answers as the test says; it counts its questions.
type fakePeer struct {
	*httptest.Server
	asked atomic.Int64
}

func serve(t testing.TB, answer func(w http.ResponseWriter, r *http.Request)) *fakePeer {
	t.Helper()
	p := &fakePeer{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		answer(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// keySet is the body with the keys, as ?local=true gives it.
func keySet(t testing.TB, keys ...store.Key) []byte {
	t.Helper()
	list := []json.RawMessage{}
	for _, k := range keys {
		list = append(list, fmt.Appendf(k.PublicJWK[:len(k.PublicJWK)-1:len(k.PublicJWK)-1], `,"exp":%d}`, k.RemoveAt.Unix()))
	}
	body, err := json.Marshal(map[string]any{"keys": list})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// vouched authenticates a body as a replica does its keys.
func vouched(c *Cluster, nonce string, body []byte) (instance, mac string, ok bool) {
	instance, mac, err := c.vouch(nonce, body, c.secret.answer)
	return instance, mac, err == nil
}

// keysWithRows is the body with the keys, as a replica gives it that shares them.
func keysWithRows(t testing.TB, rows ...store.Key) []byte {
	t.Helper()
	var keys []keyring.PublicKey
	for _, row := range rows {
		key, err := accesstoken.ParseJWK(row.PublicJWK)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, keyring.PublicKey{Key: key, Row: row})
	}
	body, err := encodeAnswer(keys, nil, func(k store.Key) []byte { return k.MAC })
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// honest answers like a replica.
func honest(c *Cluster, body []byte) func(w http.ResponseWriter, r *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		instance, mac, ok := vouched(c, r.Header.Get(HeaderNonce), body)
		if !ok || r.URL.Path != "/api/pkeys" || r.URL.Query().Get("local") != "true" {
			http.Error(w, "no peer asks so", http.StatusBadRequest)
			return
		}
		w.Header().Set(HeaderInstance, instance)
		w.Header().Set(HeaderMAC, mac)
		_, _ = w.Write(body)
	}
}

// at is a list of peers that stays.
func at(urls ...string) func() []discovery.Peer {
	var list []discovery.Peer
	for _, u := range urls {
		list = append(list, discovery.Peer{URL: u})
	}
	return func() []discovery.Peer { return list }
}

// with starts a replica that asks peers.
func with(t testing.TB, c *clock, instance string, urls ...string) *Cluster {
	t.Helper()
	cfg := config(openRegistry(t), c, instance)
	cfg.Peers = at(urls...)
	return join(t, cfg)
}

// askAll asks all peers and returns when they have answered.
func askAll(t testing.TB, cl *Cluster) {
	var asking sync.WaitGroup
	for _, at := range cl.Others() {
		asking.Go(func() { cl.peers.ask(t.Context(), at) })
	}
	asking.Wait()
}

// An answer is believed only if it was made for this question by who has the
// secret, and speaks for the keys of who made it.
func TestLyingPeers(t *testing.T) {
	c := &clock{}
	now := c.Now()
	own, foreign := row(t, now, "auth-1", accesstoken.ES256), row(t, now, "auth-2", accesstoken.ES256)
	weak := row(t, now, "auth-1", accesstoken.EdDSA)
	shared := sharedRow(t, now, "auth-2", accesstoken.ES256)
	peer := join(t, config(openRegistry(t), c, "auth-1"))
	strangerConfig := config(openRegistry(t), c, "auth-1")
	strangerConfig.Secret = "another secret of 32 bytes or more"
	stranger := join(t, strangerConfig)
	changed := func(k store.Key, change func(*store.Key)) store.Key {
		change(&k)
		return k
	}
	impostor := func(kid string) []byte { // another key under the name of one
		k := row(t, now, "auth-2", accesstoken.ES256)
		return []byte(strings.Replace(string(k.PublicJWK), k.ID, kid, 1))
	}
	record := func(c *Cluster, nonce string, body []byte) http.Header {
		instance, mac, _ := vouched(c, nonce, body)
		return http.Header{HeaderInstance: {instance}, HeaderMAC: {mac}}
	}
	reply := func(h http.Header, body []byte) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			for name := range h {
				w.Header().Set(name, h.Get(name))
			}
			_, _ = w.Write(body)
		}
	}
	lies := 0
	for _, tt := range []struct {
		name   string
		reason string
		answer func(w http.ResponseWriter, r *http.Request)
		knows  []store.Key // afterwards
	}{
		{"honest", "", honest(peer, keySet(t, own)), []store.Key{own}},
		{"another secret", wrongMAC, honest(stranger, keySet(t, own)), nil},
		{"no MAC", wrongMAC, reply(nil, keySet(t, own)), nil},
		{"replayed", wrongMAC, reply(record(peer, "the nonce of yesterday", keySet(t, own)), keySet(t, own)), nil},
		{"in another's name", wrongMAC, func(w http.ResponseWriter, r *http.Request) {
			h := record(peer, r.Header.Get(HeaderNonce), keySet(t, foreign))
			h.Set(HeaderInstance, "auth-2")
			reply(h, keySet(t, foreign))(w, r)
		}, nil},
		{"another body under the MAC", wrongMAC, func(w http.ResponseWriter, r *http.Request) {
			reply(record(peer, r.Header.Get(HeaderNonce), keySet(t)), keySet(t, own))(w, r)
		}, nil},
		{"the key of another replica", wrongOwner, honest(peer, keySet(t, foreign, own)), []store.Key{own}},
		{"a shared key of another replica", "", honest(peer, keysWithRows(t, foreign, own)), []store.Key{foreign, own}},
		{"a shared key that the cluster does not vouch for", wrongMAC, honest(peer, keysWithRows(t, changed(foreign, func(k *store.Key) { k.MAC = stranger.Authenticate(foreign).MAC }), own)), []store.Key{own}},
		{"a shared key without a MAC", wrongMAC, honest(peer, keysWithRows(t, changed(foreign, func(k *store.Key) { k.MAC = nil }), own)), []store.Key{own}},
		{"a shared key that lives longer than its row", wrongMAC, honest(peer, keysWithRows(t, changed(foreign, func(k *store.Key) { k.RemoveAt = k.RemoveAt.Add(time.Hour) }), own)), []store.Key{own}},
		{"another key with the row of a shared one", wrongMAC, honest(peer, keysWithRows(t, changed(foreign, func(k *store.Key) { k.PublicJWK = impostor(foreign.ID) }), own)), []store.Key{own}},
		{"a shared key whose kid is not its own", wrongOwner, honest(peer, keysWithRows(t, vouch(changed(foreign, func(k *store.Key) { k.PublicJWK = impostor(foreign.ID) })), own)), []store.Key{own}},
		{"a key that several replicas have", "", honest(peer, keysWithRows(t, shared, own)), []store.Key{shared, own}},
		{"such a key of a version without rows", "", honest(peer, keySet(t, shared, own)), []store.Key{shared, own}},
		{"such a key by a stranger", wrongMAC, honest(stranger, keySet(t, shared)), nil},
		{"another key under such a kid", wrongOwner, honest(peer, keysWithRows(t, vouch(changed(shared, func(k *store.Key) { k.PublicJWK = impostor(shared.ID) })), own)), []store.Key{own}},
		{"such a key with an algorithm that is not accepted", wrongAlgorithm, honest(peer, keysWithRows(t, sharedRow(t, now, "auth-2", accesstoken.EdDSA), own)), []store.Key{own}},
		{"an algorithm that is not accepted", wrongAlgorithm, honest(peer, keySet(t, weak, own)), []store.Key{own}},
		{"a shared key with an algorithm that is not accepted", wrongAlgorithm, honest(peer, keysWithRows(t, row(t, now, "auth-2", accesstoken.EdDSA), own)), []store.Key{own}},
		{"no key set", wrongKey, honest(peer, []byte("hello")), nil},
	} {
		if tt.reason != "" {
			lies++
		}
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(openRegistry(t), c, "auth-0")
			cfg.Algorithms = []string{accesstoken.ES256}
			url := serve(t, tt.answer).URL
			cfg.Peers = at(url)
			log := &logBuffer{}
			cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
			cl := join(t, cfg)
			for range 2 {
				askAll(t, cl)
			}
			if got := cl.Keys().Len(); got != len(tt.knows) {
				t.Errorf("%d keys are known", got)
			}
			for _, k := range tt.knows {
				if _, ok := cl.Keys().Key(k.ID); !ok {
					t.Errorf("%s is not known", k.ID)
				}
			}
			for _, reason := range []string{wrongMAC, wrongOwner, wrongAlgorithm, wrongKey} {
				want := 0
				if reason == tt.reason {
					want = 2
				}
				if got := count(t, cl.metrics.rejected, reason); got != want {
					t.Errorf("%d rejected for %q, want %d", got, reason, want)
				}
			}
			saidOnce(t, log, tt.reason)
		})
	}
	if !t.Failed() {
		t.Logf("summary: %d lying peers, none believed", lies)
	}
}

// sharedRing opens the keys of a replica that shares them with the others.
func sharedRing(t testing.TB, r *testRegistry, c *clock, instance string, peers *Cluster) *keyring.Ring {
	t.Helper()
	box, err := seal.New(make([]byte, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Open(t.Context(), keyring.Config{
		Source: keysource.Sealed{Box: box, Rand: rand.Reader}, Algorithms: []string{accesstoken.ES256}, KeyDuration: time.Hour, TokenDuration: time.Minute, MaxAge: 10 * time.Second,
		InstanceID: instance, Store: r, Peers: peers, Now: c.Now,
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// A replica that signs with a key which another one has made, because they share their
// stored keys, is believed: by a peer that knows the key, and by one that is cut off
// from the registry and has not heard of it, though the key's maker is gone.
func TestSharedKeys(t *testing.T) {
	for name, away := range map[string]bool{"in the registry": false, "cut off": true} {
		t.Run(name, func(t *testing.T) {
			c, r := &clock{}, openRegistry(t)
			cut := &testRegistry{Store: r.Store, db: r.db}
			var peer fakePeerOf
			server := serve(t, peer.answer)
			cfg := config(cut, c, "auth-2")
			cfg.Peers = at(server.URL)
			asking := join(t, cfg)
			cut.away.Store(away)

			maker, err := Join(t.Context(), config(r, c, "auth-0"))
			if err != nil {
				t.Fatal(err)
			}
			made := sharedRing(t, r, c, "auth-0", maker)
			if err := maker.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			peer.Cluster, err = Join(t.Context(), config(r, c, "auth-1"))
			if err != nil {
				t.Fatal(err)
			}
			ring := sharedRing(t, r, c, "auth-1", peer.Cluster)
			peer.Serve(ring)
			signer, err := ring.Signer()
			if err != nil {
				t.Fatal(err)
			}
			kid := signer.Public().ID
			if _, ok := made.Key(kid); !ok || made.Public().Len() != 1 {
				t.Fatalf("it signs with %s; the test shows nothing", kid)
			}
			if !away {
				look(t, asking)
			}
			for range 2 {
				askAll(t, asking)
			}
			if ok, rejected := count(t, asking.metrics.fetches, fetchOK), count(t, asking.metrics.fetches, fetchRejected); ok != 2 || rejected != 0 {
				t.Errorf("of 2 answers, %d are believed and %d rejected", ok, rejected)
			}
			if _, ok := asking.Keys().Key(kid); !ok {
				t.Error("the key is not known")
			}
		})
	}
}

// A fakePeerOf answers with what a replica says that is set later.
type fakePeerOf struct{ *Cluster }

func (p *fakePeerOf) answer(w http.ResponseWriter, r *http.Request) {
	body, instance, mac, err := p.AnswerKeys(r.Header.Get(HeaderNonce))
	if err != nil {
		http.Error(w, "no peer asks so", http.StatusBadRequest)
		return
	}
	w.Header().Set(HeaderInstance, instance)
	w.Header().Set(HeaderMAC, mac)
	_, _ = w.Write(body)
}

// saidOnce fails the test unless the log has one line that something was not believed
// for that reason; none if there is no reason.
func saidOnce(t testing.TB, log *logBuffer, reason string) {
	t.Helper()
	want := 0
	if reason != "" {
		want = 1
	}
	text := log.String()
	if strings.Count(text, "not believed") != want || strings.Count(text, "reason="+reason+" ")+strings.Count(text, "reason="+reason+"\n") < want {
		t.Errorf("the log says %s", text)
	}
}

// A nonce that could carry something else is no nonce.
func TestNonces(t *testing.T) {
	cl := join(t, config(openRegistry(t), &clock{}, "auth-0"))
	for nonce, want := range map[string]bool{
		"": false, "short": false, "0123456789abcdef": true, "0123456789 abcdef": false, "0123456789abcdefé": false,
		string(make([]byte, 20)): false, fmt.Sprintf("%0129d", 0): false, fmt.Sprintf("%0128d", 0): true,
	} {
		if _, _, ok := vouched(cl, nonce, nil); ok != want {
			t.Errorf("%q: %v", nonce, ok)
		}
	}
}

// An answer is made once for the keys and tombstones that there are, however many ask.
func TestAnswersAreMadeOnce(t *testing.T) {
	r, c := openRegistry(t), &clock{}
	cfg := config(r, c, "auth-0")
	cfg.Revoked = keyring.NewTombstones(time.Hour, c.Now)
	cl, err := Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ring := sharedRing(t, r, c, "auth-0", cl)
	cl.Serve(ring)
	ask := func() *byte {
		if err := ring.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		body, _, _, err := cl.AnswerKeys("0123456789abcdef")
		if err != nil {
			t.Fatal(err)
		}
		return &body[0]
	}
	first := ask()
	if ask() != first {
		t.Error("the same is made twice")
	}
	cfg.Revoked.Add("another", c.Now())
	if ask() == first {
		t.Error("the answer does not have what was revoked since")
	}
}

// inProcess are peers, by their host, that are reached without a network, so that a test
// in a bubble of synctest may wait for them.
type inProcess map[string]http.HandlerFunc

// client asks these peers.
func (p inProcess) client(string) *http.Client { return &http.Client{Transport: p} }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, answered := httptest.NewRecorder(), make(chan struct{})
	go func() {
		defer close(answered)
		p[r.URL.Host](answer, r)
	}()
	select {
	case <-answered:
		return answer.Result(), nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// A hungPeer accepts the connection and never answers. It counts its questions.
type hungPeer struct{ asked, now, most, givenUp atomic.Int64 }

func (h *hungPeer) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	h.asked.Add(1)
	n := h.now.Add(1)
	for most := h.most.Load(); n > most && !h.most.CompareAndSwap(most, n); most = h.most.Load() {
	}
	<-r.Context().Done()
	h.now.Add(-1)
	h.givenUp.Add(1)
}

// A peer that accepts the connection and never answers is given up; meanwhile it
// holds nobody up, and is not asked a second time.
func TestHungPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hung := &clock{}, &hungPeer{}
		own := row(t, c.Now(), "auth-1", accesstoken.ES256)
		peers := inProcess{
			"hung": hung.ServeHTTP,
			"good": honest(join(t, config(openRegistry(t), c, "auth-1")), keySet(t, own)),
		}
		cfg := config(openRegistry(t), c, "auth-0")
		cfg.Peers, cfg.Client = at("http://hung", "http://good"), peers.client
		cl := join(t, cfg)
		run(t, cl)
		synctest.Wait()
		if _, ok := cl.Keys().Key(own.ID); !ok || hung.now.Load() != 1 {
			t.Fatalf("the hung peer is being asked %d times; and the other one's key is known: %t", hung.now.Load(), ok)
		}
		began := time.Now()
		for range 5 {
			cl.peers.askNow()
			synctest.Wait()
		}
		for range 1000 {
			if _, err := cl.Find(own.ID); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("1,000 requests waited %v for a hung peer", took)
		}
		if n := hung.most.Load(); n > 1 {
			t.Errorf("the hung peer was asked %d times at once", n)
		}
	})
}

// A peer that never answers is given up, and asked again: it may have come to its
// senses.
func TestHungPeerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hung := &clock{}, &hungPeer{}
		cfg := config(openRegistry(t), c, "auth-0")
		cfg.Peers, cfg.Client, cfg.Refresh = at("http://hung"), inProcess{"hung": hung.ServeHTTP}.client, 5*time.Second
		cl := join(t, cfg)
		run(t, cl)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if hung.asked.Load() < 2 || hung.givenUp.Load() < 1 {
			t.Errorf("a hung peer was asked %d times and given up %d times", hung.asked.Load(), hung.givenUp.Load())
		}
		if count(t, cl.metrics.fetches, fetchFailed) == 0 {
			t.Error("no failure is counted")
		}
	})
}

// The own URL may be in the list: it is asked once, and again after a while, for
// another replica may have come to answer there.
func TestOwnURL(t *testing.T) {
	c := &clock{}
	var cl *Cluster
	self := serve(t, func(w http.ResponseWriter, r *http.Request) { honest(cl, keySet(t))(w, r) })
	cl = with(t, c, "auth-0", self.URL)
	for range 3 {
		askAll(t, cl)
	}
	if n := self.asked.Load(); n != 1 {
		t.Errorf("it asked itself %d times", n)
	}
	if n := count(t, cl.metrics.fetches, fetchSelf); n != 1 {
		t.Errorf("%d are counted", n)
	}
	c.Move(selfFor)
	reflected := cl
	cl = join(t, config(openRegistry(t), c, "auth-1"))
	for range 2 {
		askAll(t, reflected)
	}
	if n := self.asked.Load(); n != 3 {
		t.Errorf("what another replica answers now was asked %d times", n-1)
	}
	if n := count(t, reflected.metrics.fetches, fetchOK); n != 2 {
		t.Errorf("%d of its answers are counted", n)
	}
}

// A URL that is known to be the own one is not asked at all.
func TestKnownOwnURL(t *testing.T) {
	c := &clock{}
	self, other := serve(t, http.NotFound), serve(t, http.NotFound)
	cfg := config(openRegistry(t), c, "auth-0")
	cfg.Peers = at(self.URL, other.URL)
	cfg.OwnURLs = func() []string { return []string{"http://auth-0", self.URL} }
	askAll(t, join(t, cfg))
	if self.asked.Load() != 0 || other.asked.Load() != 1 {
		t.Errorf("it asked itself %d times, and another one %d times", self.asked.Load(), other.asked.Load())
	}
}

// Without the registry, a key that a token names is looked for at the peers; a
// look covers all who wait.
func TestPeersWhenTheRegistryIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clock{}
		body, isClosed := keySet(t), false
		maker := join(t, config(openRegistry(t), c, "auth-1"))
		peer := func(w http.ResponseWriter, r *http.Request) {
			if isClosed {
				http.Error(w, "gone", http.StatusBadGateway)
				return
			}
			honest(maker, body)(w, r)
		}
		r := openRegistry(t)
		cfg := config(r, c, "auth-0")
		cfg.Peers, cfg.Client = at("http://auth-1"), inProcess{"auth-1": peer}.client
		cl := join(t, cfg)
		run(t, cl)
		time.Sleep(time.Millisecond) // what the peer answered at first was asked before
		synctest.Wait()
		r.away.Store(true)
		late := row(t, c.Now(), "auth-1", accesstoken.ES256)
		body = keySet(t, late)
		if _, err := cl.Find(late.ID); err != nil {
			t.Fatalf("a key that a peer serves was not found: %v", err)
		}
		c.Move(59 * time.Minute)
		synctest.Wait()
		isClosed = true
		if _, err := cl.Find(late.ID); err != nil {
			t.Errorf("it is gone before its end: %v", err)
		}
		c.Move(2 * time.Minute)
		cl.lookup.wait() // time passes with the looks
		if _, err := cl.Find(late.ID); !errors.Is(err, ErrKeysUnavailable) {
			t.Errorf("after its end: %v", err)
		}
	})
}

// Without the registry, only its maker can say that there is no such key.
func TestOnlyTheMakerKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := &clock{}, openRegistry(t)
		maker := join(t, config(openRegistry(t), c, "auth-1"))
		cfg := config(r, c, "auth-0")
		cfg.Peers, cfg.Client = at("http://auth-1"), inProcess{"auth-1": honest(maker, keySet(t))}.client
		cl := join(t, cfg)
		run(t, cl)
		r.away.Store(true)
		for maker, want := range map[string]error{"auth-1": accesstoken.ErrUnknownKey, "auth-2": ErrKeysUnavailable} {
			c.Move(cooldown)
			if _, err := cl.Find(row(t, c.Now(), maker, accesstoken.ES256).ID); !errors.Is(err, want) {
				t.Errorf("a key of %s: %v", maker, err)
			}
		}
	})
}

// Without the registry, one peer cannot say that there is no such key if several replicas may
// have it: the other one may.
func TestAllPeersKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := &clock{}, openRegistry(t)
		one, two := join(t, config(openRegistry(t), c, "auth-1")), join(t, config(openRegistry(t), c, "auth-2"))
		late, isAway := sharedRow(t, c.Now(), "auth-1", accesstoken.ES256), true
		body := keySet(t)
		cfg := config(r, c, "auth-0")
		cfg.Peers, cfg.Client = at("http://auth-1", "http://auth-2"), inProcess{
			"auth-1": honest(one, keySet(t)),
			"auth-2": func(w http.ResponseWriter, r *http.Request) {
				if isAway {
					http.Error(w, "away", http.StatusBadGateway)
					return
				}
				honest(two, body)(w, r)
			},
		}.client
		cl := join(t, cfg)
		run(t, cl)
		r.away.Store(true)
		find := func(kid string, want error) {
			t.Helper()
			c.Move(cooldown)
			synctest.Wait()
			if _, err := cl.Find(kid); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
			synctest.Wait()
		}
		find(late.ID, ErrKeysUnavailable)
		isAway = false
		find(sharedRow(t, c.Now(), "auth-1", accesstoken.ES256).ID, accesstoken.ErrUnknownKey)
		body = keySet(t, late)
		find(late.ID, nil)
	})
}

// Which kids replicas make.
func TestMakerOf(t *testing.T) {
	thumbprint := strings.Repeat("a-_Z0", 9)[:43]
	for kid, want := range map[string]struct {
		maker string
		ours  bool
	}{
		thumbprint:                       {"", true},
		"auth-1-" + thumbprint:           {"auth-1", true},
		"-" + thumbprint:                 {},
		"a" + thumbprint:                 {},
		thumbprint[1:]:                   {},
		thumbprint[1:] + "=":             {},
		"auth-1-" + thumbprint[1:] + "=": {},
		"":                               {},
		thumbprint[:22]:                  {}, // of a signing secret
	} {
		if maker, ours := makerOf(kid); maker != want.maker || ours != want.ours {
			t.Errorf("%q: %q, %v", kid, maker, ours)
		}
	}
}

// Peers are asked at the start and then as often as the configuration says.
func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var times []time.Time // of questions, which come one after the other
		cfg := config(openRegistry(t), &clock{}, "auth-0")
		cfg.Refresh, cfg.Peers = 2*time.Second, at("http://auth-1")
		cfg.Client = inProcess{"auth-1": func(w http.ResponseWriter, _ *http.Request) {
			times = append(times, time.Now())
			w.WriteHeader(http.StatusInternalServerError)
		}}.client
		run(t, join(t, cfg))
		time.Sleep(30 * cfg.Refresh)
		synctest.Wait()
		if len(times) < 30 {
			t.Fatalf("asked %d times", len(times))
		}
		for i := 1; i < len(times); i++ {
			between := times[i].Sub(times[i-1])
			if i == 1 && between < cfg.Refresh { // replicas that start together do not ask together
				continue
			}
			if between != cfg.Refresh {
				t.Errorf("question %d comes %v after the one before", i, between)
			}
		}
	})
}

// In the registry, a replica without a URL is not asked, nor is this one.
func TestPeersFromTheRegistry(t *testing.T) {
	c, r := &clock{}, openRegistry(t)
	for instance, url := range map[string]string{"auth-0": "http://auth-0", "auth-1": "http://auth-1", "auth-2": ""} {
		cfg := config(r, c, instance)
		cfg.URL = url
		join(t, cfg)
	}
	cfg := config(r, c, "auth-3")
	cfg.URL = "http://auth-3"
	cl := join(t, cfg)
	look(t, cl)
	if got := fmt.Sprint(cl.Others()); got != "[{http://auth-0 } {http://auth-1 }]" {
		t.Errorf("got %s", got)
	}
}

// Peers that are too many are not passed over without a word.
func TestTooManyPeers(t *testing.T) {
	log := &logBuffer{}
	cfg := config(openRegistry(t), &clock{}, "auth-0")
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	var urls []string
	for i := range maxPeers + 2 {
		urls = append(urls, fmt.Sprintf("http://auth-%d", i+1))
	}
	var listed int
	cfg.Peers = func() []discovery.Peer { return at(urls[:listed]...)() }
	cl := join(t, cfg)
	said := 0
	for _, tt := range []struct{ listed, lines int }{
		{maxPeers, 0}, {maxPeers + 1, 1}, {maxPeers + 1, 0}, {maxPeers + 2, 1}, {maxPeers, 0}, {maxPeers + 2, 1},
	} {
		listed = tt.listed
		if n := len(cl.Others()); n != maxPeers {
			t.Errorf("of %d peers, %d are asked", listed, n)
		}
		said += tt.lines
		if got := strings.Count(log.String(), "more peers than are asked"); got != said {
			t.Fatalf("with %d peers the log says %s", listed, log)
		}
	}
}

// A request that ends does not make a peer look ill.
func TestAskedByWhoLeaves(t *testing.T) {
	c := &clock{}
	peer := serve(t, honest(join(t, config(openRegistry(t), c, "auth-1")), keySet(t)))
	cl := with(t, c, "auth-0", peer.URL)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cl.peers.ask(ctx, discovery.Peer{URL: peer.URL})
	if n := count(t, cl.metrics.fetches, fetchFailed); n != 0 {
		t.Errorf("%d failures are counted", n)
	}
}
