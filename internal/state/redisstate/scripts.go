package redisstate

import "github.com/redis/rueidis"

// now is the server's time in milliseconds. Numbers of this size are written
// with format: Lua's own way would round them.
const now = `
local function ms(n) return string.format('%.0f', n) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`

// write sets the record and its place in the owner's index, and removes expired
// records from the index. The index lives as long as its last record.
const write = now + `
local expires = now + ARGV[3]
redis.call('SET', KEYS[1], ARGV[2] .. string.format('%016.0f', expires) .. ARGV[4], 'PXAT', ms(expires))
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. ms(now))
redis.call('ZADD', KEYS[2], ms(expires), ARGV[1])
local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')
redis.call('PEXPIREAT', KEYS[2], ms(last[2]))
return 1
`

// Scripts on one record. Each has a command that a replica of Redis refuses: where a script
// writes nothing, GETEX, which only reads. It never stands before a write, because Redis
// looks whether there is memory (maxmemory) at the first such command of a script alone.
// KEYS: the record, the owner's index. ARGV: the id, then
// for those that write the version, the lifetime in milliseconds, the value.
var (
	putScript = rueidis.NewLuaScript(write)

	createScript = rueidis.NewLuaScript(`
if redis.call('EXISTS', KEYS[1]) == 1 then
	redis.call('GETEX', KEYS[1])
	return 0
end
` + write)

	// ARGV[5] is the version that the caller has read.
	swapScript = rueidis.NewLuaScript(`
if redis.call('GETRANGE', KEYS[1], 0, 15) ~= ARGV[5] then
	redis.call('GETEX', KEYS[1])
	return 0
end
` + write)

	takeScript = rueidis.NewLuaScript(`
local record = redis.call('GETEX', KEYS[1])
if record then
	redis.call('DEL', KEYS[1])
	redis.call('ZREM', KEYS[2], ARGV[1])
end
return record
`)

	deleteScript = rueidis.NewLuaScriptRetryable(`
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
`)
)

// deleteOwnedScript deletes some of an owner's records. KEYS: the index, and what the
// records' keys begin with, which is in the same hash slot. ARGV: how many. It returns how
// many records there were, and how many ids.
var deleteOwnedScript = rueidis.NewLuaScript(`
redis.call('ZREMRANGEBYSCORE', KEYS[1], 1, 0) -- removes nothing; a replica refuses it
local count = 0
local ids = redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1)
for _, id in ipairs(ids) do
	count = count + redis.call('DEL', KEYS[2] .. id)
	redis.call('ZREM', KEYS[1], id)
end
return {count, #ids}
`)

// limitScript is the twin of state.Rate.Decide. KEYS: the bucket. ARGV: the
// interval, the full bucket and state.Skew in microseconds. It returns whether the event is
// allowed and how full the bucket is now. redis.call writes whole numbers of this size
// exactly; format, tonumber and math would cost half as much again.
var limitScript = rueidis.NewLuaScript(`
local call, key = redis.call, KEYS[1]
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, full = ARGV[1] + 0, ARGV[2] + 0
local used = (call('GET', key) or now) - now
if used < 0 then
	used = 0
end
if used + interval > full then
	call('GETEX', key)
	if used > full + ARGV[3] then
		call('SET', key, now + full, 'PX', math.ceil(full / 1000))
	end
	return {0, used < full and used or full}
end
used = used + interval
call('SET', key, now + used, 'PX', math.ceil(used / 1000))
return {1, used}
`)
