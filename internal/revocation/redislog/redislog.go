package redislog

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// A key's name is one of these, the installation, and the id of the session, user or signing
// key; or of the token, then without the installation: under that name others look tokens up,
// and no two installations have tokens of one id.
const (
	tokens   = "revoked_token"
	sessions = "revoked_session"
	users    = "revoked_user"
	keys     = "revoked_key"
	span     = "revocation_span" // without an id
)

var prefixes = map[revoked.Kind]string{
	revoked.Token: tokens, revoked.Session: sessions, revoked.User: users, revoked.Key: keys,
}

// A Log implements revocation.Shared.
type Log struct {
	server       Server
	installation string
}

// A Server is what a Log needs of redisstate.Store, to which closing the client is left.
type Server interface {
	Client(context.Context) (rueidis.Client, error)
	// Heard is called with the error of an answer.
	Heard(rueidis.Client, error)
}

// New returns a Log on a server. The installation is in the names of keys; "": in none.
func New(server Server, installation string) *Log { return &Log{server, installation} }

// named is the name of the key of a token, session, user or signing key.
func (l *Log) named(kind, id string) string {
	if kind != tokens {
		kind = l.within(kind)
	}
	return kind + ":" + id
}

// spanName is the name of the key that holds the part of the log that is here.
func (l *Log) spanName() string { return l.within(span) }

func (l *Log) within(kind string) string {
	if l.installation == "" {
		return kind
	}
	return kind + ":" + l.installation
}

// addScript adds an entry. KEYS: its key. ARGV: the epoch, the Unix time in seconds before
// which tokens were issued, and the entry's end in milliseconds. An entry may come twice,
// and late: the greater of each number stays.
var addScript = rueidis.NewLuaScriptRetryable(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch, before, expires = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local old = redis.call('GET', KEYS[1])
if old then
	local e, b = string.match(old, '^(%d+) (%d+)$')
	if e then
		epoch, before = math.max(epoch, tonumber(e)), math.max(before, tonumber(b))
		expires = math.max(expires, now + redis.call('PTTL', KEYS[1]))
	end
end
if expires > now then
	redis.call('SET', KEYS[1], string.format('%.0f %.0f', epoch, before), 'PXAT', string.format('%.0f', expires))
end
return 1
`)

// spanScript notes that the entries after one number, up to another, are here. ARGV: the
// log and the two numbers. If they join on to the span, it becomes longer. Otherwise the
// span begins anew at their end. There is no span while Redis may evict an entry and keep
// the span, or does not say whether it may.
var spanScript = rueidis.NewLuaScriptRetryable(`
local memory = redis.pcall('INFO', 'memory')
if type(memory) ~= 'string' or not string.find(memory, 'maxmemory_policy:noeviction', 1, true) then
	redis.call('DEL', KEYS[1])
	return 0
end
local after, to = tonumber(ARGV[2]), tonumber(ARGV[3])
local from = to
local log, first, last = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%d+) (%d+)$')
if log == ARGV[1] and after <= tonumber(last) then
	from, to = tonumber(first), math.max(to, tonumber(last))
end
redis.call('SET', KEYS[1], string.format('%s %.0f %.0f', ARGV[1], from, to))
return 1
`)

// Tell implements revocation.Shared. The span grows only when all entries are there.
func (l *Log) Tell(ctx context.Context, log string, after, to int64, lines []store.Revocation) error {
	c, err := l.server.Client(ctx)
	if err != nil {
		return err
	}
	add := make([]rueidis.LuaExec, 0, len(lines))
	for _, r := range lines {
		prefix, ok := prefixes[revoked.Kind(r.Kind)]
		if !ok {
			return fmt.Errorf("redislog: entry %d is of the unknown kind %q", r.Seq, r.Kind)
		}
		before := int64(0)
		if !r.IssuedBefore.IsZero() {
			before = r.IssuedBefore.Add(time.Second - 1).Unix() // rounded up, as everywhere
		}
		end := r.ExpiresAt.Add(timing.ClockSkew).UnixMilli()
		add = append(add, rueidis.LuaExec{Keys: []string{l.named(prefix, r.Subject)}, Args: []string{format(r.Epoch), format(before), format(end)}})
	}
	for _, answer := range addScript.ExecMulti(ctx, c, add...) {
		if err := answer.Error(); err != nil {
			l.server.Heard(c, err)
			return fmt.Errorf("redislog: %w", err)
		}
	}
	if err := spanScript.Exec(ctx, c, []string{l.spanName()}, []string{log, format(after), format(to)}).Error(); err != nil {
		l.server.Heard(c, err)
		return fmt.Errorf("redislog: %w", err)
	}
	return nil
}

// Ask implements revocation.Shared. On a Redis Cluster it never names a span: one of the
// servers may have lost what another one has. A replica of Redis, which may be behind, is an
// error.
func (l *Log) Ask(ctx context.Context, t *accesstoken.Token) (revocation.Known, error) {
	c, err := l.server.Client(ctx)
	if err != nil {
		return revocation.Known{}, err
	}
	names := []string{l.named(tokens, t.ID), l.named(sessions, t.SessionID), l.named(users, t.Subject), l.named(keys, t.KeyID)}
	if c.Mode() == rueidis.ClientModeCluster {
		commands := make(rueidis.Commands, 0, len(names))
		for _, name := range names {
			commands = append(commands, c.B().Get().Key(name).Build())
		}
		found := make([]string, len(names))
		for i, answer := range c.DoMulti(ctx, commands...) {
			if found[i], err = answer.ToString(); err != nil && !rueidis.IsRedisNil(err) {
				return revocation.Known{}, fmt.Errorf("redislog: %w", err)
			}
		}
		return known(t, append(found, ""))
	}
	// One command, so that nothing is lost between reading the keys and the span. Right before
	// it stands one that changes nothing and that only a primary runs.
	answers := c.DoMulti(ctx, c.B().Getex().Key(l.spanName()).Build().ToRetryable(), c.B().Mget().Key(append(names, l.spanName())...).Build())
	if err := answers[0].Error(); err != nil && !rueidis.IsRedisNil(err) {
		l.server.Heard(c, err)
		return revocation.Known{}, fmt.Errorf("redislog: %w", err)
	}
	values, err := answers[1].ToArray()
	if err != nil {
		return revocation.Known{}, fmt.Errorf("redislog: %w", err)
	}
	found := make([]string, len(values))
	for i, v := range values {
		if found[i], err = v.ToString(); err != nil && !rueidis.IsRedisNil(err) {
			return revocation.Known{}, fmt.Errorf("redislog: %w", err)
		}
	}
	return known(t, found)
}

// known is what the values of the token's, session's, user's and signing key's keys, and
// of the span, say.
func known(t *accesstoken.Token, found []string) (k revocation.Known, err error) {
	k.Revoked = found[0] != "" || found[1] != "" || found[3] != ""
	if found[2] != "" {
		var epoch, before int64
		if _, err := fmt.Sscanf(found[2], "%d %d", &epoch, &before); err != nil {
			return k, fmt.Errorf("redislog: %s holds what is none of ours: %w", users, err)
		}
		k.Revoked = k.Revoked || t.Epoch < epoch || before != 0 && t.IssuedAt.Unix() < before
	}
	if found[4] != "" {
		if _, err := fmt.Sscanf(found[4], "%s %d %d", &k.Log, &k.From, &k.To); err != nil {
			return k, fmt.Errorf("redislog: %s holds what is none of ours: %w", span, err)
		}
	}
	return k, nil
}

func format(n int64) string { return strconv.FormatInt(n, 10) }

var _ revocation.Shared = (*Log)(nil)
