package app

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
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

// reachable starts a replica that the others reach.
func reachable(t *testing.T, database string, change func(*config.Config)) (w *world, unreachable func()) {
	t.Helper()
	at, l := opened(t)
	w = joinAt(t, database, nil, func(cfg *config.Config) {
		cfg.Cluster.AdvertiseURL = at
		if change != nil {
			change(cfg)
		}
	})
	server := &http.Server{Handler: w.node.Handler()}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return w, func() { server.Close() }
}

// A replica that is cut off from the database goes on, by what the others tell it:
// it accepts what is good and refuses in time what was revoked. Without the others
// it refuses all.
func TestCutOffFromTheDatabase(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]testenv.Fault{"refused": {Cut: true}, "silent": {HoldUp: true, HoldDown: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := testenv.Postgres(t)
			way, throughIt := linkTo(t, database)
			bound := func(cfg *config.Config) {
				cfg.Revocation.Poll, cfg.Revocation.MaxStaleness = 100*time.Millisecond, 1500*time.Millisecond
			}
			one, leaveAlone := reachable(t, database, bound)
			island, _ := reachable(t, throughIt, bound)
			kept := one.login("admin").AccessToken
			var gone []string
			for range 2 {
				gone = append(gone, one.login("admin").AccessToken)
			}
			way.Set(cut)
			began := time.Now()
			for time.Since(began) < 2*island.cfg.Revocation.MaxStaleness {
				island.accepts(kept)
			}
			for _, token := range gone {
				island.accepts(token)
				eventually(t, func() error { // 503 says to try again
					if a := one.do("POST", "/api/logout", token, nil); a.status != 204 && a.code() != "token_revoked" {
						return fmt.Errorf("%d %s", a.status, a.body)
					}
					return nil
				})
				logout := time.Now()
				island.refuses(token, "token_revoked", logout, island.cfg.Revocation.MaxStaleness)
				island.accepts(kept)
				t.Logf("refused %v after the logout", time.Since(logout).Round(time.Millisecond))
			}
			if island.metric(`watchword_cluster_feed_fetches_total{result="ok"}`) == 0 {
				t.Error("it has not asked the other replica")
			}

			// A key of the other replica's that is made now is learned from it.
			insist(t, one.node.parts.RotateKeys)
			insist(t, one.node.keys.Refresh)
			known := len(one.kids())
			eventually(t, func() error {
				if n := len(island.kids()); n != known {
					return fmt.Errorf("it knows %d keys of %d", n, known)
				}
				return nil
			})

			leaveAlone()
			island.refuses(kept, "revocation_stale", time.Now(), island.cfg.Revocation.MaxStaleness)
			way.Set(testenv.Fault{})
			eventually(t, func() error {
				if a := island.do("GET", "/api/verify", kept, nil); a.status != 200 {
					return fmt.Errorf("%d %s", a.status, a.body)
				}
				return nil
			})
			for _, token := range gone {
				island.want(island.do("GET", "/api/verify", token, nil), 401, "token_revoked")
			}
		})
	}
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

// A replica that can ask nobody does not refuse a token because it does not know its
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
