package directory

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/watchword-auth/watchword/internal/userfile"
)

// A claim or a group that was refused has the name of another one that is there. Whoever would get
// the other one by it is refused, however long the name is.
func TestMoveTakesNoOtherRightForARefusedOne(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("G", 120)
	if _, err := w.CreateClaim(t.Context(), System(), NewClaim{Name: "Shop", ShortName: "shop", Value: "all"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.CreateGroup(t.Context(), System(), NewGroup{Name: long, Claims: []string{"Shop"}}); err != nil {
		t.Fatal(err)
	}
	for _, how := range []Moving{{From: "stoke", Foreign: true, DryRun: true}, {From: "stoke", Foreign: true}, {From: "json"}} {
		moved, refused := w.move(`{"claims": [
  {"name": "shop", "short_name": "shop", "value": "read"},
  {"name": "Till", "short_name": "till", "value": "all"},
  {"name": "TILL", "short_name": "till", "value": "read"}],
 "groups": [
  {"name": "Readers", "claims": ["shop"]},
  {"name": "Tellers", "claims": ["TILL"]},
  {"name": "`+long+`", "claims": []}],
 "users": [
  {"username": "mallory", "groups": ["Readers"]},
  {"username": "oscar", "groups": ["Tellers"]},
  {"username": "trudy", "groups": ["`+long+`"]}]}`, how)
		attacks.Add(3)
		if moved.Users != 0 || moved.Groups != 0 || moved.Refused != 8 {
			t.Errorf("%+v: %+v, %q", how.From, moved, refused)
		}
	}
	for _, name := range []string{"mallory", "oscar", "trudy"} {
		if u, err := w.User(t.Context(), System(), name); err == nil {
			t.Errorf("%s got %s", name, w.claimsOf(u))
		}
	}
}

// A hash that stands in another column is in no report.
func TestMoveTellsNoHashOfAWrongColumn(t *testing.T) {
	w := newWorld(t)
	const django = "pbkdf2_sha256$600000$Qx7dJk0aPz$XjdmD/Y8nQzaPWuU9Gua9VvW5ZdRJolHdQGrgUOFR9U="
	texts := []string{
		"username,groups\nann," + bcryptOfSecret + "\nbob,\"" + django + "\"\n",
		"username,email\n" + bcryptOfSecret + ",ann\n" + django + ",\n",
		"username,disabled\nann," + bcryptOfSecret + "\nbob," + django + "\n",
		bcryptOfSecret + ",username\n",
		`{"username":"ann","groups":["` + django + `"]}`,
		`{"username":"ann","` + bcryptOfSecret + `":""}`,
		`{"groups":[{"name":"Crew","claims":["` + bcryptOfSecret + `"]}]}`,
		`{"` + bcryptOfSecret + `":[]}`,
	}
	for _, text := range texts {
		var told []string
		form := userfile.CSV
		if text[0] == '{' {
			form = userfile.JSON
		}
		_, err := w.Move(t.Context(), func(to userfile.Sink) error { return userfile.Scan(strings.NewReader(text), form, to) },
			Moving{From: "csv", Progress: func(Moved) {}, Refused: func(r Refused) error { told = append(told, fmt.Sprint(r)); return nil }})
		told = append(told, fmt.Sprint(err), w.logs.String())
		if rows, err := userfile.Parse([]byte(text)); err == nil { // the import of the pages
			i := &Import{s: w.Service, actor: System()}
			for _, row := range rows {
				if err := i.importRow(t.Context(), row); err != nil {
					t.Log(err)
				}
			}
			told = append(told, fmt.Sprint(i.progress))
		} else {
			told = append(told, err.Error())
		}
		for _, hash := range []string{bcryptOfSecret[10:], django[20:]} {
			if all := strings.Join(told, "\n"); strings.Contains(all, hash) {
				t.Errorf("%.40q: a hash is told:\n%s", text, all)
			}
		}
	}
}

// Whatever stands in a field is refused by itself, and the import goes on.
func TestMoveOfHostileFields(t *testing.T) {
	onAll(t, func(t *testing.T, w *world) {
		bad := []string{"a\x00b", "a\x1b[2Jb", "\u202eb", strings.Repeat("x", 5000), "\ufeffb", "a\u0301\u0301\u0301", "💥"}
		for n, text := range bad {
			quote := func(s string) string { j, _ := json.Marshal(s); return string(j) }
			q := quote(text)
			doc := fmt.Sprintf(`{"claims":[{"name":%[1]s,"short_name":"a%[2]d","value":"x"},{"name":"n%[2]d","short_name":%[1]s,"value":"x"},{"name":"v%[2]d","short_name":"v%[2]d","value":%[1]s}],
"groups":[{"name":%[1]s,"claims":[]},{"name":"g%[2]d","claims":[%[1]s]}],
"users":[{"username":%[1]s},{"username":"e%[2]d","email":%[1]s},{"username":"f%[2]d","first_name":%[1]s},{"username":"l%[2]d","last_name":%[1]s},
 {"username":"h%[2]d","password_hash":%[1]s},{"username":"i%[2]d","groups":[%[1]s]},{"username":"good%[2]d"}]}`, q, n)
			dry, before := w.move(doc, Moving{From: "json", DryRun: true})
			moved, refused := w.move(doc, Moving{From: "json"})
			if dry != moved || !slices.Equal(before, refused) {
				t.Errorf("%.20q: %+v %q\ndry: %+v %q", text, moved, refused, dry, before)
			}
			if _, err := w.User(t.Context(), System(), fmt.Sprint("good", n)); err != nil {
				t.Errorf("%.20q: %v", text, err)
			}
		}
	})
}

// A dry run says what the run then does, whatever the source has, and changes nothing. The second run
// makes nothing, and refuses what the first did.
func TestADryRunSaysWhatTheRunDoes(t *testing.T) {
	w := newWorld(t)
	w.superuser("root")
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	for n := range rounds(40) {
		near := n - r.IntN(2) // what the round before has left, too
		name := func(kind string) string {
			return fmt.Sprint(pick(kind, strings.ToUpper(kind)), near, pick("a", "b", "c", "l", "1", "A"))
		}
		var doc struct {
			Claims []map[string]any `json:"claims"`
			Groups []map[string]any `json:"groups"`
			Users  []map[string]any `json:"users"`
		}
		some := func(kind string) []string {
			all := []string{}
			for range r.IntN(3) {
				all = append(all, name(kind))
			}
			return all
		}
		for range r.IntN(6) {
			doc.Claims = append(doc.Claims, map[string]any{"name": name("c"), "short_name": pick("x", "y", "admin"), "value": pick("r", "w", "all", "a,b")})
		}
		for range r.IntN(6) {
			doc.Groups = append(doc.Groups, map[string]any{"name": pick(name("g"), name("g"), "Administrators"), "claims": some("c")})
		}
		for range r.IntN(30) {
			u := map[string]any{"username": name(pick("u", "u", "u", "w")), "groups": some("g")}
			for field, value := range map[string]any{
				"email": pick("", "A", "a") + pick("x", "y") + "@example.org", "email_verified": true, "first_name": pick("Ann", "Bea"), "disabled": true,
				"password_hash": pick(bcryptOfSecret, djangoOfSecret, "{SSHA}abc"),
			} {
				if r.IntN(4) == 0 {
					u[field] = value
				}
			}
			doc.Users = append(doc.Users, u)
		}
		if doc.Claims == nil {
			doc.Claims = []map[string]any{}
		}
		if doc.Groups == nil {
			doc.Groups = []map[string]any{}
		}
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		source := strings.ReplaceAll(strings.ReplaceAll(string(text), "},{", "},\n{"), `"users":null`, `"users":[]`) // lines, which tell items apart
		foreign := r.IntN(2) == 0
		var said [3]string
		for i, how := range []Moving{{DryRun: true}, {}, {}} {
			how.From, how.Foreign = "json", foreign
			moved, refused := w.move(source, how)
			if i == 2 { // what was made the first time is there
				if moved.Claims+moved.Groups+moved.Users+moved.Links > 0 {
					t.Fatalf("seed %d, round %d: again: %+v", seed, n, moved)
				}
				said[i] = fmt.Sprint(refused)
				continue
			}
			said[i] = fmt.Sprintf("%+v %q", moved, refused)
			if i == 1 {
				said[2] = fmt.Sprint(refused)
			}
		}
		if said[0] != said[1] {
			t.Fatalf("seed %d, round %d: the dry run said\n%s, and the run\n%s, of\n%s", seed, n, said[0], said[1], source)
		}
	}
}

// Two imports of the same source at once make everything once, and refuse nothing.
func TestMovesAtOnce(t *testing.T) {
	onAll(t, func(t *testing.T, w *world) {
		const users = 150
		var doc strings.Builder
		doc.WriteString(`{"claims":[{"name":"Read","short_name":"log","value":"r"}],"groups":[{"name":"Crew","claims":["Read"]}],"users":[`)
		for i := range users {
			if i > 0 {
				doc.WriteString(",")
			}
			fmt.Fprintf(&doc, `{"username":"u%d","email":"u%d@example.org","groups":["Crew"]}`, i, i)
		}
		doc.WriteString("]}")
		var all sync.WaitGroup
		var moved [2]Moved
		for i, one := range []*world{w, replica(t, w.url)} {
			all.Go(func() {
				var refused []string
				if moved[i], refused = one.move(doc.String(), Moving{From: "json"}); len(refused) > 0 {
					t.Error(refused)
				}
			})
		}
		all.Wait()
		sum := moved[0]
		sum.add(moved[1])
		if sum != (Moved{Claims: 1, Groups: 1, Users: users, Present: users + 2, Links: users + 1}) {
			t.Errorf("%+v and %+v", moved[0], moved[1])
		}
	})
}

// An import that was killed has not counted the hashes; whoever goes on with it does, also if nothing
// was left to do, and so does a replica that finds no census.
func TestHashesAreCountedHoweverTheyCame(t *testing.T) {
	w := newWorld(t)
	counted := func(want int64) {
		t.Helper()
		if last, err := w.lastCensus(t.Context()); err != nil || last.Users() != want {
			t.Errorf("%+v, %v: want %d", last, err, want)
		}
	}
	w.fromElsewhere("bob", bcryptOfSecret) // as by the pages, an init file, or an import that was killed
	if err := w.followCensus(t.Context()); err != nil {
		t.Fatal(err)
	}
	counted(1)
	w.fromElsewhere("eve", djangoOfSecret)
	if moved, _ := w.move(`{"users":[{"username":"eve","email":"eve@example.org"}]}`, Moving{From: "json"}); moved.Present != 1 {
		t.Errorf("%+v", moved)
	}
	counted(2)
	// A hash that cannot be used, as somebody wrote it into the database, spoils nothing.
	u := w.user("fay")
	u = w.stored(u)
	u.PasswordHash = "$2b$31$" + bcryptOfSecret[7:]
	if err := w.Store.UpdateUser(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if n, err := w.CountHashes(t.Context()); n != 3 || err != nil {
		t.Error(n, err)
	}
}
