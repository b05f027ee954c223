package redisstate

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/trace"
)

// Timeout bounds every operation, so that a server that hangs does not hang its
// callers.
const Timeout = 2 * time.Second

// deleteBatch is how many records one step of DeleteOwned deletes: so few that no other
// client of the server waits long.
const deleteBatch = 500

// retryConnect is how long after a failed attempt to connect the next one is made.
const retryConnect = 500 * time.Millisecond

// Store implements state.Store.
type Store struct {
	// Installation is in the names of all keys, so that several installations may use one
	// server; "": in none. To be set before the first use.
	Installation string

	options rueidis.ClientOption

	connected atomic.Pointer[rueidis.Client]
	deadlines deadlines

	mu      sync.Mutex    // guards what follows, and the setting of connected
	attempt chan struct{} // closed when the attempt to connect has ended; nil if there is none
	failed  error         // why the last attempt failed
	retryAt time.Time     // no other before
	closed  bool
}

var _ state.Store = (*Store)(nil)

// Open returns a store on the server that url names; see ClientOption. It does
// not wait for the server: as long as that is away, operations fail, and they
// succeed once it is there. roots are the certificate authorities for the servers of a
// rediss:// URL; nil: the system's.
func Open(url string, roots *x509.CertPool) (*Store, error) {
	return OpenChanging(func() string { return url }, roots, slog.New(slog.DiscardHandler))
}

// OpenChanging is Open for a URL in which users and passwords may change. url returns it as
// it is now, and is called for each connection that is made. Connections that exist go on.
func OpenChanging(url func() string, roots *x509.CertPool, logger *slog.Logger) (*Store, error) {
	options, err := ClientOption(url())
	if err != nil {
		return nil, err
	}
	if options.TLSConfig != nil {
		options.TLSConfig.RootCAs = roots // the Sentinels share this TLSConfig
	}
	(&credentials{url: url, logger: logger}).attach(&options)
	return &Store{options: options, deadlines: deadlines{timeout: Timeout}}, nil
}

// ClientOption reads a URL: redis:// or, with TLS, rediss://, then
// user:password@host:port/db. More servers of a cluster follow as
// ?addr=host:port&addr=…; with master_set=name the servers are the Sentinels, which
// get sentinel_username and sentinel_password, and never those of Redis. An error
// never shows the URL, because it has a password.
func ClientOption(text string) (rueidis.ClientOption, error) {
	options, err1 := rueidis.ParseURL(text)
	parsed, err2 := url.Parse(text)
	if err1 != nil || err2 != nil {
		return options, errors.New("redis.url: it must be redis://user:password@host:port/db or rediss://…, special characters in a password written as %XX")
	}
	if options.TLSConfig != nil {
		// It would be the first host's: each server is verified under its own name.
		options.TLSConfig.ServerName = ""
	}
	options.Dialer.Timeout = Timeout
	options.ConnWriteTimeout = Timeout
	options.MaxFlushDelay = 20 * time.Microsecond
	options.ReadBufferEachConn = 32 << 10 // the default would idle in 4 MiB
	options.WriteBufferEachConn = 32 << 10
	options.DisableCache = true // nothing here is cached in the process
	options.ClusterOption.ShardsRefreshInterval = 10 * time.Second
	if options.Sentinel.MasterSet != "" {
		options.Sentinel.Dialer.Timeout = Timeout
		options.Sentinel.TLSConfig = options.TLSConfig
		options.Sentinel.Username = parsed.Query().Get("sentinel_username")
		options.Sentinel.Password = parsed.Query().Get("sentinel_password")
		options.Sentinel.TopologyRefreshInterval = 5 * time.Second
	}
	return options, nil
}

// Client returns the connected client, which the caller may use for other things. It
// connects if need be: one attempt at a time, and not at once again after a failure.
func (s *Store) Client(ctx context.Context) (rueidis.Client, error) {
	if c := s.connected.Load(); c != nil {
		return *c, nil // after Close it answers rueidis.ErrClosing
	}
	s.mu.Lock()
	if s.connected.Load() == nil && s.attempt == nil && !s.closed && !time.Now().Before(s.retryAt) {
		s.attempt = make(chan struct{})
		go s.connect()
	}
	attempt := s.attempt
	s.mu.Unlock()
	if attempt != nil {
		select {
		case <-attempt:
		case <-ctx.Done():
			return nil, unavailable(ctx.Err())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch c := s.connected.Load(); {
	case s.closed:
		return nil, unavailable(rueidis.ErrClosing)
	case c == nil:
		return nil, s.failed
	default:
		return *c, nil
	}
}

func (s *Store) connect() {
	client, err := rueidis.NewClient(s.options)
	if err == nil {
		err = mustBePrimary(client)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.failed, s.retryAt = unavailable(err), time.Now().Add(retryConnect)
	case s.closed:
		client.Close()
	default:
		s.connected.Store(&client)
	}
	close(s.attempt)
	s.attempt = nil
}

// Get implements state.Store.
func (s *Store) Get(ctx context.Context, key state.Key) (state.Record, error) {
	if err := key.Check(); err != nil {
		return state.Record{}, err
	}
	_, t := trace.Start(ctx, "redis: read")
	defer t.End(nil)
	ctx = s.deadlines.bound(ctx)
	c, err := s.Client(ctx)
	if err != nil {
		return state.Record{}, err
	}
	answer := c.Do(ctx, getFromPrimary(c, s.recordKey(key)))
	s.Heard(c, answer.Error())
	return record(key, answer)
}

// Put implements state.Store.
func (s *Store) Put(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	return s.write(ctx, putScript, nil, key, value, ttl)
}

// Create implements state.Store.
func (s *Store) Create(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	return s.write(ctx, createScript, state.ErrExists, key, value, ttl)
}

// Swap implements state.Store.
func (s *Store) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	return s.write(ctx, swapScript, state.ErrChanged, key, value, ttl, formatVersion(version))
}

// Take implements state.Store.
func (s *Store) Take(ctx context.Context, key state.Key) (state.Record, error) {
	if err := key.Check(); err != nil {
		return state.Record{}, err
	}
	return record(key, s.run(ctx, takeScript, s.keysOf(key), key.ID))
}

// Delete implements state.Store.
func (s *Store) Delete(ctx context.Context, key state.Key) error {
	if err := key.Check(); err != nil {
		return err
	}
	return unavailable(s.run(ctx, deleteScript, s.keysOf(key), key.ID).Error())
}

// List implements state.Store. The owner's index is in the order of expiry, so that all
// ids are read, and the records of the page alone. An index in the order of the ids would
// not know the records that a replica of an earlier version writes.
func (s *Store) List(ctx context.Context, kind, owner, after string, limit int) ([]state.Record, error) {
	if err := state.CheckPage(kind, owner, after, limit); err != nil {
		return nil, err
	}
	ctx = s.deadlines.bound(ctx)
	c, err := s.Client(ctx)
	if err != nil {
		return nil, err
	}
	keys := s.ownedKeys(kind, owner)
	// The first command removes nothing, and only a primary runs it.
	answers := c.DoMulti(ctx, c.B().Zremrangebyscore().Key(keys[0]).Min("1").Max("0").Build().ToRetryable(),
		c.B().Zrange().Key(keys[0]).Min("0").Max("-1").Build())
	err = answers[0].Error()
	s.Heard(c, err)
	if err != nil {
		return nil, unavailable(err)
	}
	ids, err := answers[1].AsStrSlice()
	if err != nil {
		return nil, unavailable(err)
	}
	slices.Sort(ids)
	at, found := slices.BinarySearch(ids, after)
	if found {
		at++
	}
	ids = ids[at:]
	var page []state.Record
	// An id may be that of a record that has expired, so that a page takes several reads.
	for n := limit; len(ids) > 0 && len(page) < limit; n *= 2 {
		some := ids[:min(n, len(ids))]
		ids = ids[len(some):]
		names := make([]string, len(some))
		for i, id := range some {
			names[i] = keys[1] + id
		}
		values, err := c.Do(ctx, c.B().Mget().Key(names...).Build()).ToArray()
		if err != nil {
			return nil, unavailable(err)
		}
		for i, value := range values {
			k := state.Key{Kind: kind, Owner: owner, ID: some[i]}
			r, err := record(k, &value)
			switch {
			case errors.Is(err, state.ErrNotFound):
				continue
			case errors.Is(err, state.ErrUnreadable):
				r = state.Record{Key: k}
			case err != nil:
				return nil, err
			}
			page = append(page, r)
		}
	}
	return page[:min(limit, len(page))], nil
}

// DeleteOwned implements state.Store.
func (s *Store) DeleteOwned(ctx context.Context, kind, owner string) (int, error) {
	if err := state.CheckOwned(kind, owner); err != nil {
		return 0, err
	}
	for total := 0; ; {
		answer, err := s.run(ctx, deleteOwnedScript, s.ownedKeys(kind, owner), format(deleteBatch)).AsIntSlice()
		if err != nil {
			return total, unavailable(err)
		}
		total += int(answer[0])
		if answer[1] < deleteBatch {
			return total, nil
		}
	}
}

// Limit implements state.Store.
func (s *Store) Limit(ctx context.Context, key state.Key, rate state.Rate) (state.Decision, error) {
	if err := key.Check(); err != nil {
		return state.Decision{}, err
	}
	if err := rate.Check(); err != nil {
		return state.Decision{}, err
	}
	answer, err := s.run(ctx, limitScript, []string{s.bucketKey(key)}, format(rate.Interval()), format(rate.Full()), format(state.Skew.Microseconds())).AsIntSlice()
	if err != nil {
		return state.Decision{}, unavailable(err)
	}
	return rate.Decision(answer[0] == 1, answer[1]), nil
}

// Reset implements state.Store.
func (s *Store) Reset(ctx context.Context, key state.Key) error {
	if err := key.Check(); err != nil {
		return err
	}
	ctx = s.deadlines.bound(ctx)
	c, err := s.Client(ctx)
	if err != nil {
		return err
	}
	err = c.Do(ctx, c.B().Del().Key(s.bucketKey(key)).Build().ToRetryable()).Error() // only a primary runs it
	s.Heard(c, err)
	return unavailable(err)
}

// Sweep implements state.Store: Redis deletes expired records by itself.
func (s *Store) Sweep(context.Context, int) (int, error) { return 0, nil }

// Check returns an error if a server may delete records before they expire.
func (s *Store) Check(ctx context.Context) error {
	ctx = s.deadlines.bound(ctx)
	c, err := s.Client(ctx)
	if err != nil {
		return err
	}
	for address, node := range c.Nodes() {
		info, err := node.Do(ctx, node.B().Info().Section("memory").Build()).ToString()
		if err != nil {
			return unavailable(err)
		}
		_, policy, _ := strings.Cut(info, "maxmemory_policy:")
		policy, _, _ = strings.Cut(policy, "\r\n")
		if policy != "noeviction" {
			return fmt.Errorf("redis %s has maxmemory-policy %q and may forget sessions: set it to noeviction", address, policy)
		}
	}
	return nil
}

// Close implements state.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.connected.Load(); c != nil && !s.closed {
		(*c).Close()
	}
	s.closed = true
	return nil
}

// write runs a script that writes one record; lost is what it means when it
// wrote nothing.
func (s *Store) write(ctx context.Context, script *rueidis.Lua, lost error, key state.Key, value []byte, ttl time.Duration, more ...string) (int64, error) {
	if err := state.CheckWrite(key, value, ttl); err != nil {
		return 0, err
	}
	version := state.NewVersion()
	// A copy of the value: what has timed out may be sent still.
	args := append(make([]string, 0, 5), key.ID, formatVersion(version), format(ttl.Milliseconds()), string(value))
	args = append(args, more...)
	wrote, err := s.run(ctx, script, s.keysOf(key), args...).AsBool()
	switch {
	case err != nil:
		return 0, unavailable(err)
	case !wrote:
		return 0, lost
	}
	return version, nil
}

func (s *Store) run(ctx context.Context, script *rueidis.Lua, keys []string, args ...string) rueidis.RedisResult {
	_, t := trace.Start(ctx, "redis: script")
	defer t.End(nil)
	ctx = s.deadlines.bound(ctx)
	c, err := s.Client(ctx)
	if err != nil {
		return rueidis.NewErrorResult(err)
	}
	answer := script.Exec(ctx, c, keys, args)
	s.Heard(c, answer.Error())
	return answer
}

// A record is stored as 16 hex digits of its version, 16 digits of its expiry in
// milliseconds since 1970, and its value.
const (
	versionLength = 16
	headerLength  = 32
)

func record(key state.Key, answer interface{ AsBytes() ([]byte, error) }) (state.Record, error) {
	// These are the answer's own bytes, which the client does not use again. A copy
	// would cost every read an eighth of its speed.
	stored, err := answer.AsBytes()
	if rueidis.IsRedisNil(err) {
		return state.Record{}, state.ErrNotFound
	}
	if err != nil {
		return state.Record{}, unavailable(err)
	}
	return decode(key, stored)
}

// decode makes a record of stored, which is its own then.
func decode(key state.Key, stored []byte) (state.Record, error) {
	if len(stored) < headerLength {
		return state.Record{}, fmt.Errorf("redis: a %s: %w", key.Kind, state.ErrUnreadable)
	}
	version, ok1 := number(stored[:versionLength], 16)
	expires, ok2 := number(stored[versionLength:headerLength], 10)
	if !ok1 || !ok2 {
		return state.Record{}, fmt.Errorf("redis: a %s: %w", key.Kind, state.ErrUnreadable)
	}
	return state.Record{
		Key:     key,
		Value:   stored[headerLength:],
		Expires: time.UnixMilli(expires).UTC(),
		Version: version,
	}, nil
}

// number reads what formatVersion (base 16) or a script (base 10) wrote: 16 digits
// and nothing else. It is on the way of every read.
func number(digits []byte, base int64) (n int64, ok bool) {
	for _, c := range digits {
		switch {
		case '0' <= c && c <= '9':
			n = n*base + int64(c-'0')
		case base == 16 && 'a' <= c && c <= 'f':
			n = n*base + int64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return n, true
}

// named is the beginning of a key's name: of what kind it is, the installation, and the owner
// as the hash tag.
func (s *Store) named(kind, owner string) string {
	if s.Installation != "" {
		kind += ":" + s.Installation
	}
	return kind + ":{" + owner + "}"
}

func (s *Store) recordKey(k state.Key) string { return s.named(k.Kind, k.Owner) + ":" + k.ID }

func (s *Store) bucketKey(k state.Key) string {
	return s.named("rate", k.Owner) + ":" + k.Kind + ":" + k.ID
}

// keysOf are the keys of a script on one record.
func (s *Store) keysOf(k state.Key) []string {
	return []string{s.recordKey(k), s.named(k.Kind+"_index", k.Owner)}
}

// ownedKeys are the keys of a script on an owner's records: the index, and what
// their names begin with.
func (s *Store) ownedKeys(kind, owner string) []string {
	return []string{s.named(kind+"_index", owner), s.named(kind, owner) + ":"}
}

func format(n int64) string { return strconv.FormatInt(n, 10) }

// formatVersion has the same length for every version.
func formatVersion(v int64) string {
	var b [versionLength / 2]byte
	binary.BigEndian.PutUint64(b[:], uint64(v))
	return hex.EncodeToString(b[:])
}

// unavailable wraps an error of a backend that gave no answer; nil stays nil.
func unavailable(err error) error {
	if err == nil || errors.Is(err, state.ErrUnavailable) {
		return err
	}
	if takesNoWrites(err) {
		err = fmt.Errorf("%w: %w", state.ErrReadOnly, err)
	}
	return state.ErrUnavailable.Because(fmt.Errorf("redis: %w", err))
}
