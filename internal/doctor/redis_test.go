package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/bell"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/testenv"
)

func newRedisBench(t *testing.T, backend config.StateBackend) *bench {
	b := newBench(t, redisChecks)
	b.Reach = All
	b.Config.State.Backend = backend
	b.open(sqldbtest.SQLite(t))
	return b
}

// said are what a server of Redis says of itself.
func (b *bench) said() map[string]string {
	b.t.Helper()
	info, err := redisInfo(context.Background(), b.Redis, "")
	if err != nil {
		b.t.Fatal(err)
	}
	return info
}

// await waits until the server says a value of itself.
func (b *bench) await(name, value string) {
	b.t.Helper()
	b.again(func() error {
		if has := b.said()[name]; has != value {
			return fmt.Errorf("%s is %s", name, has)
		}
		return nil
	})
}

func configSetting(name, plant, undo string) func(*bench) func() {
	return func(b *bench) func() {
		b.redis("CONFIG", "SET", name, plant)
		return func() { b.redis("CONFIG", "SET", name, undo) }
	}
}

// redisReplicaOf makes the server of one URL a replica of another's.
func redisReplicaOf(b *bench, replica rueidis.Client, primary string) {
	b.t.Helper()
	u, err := url.Parse(primary)
	if err != nil {
		b.t.Fatal(err)
	}
	password, _ := u.User.Password()
	for _, words := range [][]string{{"CONFIG", "SET", "masterauth", password}, {"REPLICAOF", u.Hostname(), u.Port()}} {
		if err := replica.Do(b.t.Context(), replica.B().Arbitrary(words...).Build()).Error(); err != nil {
			b.t.Fatal(err)
		}
	}
}

func TestRedis(t *testing.T) {
	t.Parallel()
	server, other := testenv.StartRedis(t, "--appendonly", "yes", "--repl-diskless-sync-delay", "0"), testenv.StartRedis(t)
	b := newRedisBench(t, config.StateRedis)
	b.onRedis(server.URL)
	second := redisClient(t, other.URL)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	b.healthy("redis-eviction-copies", "redis-replicas", "redis-cluster", "redis-cluster-coverage", "redis-password", "redis-tls")
	network := func(text string) func(*bench) func() {
		return configured(func(c *config.Config) { c.Redis.URL = text })
	}
	b.finds(
		fault{"redis-primary", func(b *bench) func() {
			redisReplicaOf(b, b.Redis, other.URL)
			return func() { b.redis("REPLICAOF", "NO", "ONE") }
		}, []string{"is a replica of " + other.Addr, "REPLICAOF NO ONE", "master_set"}},
		fault{"redis-writes", configSetting("min-replicas-to-write", "1", "0"), []string{"NOREPLICAS", "CONFIG SET min-replicas-to-write 0"}},
		fault{"redis-eviction", configSetting("maxmemory-policy", "allkeys-lru", "noeviction"), []string{
			"maxmemory-policy is allkeys-lru", "there is none now", "records of revoked tokens", "CONFIG SET maxmemory-policy noeviction; CONFIG REWRITE",
		}},
		fault{"redis-eviction", configSetting("maxmemory-policy", "volatile-ttl", "noeviction"), []string{"maxmemory-policy is volatile-ttl", "all of ours have an expiry"}},
		fault{"redis-evicted", func(b *bench) func() {
			b.redis("FLUSHALL")
			b.redis("SET", "one", "two")
			b.redis("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
			b.redis("CONFIG", "SET", "maxmemory", "1")
			b.await("evicted_keys", "1")
			b.redis("CONFIG", "SET", "maxmemory", "0")
			b.redis("CONFIG", "SET", "maxmemory-policy", "noeviction")
			return func() { b.redis("CONFIG", "RESETSTAT") }
		}, []string{"evicted_keys is 1", "CONFIG RESETSTAT"}},
		fault{"redis-memory", func(b *bench) func() {
			return configSetting("maxmemory", b.said()["used_memory"], "0")(b)
		}, []string{"used_memory is ", "takes no writes, or deletes keys (noeviction)", "CONFIG SET maxmemory "}},
		fault{"redis-persistence", configSetting("appendonly", "no", "yes"), []string{
			"appendonly is no and there are no snapshots (save)", "everybody has to sign in again", "CONFIG SET appendonly yes; CONFIG REWRITE",
		}},
		fault{"redis-persistence", func(b *bench) func() {
			snapshots, append := configSetting("save", "3600 1", "")(b), configSetting("appendonly", "no", "yes")(b)
			return func() { snapshots(); append() }
		}, []string{"what was written after the last snapshot"}},
		fault{"redis-persistence", configSetting("appendfsync", "no", "everysec"), []string{"appendfsync is no", "CONFIG SET appendfsync everysec"}},
		fault{"redis-replicas", func(b *bench) func() {
			redisReplicaOf(b, second, server.URL)
			b.await("connected_slaves", "1")
			return func() {
				if err := second.Do(context.Background(), second.B().Arbitrary("REPLICAOF", "NO", "ONE").Build()).Error(); err != nil {
					b.t.Fatal(err)
				}
				b.await("connected_slaves", "0")
			}
		}, []string{"min-replicas-to-write is 0 on a primary with 1 replicas", "CONFIG SET min-replicas-to-write 1"}},
		fault{"redis-password", func(b *bench) func() {
			undo := network("redis://redis.internal:6379/0")(b)
			b.redis("ACL", "SETUSER", "default", "nopass")
			return func() {
				undo()
				b.redis("ACL", "SETUSER", "default", "resetpass", ">"+password)
			}
		}, []string{"lets the user default in without a password", "sign in as any user", "ACL SETUSER default off"}},
		fault{"redis-tls", network("redis://:secret@redis-0:6379?addr=redis-1:6379"), []string{"connections to redis-0, redis-1 are not encrypted", "rediss://"}},
		fault{"redis-tls", network("rediss://:secret@redis-0:6379?skip_verify=true"), []string{"is not verified", "remove skip_verify", "redis.ca_file"}},
		fault{"redis-clients", func(b *bench) func() {
			return configSetting("maxclients", b.said()["connected_clients"], "10000")(b)
		}, []string{" clients are connected of maxclients ", "CONFIG SET maxclients 10000"}},
		fault{"redis-clock", changed(func(d *Deployment) { d.Now = func() time.Time { return time.Now().Add(time.Minute) } }), []string{"the clock of Redis " + server.Addr + " is ", "behind this machine's"}},
		fault{"redis-installations", func(b *bench) func() {
			const key = "rate:bbbbbbbbbbbbbbbb:{10.0.0.1}:login:x"
			b.redis("SET", key, "")
			b.redis("SET", "session:aaaaaaaaaaaaaaaa:{user}:x", "") // its own
			b.redis("SET", "revoked_token:{jti}", "")
			return func() { b.redis("DEL", key) }
		}, []string{"the installation bbbbbbbbbbbbbbbb uses this Redis, too", "rate:bbbbbbbbbbbbbbbb:", "redis.url"}},
		fault{"redis-installations", func(b *bench) func() {
			ctx, stop := context.WithCancel(context.Background())
			b.t.Cleanup(stop)
			listener, ended := redisClient(b.t, server.URL), make(chan error, 1)
			go func() {
				ended <- listener.Receive(ctx, listener.B().Subscribe().Channel(bell.RedisChannel+":cccccccccccccccc", bell.RedisChannel+":aaaaaaaaaaaaaaaa").Build(), func(rueidis.PubSubMessage) {})
			}()
			b.await("pubsub_channels", "2")
			return func() {
				stop()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					b.t.Error(err)
				}
				listener.Close()
				b.await("pubsub_channels", "0")
			}
		}, []string{"the installation cccccccccccccccc", "listen on the channel watchword:bell:cccccccccccccccc"}},
	)
	t.Run("managed", func(t *testing.T) { redisManaged(t, b, server) })
	t.Run("closed", func(t *testing.T) { redisClosed(t, server) })
}

// A provider's Redis refuses to show its settings: the check says what to look at.
func redisManaged(t *testing.T, b *bench, server *testenv.Server) {
	b.redis("ACL", "SETUSER", "guest", "on", ">secret", "~*", "&*", "+@all", "-config", "-acl", "-info", "-cluster")
	c := newRedisBench(t, config.StateRedis)
	c.onRedis("redis://guest:secret@" + server.Addr + "/0")
	for id, look := range map[string]string{
		"redis-eviction": "maxmemory-policy must be noeviction", "redis-persistence": "appendonly must be yes", "redis-memory": "used_memory of maxmemory",
		"redis-replicas": "min-replicas-to-write must be 1", "redis-version": "Redis 6.2 or later", "redis-clients": "90 % of maxclients",
	} {
		unknown(t, c.run(id), "the server refuses INFO (", "console of its provider", look)
	}
	c.Config.Redis.URL = "redis://guest:secret@redis.internal/0"
	unknown(t, c.run("redis-password"), "the server refuses ACL GETUSER default (", "must have a password")

	b.redis("ACL", "SETUSER", "guest", "+info")
	unknown(t, c.run("redis-persistence"), "the server refuses CONFIG GET appendfsync (", "appendfsync everysec or always")
	b.redis("CONFIG", "SET", "appendonly", "no")
	says(t, c.run("redis-persistence"), "appendonly is no", "with a managed server, the parameter appendonly")
	b.redis("CONFIG", "SET", "appendonly", "yes")
	if r := c.run("redis-eviction"); r.Status != OK {
		t.Errorf("%+v", r)
	}
}

// What keeps a replica from Redis is named, and every other check is silent.
func redisClosed(t *testing.T, server *testenv.Server) {
	for id, cause := range map[string]func() (string, error){
		"redis-reachable": func() (string, error) {
			at := "redis://watchword:wrong@" + server.Addr + "/0"
			options, err := rueidis.ParseURL(at)
			if err == nil {
				_, err = rueidis.NewClient(options)
			}
			return at, err
		},
		"redis-primary": func() (string, error) { // as the shared state of a replica says it
			replica := testenv.StartRedis(t)
			b := newRedisBench(t, config.StateRedis)
			b.onRedis(replica.URL)
			redisReplicaOf(b, b.Redis, server.URL)
			s, err := redisstate.Open(replica.URL, nil)
			if err != nil {
				return "", err
			}
			defer s.Close()
			_, err = s.Client(t.Context())
			return replica.URL, err
		},
	} {
		c := newRedisBench(t, config.StateRedis)
		c.Config.Redis.URL, c.RedisErr = cause()
		if c.RedisErr == nil {
			t.Fatalf("%s: it can be used", id)
		}
		for _, r := range Run(t.Context(), c.Deployment, redisChecks) {
			switch {
			case r.ID == "redis-reachable" && id == r.ID:
				says(t, r, "Redis denies this user or password", "redis-cli -h 127.0.0.1 -p ", " --user watchword --askpass PING")
				if strings.Contains(r.Findings[0].Mend, "wrong") {
					t.Error("it shows the password")
				}
			case r.ID == id:
				says(t, r, "\nredis: state: it takes no writes: this server is a replica of another one", "REPLICAOF NO ONE")
			case r.Status != Skipped && r.Status != OK:
				t.Errorf("%s is %s: %s %+v", r.ID, r.Status, r.Reason, r.Findings)
			}
		}
	}
}

// With tiered, Redis need keep nothing. What it drops all the same is advice.
func TestRedisForCopies(t *testing.T) {
	t.Parallel()
	b := newRedisBench(t, config.StateTiered)
	b.onRedis(testenv.Redis(t))
	b.healthy("redis-eviction", "redis-evicted", "redis-persistence", "redis-replicas", "redis-cluster", "redis-cluster-coverage", "redis-password", "redis-tls")
	b.finds(
		fault{"redis-saving", func(b *bench) func() {
			dir, err := redisConfig(context.Background(), b.Redis, "dir", "")
			if err != nil {
				b.t.Fatal(err)
			}
			info, err := os.Stat(dir)
			if err != nil {
				b.t.Fatal(err)
			}
			save := func(mode os.FileMode, status string) {
				if err := os.Chmod(dir, mode); err != nil {
					b.t.Fatal(err)
				}
				b.await("rdb_bgsave_in_progress", "0")
				b.redis("BGSAVE")
				b.await("rdb_last_bgsave_status", status)
			}
			save(0o500, "err")
			return func() { save(info.Mode().Perm(), "ok") }
		}, []string{"rdb_last_bgsave_status is err", "then BGSAVE"}},
		fault{"redis-eviction-copies", configSetting("maxmemory-policy", "allkeys-lfu", "noeviction"), []string{
			"maxmemory-policy is allkeys-lfu", "the database is asked instead; with revocation.check shared also revocations",
		}},
		fault{"redis-eviction-copies", func(b *bench) func() {
			shared := configured(func(c *config.Config) { c.Revocation.Check = config.CheckShared })(b)
			policy := configSetting("maxmemory-policy", "allkeys-random", "noeviction")(b)
			return func() { shared(); policy() }
		}, []string{"also revocations (revoked_token:…), so that replicas no longer believe Redis"}},
	)
	// What is an error where Redis alone has the sessions is a warning here, and no check finds an error.
	undo := configSetting("min-replicas-to-write", "1", "0")(b)
	for backend, want := range map[config.StateBackend]Severity{config.StateRedis: Error, config.StateTiered: Warning, config.StateSQL: Warning, config.StateAuto: Warning} {
		b.Config.State.Backend = backend
		if r := b.run("redis-writes"); r.Status != Failed || r.Severity != want {
			t.Errorf("with state.backend %s: %+v", backend, r)
		}
	}
	undo()
	b.Config.State.Backend = config.StateTiered
	for _, r := range Run(t.Context(), b.Deployment, redisChecks) {
		if r.Severity == Error && r.Status != Skipped {
			t.Errorf("%s finds errors where nothing is lost", r.ID)
		}
	}
	b.Reach = Own
	if r := b.run("redis-writes"); r.Status != Skipped {
		t.Errorf("a replica that looks by itself writes: %+v", r)
	}
}

func TestRedisCluster(t *testing.T) {
	t.Parallel()
	nodes := testenv.RedisCluster(t, "--cluster-require-full-coverage", "no", "--appendonly", "yes")
	b := newRedisBench(t, config.StateRedis)
	b.onRedis(nodes[0].URL)
	b.healthy("redis-primary", "redis-eviction-copies", "redis-replicas", "redis-password", "redis-tls")
	do := func(words ...string) {
		t.Helper()
		node := b.Redis.Nodes()[nodes[0].Addr]
		if err := node.Do(context.Background(), node.B().Arbitrary(words...).Build()).Error(); err != nil {
			t.Fatalf("%q: %v", words, err)
		}
	}
	planted := func(plant, undo string) func(*bench) func() {
		return func(*bench) func() {
			do(strings.Fields(plant)...)
			return func() { do(strings.Fields(undo)...) }
		}
	}
	b.finds(
		fault{"redis-cluster", planted("CLUSTER DELSLOTS 7", "CLUSTER ADDSLOTS 7"), []string{
			nodes[0].Addr, "16383 of 16384 slots are served: the users whose keys are in the others cannot sign in", "redis-cli --cluster fix " + nodes[0].Addr,
		}},
		fault{"redis-cluster-coverage", planted("CONFIG SET cluster-require-full-coverage yes", "CONFIG SET cluster-require-full-coverage no"), []string{
			nodes[0].Addr, "no user can sign in, not only", "CONFIG SET cluster-require-full-coverage no",
		}},
		fault{"redis-eviction", planted("CONFIG SET maxmemory-policy allkeys-lru", "CONFIG SET maxmemory-policy noeviction"), []string{
			nodes[0].Addr, "maxmemory-policy is allkeys-lru",
		}},
	)
	b.Config.State.Backend = config.StateTiered
	b.finds(
		fault{"redis-cluster", planted("CLUSTER DELSLOTS 7", "CLUSTER ADDSLOTS 7"), []string{"are recognised from the database"}},
		fault{"redis-cluster-coverage", planted("CONFIG SET cluster-require-full-coverage yes", "CONFIG SET cluster-require-full-coverage no"), []string{"no session is recognised from a copy"}},
	)
}
