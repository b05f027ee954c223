package redisstate_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// Every server is verified under its own name, which need not be the one in the
// URL, and by those who are trusted alone.
func TestTLS(t *testing.T) {
	ca := testenv.NewCA(t)
	for name, url := range map[string]string{
		"one server": testenv.RedisTLS(t, ca).URL,
		"cluster":    testenv.RedisClusterTLS(t, ca),
	} {
		t.Run(name, func(t *testing.T) {
			s, err := redisstate.Open(url, ca.Pool())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			s.Wait(time.Minute)
			for i := range 30 { // users on every node
				key := state.Key{Kind: "test", Owner: fmt.Sprint("user", i), ID: "id"}
				if _, err := s.Put(t.Context(), key, []byte("value"), time.Hour); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Get(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			}
			stranger, err := redisstate.Open(url, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer stranger.Close()
			if err := stranger.Ping(t.Context()); err == nil {
				t.Error("a certificate from nobody whom the system trusts is accepted")
			}
		})
	}
}

// The Sentinels, and the servers that they name, are verified each under its own name.
func TestTLSNames(t *testing.T) {
	o, err := redisstate.ClientOption("rediss://sentinel-0:26379?addr=sentinel-1:26379&master_set=main")
	if err != nil {
		t.Fatal(err)
	}
	if o.TLSConfig.ServerName != "" || o.Sentinel.TLSConfig.ServerName != "" {
		t.Errorf("all are verified as %q, and the Sentinels as %q", o.TLSConfig.ServerName, o.Sentinel.TLSConfig.ServerName)
	}
}
