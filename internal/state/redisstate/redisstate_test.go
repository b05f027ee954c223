package redisstate_test

import (
	"testing"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/statetest"
)

func TestConformance(t *testing.T) {
	url := "redis://127.0.0.1:17963"
	statetest.Run(t, "redis", func(t *testing.T) state.Store { return open(t, url) })
}

func open(t testing.TB, url string) *redisstate.Store {
	s, err := redisstate.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
