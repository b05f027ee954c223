package redisstate_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// twins are a primary and a replica of Redis with the same password, and connections to them
// that are not a store's.
func twins(t *testing.T) (primary, replica *testenv.Server, at map[*testenv.Server]rueidis.Client) {
	t.Helper()
	primary, replica = testenv.StartRedis(t), testenv.StartRedis(t)
	at = make(map[*testenv.Server]rueidis.Client)
	for _, s := range []*testenv.Server{primary, replica} {
		option, err := rueidis.ParseURL(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		option.DisableCache = true
		if at[s], err = rueidis.NewClient(option); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(at[s].Close)
	}
	u, err := url.Parse(primary.URL)
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := u.User.Password()
	do(t, at[replica], "CONFIG", "SET", "requirepass", secret)
	for _, c := range at {
		do(t, c, "CONFIG", "SET", "masterauth", secret)
		do(t, c, "CONFIG", "SET", "repl-diskless-sync-delay", "0")
	}
	follow(t, at[replica], primary)
	return primary, replica, at
}

// follow makes one server the replica of another, and waits until it is as far.
func follow(t *testing.T, c rueidis.Client, of *testenv.Server) {
	t.Helper()
	_, port, _ := strings.Cut(of.Addr, ":")
	do(t, c, "REPLICAOF", "127.0.0.1", port)
	until(t, "the replica", func() bool {
		return strings.Contains(do(t, c, "INFO", "replication"), "master_link_status:up")
	})
}

func do(t *testing.T, c rueidis.Client, words ...string) string {
	t.Helper()
	answer := c.Do(t.Context(), c.B().Arbitrary(words...).Build())
	if err := answer.Error(); err != nil && !rueidis.IsRedisNil(err) {
		t.Fatalf("%s: %v", strings.Join(words, " "), err)
	}
	text, _ := answer.ToString()
	return text
}

// A server that becomes a replica under the connections of a store is not believed, whatever it
// is asked, and the next operation makes new connections.
func TestReplicaIsNotBelieved(t *testing.T) {
	t.Parallel()
	primary, replica, at := twins(t)
	link := testenv.NewLink(t, primary.Addr)
	through := strings.Replace(primary.URL, primary.Addr, link.Addr, 1)
	key, none := state.Key{Kind: "session", Owner: "u", ID: "id"}, state.Key{Kind: "session", Owner: "nobody", ID: "id"}
	rate := state.Rate{Burst: 1, Period: time.Hour}
	first := open(t, through)
	must(t)(first.Put(t.Context(), key, []byte("x"), time.Hour))
	if d, err := first.Limit(t.Context(), key, rate); err != nil || !d.Allowed {
		t.Fatal(d, err)
	}
	operations := map[string]func(ctx context.Context, s *redisstate.Store) error{
		"get":      func(ctx context.Context, s *redisstate.Store) error { _, err := s.Get(ctx, key); return err },
		"get none": func(ctx context.Context, s *redisstate.Store) error { _, err := s.Get(ctx, none); return err },
		"list": func(ctx context.Context, s *redisstate.Store) error {
			_, err := s.List(ctx, key.Kind, key.Owner, "", 9)
			return err
		},
		"list none": func(ctx context.Context, s *redisstate.Store) error {
			_, err := s.List(ctx, key.Kind, none.Owner, "", 9)
			return err
		},
		"put": func(ctx context.Context, s *redisstate.Store) error {
			_, err := s.Put(ctx, key, nil, time.Hour)
			return err
		},
		"create": func(ctx context.Context, s *redisstate.Store) error {
			_, err := s.Create(ctx, key, nil, time.Hour)
			return err
		},
		"swap": func(ctx context.Context, s *redisstate.Store) error {
			_, err := s.Swap(ctx, key, 1, nil, time.Hour)
			return err
		},
		"take none":   func(ctx context.Context, s *redisstate.Store) error { _, err := s.Take(ctx, none); return err },
		"delete none": func(ctx context.Context, s *redisstate.Store) error { return s.Delete(ctx, none) },
		"delete all, of none": func(ctx context.Context, s *redisstate.Store) error {
			_, err := s.DeleteOwned(ctx, key.Kind, none.Owner)
			return err
		},
		"reset none": func(ctx context.Context, s *redisstate.Store) error { return s.Reset(ctx, none) },
		"refuse":     func(ctx context.Context, s *redisstate.Store) error { _, err := s.Limit(ctx, key, rate); return err },
	}
	stores := make(map[string]*redisstate.Store)
	for name := range operations {
		stores[name] = open(t, through)
		must(t)(stores[name].Get(t.Context(), key))
	}
	until(t, "the replica to have it", func() bool { return do(t, at[replica], "GET", "session:{u}:id") != "" })
	do(t, at[replica], "REPLICAOF", "NO", "ONE")
	follow(t, at[primary], replica)
	for name, operation := range operations {
		if err := operation(t.Context(), stores[name]); !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "READONLY") {
			t.Errorf("%s, over a connection of before: %v", name, err)
		}
		if err := operation(t.Context(), stores[name]); !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "is a replica of another one") {
			t.Errorf("%s, over a new connection: %v", name, err)
		}
	}
	do(t, at[primary], "CONFIG", "SET", "replica-read-only", "no")
	if _, err := open(t, through).Get(t.Context(), key); !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "is a replica of another one") {
		t.Errorf("a replica that takes writes: %v", err)
	}
	link.Lead(replica.Addr) // and no connection is cut
	for name, s := range stores {
		until(t, "an answer to "+name, func() bool {
			_, err := s.Get(t.Context(), key)
			return err == nil
		})
	}
}

// A primary that has lost the replicas that it must have does not know whether it still is the
// primary.
func TestPrimaryWithoutItsReplicas(t *testing.T) {
	t.Parallel()
	s := open(t, testenv.StartRedis(t).URL)
	key := state.Key{Kind: "session", Owner: "u", ID: "id"}
	must(t)(s.Put(t.Context(), key, []byte("x"), time.Hour))
	do(t, client(t, s), "CONFIG", "SET", "min-replicas-to-write", "1")
	if r, err := s.Get(t.Context(), key); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("%s, %v", r.Value, err)
	}
}

// Without memory nothing is written, and what is there is read and deleted.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), open(t, testenv.StartRedis(t).URL)
	key, other := state.Key{Kind: "session", Owner: "u", ID: "id"}, state.Key{Kind: "session", Owner: "u", ID: "other"}
	version, err := s.Put(ctx, key, []byte("x"), time.Hour)
	must(t)(nil, err)
	do(t, client(t, s), "CONFIG", "SET", "maxmemory", "1")
	_, created := s.Create(ctx, other, nil, time.Hour)
	_, put := s.Put(ctx, other, nil, time.Hour)
	_, swapped := s.Swap(ctx, key, version, nil, time.Hour)
	_, counted := s.Limit(ctx, key, state.Rate{Burst: 1, Period: time.Hour})
	for name, err := range map[string]error{"create": created, "put": put, "swap": swapped, "limit": counted, "ping": s.Ping(ctx)} {
		if !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, state.ErrReadOnly) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t)(s.Get(ctx, key))
	must(t)(s.Take(ctx, key))
}

// Ping finds each primary of a Redis Cluster that has no memory.
func TestPingOfACluster(t *testing.T) {
	t.Parallel()
	nodes := testenv.RedisCluster(t)
	s := open(t, nodes[0].URL)
	must(t)(nil, s.Ping(t.Context()))
	for address, node := range client(t, s).Nodes() {
		do(t, node, "CONFIG", "SET", "maxmemory", "1")
		if err := s.Ping(t.Context()); !errors.Is(err, state.ErrReadOnly) {
			t.Errorf("%s: %v", address, err)
		}
		do(t, node, "CONFIG", "SET", "maxmemory", "0")
		must(t)(nil, s.Ping(t.Context()))
	}
}
