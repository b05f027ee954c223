package redisstate

import (
	"context"
	"errors"
	"strings"

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
	answer, err := c.Do(ctx, c.B().Role().Build()).ToArray()
	if err != nil || len(answer) == 0 {
		return nil
	}
	if role, err := answer[0].ToString(); err == nil && role == "slave" {
		c.Close()
		return errReplica
	}
	return nil
}
