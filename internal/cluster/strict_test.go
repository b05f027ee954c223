package cluster

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// strictEvery is how often a strict verifier reads the key set, whatever max-age says. It never
// asks for a kid that it does not know.
const strictEvery = 15 * time.Minute

// Strict verifiers refuse nothing while three replicas with shared keys are restarted, killed,
// joined by a fourth one and asked for rotations, and the database is away at times. With keys in
// memory they refuse what a replica signs shortly after a start, and nothing because of a
// rotation.
func TestStrictVerifiers(t *testing.T) {
	for name, c := range map[string]strictCase{
		keysource.NameDatabase: {source: keysource.NameDatabase, ahead: 20 * time.Minute, hours: 6},
		keysource.NameHSM:      {source: keysource.NameHSM, ahead: 20 * time.Minute, hours: 6},
		keysource.NameMemory:   {source: keysource.NameMemory, ahead: 20 * time.Minute, hours: 6},
		// Two versions of tokens.algorithm run beside each other most of the time.
		"algorithms": {source: keysource.NameDatabase, ahead: 20 * time.Minute, hours: 6, mixed: true},
		// So that it is known that the verifiers are strict.
		"five minutes ahead": {source: keysource.NameDatabase, ahead: 5 * time.Minute, hours: 6},
	} {
		if soak() {
			c.hours = 7 * 24
		}
		t.Run(name, func(t *testing.T) {
			for try, enough := 1, false; !enough; try++ { // now and then chance has no key follow another
				synctest.Test(t, func(t *testing.T) { enough = c.live(t, name, try) })
			}
		})
	}
}

// live simulates one world and judges it. It reports whether enough happened.
func (c strictCase) live(t *testing.T, name string, try int) (enough bool) {
	s := newStrict(t, c, try)
	s.live(time.Duration(c.hours) * time.Hour)
	t.Log(s)
	if enough = s.presented > 0 && s.keys() >= 3; !enough && try == 5 {
		t.Fatal("that was too little, five times")
	}
	switch name {
	case "five minutes ahead":
		if s.refused[byRotation] == 0 {
			t.Error("a key that is published for five minutes is refused by nobody: the verifiers are not strict")
		}
	case keysource.NameMemory:
		if s.refused[byRotation] > 0 || s.refused[byStart] == 0 {
			t.Error("want tokens refused after starts, and none after rotations")
		}
	default:
		// A key for each rotation, each change of the algorithm that a start brings, and 3 hours.
		if most := s.events["rotations asked for"] + s.events["starts"] + c.hours/3 + 2; s.keys() > most {
			t.Errorf("%d keys signed, want %d at most", s.keys(), most)
		}
		if len(s.refused) > 0 || s.unable > 0 {
			t.Error("want nothing refused, and every replica that runs to sign")
		}
	}
	return enough || t.Failed()
}

// Why a kid was unknown to a verifier: it is of the first key of a replica, or of one that
// followed another.
type cause string

const (
	byStart    cause = "start"
	byRotation cause = "rotation"
)

type strictCase struct {
	source string
	ahead  time.Duration // tokens.key_publish_ahead
	hours  int           // that are simulated
	mixed  bool          // tokens.algorithm changes now and then, by rolling restarts
}

// A strict world has replicas, verifiers that read their key sets, and tokens.
type strict struct {
	strictCase
	t        *testing.T
	random   *mathrand.Rand
	db       *memoryStore
	box      *seal.Box
	keeper   *strictKeeper
	replicas []*strictReplica
	readers  []*strictVerifier
	made     map[string]cause // by kid
	living   map[string]int   // how many tokens live, by kid
	tokens   []strictToken    // those that live, oldest first

	presented, unable int
	refused           map[cause]int
	events            map[string]int
	algorithm         string // of replicas that start
}

type strictToken struct {
	kid string
	exp time.Time
}

// A strictVerifier keeps the key set that it read last.
type strictVerifier struct {
	set  *accesstoken.KeySet // nil: it has read none yet
	next time.Time
}

// A strictReplica is a place for one process after the other.
type strictReplica struct {
	name    string
	link    *memoryLink
	cluster *Cluster // nil: it is down
	ring    *keyring.Ring
	first   string // the first kid that it has signed with
	back    time.Time
	version int64 // of the store, when its ring was refreshed last
	fresh   time.Time
}

func newStrict(t *testing.T, c strictCase, try int) *strict {
	s := &strict{
		strictCase: c, t: t, random: mathrand.New(mathrand.NewPCG(testenv.Seed(t), uint64(try))), db: &memoryStore{keys: map[string]store.RegisteredKey{}, used: map[string]bool{}, settings: map[string]string{}, replicas: map[string]store.Replica{}},
		keeper: &strictKeeper{}, made: map[string]cause{}, living: map[string]int{},
		refused: map[cause]int{}, events: map[string]int{}, algorithm: accesstoken.EdDSA,
	}
	key := make([]byte, seal.KeySize)
	_, _ = rand.Read(key)
	var err error
	if s.box, err = seal.New(key); err != nil {
		t.Fatal(err)
	}
	s.keeper.make(t)
	for _, name := range []string{"auth-0", "auth-1", "auth-2"} {
		s.replicas = append(s.replicas, &strictReplica{name: name, link: &memoryLink{memoryStore: s.db}})
	}
	for phase := range strictEvery / time.Minute {
		s.readers = append(s.readers, &strictVerifier{next: time.Now().Add(time.Minute + phase*time.Minute)})
	}
	return s
}

// String is the outcome.
func (s *strict) String() string {
	return fmt.Sprintf("%d hours: %d keys, %d tokens presented, refused %v; %v", s.hours, s.keys(), s.presented, s.refused, s.events)
}

func (s *strict) keys() int { return len(s.made) }

func (s *strict) source() keysource.Source {
	switch s.strictCase.source {
	case keysource.NameMemory:
		return keysource.Memory{Rand: rand.Reader}
	case keysource.NameHSM:
		return keysource.Outside{Name: keysource.NameHSM, Keeper: s.keeper, Box: s.box}
	}
	return keysource.Sealed{Box: s.box, Rand: rand.Reader}
}

// start starts a replica, if the database lets it.
func (s *strict) start(r *strictReplica) {
	now := &clock{}
	cfg := config(r.link, now, r.name)
	cfg.Shared = s.strictCase.source != keysource.NameMemory
	cfg.MaxAge = 30 * time.Second
	c, err := Join(s.t.Context(), cfg)
	if err != nil {
		return
	}
	ring, err := keyring.Open(s.t.Context(), keyring.Config{
		Source: s.source(), Algorithms: []string{s.algorithm}, InstanceID: r.name,
		KeyDuration: 3 * time.Hour, TokenDuration: 30 * time.Minute, Leeway: 5 * time.Second, MaxAge: cfg.MaxAge, PublishAhead: s.ahead,
		Store: r.link, Peers: c, Now: now.Now, Logger: cfg.Logger, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		return
	}
	c.Serve(ring)
	r.cluster, r.ring, r.first, r.version, r.fresh = c, ring, "", 0, time.Time{}
	s.events["starts"]++
}

// live lets time pass. Replicas act every second while there is something to do; else they would
// find nothing, and only their beats are written.
func (s *strict) live(d time.Duration) {
	const quiet = 30 * time.Second
	end, busy := time.Now().Add(d), time.Now()
	for time.Now().Before(end) {
		before := s.db.version
		s.step()
		if s.db.version != before {
			busy = time.Now().Add(15 * time.Second)
		}
		switch {
		case time.Now().Before(busy):
			time.Sleep(time.Second)
		case s.cut():
			time.Sleep(timing.Beat)
		default:
			time.Sleep(quiet)
			for _, r := range s.replicas {
				if row := s.db.replicas[r.name]; r.cluster != nil && row.Incarnation == r.cluster.cfg.Incarnation {
					row.BeatAt = time.Now()
					s.db.replicas[r.name] = row
				}
			}
			s.chance(quiet)
		}
	}
}

// cut reports whether the database is out of a replica's reach.
func (s *strict) cut() bool {
	return slices.ContainsFunc(s.replicas, func(r *strictReplica) bool { return r.link.away() != nil })
}

func (s *strict) step() {
	now := time.Now()
	for _, r := range s.replicas {
		if r.cluster == nil {
			if !now.Before(r.back) {
				s.start(r)
			}
			continue
		}
		_ = r.cluster.round(s.t.Context(), time.Second)
		if r.version != s.db.version || now.Sub(r.fresh) >= 30*time.Second || r.link.away() != nil {
			r.version, r.fresh = s.db.version, now
			_ = r.ring.Refresh(s.t.Context())
		}
		s.sign(r, now)
	}
	s.oneAtATime(now)
	for _, v := range s.readers {
		s.read(v, now)
	}
	for len(s.tokens) > 0 && !now.Before(s.tokens[0].exp) {
		kid := s.tokens[0].kid
		if s.living[kid]--; s.living[kid] == 0 {
			delete(s.living, kid)
		}
		s.tokens = s.tokens[1:]
	}
	for kid, n := range s.living {
		for _, v := range s.readers {
			if v.set == nil {
				continue
			}
			s.presented += n
			if _, ok := v.set.Key(kid); !ok {
				s.refused[s.made[kid]] += n
			}
		}
	}
}

// sign has a replica sign a token, if it may take traffic.
func (s *strict) sign(r *strictReplica, now time.Time) {
	if r.cluster.Ready() != nil {
		return
	}
	signer, err := r.ring.Signer()
	if err != nil {
		s.unable++
		return
	}
	kid := signer.KeyID()
	if s.made[kid] == "" {
		s.made[kid] = byRotation
		if r.first == "" {
			s.made[kid] = byStart
		}
	}
	r.first = kid
	s.living[kid]++
	s.tokens = append(s.tokens, strictToken{kid, now.Add(30 * time.Minute)})
}

// read has a verifier read the key set of some replica that runs, if it is time.
func (s *strict) read(v *strictVerifier, now time.Time) {
	if now.Before(v.next) {
		return
	}
	for _, i := range s.random.Perm(len(s.replicas)) {
		if r := s.replicas[i]; r.cluster != nil && r.cluster.Ready() == nil {
			if _, err := r.ring.Signer(); err != nil {
				continue // it is not ready
			}
			v.set, v.next = r.cluster.Keys(), v.next.Add(strictEvery)
			return
		}
	}
}

// oneAtATime holds that of the keys that all replicas share one is active, and at most one is
// published.
func (s *strict) oneAtATime(now time.Time) {
	if s.strictCase.source == keysource.NameMemory {
		return
	}
	count := map[keyring.Phase]int{}
	for _, k := range s.db.keys {
		count[keyring.State(k.Key, now)]++
	}
	if count[keyring.Active] > 1 || count[keyring.Published] > 1 {
		s.t.Fatalf("%v: %v", s, count)
	}
}

// chance does now and then what operators and machines do.
func (s *strict) chance(passed time.Duration) {
	now := time.Now()
	happens := func(every time.Duration) bool { return s.random.Float64() < float64(passed)/float64(every) }
	after := func(least, most time.Duration) time.Time {
		return now.Add(least + time.Duration(s.random.Int64N(int64(most-least))))
	}
	if happens(50 * time.Minute) {
		s.events["rotations asked for"]++
		_ = keyring.RequestRotation(s.t.Context(), &memoryLink{memoryStore: s.db}, now, false) // the database may be away
	}
	if happens(2 * time.Hour) {
		s.keeper.make(s.t)
	}
	if s.mixed && happens(time.Hour) {
		s.events["changes of the algorithm"]++
		s.algorithm = map[string]string{accesstoken.EdDSA: accesstoken.ES256, accesstoken.ES256: accesstoken.EdDSA}[s.algorithm]
	}
	if happens(40 * time.Minute) {
		s.events["restarts"]++
		if r := s.running(); r != nil {
			_ = r.cluster.Leave(s.t.Context())
			r.cluster, r.back = nil, after(time.Second, time.Minute)
		}
	}
	if happens(40 * time.Minute) {
		s.events["kills"]++
		if r := s.running(); r != nil {
			r.cluster, r.back = nil, after(10*time.Second, 10*time.Minute)
		}
	}
	if happens(8 * time.Hour) {
		s.events["total stops"]++
		for _, r := range s.replicas {
			r.cluster, r.back = nil, after(10*time.Second, 2*time.Minute)
		}
	}
	if happens(4*time.Hour) && len(s.replicas) < 4 {
		s.events["joins"]++
		s.replicas = append(s.replicas, &strictReplica{name: fmt.Sprint("auth-", len(s.replicas)), link: &memoryLink{memoryStore: s.db}})
	}
	if happens(2 * time.Hour) {
		s.events["outages"]++
		s.db.awayUntil = after(time.Second, 8*time.Minute)
	}
	if happens(2 * time.Hour) {
		s.events["outages of one"]++
		s.replicas[s.random.IntN(len(s.replicas))].link.until = after(time.Second, 3*time.Minute)
	}
}

// running is one of the replicas that run, as long as another one runs, too.
func (s *strict) running() *strictReplica {
	up := slices.DeleteFunc(slices.Clone(s.replicas), func(r *strictReplica) bool { return r.cluster == nil })
	if len(up) < 2 {
		return nil
	}
	return up[s.random.IntN(len(up))]
}

// A strictKeeper is an HSM.
type strictKeeper struct{ keys []keysource.Kept }

func (k *strictKeeper) Keys(context.Context, string) ([]keysource.Kept, error) { return k.keys, nil }
func (k *strictKeeper) Ping(context.Context) error                             { return nil }
func (k *strictKeeper) Close() error                                           { return nil }

func (k *strictKeeper) make(t *testing.T) {
	private, err := token.GenerateKey(rand.Reader, accesstoken.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	k.keys = append(k.keys, keysource.Kept{Signer: private, Ref: fmt.Sprint("key-", len(k.keys))})
}

// A memoryStore is what replicas need of a database, in the memory of one goroutine, so that days
// pass in seconds.
type memoryStore struct {
	version   int64
	keys      map[string]store.RegisteredKey
	used      map[string]bool // kids
	settings  map[string]string
	replicas  map[string]store.Replica
	awayUntil time.Time
}

// A memoryLink is somebody's way to it.
type memoryLink struct {
	*memoryStore
	until time.Time // it is cut until then
}

func (l *memoryLink) away() error {
	if time.Now().Before(l.until) || time.Now().Before(l.awayUntil) {
		return errAway
	}
	return nil
}

func (l *memoryLink) RegistryVersion(context.Context) (int64, error) { return l.version, l.away() }

func (l *memoryLink) Registered(context.Context) (store.Registered, error) {
	all := store.Registered{Version: l.version, Now: time.Now()}
	for _, name := range slices.Sorted(maps.Keys(l.replicas)) {
		all.Replicas = append(all.Replicas, l.replicas[name])
	}
	for _, id := range slices.Sorted(maps.Keys(l.keys)) {
		all.Keys = append(all.Keys, l.keys[id])
	}
	return all, l.away()
}

func (l *memoryLink) EnterRegistry(_ context.Context, r store.Replica, within time.Duration) (store.Replica, error) {
	if err := l.away(); err != nil {
		return store.Replica{}, err
	}
	there, ok := l.replicas[r.Instance]
	if ok && there.Incarnation != r.Incarnation && within > 0 && time.Since(there.BeatAt) < within {
		return there, store.ErrConflict
	}
	l.version++
	r.BeatAt = time.Now()
	l.replicas[r.Instance] = r
	return there, nil
}

func (l *memoryLink) Beat(_ context.Context, r store.Replica, _ bool) error {
	if err := l.away(); err != nil {
		return err
	}
	if l.replicas[r.Instance].Incarnation != r.Incarnation {
		return store.ErrStale
	}
	r.BeatAt = time.Now()
	l.replicas[r.Instance] = r
	return nil
}

func (l *memoryLink) LeaveRegistry(_ context.Context, instance, incarnation string) error {
	if err := l.away(); err != nil {
		return err
	}
	if l.replicas[instance].Incarnation == incarnation {
		l.version++
		delete(l.replicas, instance)
	}
	return nil
}

func (l *memoryLink) ForgetReplica(ctx context.Context, instance, incarnation string) error {
	return l.LeaveRegistry(ctx, instance, incarnation)
}

func (l *memoryLink) Keys(context.Context) (keys []store.Key, err error) {
	for _, k := range l.keys {
		keys = append(keys, k.Key)
	}
	slices.SortFunc(keys, func(a, b store.Key) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return keys, l.away()
}

func (l *memoryLink) CreateKey(_ context.Context, k store.Key) error {
	if err := l.away(); err != nil {
		return err
	}
	if l.used[k.ID] {
		return store.ErrConflict
	}
	l.version++
	l.used[k.ID], l.keys[k.ID] = true, store.RegisteredKey{Key: k, Version: l.version}
	return nil
}

func (l *memoryLink) UpdateKey(_ context.Context, k store.Key) error {
	former, ok := l.keys[k.ID]
	if err := l.away(); err != nil || !ok {
		return cmp.Or(err, store.ErrNotFound)
	}
	l.version++
	l.keys[k.ID] = store.RegisteredKey{Key: k, Version: former.Version}
	return nil
}

func (l *memoryLink) DeleteKey(_ context.Context, id string) error {
	if _, ok := l.keys[id]; !ok || l.away() != nil {
		return cmp.Or(l.away(), store.ErrNotFound)
	}
	l.version++
	delete(l.keys, id)
	return nil
}

func (l *memoryLink) Setting(_ context.Context, name string) (string, error) {
	value, ok := l.settings[name]
	if !ok {
		return "", cmp.Or(l.away(), store.ErrNotFound)
	}
	return value, l.away()
}

func (l *memoryLink) PutSetting(_ context.Context, name, value string) error {
	if err := l.away(); err != nil {
		return err
	}
	l.settings[name] = value
	return nil
}

func (l *memoryLink) CreateSetting(ctx context.Context, name, value string) (string, error) {
	if there, err := l.Setting(ctx, name); !errors.Is(err, store.ErrNotFound) {
		return there, err
	}
	return value, l.PutSetting(ctx, name, value)
}

func (l *memoryLink) Update(_ context.Context, f func(store.Records) error) error {
	keys, used, version := maps.Clone(l.keys), maps.Clone(l.used), l.version
	err := f(memoryRecords{memoryLink: l})
	if err != nil {
		l.keys, l.used, l.version = keys, used, version
	}
	return err
}

// memoryRecords are those of a transaction. A ring needs keys and settings alone.
type memoryRecords struct {
	*memoryLink
	otherRecords
}

type otherRecords struct{ store.Records }
