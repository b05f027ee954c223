package redisstate

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// Only a primary is believed. A replica answers as of some time ago: that a session lives, or
// that a token is not revoked. The address of one may have come to be a replica's, by a name, a
// proxy or a failover under open connections. So what is read is read by commands that change
// nothing and that only a server runs which takes writes, and each script has one of them
// whatever it decides. The others answer READONLY, and a primary that has lost its replicas
// and must have some (min-replicas-to-write) answers NOREPLICAS.

// getFromPrimary is GET as a server answers it that takes writes.
func getFromPrimary(c rueidis.Client, key string) rueidis.Completed {
	return c.B().Getex().Key(key).Build().ToRetryable() // without an option it only reads
}

// Heard is to be called with the error, or nil, of each answer of a client. If the server is a
// replica, the client's connections are closed, and the next operation makes others.
func (s *Store) Heard(c rueidis.Client, err error) {
	if err == nil || !isReplica(err) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.connected.Load(); now != nil && *now == c && !s.closed {
		s.connected.Store(nil)
		go c.Close() // it waits for other callers' answers
	}
}

func isReplica(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	return errors.Is(err, errReplica) || ok && strings.HasPrefix(e.Error(), "READONLY ")
}

var errReplica = errors.New("this server is a replica of another one, and may be behind; redis.url must lead to the primary")

// mustBePrimary closes a client and returns an error if its server says that it is a replica,
// also of one that takes writes (replica-read-only no). The servers of a Redis Cluster send
// clients to the primary themselves. One that does not say what it is, because the user has no
// right to ask, is known by what it refuses.
func mustBePrimary(c rueidis.Client) error {
	if c.Mode() == rueidis.ClientModeCluster {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	if isReplicas(c.Do(ctx, c.B().Role().Build())) {
		c.Close()
		return errReplica
	}
	return nil
}

// isReplicas reports whether an answer to ROLE is a replica's.
func isReplicas(answer rueidis.RedisResult) bool {
	list, err := answer.ToArray()
	if err != nil || len(list) == 0 {
		return false
	}
	role, err := list[0].ToString()
	return err == nil && role == "slave"
}

const (
	// probeLife is how long a key of Ping lives.
	probeLife = time.Minute
	// probeKeys is how many keys Ping writes to a Redis Cluster: so many that with up to ten
	// primaries each has one of them, but for one case in a hundred.
	probeKeys = 64
)

// Ping implements state.Store. It writes a small key: a server may answer PING and take no
// writes, for want of memory, of a disk or of its replicas, or because it is a replica.
func (s *Store) Ping(ctx context.Context) error {
	ctx = s.deadlines.bound(ctx)
	c, err := s.Client(ctx)
	if err != nil {
		return err
	}
	write := func(key string) rueidis.Completed {
		return c.B().Set().Key(key).Value("").Ex(probeLife).Build()
	}
	var commands rueidis.Commands
	if c.Mode() == rueidis.ClientModeCluster {
		for i := range probeKeys {
			commands = append(commands, write("write_probe:{"+strconv.Itoa(i)+"}"))
		}
	} else {
		commands = rueidis.Commands{write("write_probe:{0}"), c.B().Role().Build()}
	}
	answers := c.DoMulti(ctx, commands...)
	if c.Mode() != rueidis.ClientModeCluster {
		if isReplicas(answers[1]) {
			s.Heard(c, errReplica)
			return unavailable(errReplica)
		}
		answers = answers[:1] // the user may have no right to ask for the role
	}
	for _, answer := range answers {
		if err := answer.Error(); err != nil {
			s.Heard(c, err)
			return unavailable(err)
		}
	}
	return nil
}

// takesNoWrites reports whether an error is of a server that answers and takes no writes: a
// replica, or one that has no memory left (maxmemory), cannot save (stop-writes-on-bgsave-error),
// or has too few replicas (min-replicas-to-write).
func takesNoWrites(err error) bool {
	if isReplica(err) {
		return true
	}
	e, ok := rueidis.IsRedisErr(err)
	if !ok {
		return false
	}
	code, _, _ := strings.Cut(e.Error(), " ")
	return slices.Contains([]string{"OOM", "MISCONF", "NOREPLICAS"}, code)
}
