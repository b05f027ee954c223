package revoked

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
	"pgregory.net/rapid"
)

var t0 = time.Unix(1700000000, 0)

func entry(seq int64, kind Kind, name string) Entry {
	e := Entry{Seq: seq, Kind: kind, ID: Digest(kind, name), ExpiresAt: t0.Unix() + 3600}
	if kind == User {
		e.Epoch = 1
	}
	return e
}

func apply(t testing.TB, l *List, entries ...Entry) {
	t.Helper()
	if err := l.Apply(entries...); err != nil {
		t.Fatal(err)
	}
}

func TestDigestVectors(t *testing.T) {
	// printf 'jti\0abc' | sha256sum | xxd -r -p | head -c 16 | basenc --base64url
	id := Digest(Token, "abc")
	text, _ := id.MarshalText()
	if got, want := string(text), "V6kKSvMGkOSmxtLVSQXoEQ"; got != want {
		t.Errorf("Digest(jti, abc) = %s, want %s", got, want)
	}
	var back ID
	if err := back.UnmarshalText(text); err != nil || back != id {
		t.Errorf("UnmarshalText: %v, %v", back, err)
	}
	if Digest(Session, "abc") == id {
		t.Error("a session and a token of one name have the same digest")
	}
	if Digest(Token, string(make([]byte, 500))) == Digest(Token, string(make([]byte, 501))) {
		t.Error("long names are cut")
	}
	for _, bad := range []string{"", "AAAA", string(text) + "==", string(text)[:21] + "/", string(text)[:21] + "x", string(text) + "A", string(text) + "\n"} {
		if err := back.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("UnmarshalText(%q) succeeds", bad)
		}
	}
}

func TestEntryJSON(t *testing.T) {
	id, _ := Digest(User, "u").MarshalText()
	want := `{"seq":7,"kind":"user","id":"` + string(id) + `","epoch":3,"issued_before":1700000000,"exp":1700003600}`
	e := Entry{Seq: 7, Kind: User, ID: Digest(User, "u"), Epoch: 3, IssuedBefore: 1700000000, ExpiresAt: 1700003600}
	got, err := json.Marshal(e)
	if err != nil || string(got) != want {
		t.Errorf("entry is %s, %v, want %s", got, err, want)
	}
	var back Entry
	if err := json.Unmarshal(got, &back); err != nil || back != e {
		t.Errorf("read back %v, %v", back, err)
	}
	id, _ = Digest(Token, "j").MarshalText()
	want = `{"seq":1,"kind":"jti","id":"` + string(id) + `","exp":1700003600}`
	if got, _ := json.Marshal(entry(1, Token, "j")); string(got) != want {
		t.Errorf("entry is %s, want %s", got, want)
	}
}

func TestEntryCheck(t *testing.T) {
	for name, e := range map[string]Entry{
		"no number":        {Kind: Token, ExpiresAt: 1},
		"unknown kind":     {Seq: 1, Kind: "tenant", ExpiresAt: 1},
		"no kind":          {Seq: 1, ExpiresAt: 1},
		"no expiry":        {Seq: 1, Kind: Token},
		"user of nothing":  {Seq: 1, Kind: User, ExpiresAt: 1},
		"negative epoch":   {Seq: 1, Kind: User, Epoch: -1, IssuedBefore: 1, ExpiresAt: 1},
		"session by epoch": {Seq: 1, Kind: Session, Epoch: 1, ExpiresAt: 1},
	} {
		var l List
		good := entry(1, Token, "good")
		if err := l.Apply(good, e); err == nil || l.Len() != 0 {
			t.Errorf("%s: Apply gives %v and holds %d", name, err, l.Len())
		}
	}
}

func TestRevoked(t *testing.T) {
	token := accesstoken.Token{KeyID: "k", Subject: "u", SessionID: "s", ID: "j", Epoch: 5, IssuedAt: t0}
	user := func(epoch, before int64) Entry {
		return Entry{Seq: 1, Kind: User, ID: Digest(User, "u"), Epoch: epoch, IssuedBefore: before, ExpiresAt: t0.Unix() + 1}
	}
	for name, c := range map[string]struct {
		entries []Entry
		kind    Kind
	}{
		"nothing":                  {nil, ""},
		"the token":                {[]Entry{entry(1, Token, "j")}, Token},
		"another token":            {[]Entry{entry(1, Token, "i")}, ""},
		"the session":              {[]Entry{entry(1, Session, "s")}, Session},
		"the key":                  {[]Entry{entry(1, Key, "k")}, Key},
		"a session named as token": {[]Entry{entry(1, Session, "j")}, ""},
		"the epoch itself":         {[]Entry{user(5, 0)}, ""},
		"the next epoch":           {[]Entry{user(6, 0)}, User},
		"issued in that second":    {[]Entry{user(0, t0.Unix())}, ""},
		"issued before":            {[]Entry{user(0, t0.Unix()+1)}, User},
		"either is enough":         {[]Entry{user(1, t0.Unix()+1)}, User},
		"a weaker one after":       {[]Entry{user(6, 0), user(2, 0)}, User},
		"bounds of two are united": {[]Entry{user(1, t0.Unix()+1), user(2, 0)}, User},
		"only another user":        {[]Entry{entry(1, User, "v")}, ""},
		"a token beside a user":    {[]Entry{user(5, 0), entry(2, Token, "j")}, Token},
	} {
		var l List
		apply(t, &l, c.entries...)
		if kind, ok := l.Revoked(&token); kind != c.kind || ok != (c.kind != "") {
			t.Errorf("%s: revoked by %q, %v", name, kind, ok)
		}
		ids := IDsOf(&token)
		if kind, ok := l.RevokedByIDs(&token, &ids); kind != c.kind || ok != (c.kind != "") {
			t.Errorf("%s: by its IDs, revoked by %q, %v", name, kind, ok)
		}
	}
	var l List
	apply(t, &l, entry(1, Session, ""), entry(2, Token, ""))
	without := &accesstoken.Token{KeyID: "k", Subject: "u"}
	ids := IDsOf(without)
	if _, ok := l.RevokedByIDs(without, &ids); ok {
		t.Error("by its IDs, a token without session is revoked by the empty one")
	}
	if _, ok := l.Revoked(without); ok {
		t.Error("a token without a session is revoked by a nameless one")
	}
}

func TestExpireForgetsOnlyTheExpired(t *testing.T) {
	var l List
	for i := range int64(1000) {
		e := entry(i+1, Token, strconv.FormatInt(i, 10))
		e.ExpiresAt = t0.Unix() + i
		apply(t, &l, e)
	}
	if n := l.Expire(t0.Add(500 * time.Second)); n != 500 || l.Len() != 500 {
		t.Errorf("%d expired, %d are left; want 500 and 500", n, l.Len())
	}
	for i := range 1000 {
		if _, ok := l.Revoked(&accesstoken.Token{ID: strconv.Itoa(i)}); ok != (i >= 500) {
			t.Fatalf("entry %d: revoked is %v", i, ok)
		}
	}
	if got := l.After(0, 1); len(got) != 1 || got[0].Seq != 501 {
		t.Errorf("the first that is left: %v", got)
	}
	// A longer life that comes later wins, also over what waits to be swept.
	longer := entry(2000, Token, "600")
	longer.ExpiresAt = t0.Unix() + 5000
	apply(t, &l, longer, entry(2001, Token, "600"))
	l.Expire(t0.Add(4000 * time.Second))
	if _, ok := l.Revoked(&accesstoken.Token{ID: "600"}); !ok || l.Len() != 1 {
		t.Errorf("revoked %v, %d entries; want the one with the longer life", ok, l.Len())
	}
}

// The revocation of a signing secret is kept for ten years: as JSON, beside a shorter entry for
// the same kid, and when another log is read.
func TestTenYears(t *testing.T) {
	end := t0.AddDate(10, 0, 0)
	long, short := entry(1, Key, "k"), entry(2, Key, "k")
	long.ExpiresAt = end.Unix()
	raw, err := json.Marshal(long)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &long); err != nil {
		t.Fatal(err)
	}
	for name, entries := range map[string][]Entry{"first": {long, short}, "last": {short, long}} {
		var l List
		apply(t, &l, entries...)
		l.Detach()
		apply(t, &l, short)
		l.Expire(end)
		if _, ok := l.Revoked(&accesstoken.Token{KeyID: "k"}); !ok {
			t.Errorf("the longer one %s: it is forgotten before its end", name)
		}
		if l.Expire(end.Add(time.Second)); l.Len() != 0 {
			t.Errorf("the longer one %s: it is kept for longer", name)
		}
	}
}

func TestDetachKeepsWhatIsRevoked(t *testing.T) {
	var l List
	for i := range int64(100) {
		apply(t, &l, entry(i+1, Token, strconv.FormatInt(i, 10)))
	}
	l.Detach()
	if got := l.After(0, 10); len(got) != 0 {
		t.Errorf("a detached list still serves %v", got)
	}
	apply(t, &l, entry(1, Token, "new"), entry(2, Token, "7"))
	got := l.After(0, 10)
	if len(got) != 2 || got[0].ID != Digest(Token, "new") || got[1].ID != Digest(Token, "7") {
		t.Errorf("after the change the log is %v", got)
	}
	for i := range 100 {
		if _, ok := l.Revoked(&accesstoken.Token{ID: strconv.Itoa(i)}); !ok {
			t.Fatalf("%d came back to life", i)
		}
	}
	if l.Len() != 101 {
		t.Errorf("%d entries, want 101", l.Len())
	}
}

// What a list has of former logs reaches another list page by page, and from that a third one, also
// when both have the present log, too.
func TestFormerLogs(t *testing.T) {
	var first List
	for i := range int64(100) {
		apply(t, &first, entry(i+1, Token, strconv.FormatInt(i, 10)))
	}
	if former := first.Former(0, 10); len(former) != 0 {
		t.Errorf("there are %v of former logs", former)
	}
	first.Detach()
	apply(t, &first, entry(1, Token, "new"))
	short := entry(2, Token, "short")
	short.ExpiresAt = t0.Unix()
	if err := first.ApplyFormer(short); err != nil {
		t.Fatal(err)
	}
	source := &first
	for range 2 {
		var next List
		apply(t, &next, entry(1, Token, "new"), entry(2, Token, "7"))
		for after := int64(0); ; {
			page := source.Former(after, 7)
			if err := next.ApplyFormer(page...); err != nil {
				t.Fatal(err)
			}
			if len(page) < 7 {
				break
			}
			after = page[len(page)-1].Seq
		}
		for _, id := range append([]string{"new", "short"}, "0", "7", "99") {
			if _, ok := next.Revoked(&accesstoken.Token{ID: id}); !ok {
				t.Errorf("%s came back to life", id)
			}
		}
		if got := next.After(0, 10); len(got) != 2 || next.Last() != 2 {
			t.Errorf("the present log is %v", got)
		}
		source = &next
	}
	source.Expire(t0.Add(time.Second))
	left := source.Former(0, 1000)
	if len(left) != 99 || slices.ContainsFunc(left, func(e Entry) bool { return e.ID == short.ID }) { // 7 is in the present log
		t.Errorf("%d of former logs are left", len(left))
	}
	if err := source.ApplyFormer(Entry{Seq: 1, Kind: "new kind", ExpiresAt: 1}); err == nil {
		t.Error("an entry of an unknown kind is applied")
	}
}

// TestPages reads a log page by page, as a follower does, and applies it to
// another list: both must agree about every token.
func TestPages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type tok struct {
			Name  int
			Epoch int64
		}
		var source, follower List
		model := map[int]int64{} // user: epoch
		cursor := int64(0)
		limit := rapid.IntRange(1, 5).Draw(t, "limit")
		read := func() {
			for {
				page := source.After(cursor, limit)
				for i, e := range page {
					if e.Seq <= cursor || i > 0 && e.Seq <= page[i-1].Seq {
						t.Fatalf("page after %d is out of order: %v", cursor, page)
					}
				}
				if len(page) == 0 {
					return
				}
				if err := follower.Apply(page...); err != nil {
					t.Fatal(err)
				}
				cursor = page[len(page)-1].Seq
			}
		}
		for seq := range int64(rapid.IntRange(1, 200).Draw(t, "entries")) {
			u := rapid.IntRange(0, 20).Draw(t, "user")
			epoch := rapid.Int64Range(1, 10).Draw(t, "epoch")
			model[u] = max(model[u], epoch)
			e := Entry{Seq: seq + 1, Kind: User, ID: Digest(User, strconv.Itoa(u)), Epoch: epoch, ExpiresAt: 1}
			if err := source.Apply(e); err != nil {
				t.Fatal(err)
			}
			if rapid.Bool().Draw(t, "read") {
				read()
			}
		}
		read()
		for _, l := range []*List{&source, &follower} {
			for u := range 22 {
				for epoch := range int64(11) {
					k := tok{u, epoch}
					_, ok := l.Revoked(&accesstoken.Token{Subject: strconv.Itoa(u), Epoch: epoch})
					if ok != (epoch < model[u]) {
						t.Fatalf("%v: revoked is %v, its user is at %d", k, ok, model[u])
					}
				}
			}
			if l.Len() != len(model) {
				t.Fatalf("%d entries for %d users", l.Len(), len(model))
			}
		}
	})
}

func TestApplyInAnyOrder(t *testing.T) {
	var l List
	order := rand.New(rand.NewPCG(1, 2)).Perm(500)
	for _, i := range order {
		apply(t, &l, entry(int64(i+1), Token, strconv.Itoa(i)))
	}
	got := l.After(0, 1000)
	if len(got) != 500 || !slices.IsSortedFunc(got, func(a, b Entry) int { return int(a.Seq - b.Seq) }) {
		t.Errorf("%d entries, not in order", len(got))
	}
}

// TestConcurrently appends, reads, pages and expires at the same time: what
// Apply has returned for is refused from then on, and a follower misses nothing.
func TestConcurrently(t *testing.T) {
	const entries, chunk = 2000, 50
	var l List
	var applied atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		batch := make([]Entry, 0, chunk)
		for seq := int64(1); seq <= entries; seq++ {
			if batch = append(batch, entry(seq, Token, strconv.FormatInt(seq, 10))); len(batch) == chunk {
				if err := l.Apply(batch...); err != nil {
					t.Error(err)
				}
				applied.Store(seq)
				batch = batch[:0]
			}
		}
	})
	for range 3 {
		wg.Go(func() {
			for applied.Load() < entries {
				for range 100 {
					upTo := applied.Load()
					if upTo == 0 {
						continue
					}
					seq := 1 + rand.Int64N(upTo)
					if _, ok := l.Revoked(&accesstoken.Token{ID: strconv.FormatInt(seq, 10)}); !ok {
						t.Errorf("entry %d is not refused, although %d were applied", seq, upTo)
						return
					}
				}
			}
		})
	}
	wg.Go(func() {
		for cursor := int64(0); cursor < entries; {
			for _, e := range l.After(cursor, 300) {
				if e.Seq != cursor+1 {
					t.Errorf("after %d comes %d", cursor, e.Seq)
					return
				}
				cursor = e.Seq
			}
			l.Expire(t0) // nothing has expired yet
		}
	})
	wg.Wait()
}

// many is a list of so many entries: three of four are tokens, the others users and
// sessions.
func many(t testing.TB, entries int64) *List {
	l := new(List)
	batch := make([]Entry, 0, 1000)
	for seq := int64(1); seq <= entries; seq++ {
		kind := Token
		if seq%4 == 0 {
			kind = [...]Kind{User, Session}[seq/4%2]
		}
		if batch = append(batch, entry(seq, kind, strconv.FormatInt(seq, 10))); len(batch) == cap(batch) {
			apply(t, l, batch...)
			batch = batch[:0]
		}
	}
	return l
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A million entries take 100 MB at most. Without WATCHWORD_SOAK it is a fifth of that.
func TestManyEntries(t *testing.T) {
	entries := int64(200_000)
	if os.Getenv("WATCHWORD_SOAK") != "" {
		entries = 1_000_000
	}
	before := heapBytes()
	l := many(t, entries)
	size := heapBytes() - before
	t.Logf("%d entries: %.1f MB of heap", entries, float64(size)/1e6)
	if size > uint64(entries)*100 {
		t.Errorf("%d entries take %d bytes of heap, at most 100 each are allowed", entries, size)
	}
	token := &accesstoken.Token{
		KeyID: "ecb2a7a0-oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U", Subject: "0190163d-8694-739b-aea5-966c26f8ad90",
		SessionID: "0190163d-8694-739b-aea5-966c26f8ad91", ID: "0190163d-8694-739b-aea5-966c26f8ad92", Epoch: 1,
	}
	if n := testing.AllocsPerRun(1000, func() { l.Revoked(token) }); n != 0 {
		t.Errorf("Revoked allocates %v times", n)
	}
	for _, seq := range []int64{1, 2, 3, entries - 1} {
		if _, ok := l.Revoked(&accesstoken.Token{ID: strconv.FormatInt(seq, 10)}); !ok {
			t.Errorf("entry %d is not found", seq)
		}
	}

	// Readers go on while everything expires.
	var done atomic.Bool
	var longest atomic.Int64
	var reads atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for !done.Load() {
			start := time.Now()
			l.Revoked(token)
			longest.Store(max(longest.Load(), int64(time.Since(start))))
			reads.Add(1)
		}
	})
	for reads.Load() == 0 {
		runtime.Gosched()
	}
	first, start := reads.Load(), time.Now()
	if n := l.Expire(t0.Add(2 * time.Hour)); n != int(entries) || l.Len() != 0 {
		t.Errorf("%d expired, %d are left", n, l.Len())
	}
	took, meanwhile := time.Since(start), reads.Load()-first
	done.Store(true)
	wg.Wait()
	t.Logf("expired in %v; %d reads meanwhile, the longest %v", took, meanwhile, time.Duration(longest.Load()))
	// How long one read takes is up to the machine, too: what a reader is spared is
	// to wait for the whole sweep.
	if meanwhile < entries/1000 {
		t.Errorf("%d reads in the %v in which the list was swept", meanwhile, took)
	}
	runtime.KeepAlive(l)
}

func BenchmarkRevoked(b *testing.B) {
	for _, size := range []int{0, 1_000_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l := new(List)
			if size > 0 {
				l = many(b, int64(size))
			}
			token := &accesstoken.Token{
				KeyID: "ecb2a7a0-oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U", Subject: "0190163d-8694-739b-aea5-966c26f8ad90",
				SessionID: "0190163d-8694-739b-aea5-966c26f8ad91", ID: "0190163d-8694-739b-aea5-966c26f8ad92", Epoch: 1,
			}
			b.ReportAllocs()
			for b.Loop() {
				l.Revoked(token)
			}
		})
	}
}
