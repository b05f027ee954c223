package redisstate

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/state"
)

// Copies keeps package tiered's copies of records. No operation takes a context: it
// ends within the timeout, and a caller that goes away must not look like a server
// that does not answer. state.ErrUnavailable says that there was no answer.
type Copies struct {
	store     *Store
	deadlines deadlines
}

// Copies returns the copies on the server.
func (s *Store) Copies(timeout time.Duration) *Copies {
	return &Copies{store: s, deadlines: deadlines{timeout: timeout}}
}

// Get returns a copy, state.ErrNotFound or state.ErrUnreadable.
func (c *Copies) Get(key state.Key) (state.Record, error) {
	ctx := c.deadlines.bound(context.Background())
	client, err := c.store.Client(ctx)
	if err != nil {
		return state.Record{}, err
	}
	return record(key, client.Do(ctx, client.B().Get().Key("copy:"+c.store.recordKey(key)).Build()))
}

// A Copy takes the place of none, of one with the version From, or of one with its
// own. Versions have no order: a copy of any other version may be the later one, so
// it is deleted, and neither is kept.
type Copy struct {
	state.Record
	From int64
	Life time.Duration
}

// KEYS: the copy. ARGV: From, the record, Life. The text is sent each time, so that
// it does not matter which servers of a cluster have heard of it before.
var copyScript = rueidis.NewLuaScriptNoSha(`
local held = redis.call('GETRANGE', KEYS[1], 0, 15)
if held == '' or held == ARGV[1] or held == string.sub(ARGV[2], 1, 16) then
	return redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return redis.call('DEL', KEYS[1])
`)

// Write writes copies, one after the other. The error is of one of them.
func (c *Copies) Write(copies []Copy) error {
	ctx := c.deadlines.bound(context.Background())
	client, err := c.store.Client(ctx)
	if err != nil {
		return err
	}
	calls := make([]rueidis.LuaExec, len(copies))
	for i, n := range copies {
		stored := formatVersion(n.Version) + fmt.Sprintf("%016d", n.Expires.UnixMilli()) + string(n.Value)
		calls[i] = rueidis.LuaExec{Keys: []string{"copy:" + c.store.recordKey(n.Key)}, Args: []string{formatVersion(n.From), stored, format(n.Life.Milliseconds())}}
	}
	for _, answer := range copyScript.ExecMulti(ctx, client, calls...) {
		c.store.Heard(client, answer.Error())
		err = cmp.Or(unavailable(answer.NonRedisError()), err, answer.Error())
	}
	return err
}
