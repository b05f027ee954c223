package app

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// linkTo puts a link before the server that a URL names, and returns the URL by way
// of it.
func linkTo(t *testing.T, server string) (*testenv.Link, string) {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	l := testenv.NewLink(t, u.Host)
	u.Host = l.Addr
	return l, u.String()
}

// reachable starts a replica that the others reach. Its configuration is not validated: a
// test may shorten more than an operator may.
func reachable(t *testing.T, database string, change func(*config.Config)) (w *world, unreachable func()) {
	t.Helper()
	at, l := opened(t)
	cfg := clusterConfig(t, database)
	cfg.Cluster.AdvertiseURL = at
	if change != nil {
		change(cfg)
	}
	cfg.Complete()
	w = &world{t: t, cfg: cfg, log: &logBuffer{}}
	w.start()
	t.Cleanup(w.stop)
	server := &http.Server{Handler: w.node.Handler()}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return w, func() { server.Close() }
}

// A silentStore is a store that answers nothing while it is away.
type silentStore struct {
	store.Store
	store.Registry
	away atomic.Bool
}

func (s *silentStore) wait(ctx context.Context) error {
	if !s.away.Load() {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *silentStore) RegistryVersion(ctx context.Context) (int64, error) {
	if err := s.wait(ctx); err != nil {
		return 0, err
	}
	return s.Registry.RegistryVersion(ctx)
}

func (s *silentStore) Registered(ctx context.Context) (store.Registered, error) {
	if err := s.wait(ctx); err != nil {
		return store.Registered{}, err
	}
	return s.Registry.Registered(ctx)
}

func (s *silentStore) Beat(ctx context.Context, r store.Replica, news bool) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.Registry.Beat(ctx, r, news)
}

// A replica that reaches neither the registry nor a peer does not refuse a token because it does not know its
// key: it may be good.
func TestKeyThatCannotBeLookedUp(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		way := &silentStore{Store: b.store, Registry: b.store}
		one, island := b.join(nil), b.joinOn(way, nil)
		old := one.login("admin").AccessToken
		way.away.Store(true)
		insist(t, one.node.parts.RotateKeys)
		eventually(t, func() error {
			s, err := one.node.keys.Signer()
			if err == nil && s.KeyID() == kidOf(t, old) {
				err = errors.New("the old key signs")
			}
			return err
		})
		token := one.login("admin").AccessToken
		begun := time.Now()
		for range 3 { // looked for, waited for, refused without a look
			a := island.want(island.do("GET", "/api/verify", token, nil), 503, "keys_unavailable")
			if a.header.Get("Retry-After") == "" {
				t.Error("it does not say when to try again")
			}
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("three refusals took %v", took)
		}
		_, rest, _ := strings.Cut(token, ".")
		invented := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","typ":"at+jwt","kid":"hello"}`)) + "." + rest
		island.want(island.do("GET", "/api/verify", invented, nil), 401, "invalid_token")
		way.away.Store(false)
		time.Sleep(5 * time.Second) // a look that is under way, and the next
		island.verify(token)
	})
}
