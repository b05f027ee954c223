package admin

import (
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/web/page"
)

func TestClusterThatIsWell(t *testing.T) {
	s := newScene(t)
	s.viewer.view = trio(time.Now())
	a := s.get("/admin/cluster")
	a.has(t, 200, "3 replicas run, and each has the keys of all.", "answers you", "auth-0: up to date.", "signs no more", "Lives of the signing keys", "http://10.0.0.13:8080")
	a.lacks(t, "not heard.", `class="edge unseen-keys" x1="7`, "cluster.secret")
	if n := strings.Count(a.body, `class="edge seen"`); n != 4 { // three, and one of the legend
		t.Errorf("%d pairs of replicas are joined", n)
	}
}

// What is wrong with a replica is said, with why and what to do.
func TestFaultsOfReplicas(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		change func(*cluster.View)
		kind   page.BadgeKind
		want   string
	}{
		"silent": {func(v *cluster.View) {
			v.Replicas[1].Standing, v.Replicas[1].BeatAt = cluster.Silent, now.Add(-23*time.Second)
		}, page.Bad, "auth-1 has been silent for 23 s"},
		"behind":   {func(v *cluster.View) { v.Replicas[1].Unseen = []string{v.Replicas[2].Keys[0].ID} }, page.Bad, "auth-1 is behind"},
		"settings": {func(v *cluster.View) { v.Replicas[1].Config = "other" }, page.Bad, "auth-1 has other settings than auth-0"},
		"secrets":  {func(v *cluster.View) { v.Replicas[1].Secrets = []string{"a"} }, page.Bad, "auth-1 has other signing secrets than auth-0"},
		"version":  {func(v *cluster.View) { v.Replicas[1].Version = "1.0" }, page.Caution, "auth-1 runs version 1.0, and auth-0 runs 1.2.3"},
		"ahead":    {func(v *cluster.View) { v.Replicas[1].Clock = 1500 * time.Millisecond }, page.Caution, "The clock of auth-1 is 1.5 s ahead of the database's"},
		"late":     {func(v *cluster.View) { v.Replicas[1].Clock = -9 * time.Second }, page.Bad, "The clock of auth-1 is 9 s behind the database's"},
		"rejected": {func(v *cluster.View) { v.Rejected = 2 }, page.Bad, "Rows of the registry that are not believed: 2"},
		"peer": {func(v *cluster.View) {
			v.Peers = []cluster.PeerStatus{{URL: "http://x", Problem: "connection refused"}, {URL: "http://me", Self: true, Problem: "itself"}}
		}, page.Caution, "auth-0 cannot ask http://x for its keys"},
	} {
		v := trio(now)
		c.change(v)
		p := clusterOf(*v)
		if len(p.Notices) != 1 || p.Notices[0].Kind != c.kind || p.Notices[0].Title != c.want || p.Notices[0].Text == "" {
			t.Errorf("%s: %+v", name, p.Notices)
		}
		if name != "rejected" && name != "peer" && p.Replicas[1].Kind != c.kind {
			t.Errorf("%s: the replica looks %s", name, p.Replicas[1].Kind)
		}
	}
}

// What is so for a moment, or has to be, is no fault.
func TestNoFaultsOfReplicas(t *testing.T) {
	now := time.Now()
	for name, change := range map[string]func(*cluster.View){
		"taking in": func(v *cluster.View) {
			k := v.Replicas[2].Keys[0]
			k.ID, k.CreatedAt = "auth-2-new", now.Add(-3*time.Second)
			v.Replicas[2].Keys = append(v.Replicas[2].Keys, k)
			v.Replicas[1].Unseen = []string{k.ID}
		},
		"gone": func(v *cluster.View) {
			v.Replicas[1] = cluster.ReplicaStatus{Replica: store.Replica{Instance: "auth-1"}, Standing: cluster.Gone, Keys: v.Replicas[1].Keys}
		},
		"a little off": func(v *cluster.View) { v.Replicas[1].Clock = 900 * time.Millisecond },
		"other in turn": func(v *cluster.View) {
			v.Replicas[0].Secrets, v.Replicas[1].Secrets, v.Replicas[2].Secrets = []string{"b", "a", "b"}, []string{"b", "b", "a"}, []string{"b", "a", "b"}
		},
	} {
		v := trio(now)
		change(v)
		if p := clusterOf(*v); len(p.Notices) != 0 || len(p.Replicas) != 3 {
			t.Errorf("%s: %+v", name, p.Notices)
		}
	}
	// A key that all share does not make a replica of whoever made it.
	v := trio(now)
	k := v.Replicas[0].Keys[0]
	k.ID, k.Instance = strings.Repeat("k", 43), "former"
	v.Replicas = append(v.Replicas, cluster.ReplicaStatus{Replica: store.Replica{Instance: "former"}, Standing: cluster.Gone, Keys: []cluster.KeyStatus{k}})
	p := clusterOf(*v)
	if len(p.Replicas) != 3 || len(p.Keys) != 4 || p.Keys[3].label() != "all replicas kkkkkkkk…" {
		t.Errorf("%d replicas, %d keys", len(p.Replicas), len(p.Keys))
	}
}

// Each step in the life of a key is told, and drawn.
func TestLivesOfKeys(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	key := func(id string, created time.Duration) store.Key {
		at := now.Add(created)
		return store.Key{ID: "auth-0-" + id, Instance: "auth-0", CreatedAt: at, ActivateAt: at.Add(time.Hour), RetireAt: at.Add(5 * time.Hour), RemoveAt: at.Add(6 * time.Hour)}
	}
	revoked := key("revoked", -2*time.Hour)
	revoked.RevokedAt = now.Add(-time.Minute)
	own := cluster.OwnKeys{AsOf: now, Secrets: []string{"s1", "s0", "s1"}}
	for _, k := range []store.Key{key("coming", -time.Minute), key("signing", -2*time.Hour), key("ending", -330*time.Minute), revoked} {
		own.Keys = append(own.Keys, cluster.KeyStatus{Key: k, Phase: keyring.State(k, now)})
	}
	p := aloneOf("auth-0", own)
	if len(p.Secrets) != 2 || p.Signs != "s1" {
		t.Errorf("secrets: %v, %q signs", p.Secrets, p.Signs)
	}
	var told []string
	for _, n := range p.next() {
		told = append(told, thumbprint(n.Key)+" "+n.What[:9]+" "+n.At.Sub(now).String())
	}
	if got, want := strings.Join(told, "; "), "ending is remove 30m0s; coming begins to 59m0s; signing signs no  3h0m0s; revoked is forgot 4h0m0s"; got != want {
		t.Errorf("next:\n%s\n%s", got, want)
	}
	line := p.timeline()
	if last := line.Rows[3].Segments; len(last) != 3 || last[1].To != revoked.RevokedAt || last[2].Kind != page.Broken || last[2].To != revoked.RemoveAt {
		t.Errorf("the key that was revoked: %+v", last)
	}
	if line.From != now.Add(-330*time.Minute) || line.To != now.Add(6*time.Hour-time.Minute) {
		t.Errorf("from %v to %v", line.From, line.To)
	}
	// The times of a key are by the clock of its maker.
	fast := signingKey{KeyStatus: own.Keys[0], Clock: time.Minute}
	if at := (clusterPage{Keys: []signingKey{fast}}).next()[0].At; at != now.Add(58*time.Minute) {
		t.Errorf("of a clock that is fast: %v", at.Sub(now))
	}
}

func TestReplicaAlone(t *testing.T) {
	s := newScene(t)
	a := s.get("/admin/cluster")
	a.has(t, 200, "This replica is alone", "How it becomes a cluster", "cluster.enabled: true", "signs no more", "EdDSA")
	kid := s.keys.Published()[0].Key.ID
	a.has(t, 200, kid, strings.TrimPrefix(kid, "auth-0-")[:8]+"…")
	// The use case asks for the right, whoever calls it.
	s.cookie = s.signIn("reader", "admin=users:read")
	by := must[*login.Browser](t)(s.login.Recognise(t.Context(), s.cookie))
	if _, err := s.face.Cluster.OwnKeys(t.Context(), by.Token, "192.0.2.1"); problem.From(err).Kind != problem.Denied {
		t.Errorf("without the right to see keys: %v", err)
	}
	s.cookie = s.signIn("keeper", "admin=keys:read")
	// A key that was revoked is seen until everything that it signed would have expired.
	rows := must[[]store.Key](t)(s.parts.Store.Keys(t.Context()))
	rows[0].RevokedAt = time.Now()
	rows[0].ID, rows[0].StateMAC, rows[0].MAC, rows[0].SourceMAC = "auth-0-revokedone", nil, nil, nil
	if err := s.parts.Store.CreateKey(t.Context(), rows[0]); err != nil {
		t.Fatal(err)
	}
	s.get("/admin/cluster").has(t, 200, ">revokedo…<", "is forgotten, when everything")
}

// Names are told apart when they are shortened, and the drawing stays in its box.
func TestDrawing(t *testing.T) {
	if got := middle("auth-deployment-7c9f4b5d8-x2x9k", 18); got != "auth-dep…5d8-x2x9k" {
		t.Errorf("%q", got)
	}
	for n := range 15 {
		p := clusterPage{}
		for i := range n {
			p.Replicas = append(p.Replicas, replica{ReplicaStatus: cluster.ReplicaStatus{Standing: cluster.Live, Replica: store.Replica{Instance: string(rune('a' + i))}}, Kind: page.Good, Word: "up to date"})
		}
		d := p.drawing()
		drawn := min(n, maxDrawn)
		if len(d.Nodes) != drawn || len(d.Edges) != drawn*(drawn-1)/2 {
			t.Errorf("%d replicas: %d nodes, %d lines", n, len(d.Nodes), len(d.Edges))
		}
		if strings.Contains(d.Box, "-") && n > 0 {
			t.Errorf("%d replicas: box %s", n, d.Box)
		}
	}
}
