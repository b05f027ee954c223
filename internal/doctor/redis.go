package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/bell"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
)

var redisChecks = []Check{
	{"redis-reachable", "Redis answers", Error,
		"With `state.backend` redis, nobody can log in, renew or log out meanwhile. With tiered, everything works from the database and is slower.", redisReachable},
	{"redis-primary", "The server of Redis is a primary", Error,
		"A replica of Redis may be behind and takes no writes. Watchword believes none, as if Redis did not answer.", redisPrimary},
	{"redis-writes", "Redis takes writes", Error,
		"A server without memory, disk or enough replicas answers, and takes no writes. With `state.backend` redis nobody can log in then; with tiered, sessions have no new copies.", redisWrites},
	{"redis-eviction", "Redis deletes nothing before it expires", Error,
		"With an `allkeys-*` or `volatile-*` policy a full Redis drops what has not expired: sessions, counters of attempts, records of revoked tokens. With `state.backend` redis nothing else has them (revocations are in the database, too).", redisEviction},
	{"redis-eviction-copies", "Redis keeps copies of sessions and of revocations until they expire", Advice,
		"With `state.backend` tiered the database has everything, so what Redis drops costs time only. With `revocation.check` shared, an `allkeys-*` or `volatile-*` policy drops revocations, so Redis is not believed about them and the database is asked for every token.", redisEvictionCopies},
	{"redis-evicted", "Redis has deleted nothing before it expired", Warning,
		"Redis was full and has dropped sessions or counters of attempts before they expired.", redisEvicted},
	{"redis-memory", "Redis has memory left", Warning,
		"When `maxmemory` is reached, Redis takes no writes, or drops keys, by its `maxmemory-policy`.", redisMemory},
	{"redis-persistence", "Redis keeps sessions over a restart", Warning,
		"With `state.backend` redis, what a restart of Redis loses is lost: users have to sign in again, and attempts are counted from nothing. Logouts stay, because they are in the database.", redisPersistence},
	{"redis-saving", "Redis can write to its disk", Warning,
		"A restart loses what could not be written, and by default Redis takes no writes after a failed save.", redisSaving},
	{"redis-replicas", "What Redis has acknowledged is on a replica of it, too", Warning,
		"A failover loses what the new primary did not have: with `state.backend` redis sessions and counted attempts.", redisReplicas},
	{"redis-cluster", "The Redis Cluster serves all keys", Error,
		"The keys of a user are in one slot. While that is not served, the user cannot sign in; with `state.backend` tiered, the user's sessions are recognised from the database.", redisCluster},
	{"redis-cluster-coverage", "A Redis Cluster that has lost a part serves the others", Advice,
		"By default a Redis Cluster that has lost one slot serves none: with `state.backend` redis no user can sign in then.", redisClusterCoverage},
	{"redis-password", "Redis on a network demands a password", Warning,
		"Whoever reaches a Redis without a password can read, change and delete what is in it, and, with `state.backend` redis, sign in as anybody.", redisPassword},
	{"redis-tls", "Connections to Redis over a network are encrypted, and its certificate is verified", Warning,
		"Sessions and the password of Redis go over the network. Without TLS, or with a certificate that nobody verifies, others can read or replace them.", redisTLS},
	{"redis-version", "Redis is of a version that is supported", Warning,
		"Sessions are read by `GETEX`, which Redis has since 6.2.", redisVersion},
	{"redis-clients", "Redis takes more connections", Warning,
		"Redis refuses connections beyond `maxclients`, also those of a replica that starts.", redisClients},
	{"redis-clock", "The clocks of Redis and of this machine agree", Warning,
		"With `state.backend` redis, the clock of Redis decides when sessions end and how fast limits refill; in a cluster each server has its own.", redisClock},
	{"redis-installations", "No other installation uses this Redis", Warning,
		"Installations do not read each other's keys, but they share memory, `FLUSHDB` and failures. A copy of a database must be separated first (`watchword storage separate`): it has the id of its original, and is not seen here.", redisInstallations},
}

// copiesOnly are the checks of errors whose findings are warnings where Redis has nothing but copies: everything
// works from the database then, slower, and nothing is lost.
var copiesOnly = map[string]bool{"redis-reachable": true, "redis-primary": true, "redis-writes": true, "redis-cluster": true}

// redisAlone reports whether Redis alone has the sessions and the limits.
func (d *Deployment) redisAlone() bool { return d.Config.StateBackend() == config.StateRedis }

// redis returns the client if Redis is used and answers.
func (d *Deployment) redis() (rueidis.Client, error) {
	switch {
	case d.Config.Redis.URL == "":
		return nil, Skip("redis.url is not set")
	case d.Redis == nil && d.RedisErr != nil:
		return nil, Skip("Redis cannot be used: see redis-reachable and redis-primary")
	case d.Redis == nil:
		return nil, errors.New("no connection to Redis was made")
	}
	return d.Redis, nil
}

// redisHolds returns the client if Redis alone has the sessions and the limits.
func (d *Deployment) redisHolds() (rueidis.Client, error) {
	if d.Config.Redis.URL != "" && !d.redisAlone() {
		return nil, Skip("the database has everything that Redis has (state.backend " + string(d.Config.StateBackend()) + ")")
	}
	return d.redis()
}

// redisNodes calls a function for each server, in the order of their addresses.
func redisNodes(c rueidis.Client, each func(address string, node rueidis.Client) ([]Finding, error)) (all []Finding, err error) {
	nodes := c.Nodes()
	for _, address := range slices.Sorted(maps.Keys(nodes)) {
		found, err := each(address, nodes[address])
		if err != nil {
			return nil, err
		}
		for i := range found {
			found[i].Subject = cmp.Or(found[i].Subject, address)
		}
		all = append(all, found...)
	}
	return all, nil
}

// redisInfo returns sections of INFO; none named: all that the server says by itself. look is
// what to look at if the server does not say it.
func redisInfo(ctx context.Context, node rueidis.Client, look string) (map[string]string, error) {
	text, err := node.Do(ctx, node.B().Info().Build()).ToString()
	if err != nil {
		return nil, unsaid("INFO", err, look)
	}
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info, nil
}

// redisConfig returns one setting of a server. A provider of managed servers may refuse that.
func redisConfig(ctx context.Context, node rueidis.Client, name, look string) (string, error) {
	pair, err := node.Do(ctx, node.B().ConfigGet().Parameter(name).Build()).AsStrMap()
	if err != nil {
		return "", unsaid("CONFIG GET "+name, err, look)
	}
	return pair[name], nil
}

// unsaid is the error of a server that does not say something.
func unsaid(command string, err error, look string) error {
	if _, refused := rueidis.IsRedisErr(err); refused {
		return fmt.Errorf("the server refuses %s (%w): look in the console of its provider, or in its configuration file: %s", command, err, look)
	}
	return fmt.Errorf("%s: %w", command, err)
}

// configSet is what changes a setting of Redis, now and for later.
func configSet(name, value string) string {
	return fmt.Sprintf("CONFIG SET %s %s; CONFIG REWRITE (or the line %s %s in redis.conf; with a managed server, the parameter %s)", name, value, name, value, name)
}

func redisReachable(ctx context.Context, d *Deployment) ([]Finding, error) {
	c, err := d.redis()
	switch {
	case d.Config.Redis.URL != "" && d.RedisErr != nil:
		err = d.RedisErr
	case err != nil:
		return nil, err
	default:
		err = c.Do(ctx, c.B().Ping().Build()).Error()
	}
	if err == nil || errors.Is(err, state.ErrReadOnly) {
		return nil, nil // redis-primary says what is wrong
	}
	return []Finding{{Seen: redisSaid(redisstate.Cause(err)), Mend: redisTry(d.Config.Redis.URL)}}, nil
}

// redisSaid is an error without what the shared state says to clients.
func redisSaid(err error) string {
	return strings.TrimPrefix(err.Error(), state.ErrUnavailable.Error()+": ")
}

// redisTry is what an operator runs to see what the replicas see. It never shows a password.
func redisTry(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "correct redis.url (REDIS_URL)"
	}
	tls, user := "", ""
	if u.Scheme == "rediss" {
		tls = " --tls"
	}
	if _, both := u.User.Password(); both && u.User.Username() != "" { // a name alone may be a password that lacks its colon
		user = " --user " + u.User.Username()
	}
	return fmt.Sprintf("do what the message says, and see that this works on the machines of the replicas: redis-cli -h %s -p %s%s%s --askpass PING", u.Hostname(), cmp.Or(u.Port(), "6379"), tls, user)
}

func redisPrimary(ctx context.Context, d *Deployment) ([]Finding, error) {
	const mend = "let redis.url lead to the primary, by its address or by Sentinel (redis://:password@sentinel-0:26379?addr=sentinel-1:26379&master_set=NAME); or, if the primary is gone, REPLICAOF NO ONE on this server"
	if errors.Is(d.RedisErr, state.ErrReadOnly) {
		return []Finding{{Seen: redisSaid(d.RedisErr), Mend: mend}}, nil
	}
	c, err := d.redis()
	if err != nil {
		return nil, err
	}
	if c.Mode() == rueidis.ClientModeCluster {
		return nil, Skip("a Redis Cluster leads each client to its primaries")
	}
	return redisNodes(c, func(address string, node rueidis.Client) ([]Finding, error) {
		info, err := redisInfo(ctx, node, "the role of the server must be primary (master)")
		if err != nil || info["role"] != "slave" {
			return nil, err
		}
		return []Finding{{
			Seen: fmt.Sprintf("%s is a replica of %s:%s: it may be behind, and takes no writes", address, info["master_host"], info["master_port"]),
			Mend: mend,
		}}, nil
	})
}

// redisRefusals are the errors of a server that takes no writes, and what to do.
var redisRefusals = map[string]string{
	"OOM":        "raise maxmemory (CONFIG SET maxmemory), or let others use another server: INFO memory says what is in use",
	"MISCONF":    "see in the log of Redis why it cannot save: free space on the disk of CONFIG GET dir, or let its user write there; then BGSAVE",
	"NOREPLICAS": "start the replicas of this server, or, if it is to have none, " + configSet("min-replicas-to-write", "0"),
	"READONLY":   "let redis.url lead to the primary",
	"NOPERM":     "ACL SETUSER … +@all ~* &* for the user in redis.url",
}

// redisWrites writes a small key that expires, as replicas do for /health.
func redisWrites(ctx context.Context, d *Deployment) ([]Finding, error) {
	c, err := d.redis()
	switch {
	case err != nil:
		return nil, err
	case d.Reach != All:
		return nil, Skip("a replica asks that each second, for /health")
	}
	err = c.Do(ctx, c.B().Set().Key("write_probe:{doctor}").Value("").Ex(time.Minute).Build()).Error()
	if refused, ok := rueidis.IsRedisErr(err); ok {
		code, _, _ := strings.Cut(refused.Error(), " ")
		return []Finding{{Seen: "a write is refused: " + refused.Error(), Mend: cmp.Or(redisRefusals[code], "see in the log of Redis why it refuses SET")}}, nil
	}
	return nil, err
}

const lookAtPolicy = "maxmemory-policy must be noeviction"

// evicts returns findings for servers that may delete what has not expired; effect says what comes of it.
func evicts(ctx context.Context, c rueidis.Client, effect string) ([]Finding, error) {
	return redisNodes(c, func(address string, node rueidis.Client) ([]Finding, error) {
		info, err := redisInfo(ctx, node, lookAtPolicy)
		if err != nil {
			return nil, err
		}
		policy, said := info["maxmemory_policy"]
		switch {
		case !said:
			return nil, fmt.Errorf("%s does not say its maxmemory-policy in INFO memory: look in its configuration: %s", address, lookAtPolicy)
		case policy == "noeviction":
			return nil, nil
		}
		limit := "maxmemory (" + info["maxmemory_human"] + ") is reached"
		if info["maxmemory"] == "0" {
			limit = "a maxmemory is set and reached (there is none now)"
		}
		return []Finding{{
			Seen: fmt.Sprintf("maxmemory-policy is %s: when %s, Redis deletes keys that have not expired, of which all of ours have an expiry: %s", policy, limit, effect),
			Mend: configSet("maxmemory-policy", "noeviction"),
		}}, nil
	})
}

func redisEviction(ctx context.Context, d *Deployment) ([]Finding, error) {
	c, err := d.redisHolds()
	if err != nil {
		return nil, err
	}
	return evicts(ctx, c, "sessions end, counters of attempts begin anew, and records of revoked tokens (revoked_token:…) are gone for those who look them up there")
}

func redisEvictionCopies(ctx context.Context, d *Deployment) ([]Finding, error) {
	if d.Config.Redis.URL != "" && d.redisAlone() {
		return nil, Skip("Redis alone has the sessions: see redis-eviction")
	}
	c, err := d.redis()
	if err != nil {
		return nil, err
	}
	effect := "copies of sessions, and the database is asked instead"
	if d.Config.Revocation.Check == config.CheckShared {
		effect += "; also revocations (revoked_token:…), so that replicas no longer believe Redis about them and ask the database for every token"
	} else {
		effect += "; with revocation.check shared also revocations (revoked_token:…)"
	}
	return evicts(ctx, c, effect)
}

func redisEvicted(ctx context.Context, d *Deployment) ([]Finding, error) {
	c, err := d.redisHolds()
	if err != nil {
		return nil, err
	}
	return redisNodes(c, func(_ string, node rueidis.Client) ([]Finding, error) {
		info, err := redisInfo(ctx, node, "the metric of evictions (evicted_keys) must be 0")
		if n := cmp.Or(info["evicted_keys"], "0"); err != nil || n == "0" {
			return nil, err
		}
		return []Finding{{
			Seen: fmt.Sprintf("evicted_keys is %s: since it started, the server has deleted as many keys before they expired, among which may be sessions and counters of attempts", info["evicted_keys"]),
			Mend: fmt.Sprintf("CONFIG SET maxmemory to more than %s; %s; then CONFIG RESETSTAT, so that a later eviction is seen", cmp.Or(info["used_memory_peak_human"], "it uses"), configSet("maxmemory-policy", "noeviction")),
		}}, nil
	})
}

// fullAt is the share of maxmemory, or of maxclients, from which on little is left.
const fullAt = 0.9

func redisMemory(ctx context.Context, d *Deployment) ([]Finding, error) {
	c, err := d.redis()
	if err != nil {
		return nil, err
	}
	return redisNodes(c, func(_ string, node rueidis.Client) ([]Finding, error) {
		info, err := redisInfo(ctx, node, "less than 90 % of the memory (used_memory of maxmemory) may be in use")
		if err != nil {
			return nil, err
		}
		used, _ := strconv.ParseInt(info["used_memory"], 10, 64)
		most, _ := strconv.ParseInt(info["maxmemory"], 10, 64)
		if most == 0 || float64(used) < fullAt*float64(most) {
			return nil, nil
		}
		return []Finding{{
			Seen: fmt.Sprintf("used_memory is %s of maxmemory %s, %d %%: when it is full, Redis takes no writes, or deletes keys (%s)",
				info["used_memory_human"], info["maxmemory_human"], used*100/most, info["maxmemory_policy"]),
			Mend: configSet("maxmemory", strconv.FormatInt(2*max(used, most), 10)) + ", which is twice as much, on a machine that has it",
		}}, nil
	})
}

func redisPersistence(ctx context.Context, d *Deployment) ([]Finding, error) {
	c, err := d.redisHolds()
	if err != nil {
		return nil, err
	}
	const look = "appendonly must be yes, and appendfsync everysec or always"
	return redisNodes(c, func(_ string, node rueidis.Client) ([]Finding, error) {
		info, err := redisInfo(ctx, node, look)
		if err != nil {
			return nil, err
		}
		if info["role"] == "slave" { // of a cluster
			return nil, nil
		}
		if info["aof_enabled"] != "1" {
			snapshots, err := redisConfig(ctx, node, "save", "")
			seen := "appendonly is no: a restart loses what was written after the last snapshot, so that some users have to sign in again and counters of attempts begin anew"
			if err == nil && snapshots == "" {
				seen = "appendonly is no and there are no snapshots (save): a restart loses everything, so that everybody has to sign in again and counters of attempts begin anew"
			}
			return []Finding{{Seen: seen, Mend: configSet("appendonly", "yes")}}, nil
		}
		sync, err := redisConfig(ctx, node, "appendfsync", look)
		if err != nil || sync != "no" {
			return nil, err
		}
		return []Finding{{
			Seen: "appendfsync is no: a failure of the machine loses what was written in the last 30 s or more",
			Mend: configSet("appendfsync", "everysec"),
		}}, nil
	})
}

func redisSaving(ctx context.Context, d *Deployment) ([]Finding, error) {
	c, err := d.redis()
	if err != nil {
		return nil, err
	}
	return redisNodes(c, func(_ string, node rueidis.Client) (found []Finding, err error) {
		info, err := redisInfo(ctx, node, "its last save must have succeeded (rdb_last_bgsave_status, aof_last_write_status)")
		if err != nil {
			return nil, err
		}
		for _, name := range []string{"rdb_last_bgsave_status", "aof_last_bgrewrite_status", "aof_last_write_status"} {
			if value := cmp.Or(info[name], "ok"); value != "ok" {
				found = append(found, Finding{
					Seen: fmt.Sprintf("%s is %s: Redis could not write to its disk, may take no writes for that (MISCONF), and a restart loses what is not there", name, value),
					Mend: "see in the log of Redis why: free space on the disk of CONFIG GET dir, or let its user write there; then BGSAVE (with appendonly, BGREWRITEAOF)",
				})
			}
		}
		return found, nil
	})
}

func redisReplicas(ctx context.Context, d *Deployment) ([]Finding, error) {
	c, err := d.redisHolds()
	if err != nil {
		return nil, err
	}
	const look = "min-replicas-to-write must be 1 or more where there is a failover"
	some := c.Mode() == rueidis.ClientModeSentinel
	found, err := redisNodes(c, func(_ string, node rueidis.Client) ([]Finding, error) {
		info, err := redisInfo(ctx, node, look)
		if err != nil || info["role"] == "slave" {
			return nil, err
		}
		replicas := cmp.Or(info["connected_slaves"], "0")
		if replicas == "0" && c.Mode() != rueidis.ClientModeSentinel {
			return nil, nil
		}
		some = true
		least, err := redisConfig(ctx, node, "min-replicas-to-write", look)
		if err != nil || least != "0" {
			return nil, err
		}
		return []Finding{{
			Seen: fmt.Sprintf("min-replicas-to-write is 0 on a primary with %s replicas: one that is cut off goes on acknowledging, and the failover loses that: users have to sign in again, and attempts are not counted", replicas),
			Mend: configSet("min-replicas-to-write", "1"),
		}}, nil
	})
	if err == nil && !some {
		return nil, Skip("Redis has no replicas")
	}
	return found, err
}

// redisOfCluster returns the client if it is one of a Redis Cluster.
func (d *Deployment) redisOfCluster() (rueidis.Client, error) {
	c, err := d.redis()
	if err == nil && c.Mode() != rueidis.ClientModeCluster {
		err = Skip("Redis is no Redis Cluster")
	}
	return c, err
}

func redisCluster(ctx context.Context, d *Deployment) ([]Finding, error) {
	c, err := d.redisOfCluster()
	if err != nil {
		return nil, err
	}
	return redisNodes(c, func(address string, node rueidis.Client) ([]Finding, error) {
		text, err := node.Do(ctx, node.B().ClusterInfo().Build()).ToString()
		if err != nil {
			if _, refused := rueidis.IsRedisErr(err); refused {
				return nil, unsaid("CLUSTER INFO", err, "cluster_state must be ok")
			}
			return []Finding{{Seen: fmt.Sprintf("the node %s does not answer: %v", address, err), Mend: "start it, or let one of its replicas take over: CLUSTER FAILOVER FORCE, on that replica"}}, nil
		}
		state := regexp.MustCompile(`cluster_state:(\w+)`).FindStringSubmatch(text)
		slots := regexp.MustCompile(`cluster_slots_ok:(\d+)`).FindStringSubmatch(text)
		if state == nil || slots == nil || state[1] == "ok" && slots[1] == "16384" {
			return nil, nil
		}
		harm := "the users whose keys are in the others cannot sign in"
		if !d.redisAlone() {
			harm = "the sessions of users whose keys are in the others are recognised from the database"
		}
		return []Finding{{
			Seen: fmt.Sprintf("cluster_state is %s, and %s of 16384 slots are served: %s", state[1], slots[1], harm),
			Mend: fmt.Sprintf("redis-cli --cluster check %s shows which are missing; start their nodes, or redis-cli --cluster fix %s", address, address),
		}}, nil
	})
}

func redisClusterCoverage(ctx context.Context, d *Deployment) ([]Finding, error) {
	c, err := d.redisOfCluster()
	if err != nil {
		return nil, err
	}
	return redisNodes(c, func(_ string, node rueidis.Client) ([]Finding, error) {
		full, err := redisConfig(ctx, node, "cluster-require-full-coverage", "cluster-require-full-coverage should be no")
		if err != nil || full != "yes" {
			return nil, err
		}
		harm := "no user can sign in"
		if !d.redisAlone() {
			harm = "no session is recognised from a copy"
		}
		return []Finding{{
			Seen: "cluster-require-full-coverage is yes: when one primary is lost without a replica, " + harm + ", not only those whose keys it has",
			Mend: configSet("cluster-require-full-coverage", "no"),
		}}, nil
	})
}

func redisPassword(ctx context.Context, d *Deployment) ([]Finding, error) {
	c, err := d.redis()
	if err != nil {
		return nil, err
	}
	hosts := networkHosts(d.Config.Redis.URL)
	if len(hosts) == 0 {
		return nil, Skip("Redis is on this machine")
	}
	const harm = "who can reach it can sign in as any user, end sessions, or delete everything"
	if !d.redisAlone() {
		const copies = "who can reach it sees who is signed in from where, and can delete everything"
		return redisOpen(ctx, c, copies)
	}
	return redisOpen(ctx, c, harm)
}

// redisOpen finds servers whose default user needs no password.
func redisOpen(ctx context.Context, c rueidis.Client, harm string) ([]Finding, error) {
	return redisNodes(c, func(address string, node rueidis.Client) ([]Finding, error) {
		user, err := node.Do(ctx, node.B().AclGetuser().Username("default").Build()).AsMap()
		if err != nil {
			return nil, unsaid("ACL GETUSER default", err, "the user default must have a password (requirepass), or be off")
		}
		field := user["flags"]
		flags, err := field.AsStrSlice()
		if err != nil {
			return nil, err
		}
		if !slices.Contains(flags, "on") || !slices.Contains(flags, "nopass") {
			return nil, nil
		}
		return []Finding{{
			Seen: fmt.Sprintf("%s lets the user default in without a password: %s", address, harm),
			Mend: "ACL SETUSER watchword on >PASSWORD ~* &* +@all (openssl rand -hex 32 makes a password); set redis.url to redis://watchword:PASSWORD@… on all replicas and restart them; when nothing else uses the user default, neither replicas of Redis nor Sentinels, ACL SETUSER default off; and ACL SAVE, or CONFIG REWRITE, whichever it uses",
		}}, nil
	})
}

func redisTLS(_ context.Context, d *Deployment) ([]Finding, error) {
	if _, err := d.redis(); err != nil {
		return nil, err
	}
	text := d.Config.Redis.URL
	hosts := networkHosts(text)
	if len(hosts) == 0 {
		return nil, Skip("Redis is on this machine")
	}
	to := strings.Join(hosts, ", ")
	switch {
	case !strings.HasPrefix(text, "rediss://"):
		return []Finding{{Seen: "connections to " + to + " are not encrypted: who can read the network reads the password of Redis and sessions",
			Mend: "rediss:// in redis.url instead of redis://, and redis.ca_file if the authority is not the system's; on the server, tls-port, tls-cert-file and tls-key-file"}}, nil
	case parameter(text, "skip_verify") != "" && parameter(text, "skip_verify") != "false":
		return []Finding{{Seen: "connections to " + to + " are encrypted, and the certificate of the server is not verified: another one may take its place and get the password",
			Mend: "remove skip_verify from redis.url, and name the authority in redis.ca_file"}}, nil
	}
	return nil, nil
}

func redisVersion(ctx context.Context, d *Deployment) ([]Finding, error) {
	c, err := d.redis()
	if err != nil {
		return nil, err
	}
	return redisNodes(c, func(_ string, node rueidis.Client) ([]Finding, error) {
		info, err := redisInfo(ctx, node, "it must be Redis 6.2 or later, or Valkey")
		if err != nil {
			return nil, err
		}
		return oldRedis(info["redis_version"]), nil
	})
}

// oldRedis returns a finding if a version is older than docs/storage.md says. Valkey says a
// version of Redis, too.
func oldRedis(version string) []Finding {
	if !older(version, 6, 2) {
		return nil
	}
	return []Finding{{Seen: "redis_version is " + version + "; 6.2 or later is supported, whose GETEX is how sessions are read", Mend: "update the server to Redis 6.2 or later, or to Valkey"}}
}

func redisClients(ctx context.Context, d *Deployment) ([]Finding, error) {
	c, err := d.redis()
	if err != nil {
		return nil, err
	}
	const look = "fewer than 90 % of maxclients may be connected"
	return redisNodes(c, func(_ string, node rueidis.Client) ([]Finding, error) {
		info, err := redisInfo(ctx, node, look)
		if err != nil {
			return nil, err
		}
		text := info["maxclients"]
		if text == "" { // before Redis 7
			if text, err = redisConfig(ctx, node, "maxclients", look); err != nil {
				return nil, err
			}
		}
		connected, _ := strconv.Atoi(info["connected_clients"])
		most, _ := strconv.Atoi(text)
		if float64(connected) < fullAt*float64(most) {
			return nil, nil
		}
		return []Finding{{
			Seen: fmt.Sprintf("%d clients are connected of maxclients %d: replicas that start, or connect again, are refused", connected, most),
			Mend: configSet("maxclients", strconv.Itoa(max(10_000, 2*most))) + "; CLIENT LIST shows whose they are",
		}}, nil
	})
}

func redisClock(ctx context.Context, d *Deployment) ([]Finding, error) {
	c, err := d.redis()
	if err != nil {
		return nil, err
	}
	return redisNodes(c, func(address string, node rueidis.Client) ([]Finding, error) {
		return clockFindings(d, "Redis "+address, func() (time.Time, error) {
			parts, err := node.Do(ctx, node.B().Time().Build()).AsStrSlice()
			if err != nil || len(parts) != 2 {
				return time.Time{}, unsaid("TIME", err, "the clock of its machine")
			}
			seconds, err1 := strconv.ParseInt(parts[0], 10, 64)
			micros, err2 := strconv.ParseInt(parts[1], 10, 64)
			return time.Unix(seconds, micros*1000), errors.Join(err1, err2)
		})
	})
}

// Of the keys of a server so many are looked at, in steps that hold up no other client.
const (
	scanSteps = 20
	scanCount = 500
)

// installationKey is what a key of package redisstate begins with if its installation has an id.
// One without an id is not told from another program by its keys.
var installationKey = regexp.MustCompile(`^(?:session|session_index|rate):([a-z0-9-]+):\{`)

// redisInstallations finds others by the channels on which their replicas listen, and by the
// names of their keys.
func redisInstallations(ctx context.Context, d *Deployment) ([]Finding, error) {
	c, err := d.redis()
	if err != nil {
		return nil, err
	}
	if _, err := d.database(); err != nil {
		return nil, fmt.Errorf("which installation this is stands in the database: %w", err)
	}
	if d.Installation == "" {
		return nil, Skip("this installation has no id yet, so its keys are not told apart; watchword storage separate gives it one, and signs its users out")
	}
	others := map[string]string{} // how each was seen, by its id
	for _, node := range c.Nodes() {
		channels, err := node.Do(ctx, node.B().PubsubChannels().Pattern(bell.RedisChannel+"*").Build()).AsStrSlice()
		if err != nil {
			return nil, unsaid("PUBSUB CHANNELS", err, "no other service may use this Redis")
		}
		for _, name := range channels {
			others[strings.TrimPrefix(strings.TrimPrefix(name, bell.RedisChannel), ":")] = "its replicas listen on the channel " + name
		}
		var cursor uint64
		for range scanSteps {
			page, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Count(scanCount).Build()).AsScanEntry()
			if err != nil {
				return nil, unsaid("SCAN", err, "no other service may use this Redis")
			}
			for _, key := range page.Elements {
				if m := installationKey.FindStringSubmatch(key); m != nil && others[m[1]] == "" {
					others[m[1]] = "there are keys whose names begin with " + strings.TrimSuffix(m[0], "{")
				}
			}
			if cursor = page.Cursor; cursor == 0 {
				break
			}
		}
	}
	delete(others, d.Installation)
	var found []Finding
	for _, id := range slices.Sorted(maps.Keys(others)) {
		found = append(found, Finding{
			Subject: id,
			Seen:    fmt.Sprintf("the installation %s uses this Redis, too: %s. Neither reads what the other has, but FLUSHDB, a full memory and a deletion by maxmemory-policy hit both", cmp.Or(id, "without an id"), others[id]),
			Mend:    "give each installation a Redis of its own (redis.url); if the other one is gone, its keys go when they expire",
		})
	}
	return found, nil
}
