package bench

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
)

const (
	stormClients = 200
	stormUsers   = 2000 // so many that no limit on one account's logins is met
	stormRounds  = 7    // quiet and in the storm, in turns; the medians count
	stormRound   = 10 * time.Second
	probeRate    = 100 // requests a second of each kind
)

// stormEnv makes the test binary the clients of a storm at the server with this URL, until
// standard input ends.
const stormEnv = "BENCH_STORM"

// stormHash is the hash of password at the default cost.
const stormHash = "$argon2id$v=19$m=19456,t=2,p=1$oT+b2hDZbCgqhFksRDKP+w$LBd6+pGf6nqYUivAAKgA90H91I9I+rSMpNlXcl26/b4"

func stormUser(i int) string { return fmt.Sprint("user", i) }

func stormLogin(s *server, user int) *http.Request {
	return post(s, "/api/login", map[string]string{"username": stormUser(user), "password": password})
}

// storm is clients in networks of their own that log in again and again, each time as
// another user. A client that is refused comes again after Retry-After. At the end it writes
// how often each status was answered.
func storm(url string) {
	s := &server{url: url, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: stormClients}}}
	var answers [600]atomic.Int64
	for i := range stormClients {
		go func() {
			for {
				r := stormLogin(s, rand.IntN(stormUsers))
				r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", i, rand.IntN(256), rand.IntN(256)))
				resp, err := s.client.Do(r)
				if err != nil {
					answers[0].Add(1)
					time.Sleep(time.Second)
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				answers[resp.StatusCode].Add(1)
				seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
				time.Sleep(time.Duration(seconds) * time.Second)
			}
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	counts := map[int]int64{}
	for status := range answers {
		if n := answers[status].Load(); n > 0 {
			counts[status] = n
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(counts)
}

// startStorm starts the clients of a storm. The returned function ends them and returns how
// often each status was answered. They are a process of a lower priority, as if they ran on
// other machines.
func startStorm(b *testing.B, s *server) (stop func() map[int]int64) {
	b.Helper()
	cmd := exec.Command("nice", "-n", "10", os.Args[0])
	cmd.Env = append(os.Environ(), stormEnv+"="+s.url)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return func() (counts map[int]int64) {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Fatal(err)
		}
		if err := json.Unmarshal(out.Bytes(), &counts); err != nil {
			b.Fatal(err)
		}
		return counts
	}
}

// A probe sends requests at fixed times, whether the former ones have been answered or not.
// A latency counts from its request's time.
type probe struct {
	name    string
	server  *server
	request func(n int) *http.Request
	answer  func(n int, body []byte)
	took    [2][]quantiles // quiet, and in the storm, of each round
}

type quantiles struct{ p50, p99, max time.Duration }

func (p *probe) round(b *testing.B) quantiles {
	const interval = time.Second / probeRate
	took := make([]time.Duration, stormRound/interval)
	var all sync.WaitGroup
	begin := time.Now().Add(rand.N(interval)) // so that the probes do not come at the same moments
	for n := range took {
		due := begin.Add(time.Duration(n) * interval)
		time.Sleep(time.Until(due))
		all.Go(func() {
			resp, err := p.server.client.Do(p.request(n))
			if err != nil {
				b.Error(err)
				return
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			took[n] = time.Since(due)
			if err != nil || resp.StatusCode != http.StatusOK {
				b.Errorf("%s: %s %s %v", p.name, resp.Status, body, err)
			} else if p.answer != nil {
				p.answer(n, body)
			}
		})
	}
	all.Wait()
	slices.Sort(took)
	return quantiles{took[len(took)/2], took[len(took)*99/100], took[len(took)-1]}
}

// BenchmarkLoginStorm is the latency of verifications and renewals while 200 clients log in
// as often as they may, beside that of a quiet replica, and beside that of a bare server on
// the same machine at the same time.
func BenchmarkLoginStorm(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { loginStorm(b) })
	b.Run("postgres", func(b *testing.B) {
		loginStorm(b, "DATABASE_URL="+testenv.Postgres(b), "WATCHWORD_STORAGE_KEY="+base64.StdEncoding.EncodeToString(make([]byte, 32)))
	})
}

func loginStorm(b *testing.B, env ...string) {
	dir := b.TempDir()
	var users strings.Builder
	users.WriteString("users:\n")
	for i := range stormUsers {
		fmt.Fprintf(&users, "  - {username: %s, password_hash: %q}\n", stormUser(i), stormHash)
	}
	if err := os.WriteFile(filepath.Join(dir, "init.yaml"), []byte(users.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	watchword, bare, _ := servers(b, append(env, "WATCHWORD_USERS_INIT_FILE="+filepath.Join(dir, "init.yaml"),
		"WATCHWORD_SERVER_TRUSTED_PROXIES=127.0.0.1/32")...)
	for _, s := range []*server{watchword, bare} {
		s.client.Transport = &http.Transport{MaxIdleConnsPerHost: probeRate}
	}
	var grants [2 * probeRate]grant // each is renewed every other second
	for i := range grants {
		resp, err := watchword.client.Do(stormLogin(watchword, i))
		if err != nil {
			b.Fatal(err)
		}
		err = json.NewDecoder(resp.Body).Decode(&grants[i])
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Fatal(resp.Status, err)
		}
	}
	bearer := "Bearer " + grants[0].AccessToken
	probes := []*probe{
		{name: "verify", server: watchword, request: func(int) *http.Request {
			r := get(watchword, "/api/verify")
			r.Header.Set("Authorization", bearer)
			return r
		}},
		{name: "renew", server: watchword, request: func(n int) *http.Request {
			return post(watchword, "/api/renew", map[string]string{"refresh_token": grants[n%len(grants)].RefreshToken})
		}, answer: func(n int, body []byte) {
			if err := json.Unmarshal(body, &grants[n%len(grants)]); err != nil {
				b.Error(err)
			}
		}},
		{name: "bare", server: bare, request: func(int) *http.Request { return get(bare, "/verify") }},
	}
	for b.Loop() {
		answers := map[int]int64{}
		for range stormRounds {
			for storm := range 2 {
				var stop func() map[int]int64
				if storm == 1 {
					stop = startStorm(b, watchword)
				}
				time.Sleep(2 * time.Second) // the queue becomes full, or empty
				var all sync.WaitGroup
				for _, p := range probes {
					all.Go(func() { p.took[storm] = append(p.took[storm], p.round(b)) })
				}
				all.Wait()
				if stop != nil {
					for status, n := range stop() {
						answers[status] += n
					}
				}
			}
		}
		b.Logf("logins answered: %v", answers)
		for _, p := range probes {
			var q [2]quantiles
			for i, rounds := range p.took {
				q[i] = medians(rounds)
				b.Logf("%-6s %-8s p50 %-10v p99 %-10v max %v", p.name, []string{"quiet", "in storm"}[i], q[i].p50, q[i].p99, q[i].max)
			}
			var ratios []float64
			for i := range p.took[0] {
				ratios = append(ratios, float64(p.took[1][i].p99)/float64(p.took[0][i].p99))
			}
			slices.Sort(ratios)
			b.Logf("%-6s p99 ratio of each round %.1f", p.name, ratios)
			b.ReportMetric(float64(q[0].p99.Microseconds()), p.name+"-p99-µs")
			b.ReportMetric(float64(q[1].p99.Microseconds()), p.name+"-storm-p99-µs")
		}
		b.ReportMetric(0, "ns/op")
	}
}

// medians returns the median of each quantile over the rounds.
func medians(rounds []quantiles) quantiles {
	median := func(of func(quantiles) time.Duration) time.Duration {
		var all []time.Duration
		for _, q := range rounds {
			all = append(all, of(q).Round(10*time.Microsecond))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return quantiles{
		median(func(q quantiles) time.Duration { return q.p50 }),
		median(func(q quantiles) time.Duration { return q.p99 }),
		median(func(q quantiles) time.Duration { return q.max }),
	}
}
