package redislog

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

func open(t *testing.T, url string) (*Log, rueidis.Client) {
	t.Helper()
	s, err := redisstate.Open(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c, err := s.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return New(s, ""), c
}

func (l *Log) tell(t *testing.T, log string, after, to int64, lines ...store.Revocation) {
	t.Helper()
	if err := l.Tell(t.Context(), log, after, to, lines); err != nil {
		t.Fatal(err)
	}
}

func (l *Log) ask(t *testing.T, token accesstoken.Token) revocation.Known {
	t.Helper()
	known, err := l.Ask(t.Context(), &token)
	if err != nil {
		t.Fatal(err)
	}
	return known
}

func line(kind revoked.Kind, subject string) store.Revocation {
	return store.Revocation{Kind: string(kind), Subject: subject, ExpiresAt: time.Now().Add(time.Hour)}
}

var whole = accesstoken.Token{KeyID: "k", Subject: "u", SessionID: "s", ID: "j", Epoch: 5, IssuedAt: time.Unix(1000, 0)}

func TestEveryKind(t *testing.T) {
	l, c := open(t, testenv.Redis(t))
	user := func(epoch int64, before time.Time) store.Revocation {
		r := line(revoked.User, "u")
		r.Epoch, r.IssuedBefore = epoch, before
		return r
	}
	for _, step := range []struct {
		line    store.Revocation
		revoked bool
	}{
		{line(revoked.Token, "other"), false},
		{line(revoked.Session, "j"), false}, // of another kind
		{line(revoked.Key, "s"), false},
		{line(revoked.Token, "j"), true},
		{line(revoked.Session, "s"), true},
		{line(revoked.Key, "k"), true},
		{user(5, time.Time{}), false},
		{user(6, time.Time{}), true},
		{user(0, time.Unix(1000, 0)), false},
		{user(0, time.Unix(1000, 1)), true}, // rounded up
	} {
		if err := c.Do(t.Context(), c.B().Flushall().Build()).Error(); err != nil {
			t.Fatal(err)
		}
		l.tell(t, "log", 0, 1, step.line)
		if got := l.ask(t, whole).Revoked; got != step.revoked {
			t.Errorf("after %+v: %v", step.line, got)
		}
	}
}

// The name under which others look a token up, for as long as the record lives.
func TestKeyOfAToken(t *testing.T) {
	l, c := open(t, testenv.Redis(t))
	l.tell(t, "log", 0, 1, line(revoked.Token, "j"))
	left, err := c.Do(t.Context(), c.B().Pttl().Key("revoked_token:j").Build()).AsInt64()
	if want := time.Hour + timing.ClockSkew; err != nil || left > want.Milliseconds() || left < (want-time.Minute).Milliseconds() {
		t.Errorf("it lives for %d ms, %v", left, err)
	}
}

// The revocation of a signing secret is kept for ten years. A shorter entry for the same kid does
// not end it earlier.
func TestTenYears(t *testing.T) {
	l, c := open(t, testenv.Redis(t))
	tenYears := time.Until(time.Now().AddDate(10, 0, 0))
	long, short := line(revoked.Key, "k"), line(revoked.Key, "k")
	long.ExpiresAt = time.Now().Add(tenYears)
	l.tell(t, "log", 0, 2, long, short)
	l.tell(t, "log", 2, 3, short)
	if !l.ask(t, accesstoken.Token{KeyID: "k"}).Revoked {
		t.Error("it is not revoked")
	}
	left, err := c.Do(t.Context(), c.B().Pttl().Key("revoked_key:k").Build()).AsInt64()
	if want := tenYears + timing.ClockSkew; err != nil || left > want.Milliseconds() || left < (want-time.Minute).Milliseconds() {
		t.Errorf("it lives for %d ms, %v", left, err)
	}
}

// Lines that come twice, or late, take nothing back of what is known.
func TestTheGreaterStays(t *testing.T) {
	l, c := open(t, testenv.Redis(t))
	first, last := line(revoked.User, "u"), line(revoked.User, "u")
	first.Epoch, first.ExpiresAt = 3, time.Now().Add(2*time.Hour)
	last.Epoch, last.IssuedBefore = 6, time.Unix(900, 0)
	for _, order := range [][]store.Revocation{{first, last}, {last, first}, {last, first, last, first}} {
		c.Do(t.Context(), c.B().Flushall().Build())
		l.tell(t, "log", 0, 2, order...)
		value, err := c.Do(t.Context(), c.B().Get().Key("revoked_user:u").Build()).ToString()
		left, err2 := c.Do(t.Context(), c.B().Pttl().Key("revoked_user:u").Build()).AsInt64()
		if value != "6 900" || left < (2*time.Hour).Milliseconds() || err != nil || err2 != nil {
			t.Errorf("it is %q for %d ms; %v, %v", value, left, err, err2)
		}
	}
	expired := line(revoked.Token, "j")
	expired.ExpiresAt = time.Now().Add(-timing.ClockSkew - time.Second)
	l.tell(t, "log", 2, 3, expired)
	if l.ask(t, whole).Revoked != true { // by the user
		t.Error("the user is forgotten")
	}
	if n, err := c.Do(t.Context(), c.B().Exists().Key("revoked_token:j").Build()).AsInt64(); n != 0 || err != nil {
		t.Errorf("what has expired is there: %d, %v", n, err)
	}
}

// The span covers only entries that were written without a gap.
func TestSpan(t *testing.T) {
	l, c := open(t, testenv.Redis(t))
	if k := l.ask(t, whole); k != (revocation.Known{}) {
		t.Errorf("an empty Redis knows %+v", k)
	}
	for _, step := range []struct {
		log       string
		after, to int64
		want      revocation.Known
	}{
		{"a", 0, 7, revocation.Known{Log: "a", From: 7, To: 7}}, // it had nothing to join on to
		{"a", 7, 9, revocation.Known{Log: "a", From: 7, To: 9}},
		{"a", 7, 8, revocation.Known{Log: "a", From: 7, To: 9}},     // late
		{"a", 3, 4, revocation.Known{Log: "a", From: 7, To: 9}},     // later still
		{"a", 9, 9, revocation.Known{Log: "a", From: 7, To: 9}},     // no news
		{"a", 11, 12, revocation.Known{Log: "a", From: 12, To: 12}}, // 10 and 11 are missing
		{"b", 12, 13, revocation.Known{Log: "b", From: 13, To: 13}},
		{"b", 13, 1 << 50, revocation.Known{Log: "b", From: 13, To: 1 << 50}},
	} {
		l.tell(t, step.log, step.after, step.to)
		if k := l.ask(t, whole); k != step.want {
			t.Errorf("after %s %d–%d: %+v, want %+v", step.log, step.after, step.to, k, step.want)
		}
	}
	c.Do(t.Context(), c.B().Flushall().Build())
	if k := l.ask(t, whole); k != (revocation.Known{}) {
		t.Errorf("after a flush it knows %+v", k)
	}
}

// Redis must not vouch for lines that it may have evicted.
func TestNoSpanWhileRedisEvicts(t *testing.T) {
	l, c := open(t, testenv.StartRedis(t).URL)
	policy := func(p string) {
		t.Helper()
		if err := c.Do(t.Context(), c.B().ConfigSet().ParameterValue().ParameterValue("maxmemory-policy", p).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	l.tell(t, "log", 0, 1, line(revoked.Token, "other"))
	if k := l.ask(t, whole); k.Log != "log" || k.To != 1 {
		t.Fatalf("with noeviction: %+v", k)
	}
	policy("volatile-lru")
	l.tell(t, "log", 1, 2, line(revoked.Token, "j"))
	if k := l.ask(t, whole); !k.Revoked || k.Log != "" {
		t.Errorf("with volatile-lru: %+v", k)
	}
	policy("noeviction")
	l.tell(t, "log", 2, 3)
	if k := l.ask(t, whole); k.Log != "log" || k.From != 3 || k.To != 3 {
		t.Errorf("with noeviction again: %+v", k)
	}
}

func TestWhatIsNoneOfOurs(t *testing.T) {
	l, c := open(t, testenv.Redis(t))
	for _, key := range []string{l.named(users, "u"), l.spanName()} {
		c.Do(t.Context(), c.B().Flushall().Build())
		c.Do(t.Context(), c.B().Set().Key(key).Value("x").Build())
		if k, err := l.Ask(t.Context(), &whole); err == nil {
			t.Errorf("%s: %+v", key, k)
		}
	}
	if err := l.Tell(t.Context(), "log", 0, 1, []store.Revocation{line("x", "y")}); err == nil || !strings.Contains(err.Error(), "unknown kind") {
		t.Errorf("a line of another kind: %v", err)
	}
}

// On a cluster a token that is there is refused, and no other is vouched for.
func TestRedisCluster(t *testing.T) {
	l, _ := open(t, testenv.RedisCluster(t)[0].URL)
	l.tell(t, "log", 0, 1, line(revoked.Session, "s"))
	l.tell(t, "log", 1, 1)
	if k := l.ask(t, whole); k != (revocation.Known{Revoked: true}) {
		t.Errorf("%+v", k)
	}
	if k := l.ask(t, accesstoken.Token{KeyID: "k", Subject: "u", SessionID: "s2", ID: "j"}); k != (revocation.Known{}) {
		t.Errorf("%+v", k)
	}
}

func TestAway(t *testing.T) {
	server := testenv.StartRedis(t)
	l, _ := open(t, server.URL)
	server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // a client tries as long as it may
	defer cancel()
	if k, err := l.Ask(ctx, &whole); err == nil {
		t.Errorf("without Redis, it answers %+v", k)
	}
	if err := l.Tell(ctx, "log", 0, 1, nil); err == nil {
		t.Error("without Redis, an entry was written")
	}
}

// A Redis that has become a replica of another one vouches for nothing, over connections of
// before and over new ones: it may lack what was revoked since.
func TestReplica(t *testing.T) {
	server, other := testenv.StartRedis(t), testenv.StartRedis(t)
	l, c := open(t, server.URL)
	l.tell(t, "log", 0, 1, line(revoked.Token, "other"))
	if k := l.ask(t, whole); k.Log != "log" {
		t.Fatalf("a primary: %+v", k)
	}
	_, port, _ := strings.Cut(other.Addr, ":")
	if err := c.Do(t.Context(), c.B().Replicaof().Host("127.0.0.1").Port(portOf(t, port)).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if k, err := l.Ask(t.Context(), &whole); err == nil || !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("over a connection of before: %+v, %v", k, err)
	}
	if k, err := l.Ask(t.Context(), &whole); err == nil || !strings.Contains(err.Error(), "is a replica") {
		t.Errorf("over a new connection: %+v, %v", k, err)
	}
	if err := l.Tell(t.Context(), "log", 1, 2, nil); err == nil {
		t.Error("an entry was written")
	}
}

func portOf(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
