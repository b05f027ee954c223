package redisstate_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// A server that has the generation open becomes the replica of one that has an old
// copy, and keeps its connections: the copy is not read there.
func TestDemotedServer(t *testing.T) {
	ctx, first, second := t.Context(), testenv.StartRedis(t), testenv.StartRedis(t)
	s := open(t, first.URL)
	key := state.Key{Kind: "test", Owner: "o", ID: "i"}
	if _, err := s.CacheOpen(ctx, "g"); err != nil {
		t.Fatal(err)
	}
	if _, entry, err := s.CacheRead(ctx, "g", key, "a", time.Minute); err != nil || entry != redisstate.Miss {
		t.Fatal(entry, err)
	}
	old := state.Record{Key: key, Value: []byte("old"), Version: 7, Expires: time.Now().Add(time.Hour)}
	if err := s.CacheFill(ctx, "g", "a", old, time.Hour); err != nil {
		t.Fatal(err)
	}
	do := func(on *testenv.Server, words ...string) string {
		t.Helper()
		c := client(t, open(t, on.URL))
		answer, err := c.Do(ctx, c.B().Arbitrary(words...).Build()).ToString()
		if err != nil {
			t.Fatalf("%s: %v", words[0], err)
		}
		return answer
	}
	follow := func(replica, primary *testenv.Server) {
		t.Helper()
		options, err := rueidis.ParseURL(primary.URL)
		if err != nil {
			t.Fatal(err)
		}
		host, port, err := net.SplitHostPort(primary.Addr)
		if err != nil {
			t.Fatal(err)
		}
		do(replica, "CONFIG", "SET", "masterauth", options.Password)
		do(replica, "REPLICAOF", host, port)
		until(t, "the replica", func() bool {
			return strings.Contains(do(replica, "INFO", "replication"), "master_link_status:up")
		})
	}
	do(first, "CONFIG", "SET", "repl-diskless-sync-delay", "0")
	do(second, "CONFIG", "SET", "repl-diskless-sync-delay", "0")
	follow(second, first)
	do(second, "REPLICAOF", "NO", "ONE")
	if err := s.CacheClear(ctx, "g", key, "w"); err != nil {
		t.Fatal(err)
	}
	follow(first, second)
	if r, entry, err := s.CacheRead(ctx, "g", key, "b", time.Minute); err == nil {
		t.Errorf("a replica answers %v, %q", entry, r.Value)
	}
}
