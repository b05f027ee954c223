package cluster

import (
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// An attacker who can write the database changes every column of every row that says what
// keys and replicas there are, in every way that the database takes. Neither a live replica nor one that starts later
// accepts a revoked key, or a forged one, or lets a key live longer; and each sees that something is wrong.

// tablesOfOthers are not read by this package and package keyring. A table that is in neither
// this list nor tablesOfKeys fails the test: somebody has to decide where it belongs.
var (
	tablesOfKeys = []string{"key_states", "registered_keys", "registry_head", "replica_secrets", "replicas", "settings", "signing_keys", "used_kids"}

	tablesOfOthers = []string{
		// Packages revocation and login have the test of these.
		"revocation_head", "revocations", "state_rates", "state_records",
		// Sealed for the user, kind and id of the row, so that it counts nowhere else. Whoever deletes
		// it leaves the user with the password, which the writer of the database can change as well.
		"factors",
		// Package audit has the test of it.
		"audit_seals",
		// They say who a user is and what they may do, which who writes the database decides.
		"audit_events", "claims", "group_claims", "identity_marks", "memberships", "usergroups", "users", "verified_emails",
	}
)

// unseen are the columns whose change accepts nothing, and which nothing authenticates.
var unseen = map[string]string{
	"registered_keys.version": "when a key counts as seen by all: with it, a new key signs too early, or never",
	"registry_head.id":        "nothing can be read or written",
	"registry_head.version":   "as for registered_keys",
	"replicas.beat_at":        "it is the database's clock; the row says when it was written by its maker's",
	"settings.name":           "other settings",
	"settings.value":          "other settings",
	"used_kids.id":            "names of keys that are gone; a new name is random",
}

// inMemory are the columns that nobody reads while keys are kept in memory.
var inMemory = map[string]bool{"signing_keys.sealed": true, "key_states.source_mac": true}

// The rows of tables.
type (
	dbRow   = sqldbtest.Row
	content = sqldbtest.Content
)

func tables(t *testing.T, db *sqldb.DB) sqldbtest.Columns {
	t.Helper()
	all := sqldbtest.Schema(t, db)
	for name := range all {
		if !slices.Contains(tablesOfKeys, name) && !slices.Contains(tablesOfOthers, name) {
			t.Errorf("the table %s is new: what can one who writes it gain?", name)
		}
	}
	return all.Only(t, tablesOfKeys...)
}

// row returns the one of a table whose first column is a name.
func rowOf(all content, table, id string) dbRow {
	for _, row := range all[table] {
		if row["id"] == id {
			return row
		}
	}
	return nil
}

// A stage is a database on which a key was revoked and another one is active.
type stage struct {
	t        *testing.T
	c        *clock
	r        *testRegistry
	stored   bool
	keeper   *strictKeeper // nil: the keys are not kept
	columns  sqldbtest.Columns
	before   content // when the revoked key was active
	now      content
	revoked  string
	active   string
	end      time.Time // of the active key
	forged   store.Key
	replicas int
	random   *mathrand.Rand
}

// A replicaOnStage is a replica, in whatever state it is.
type replicaOnStage struct {
	*Cluster
	ring       *keyring.Ring
	registerer *prometheus.Registry
	failed     error // why it does not start
}

func (s *stage) start(instance string, peers inProcess) *replicaOnStage {
	s.t.Helper()
	one := &replicaOnStage{registerer: prometheus.NewRegistry()}
	cfg := config(s.r, s.c, instance)
	cfg.Registerer, cfg.Revoked = one.registerer, keyring.NewTombstones(24*time.Hour, s.c.Now)
	cfg.Secrets = func() []string { return []string{"secret-1", "secret-2"} }
	if peers != nil {
		cfg.Peers, cfg.Client = at("http://live"), peers.client
	}
	if one.Cluster, one.failed = Join(s.t.Context(), cfg); one.failed != nil {
		return one
	}
	one.AskAll(s.t.Context())
	var source keysource.Source = keysource.Memory{Rand: rand.Reader}
	switch {
	case s.keeper != nil:
		source = keysource.Outside{Name: keysource.NameHSM, Keeper: s.keeper, Box: storageBox(s.t)}
	case s.stored:
		source = keysource.Sealed{Box: storageBox(s.t), Rand: rand.Reader}
	}
	one.ring, one.failed = keyring.Open(s.t.Context(), keyring.Config{
		Source: source, Algorithms: []string{accesstoken.EdDSA}, KeyDuration: 4 * time.Hour, TokenDuration: time.Minute, MaxAge: 10 * time.Second,
		InstanceID: instance, Store: s.r, Peers: one.Cluster, Revoked: cfg.Revoked, Now: s.c.Now,
		Logger: slog.New(slog.DiscardHandler), Registerer: one.registerer,
	})
	if one.failed != nil {
		return one
	}
	one.Serve(one.ring)
	return one
}

func storageBox(t testing.TB) *seal.Box {
	t.Helper()
	box, err := seal.New(make([]byte, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return box
}

// live lets a replica do what it does in some seconds. That the database is damaged is no error of
// the test.
func (s *stage) live(one *replicaOnStage) {
	if one.failed != nil {
		return
	}
	for range 3 {
		s.c.Move(time.Second)
		one.failed = errors.Join(one.failed, one.round(s.t.Context(), time.Minute), one.ring.Refresh(s.t.Context()))
	}
}

// rejected is how many rows a replica counted as not believed.
func (one *replicaOnStage) rejected(t *testing.T) (n float64) {
	t.Helper()
	families, err := one.registerer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.HasSuffix(f.GetName(), "_rejected_total") {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// check fails if a replica accepts what it should not.
func (s *stage) check(name string, one *replicaOnStage) {
	s.t.Helper()
	if one.ring == nil {
		return // it does not start
	}
	for what, kid := range map[string]string{"revoked": s.revoked, "forged": s.forged.ID} {
		if _, known := one.Keys().Key(kid); known {
			s.t.Errorf("%s: the %s key is accepted", name, what)
		}
		if _, known := one.ring.Key(kid); known {
			s.t.Errorf("%s: the %s key is published", name, what)
		}
		if signer, err := one.ring.Signer(); err == nil && signer.KeyID() == kid {
			s.t.Errorf("%s: the %s key signs", name, what)
		}
	}
	if e := one.Cluster.registry.keys[s.active]; e != nil && e.until.After(s.end) {
		s.t.Errorf("%s: the key lives until %v, and not until %v", name, e.until, s.end)
	}
	for _, k := range one.ring.Published() {
		if k.ID == s.active && k.Row.RemoveAt.After(s.end) {
			s.t.Errorf("%s: the key is published until %v, and not until %v", name, k.Row.RemoveAt, s.end)
		}
	}
}

// newStage opens a stage with keys where tokens.keys says.
func newStage(t *testing.T, keys string) *stage {
	s := &stage{t: t, c: &clock{}, r: openRegistry(t), stored: keys != keysource.NameMemory}
	if keys == keysource.NameHSM {
		s.keeper = &strictKeeper{}
		s.keeper.make(t) // an attacker would have it used
		s.keeper.make(t)
	}
	s.columns = tables(t, s.r.db)
	maker := s.start("auth-1", nil)
	if maker.failed != nil {
		t.Fatal(maker.failed)
	}
	s.live(maker)
	s.revoked = s.signing(maker)
	s.before = sqldbtest.Dump(t, s.r.db, s.columns)
	if err := s.r.Update(t.Context(), func(r store.Records) error {
		_, err := keyring.RevokeIn(t.Context(), r, maker.Cluster, s.revoked, s.c.Now())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if s.keeper != nil {
		s.keeper.make(t)
	}
	if err := maker.ring.ReplaceRevoked(t.Context(), s.revoked); err != nil {
		t.Fatal(err)
	}
	s.live(maker)
	s.active = s.signing(maker)
	if s.active == s.revoked || maker.failed != nil {
		t.Fatal("the key was not replaced", maker.failed)
	}
	s.now = sqldbtest.Dump(t, s.r.db, s.columns)
	s.end = time.UnixMicro(rowOf(s.now, "signing_keys", s.active)["remove_at"].(int64))
	s.forged = row(t, s.c.Now(), "auth-1", accesstoken.EdDSA)
	if s.stored { // under a storage key of the attacker's own
		s.forged.Sealed = []byte("sealed")
	}
	if s.keeper != nil {
		public := accesstoken.Key{Algorithm: accesstoken.EdDSA, Public: s.keeper.keys[0].Public()}
		public.ID = public.Thumbprint()
		s.forged = rowOfKey(t, s.c.Now(), "auth-1", public)
		s.forged.Sealed = []byte("kept:pkcs11:0")
		s.keeper.make(t) // which replicas may take that believe nothing
	}
	return s
}

func (s *stage) signing(one *replicaOnStage) string {
	s.t.Helper()
	signer, err := one.ring.Signer()
	if err != nil {
		s.t.Fatal(err)
	}
	return signer.KeyID()
}

// some returns one attack on each column and a few others, at random, or all in a long test.
func (s *stage) some(all []attack) (few []attack) {
	if soak() {
		return all
	}
	s.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	const others = 4
	seen := map[string]int{}
	for _, a := range all {
		if seen[a.column]++; a.column != "" && seen[a.column] == 1 || a.column == "" && seen[""] <= others {
			few = append(few, a)
		}
	}
	return few
}

// An attack is what somebody makes of the content of the database.
type attack struct {
	name   string
	column string // the one that is changed; empty: it is another kind of attack
	to     content
	// unseen: nobody need notice.
	unseen bool
	// whole: all that says that the key was revoked is as before. Without another live replica,
	// nobody can know.
	whole bool
}

// play has replicas meet an attack: one that was live before, one that starts later and reaches the
// first, and one that starts when no other is live.
func (s *stage) play(a attack) {
	s.t.Helper()
	db := s.r.db
	if err := sqldbtest.Load(s.t, db, s.columns, a.to); err != nil {
		return // the database does not take it
	}
	if err := sqldbtest.Load(s.t, db, s.columns, s.now); err != nil {
		s.t.Fatal(err)
	}
	s.replicas++
	live := s.start(fmt.Sprint("live-", s.replicas), nil)
	s.live(live)
	if live.failed != nil {
		s.t.Fatal(live.failed)
	}
	honest := live.rejected(s.t)
	if honest != 0 {
		s.t.Fatalf("%v rows are rejected without an attack", honest)
	}
	if err := sqldbtest.Load(s.t, db, s.columns, a.to); err != nil {
		s.t.Fatal(err)
	}
	s.live(live)
	s.check(a.name+", live", live)
	// What the live replica has mended, the attacker does again.
	if err := sqldbtest.Load(s.t, db, s.columns, a.to); err != nil {
		s.t.Fatal(err)
	}
	later := s.start(fmt.Sprint("later-", s.replicas), inProcess{"live": (&fakePeerOf{live.Cluster}).answer})
	s.live(later)
	s.check(a.name+", later", later)
	alone := &replicaOnStage{failed: errors.New("not started")}
	if !a.whole {
		if err := sqldbtest.Load(s.t, db, s.columns, a.to); err != nil {
			s.t.Fatal(err)
		}
		alone = s.start(fmt.Sprint("alone-", s.replicas), nil)
		s.live(alone)
		s.check(a.name+", alone", alone)
		if !a.unseen && alone.failed == nil && alone.rejected(s.t) == 0 {
			s.t.Errorf("%s: a replica that starts sees nothing", a.name)
		}
	}
	if !a.unseen && live.failed == nil && later.failed == nil && live.rejected(s.t)+later.rejected(s.t) == 0 {
		s.t.Errorf("%s: nobody sees anything", a.name)
	}
}

// values are what an attacker puts into a column.
func (s *stage) values(table, column string, row dbRow) map[string]any {
	all := map[string]any{"NULL": nil, "zero": int64(0), "text": "garbage", "bytes": make([]byte, 41), "empty": []byte{}}
	if column == "sealed" {
		all["kept"], all["kept elsewhere"], all["sealed"] = []byte("kept:pkcs11:0"), []byte("kept:remote:0"), storageBox(s.t).Seal([]byte("key"), "elsewhere")
	}
	if n, ok := row[column].(int64); ok {
		all["later"] = n + 10*365*24*3600*1e6
		all["sooner"] = n - 3600*1e6
	}
	for i, other := range s.now[table] {
		all[fmt.Sprint("that of row ", i)] = other[column]
	}
	if was := rowOf(s.before, table, fmt.Sprint(row["id"])); was != nil {
		all["that of before"] = was[column]
	}
	return all
}

// same reports whether a program reads the same from both.
func same(a, b any) bool {
	return a == nil && b == nil || a != nil && b != nil && fmt.Sprintf("%s", a) == fmt.Sprintf("%s", b)
}

// attacks are on single columns and single rows.
func (s *stage) attacks() (all []attack) {
	for _, table := range slices.Sorted(maps.Keys(s.columns)) {
		columns := s.columns[table]
		for i, row := range s.now[table] {
			for _, column := range columns {
				values := s.values(table, column, row)
				maps.DeleteFunc(values, func(_ string, value any) bool { return same(row[column], value) })
				for _, how := range slices.Sorted(maps.Keys(values)) {
					value := values[how]
					to := s.now.Clone()
					to[table][i][column] = value
					name := fmt.Sprintf("%s.%s of row %d := %s", table, column, i, how)
					// Of a row that names a revoked key all but the name may be anything.
					all = append(all, attack{name: name, column: table + "." + column, to: to, unseen: unseen[table+"."+column] != "" || s.buried(row) || !s.stored && inMemory[table+"."+column] || s.renamed(column, value)})
				}
			}
			gone := s.now.Clone()
			gone[table] = slices.Delete(gone[table], i, i+1)
			all = append(all, attack{name: fmt.Sprintf("%s: row %d is deleted", table, i), to: gone, unseen: true})
			twice, again := s.now.Clone(), maps.Clone(row)
			again[columns[0]] = "auth-1-" + strings.Repeat("x", 43)
			twice[table] = append(twice[table], again)
			all = append(all, attack{name: fmt.Sprintf("%s: row %d under another name", table, i), to: twice, unseen: table != "signing_keys"})
		}
		if before := s.before[table]; len(before) > 0 {
			back := s.now.Clone()
			back[table] = before
			all = append(all, attack{name: table + " as before", to: back, unseen: table != "signing_keys"})
		}
	}
	return all
}

// buried reports whether a row is the tombstone's: what else it says is not looked at.
func (s *stage) buried(row dbRow) bool { return row["id"] == s.revoked }

// renamed reports whether a kept key has another reference, by which it is not looked for.
func (s *stage) renamed(column string, value any) bool {
	sealed, ok := value.([]byte)
	return s.keeper != nil && column == "sealed" && ok && keysource.NameOf(sealed) == keysource.NameHSM
}

// revivals are attacks on several columns at once.
func (s *stage) revivals() (all []attack) {
	add := func(name string, whole bool, change func(to content)) {
		to := s.now.Clone()
		change(to)
		all = append(all, attack{name: name, to: to, whole: whole})
	}
	keyTables := []string{"signing_keys", "registered_keys", "key_states"}
	back := func(to content, only ...string) {
		for _, table := range keyTables {
			row, was := rowOf(to, table, s.revoked), rowOf(s.before, table, s.revoked)
			for column := range row {
				if len(only) == 0 || slices.Contains(only, table+"."+column) {
					row[column] = was[column]
				}
			}
		}
	}
	add("the row of before", true, func(to content) { back(to) })
	add("everything as before", true, func(to content) { maps.Copy(to, s.before) })
	add("everything as before, and the new key", true, func(to content) {
		back(to)
		to["replicas"], to["used_kids"] = nil, nil
	})
	add("everything is deleted but the row of before", true, func(to content) {
		back(to)
		for _, table := range keyTables {
			to[table] = slices.DeleteFunc(to[table], func(r dbRow) bool { return r["id"] != s.revoked })
		}
	})
	add("the key of before, and the MACs of now", false, func(to content) { back(to, "signing_keys.sealed", "signing_keys.revoked_at") })
	for name, mac := range map[string][]byte{"no": nil, "empty": {}, "garbage": make([]byte, 41)} {
		add("the key of before, and "+name+" MACs", false, func(to content) {
			back(to, "signing_keys.sealed", "signing_keys.revoked_at")
			rowOf(to, "registered_keys", s.revoked)["mac"] = mac
			state := rowOf(to, "key_states", s.revoked)
			state["mac"], state["source_mac"] = mac, mac
		})
		add("the key of before, its first MAC, and "+name+" others", false, func(to content) {
			back(to, "signing_keys.sealed", "signing_keys.revoked_at", "registered_keys.mac")
			state := rowOf(to, "key_states", s.revoked)
			state["mac"], state["source_mac"] = mac, mac
		})
		add("the key of before as one of an older version, and "+name+" MACs", false, func(to content) {
			back(to, "signing_keys.sealed", "signing_keys.revoked_at", "registered_keys.mac")
			key := rowOf(to, "signing_keys", s.revoked)
			jwk := strings.Replace(string(key["public_jwk"].([]byte)), `,"state_mac":true`, "", 1)
			if jwk == string(key["public_jwk"].([]byte)) {
				s.t.Fatalf("the row does not say that it needs a MAC: %s", jwk)
			}
			key["public_jwk"] = []byte(jwk)
			state := rowOf(to, "key_states", s.revoked)
			state["mac"], state["source_mac"] = mac, mac
		})
	}
	for _, macs := range []string{s.active, s.revoked, ""} {
		add("a forged key with the MACs of "+macs, false, func(to content) {
			k := s.forged
			row := dbRow{
				"id": k.ID, "instance": k.Instance, "algorithm": k.Algorithm, "public_jwk": k.PublicJWK, "sealed": sql.NullString{},
				"created_at": store.Micros(k.CreatedAt), "activate_at": store.Micros(k.ActivateAt), "retire_at": store.Micros(k.RetireAt),
				"remove_at": store.Micros(k.RemoveAt), "revoked_at": int64(0),
			}
			if k.Sealed != nil {
				row["sealed"] = k.Sealed
			}
			to["signing_keys"] = append(to["signing_keys"], row)
			for _, table := range keyTables[1:] {
				if of := maps.Clone(rowOf(to, table, macs)); of != nil {
					of["id"] = k.ID
					to[table] = append(to[table], of)
				}
			}
		})
	}
	return all
}

func TestDatabaseWriter(t *testing.T) {
	for _, name := range []string{keysource.NameMemory, keysource.NameDatabase, keysource.NameHSM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, name)
			s.random = mathrand.New(mathrand.NewPCG(testenv.Seed(t), 0))
			attacks := append(s.revivals(), s.some(s.attacks())...)
			for _, a := range attacks {
				s.play(a)
			}
			t.Logf("summary: %d attacks on the rows of keys and replicas, keys in the %s", s.replicas, name)
			if s.replicas < 40 {
				t.Error("the test attacks next to nothing")
			}
		})
	}
}

// An administrator who revokes a forged row does not make it a replica's.
func TestRevokingAForgedRow(t *testing.T) {
	r, c := openRegistry(t), &clock{}
	cl := join(t, config(r, c, "auth-0"))
	forged, genuine := row(t, c.Now(), "auth-1", accesstoken.EdDSA), row(t, c.Now(), "auth-2", accesstoken.EdDSA)
	forged.MAC = nil
	for kid, believed := range map[string]bool{forged.ID: false, genuine.ID: true} {
		create(t, r, map[string]store.Key{forged.ID: forged, genuine.ID: genuine}[kid])
		buried, err := keyring.RevokeIn(t.Context(), r, cl, kid, c.Now())
		if err != nil || cl.Vouched(buried) != believed {
			t.Errorf("the tombstone is believed: %v, want %v; %v", cl.Vouched(buried), believed, err)
		}
		buried.RevokedAt = time.Time{}
		if cl.Vouched(buried) != believed { // a row without the mark is one of an older version
			t.Errorf("the row is believed: %v, want %v", cl.Vouched(buried), believed)
		}
	}
}
