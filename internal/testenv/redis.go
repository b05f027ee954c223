package testenv

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// askTime is how long a server may take that is asked again and again whether it is up.
const askTime = time.Second

// Redis returns the URL of an empty Redis server for this test. It takes
// milliseconds to start, so none is shared.
func Redis(t testing.TB) string {
	t.Helper()
	return StartRedis(t).URL
}

// StartRedis starts a Redis server for this test. Options are those of
// redis-server: "--appendonly", "yes". Without them it keeps nothing on disk.
func StartRedis(t testing.TB, options ...string) *Server {
	t.Helper()
	s := newRedis(t, rand.Text(), options...)
	s.Start(t)
	t.Cleanup(s.Stop)
	return s
}

// RedisTLS starts a Redis server for this test that speaks TLS alone. Its
// certificate is one of ca's.
func RedisTLS(t testing.TB, ca *CA) *Server {
	t.Helper()
	s := newRedis(t, rand.Text())
	s.useTLS(t, ca, "127.0.0.1")
	s.Start(t)
	t.Cleanup(s.Stop)
	s.URL = fmt.Sprintf("rediss://:%s@%s/0", s.secret, s.Addr)
	return s
}

// RedisCluster starts a Redis Cluster of three primaries for this test, each
// with a third of the slots. The URL of each names all of them.
func RedisCluster(t testing.TB, options ...string) []*Server {
	t.Helper()
	nodes := redisCluster(t, nil, options...)
	for i, s := range nodes {
		s.URL = fmt.Sprintf("redis://:%s@%s/0?addr=%s&addr=%s", s.secret, s.Addr, nodes[(i+1)%3].Addr, nodes[(i+2)%3].Addr)
	}
	return nodes
}

// RedisClusterTLS is RedisCluster over TLS. The URL names the first node alone, as
// localhost, for which no other one has a certificate.
func RedisClusterTLS(t testing.TB, ca *CA) (url string) {
	t.Helper()
	first := redisCluster(t, ca)[0]
	return fmt.Sprintf("rediss://:%s@localhost:%s/0", first.secret, first.port())
}

func redisCluster(t testing.TB, ca *CA, options ...string) []*Server {
	t.Helper()
	secret := rand.Text()
	var nodes []*Server
	for range 3 {
		_, bus, _ := net.SplitHostPort(freeAddr(t))
		s := newRedis(t, secret, append([]string{"--cluster-enabled", "yes", "--cluster-node-timeout", "15000", "--cluster-port", bus}, options...)...)
		switch {
		case ca != nil && len(nodes) == 0:
			s.useTLS(t, ca, "127.0.0.1", "localhost")
		case ca != nil:
			s.useTLS(t, ca, "127.0.0.1")
		}
		s.Start(t)
		t.Cleanup(s.Stop)
		nodes = append(nodes, s)
		first, last := 16384*(len(nodes)-1)/3, 16384*len(nodes)/3-1
		redisDo(t, s, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last))
		redisDo(t, s, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(len(nodes)))
		if len(nodes) > 1 {
			redisDo(t, nodes[0], "CLUSTER", "MEET", "127.0.0.1", s.port(), bus)
		}
	}
	for _, s := range nodes {
		await(t, "the cluster", func() bool {
			info := redisDo(t, s, "CLUSTER", "INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_size:3")
		})
	}
	return nodes
}

// A Sentinel is a primary of Redis with one replica, and the Redis Sentinel that
// replaces the one by the other three seconds after it has lost it: when the whole
// machine stands still for longer than two, the Sentinel notices and does nothing for
// five. They keep what they acknowledge on disk. The Sentinel has a password
// of its own.
type Sentinel struct {
	URL              string
	Primary, Replica *Server // at the beginning
	Sentinel         *Server
}

// RedisSentinel starts a Sentinel for this test.
func RedisSentinel(t testing.TB) *Sentinel {
	t.Helper()
	start := func(s *Server) *Server {
		s.Start(t)
		t.Cleanup(s.Stop)
		return s
	}
	secret := rand.Text()
	durable := []string{"--appendonly", "yes", "--appendfsync", "always", "--masterauth", secret, "--repl-diskless-sync-delay", "0"}
	primary := start(newRedis(t, secret, durable...))
	replica := start(newRedis(t, secret, append(durable, "--replicaof", "127.0.0.1 "+primary.port())...))
	s := newServer(t, "sentinel", "KILL")
	config := s.write(t, "sentinel.conf", fmt.Sprintf(`bind 127.0.0.1
dir %s
requirepass %s
sentinel monitor main 127.0.0.1 %s 1
sentinel auth-pass main %s
sentinel down-after-milliseconds main 3000
sentinel failover-timeout main 5000
`, s.dir, s.secret, primary.port(), secret))
	s.command = func() []string {
		return []string{program(t, "redis-server"), config, "--sentinel", "--port", s.port()}
	}
	s.answers = func(ctx context.Context) error {
		s.URL = fmt.Sprintf("redis://:%s@%s", s.secret, s.Addr)
		info, err := redisAsk(ctx, askTime, s.URL, "INFO")
		if err != nil {
			return err
		}
		_, file, _ := strings.Cut(info, "config_file:")
		if file, _, _ = strings.Cut(file, "\r\n"); !sameFile(file, config) {
			return errors.New("another server answers, with " + file)
		}
		if !strings.Contains(info, "status=ok") || !strings.Contains(info, "slaves=1") {
			return errors.New("it has not found the servers yet")
		}
		return nil
	}
	start(s)
	redisDo(t, s, "SENTINEL", "DEBUG", "info-period", "500", "publish-period", "250", "tilt-period", "5000") // for 10, 2 and 30 s
	return &Sentinel{
		URL:     fmt.Sprintf("redis://:%s@%s/0?master_set=main&sentinel_password=%s", secret, s.Addr, s.secret),
		Primary: primary, Replica: replica, Sentinel: s,
	}
}

// newRedis prepares a Redis server.
func newRedis(t testing.TB, secret string, options ...string) *Server {
	t.Helper()
	s := newServer(t, "redis", "KILL")
	s.secret = secret
	s.command = func() []string {
		args := append([]string{
			program(t, "redis-server"), "--bind", "127.0.0.1", "--port", s.port(), "--requirepass", s.secret,
			"--dir", s.dir, "--save", "", "--daemonize", "no",
		}, options...)
		if s.tls != nil {
			args = append(append(args, s.tls...), "--port", "0", "--tls-port", s.port())
		}
		return args
	}
	s.answers = func(ctx context.Context) error {
		s.URL = fmt.Sprintf("redis://:%s@%s/0", s.secret, s.Addr)
		if s.tls != nil { // ours is known by its password and directory
			s.URL = fmt.Sprintf("rediss://:%s@%s/0?skip_verify=true", s.secret, s.Addr)
		}
		info, err := redisAsk(ctx, askTime, s.URL, "INFO", "persistence")
		if err != nil {
			return err
		}
		dir, err := redisAsk(ctx, askTime, s.URL, "CONFIG", "GET", "dir")
		if err != nil {
			return err
		}
		if !sameFile(dir, s.dir) {
			return errors.New("another server answers, in " + dir)
		}
		if !strings.Contains(info, "loading:0") {
			return errors.New("it reads its data still")
		}
		return nil
	}
	return s
}

// useTLS lets a Redis that has not started speak TLS alone, with a certificate for
// these names and addresses.
func (s *Server) useTLS(t testing.TB, ca *CA, names ...string) {
	t.Helper()
	cert, key := ca.issue(t, names...)
	s.tls = []string{
		"--tls-cert-file", s.write(t, "cert.pem", cert), "--tls-key-file", s.write(t, "key.pem", key),
		"--tls-ca-cert-file", s.write(t, "ca.pem", ca.PEM), "--tls-auth-clients", "no", "--tls-cluster", "yes",
	}
}

// redisAsk asks one server one thing, and waits so long for it to connect and to answer.
func redisAsk(ctx context.Context, patience time.Duration, url string, words ...string) (string, error) {
	option, err := rueidis.ParseURL(url)
	if err != nil {
		return "", err
	}
	option.DisableCache, option.ForceSingleClient, option.DisableRetry = true, true, true
	option.Dialer.Timeout, option.ConnWriteTimeout = patience, patience
	client, err := rueidis.NewClient(option)
	if err != nil {
		return "", err
	}
	defer client.Close()
	answer := client.Do(ctx, client.B().Arbitrary(words...).Build())
	if pair, err := answer.AsStrMap(); err == nil && len(pair) == 1 { // CONFIG GET
		return pair[words[len(words)-1]], nil
	}
	return answer.ToString()
}

func redisDo(t testing.TB, s *Server, words ...string) string {
	t.Helper()
	answer, err := redisAsk(t.Context(), startTime, s.URL, words...)
	if err != nil {
		t.Fatalf("testenv: %s: %v", strings.Join(words, " "), err)
	}
	return answer
}

func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(startTime); !condition(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("testenv: waited in vain for %s", what)
		}
	}
}

// FlushRedis empties a server of Redis.
func FlushRedis(t testing.TB, s *Server) {
	t.Helper()
	redisDo(t, s, "FLUSHALL")
}
