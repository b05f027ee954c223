package testenv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

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
	s := newServer(t, "redis", "KILL")
	s.command = func() []string {
		return append([]string{
			program(t, "redis-server"), "--bind", "127.0.0.1", "--port", s.port(), "--requirepass", s.secret,
			"--dir", s.dir, "--save", "", "--daemonize", "no",
		}, options...)
	}
	s.answers = func(ctx context.Context) error {
		s.URL = fmt.Sprintf("redis://:%s@%s/0", s.secret, s.Addr)
		option, err := rueidis.ParseURL(s.URL)
		if err != nil {
			return err
		}
		option.DisableCache, option.ForceSingleClient, option.DisableRetry = true, true, true
		option.Dialer.Timeout, option.ConnWriteTimeout = time.Second, time.Second
		client, err := rueidis.NewClient(option)
		if err != nil {
			return err
		}
		defer client.Close()
		dir, err := client.Do(ctx, client.B().ConfigGet().Parameter("dir").Build()).AsStrMap()
		if err != nil {
			return err
		}
		if !sameFile(dir["dir"], s.dir) {
			return errors.New("another server answers, in " + dir["dir"])
		}
		info, err := client.Do(ctx, client.B().Info().Section("persistence").Build()).ToString()
		if err == nil && !strings.Contains(info, "loading:0") {
			err = errors.New("it reads its data still")
		}
		return err
	}
	s.Start(t)
	t.Cleanup(s.Stop)
	return s
}
