package app

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/canary"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify"
)

// A thief answers at a peer's URL. It looks in all that it is sent for tokens, and tries each
// at once, while it is live.
type thief struct {
	*httptest.Server
	try func(token string) (accepted []string)

	mu       sync.Mutex
	asked    int
	stolen   []string // tokens
	accepted []string // where they were
}

func newThief(t *testing.T) *thief {
	th := &thief{}
	th.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		tokens := tokensIn(fmt.Sprint(r.URL, r.Header, string(body)))
		th.mu.Lock()
		defer th.mu.Unlock()
		if r.URL.Path != "/api/pkeys" && r.URL.Path != "/api/revocations" { // what every peer is asked
			th.asked++
		}
		for _, token := range tokens {
			th.stolen = append(th.stolen, token)
			th.accepted = append(th.accepted, th.try(token)...)
		}
		w.Header().Set("Watchword-Instance", "auth-1")
		w.Header().Set("Watchword-MAC", base64.RawURLEncoding.EncodeToString(make([]byte, 32)))
		_, _ = io.WriteString(w, `{"accepted":true}`)
	}))
	t.Cleanup(th.Close)
	return th
}

var (
	compact = regexp.MustCompile(`[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}`)
	encoded = regexp.MustCompile(`[A-Za-z0-9+/_-]{16,}={0,2}`)
)

// tokensIn returns all that may be a token, also one in base64.
func tokensIn(text string) []string {
	found := compact.FindAllString(text, -1)
	for _, part := range encoded.FindAllString(text, -1) {
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
			if plain, err := e.DecodeString(part); err == nil {
				found = append(found, compact.FindAllString(string(plain), -1)...)
			}
		}
	}
	return found
}

// acceptedAt returns where a token is accepted: by what replicas answer, and by a resource
// server with package verify.
func acceptedAt(t *testing.T, token string, resource *verify.Verifier, replicas ...*world) (places []string) {
	for _, w := range replicas {
		for _, q := range []struct{ method, path, body string }{
			{"GET", "/api/verify", ""}, {"GET", "/api/sessions", ""}, {"DELETE", "/api/sessions", ""},
			{"GET", "/api/users", ""}, {"GET", "/api/groups", ""}, {"GET", "/api/claims", ""}, {"GET", "/api/cluster", ""}, {"GET", "/api/audit", ""},
			{"POST", "/api/users", `{"username":"mallory"}`}, {"POST", "/api/revocations", `{"jti":"aaaaaaaaaaaaaaaaaaaaaa"}`},
			{"POST", "/api/renew", `{"refresh_token":"` + token + `"}`},
			{"POST", "/api/logout", ""}, {"POST", "/auth/logout", ""},
		} {
			r, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), q.method, w.URL+q.path, strings.NewReader(q.body))
			if err != nil {
				t.Error(err)
				continue
			}
			r.Header.Set("Authorization", "Bearer "+token)
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Error(err)
				continue
			}
			answer.Body.Close()
			if answer.StatusCode != http.StatusUnauthorized {
				places = append(places, fmt.Sprint(q.method, " ", q.path, " answers ", answer.StatusCode))
			}
		}
	}
	if _, err := resource.Verify(t.Context(), token); err == nil {
		places = append(places, "a resource server")
	} else if errors.Is(err, verify.ErrStale) {
		t.Errorf("the resource server does not know: %v", err)
	}
	return places
}

// Who answers at a peer's URL learns no token that anything accepts, neither of the job nor of
// the command, and is not believed. The job measures the other replicas nonetheless.
func TestCanaryIsNotStolen(t *testing.T) {
	t.Parallel()
	database, th := testenv.Postgres(t), newThief(t)
	others := func(cfg *config.Config) {
		storedKeys(cfg)
		cfg.Tokens.Issuer, cfg.Tokens.Audience = "https://auth.example.com", []string{"https://ships.example.com"}
	}
	two, _ := reachable(t, database, others)
	one, _ := reachable(t, database, func(cfg *config.Config) {
		others(cfg)
		cfg.Server.PublicURL, cfg.Telemetry.Canary = cfg.Cluster.AdvertiseURL, time.Second
		cfg.Cluster.Discovery, cfg.Cluster.StaticPeers = config.DiscoveryStatic, []string{cfg.Cluster.AdvertiseURL, two.cfg.Cluster.AdvertiseURL, th.URL}
	})
	resource, err := verify.New(verify.Config{
		Issuer: one.cfg.Tokens.Issuer, Audience: one.cfg.Tokens.Audience,
		KeySetURL: one.URL + "/api/pkeys", RevocationsURL: one.URL + "/api/revocations", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resource.Close()
	good := one.login("admin").AccessToken
	eventually(t, func() error { _, err := resource.Verify(t.Context(), good); return err })
	th.mu.Lock()
	th.try = func(token string) []string { return acceptedAt(t, token, resource, one, two) }
	th.mu.Unlock()

	// The command asks meanwhile: each waits for ten seconds until the thief accepts.
	urls := []string{one.cfg.Cluster.AdvertiseURL, two.cfg.Cluster.AdvertiseURL, th.URL}
	var results []canary.Result
	var failed error
	commanded := make(chan struct{})
	go func() {
		defer close(commanded)
		results, failed = operator.Canary(t.Context(), one.cfg, urls, "admin", password)
	}()
	eventually(t, func() error {
		text := string(one.do("GET", "/metrics", "", nil).body)
		replicas, _ := sum(t, text, `watchword_revocation_propagation_seconds_count{by="replica"}`)
		servers, _ := sum(t, text, `watchword_revocation_propagation_seconds_count{by="resource_server"}`)
		if failed, _ := sum(t, text, "watchword_canary_failures_total"); failed == 0 || servers == 0 || replicas < 2 {
			return fmt.Errorf("%v failures; %v replicas and %v resource servers measured: %s", failed, replicas, servers, one.log.Tail())
		}
		return nil
	})
	if !strings.Contains(one.log.String(), th.URL+": it does not accept a good token") {
		t.Errorf("the log does not say who did not accept the token: %s", one.log.Tail())
	}
	<-commanded
	if failed != nil || len(results) != 4 {
		t.Fatalf("%+v, %v", results, failed)
	}
	for i, r := range results {
		if (r.Err != nil) != (i == 2) {
			t.Errorf("%+v", r)
		}
	}
	th.mu.Lock()
	if th.asked == 0 || len(th.stolen) > 0 || len(th.accepted) > 0 {
		t.Errorf("of %d questions, %d tokens were stolen, and accepted: %q", th.asked, len(th.stolen), th.accepted)
	}
	th.mu.Unlock()

	// Not even the token itself is good for anything.
	token, err := one.node.canaryToken(Options{Config: one.cfg, Now: time.Now}).Issue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if places := acceptedAt(t, token, resource, one, two); len(places) > 0 {
		t.Errorf("the canary's token is accepted: %q", places)
	}
}
