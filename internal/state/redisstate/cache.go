package redisstate

import (
	"context"
	"crypto/sha1" // a script's name in the protocol, no protection
	"encoding/hex"
	"errors"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/state"
)

// This file is what package tiered keeps in Redis: copies of records, each in one
// of four conditions.
//
//	V<record>  a copy
//	T<token>   somebody reads the record, to fill it in here
//	M<token>   somebody is about to change the record, or has just done it
//	C          several are, or one was when another began
//
// All of a generation's entries are in one hash slot, and all that is done to
// them is one script, whose text names the generation. A server runs that script
// only if it is the very process that the generation was opened on: its scripts
// are neither replicated nor stored (since Redis 7), so after a restart, a
// failover or the move of a slot the answer is ErrNotOpen. That is what makes a
// server known that has lost what another had acknowledged.

// ErrNotOpen: the server that answers is not the one that the generation was
// opened on.
var ErrNotOpen = errors.New("redisstate: this server does not have the generation open")

// An Entry is what CacheRead found.
type Entry int

const (
	Busy Entry = iota // not for this caller: read elsewhere, fill nothing in
	Hit               // a copy
	Miss              // nothing: the caller may fill it in
)

// CacheOpen opens a generation that nobody has ever opened, and returns what
// identifies the server. Of a generation that has been opened a second time on
// another server nothing holds.
func (s *Store) CacheOpen(ctx context.Context, generation string) (server string, err error) {
	ctx = s.deadlines.bound(ctx)
	c, err := s.Client(ctx)
	if err != nil {
		return "", err
	}
	text, _ := cacheScript(generation)
	// EVAL, once: it goes to the slot's primary, runs the script and keeps it.
	answer := c.Do(ctx, c.B().Eval().Script(text).Numkeys(1).Key(cacheTag(generation)).Arg("server").Build())
	return serverName(answer.ToString())
}

// CacheServer returns what identifies the server now.
func (s *Store) CacheServer(ctx context.Context, generation string) (string, error) {
	return serverName(s.cache(ctx, generation, cacheTag(generation), "server"))
}

// CacheRead looks for a copy. On a Miss the caller's token is noted for hold, and
// with it CacheFill may fill the copy in, unless somebody changes the record
// meanwhile.
func (s *Store) CacheRead(ctx context.Context, generation string, key state.Key, token string, hold time.Duration) (state.Record, Entry, error) {
	found, err := s.cache(ctx, generation, cacheKey(generation, key), "read", token, format(hold.Milliseconds()))
	switch {
	case err != nil:
		return state.Record{}, Busy, err
	case found == "T":
		return state.Record{}, Miss, nil
	case len(found) > 0 && found[0] == 'V':
		r, err := decode(key, []byte(found[1:]))
		return r, Hit, err
	}
	return state.Record{}, Busy, nil
}

// CacheFill keeps a copy for ttl, if the token is still noted.
func (s *Store) CacheFill(ctx context.Context, generation, token string, r state.Record, ttl time.Duration) error {
	_, err := s.cache(ctx, generation, cacheKey(generation, r.Key), "fill", token, format(max(1, ttl.Milliseconds())), encode(r))
	return err
}

// CacheMark says that the record is about to change: from now on until CacheClear
// nobody finds a copy or fills one in; if that never comes, for hold.
func (s *Store) CacheMark(ctx context.Context, generation string, key state.Key, token string, hold time.Duration) error {
	_, err := s.cache(ctx, generation, cacheKey(generation, key), "mark", token, format(hold.Milliseconds()))
	return err
}

// CacheClear says that the change is over: whatever copy or token is there is
// gone, and the mark with the caller's token.
func (s *Store) CacheClear(ctx context.Context, generation string, key state.Key, token string) error {
	_, err := s.cache(ctx, generation, cacheKey(generation, key), "clear", token)
	return err
}

// cache runs the script of an open generation. It is never loaded here.
func (s *Store) cache(ctx context.Context, generation, key string, args ...string) (string, error) {
	ctx = s.deadlines.bound(ctx)
	c, err := s.Client(ctx)
	if err != nil {
		return "", err
	}
	_, sha := cacheScript(generation)
	answer, err := c.Do(ctx, c.B().Evalsha().Sha1(sha).Numkeys(1).Key(key).Arg(args...).Build()).ToString()
	if re, ok := rueidis.IsRedisErr(err); ok && re.IsNoScript() {
		return "", ErrNotOpen
	}
	return answer, unavailable(err)
}

func serverName(name string, err error) (string, error) {
	if err != nil {
		return "", unavailable(err)
	}
	if name == "" {
		return "", unavailable(errors.New("this server is no primary, or older than Redis 7, or does not say which it is"))
	}
	return name, nil
}

func cacheTag(generation string) string { return "cache:{" + generation + "}" }

func cacheKey(generation string, k state.Key) string {
	return cacheTag(generation) + ":" + k.Kind + ":" + k.Owner + ":" + k.ID
}

// cacheScript returns the text of a generation's script, and its name.
//
// A script with a first line of this kind (Redis 7) is refused by a server that
// takes no writes, unless the line says that it makes none: so one that has become
// a replica, and has its new primary's copies, answers nobody.
func cacheScript(generation string) (text, sha string) {
	text = "#!lua\n-- " + generation + cacheBody
	sum := sha1.Sum([]byte(text))
	return text, hex.EncodeToString(sum[:])
}

// KEYS: the entry. ARGV: what to do, then a token, a time in milliseconds, a
// record, as far as it takes them.
const cacheBody = `
local act, token, ms = ARGV[1], ARGV[2], ARGV[3]
if act == 'server' then
	local info = redis.call('INFO', 'server') .. redis.call('INFO', 'replication')
	local process = string.match(info, 'run_id:(%w+)')
	local history = string.match(info, 'master_replid:(%w+)')
	local major = tonumber(string.match(info, 'redis_version:(%d+)'))
	if not (process and history and major and major >= 7 and string.find(info, 'role:master', 1, true)) then return '' end
	return process .. '-' .. history
end
local held = redis.call('GET', KEYS[1])
local condition = held and string.sub(held, 1, 1)
local changing = condition == 'M' or condition == 'C'
if act == 'read' then
	if condition == 'V' then return held end
	if held then return '' end
	redis.call('SET', KEYS[1], 'T' .. token, 'PX', ms)
	return 'T'
elseif act == 'fill' then
	if held == 'T' .. token then redis.call('SET', KEYS[1], 'V' .. ARGV[4], 'PX', ms) end
elseif act == 'mark' then
	redis.call('SET', KEYS[1], changing and 'C' or 'M' .. token, 'PX', ms)
elseif act == 'clear' then
	if held == 'M' .. token or not changing then redis.call('DEL', KEYS[1]) end
end
return ''
`
